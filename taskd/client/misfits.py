"""Misfits: what was submitted and accepted, and what no agent that is connected could ever run."""

from collections.abc import Sequence
from typing import Final

from taskd_protocol.explanation import Misfit
from taskd_protocol.words import reason_text

TOLD_MAX: Final = 1_000
"""Of these texts, that are logged once each in a process."""

_told: Final[dict[str, None]] = {}


def texts_of(misfits: Sequence[Misfit], names: Sequence[str]) -> list[str]:
    """Return warnings in words.

    Args:
        misfits: As the server told them.
        names: Of the tasks of that SUBMIT, in order; or one, of all.
    """
    return [
        f"no agent that is connected could ever run {names[min(misfit.index, len(names) - 1)]}:"
        f" it waits for {reason_text(misfit.reason)}"
        for misfit in misfits
    ]


def log_once(texts: Sequence[str]) -> None:
    """Log warnings, each once in this process."""
    fresh = [text for text in texts if text not in _told]
    if not fresh:
        return
    import logging  # noqa: PLC0415 - most programs are never warned

    for text in fresh:
        if len(_told) < TOLD_MAX:
            _told[text] = None
        logging.getLogger("taskd").warning("%s", text)
