"""Rates as people write them: ``100/s``, ``10/m``, ``5/2h``."""

import re
from typing import Final

from taskd_protocol.errors import BadRequest

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def read_rate(text: str) -> tuple[int, int]:
    """Return how many, and in how many ms.

    Raises:
        BadRequest: It is no rate.
    """
    found = re.fullmatch(r"([1-9]\d{0,6})/(\d{0,6})(ms|[smhd])", text.replace(" ", ""), re.ASCII)
    if found is None or found[2].startswith("0"):
        raise BadRequest(f"rate {text[:40]!r} is none; write it as 100/s, 10/m or 5/2h")
    return int(found[1]), int(found[2] or 1) * _UNITS_MS[found[3]]


def rate_text(tokens: int, period_ms: int) -> str:
    """Return a rate as ``read_rate`` reads it."""
    unit, length_ms = next((u, ms) for u, ms in reversed(_UNITS_MS.items()) if period_ms % ms == 0)
    count = period_ms // length_ms
    return f"{tokens}/{count if count > 1 else ''}{unit}"
