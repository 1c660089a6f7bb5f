"""Bodies: what tasks do. Their arguments say it, so that every attempt of a task is the same play."""

from typing import NamedTuple

from taskd_protocol.payload import pack_arguments, unpack_arguments
from taskd_protocol.task import COMMAND_NAME

BLOCKING = "m.blocking"
ASYNC = "m.async"
COMMAND = COMMAND_NAME


class Body(NamedTuple):
    """A task's function."""

    run_ms: int = 1
    """How long it takes."""
    end: str = "return"
    """``return``, ``raise``, ``final`` (raises what is worth no other attempt), ``later`` (asks for a wait of its own),
    ``exit`` (takes its worker down), or ``never``: it runs until it is ended."""
    good_from: int = 1
    """The attempt from which on it returns, whatever ``end`` says."""
    result_bytes: int = 0
    heeds: bool = True
    """It ends soon when it is told to."""
    beat_ms: int = 0
    """It tells so often how far it has come; 0: never."""
    gives: str = ""
    """What it returns: digits: a list of so many; letters: one of them; empty: it tells of itself."""
    brood: int = 0
    """What it spawns, see ``broods``; 0: nothing."""
    holds_mib: int = 0
    """How much memory it takes while it runs."""

    def pack(self) -> bytes:
        """Return it as a call's arguments."""
        return pack_arguments(list(self), {})

    def end_of(self, attempt: int) -> str:
        """Return how an attempt ends."""
        return "return" if self.end != "never" and attempt >= self.good_from else self.end


LATER_MS = 1_500
"""What ``later`` asks for."""


def read_body(payload: bytes) -> Body:
    """Read what ``pack`` packed."""
    args, _ = unpack_arguments(payload)
    return Body(*args)  # type: ignore[arg-type]
