"""Amounts as people write them: ``2``, ``0.5``, ``"1.5GiB"``; into whole numbers, and back.

What makes no sense is refused in one line that says how to write it.
"""

import math
import re
from typing import Final

from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import AMOUNT_MAX
from taskd_protocol.resources import ONE

UNITS: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}

MEMORY_BYTES_MIN: Final = 1 << 20
"""No process lives in less: who asks for 4 has forgotten the unit."""

COUNT_MAX: Final = 1_000_000
"""CPUs, GPUs or items: more are a slip."""

_BYTES: Final = re.compile(r"(\d{1,19}(?:\.\d+)?|\.\d+) ?([A-Za-z]+)?", re.ASCII)


def read_bytes(amount: object, what: str = "memory") -> int:
    """Return an amount of memory in bytes.

    Args:
        amount: A number of bytes, or text with a unit: ``"512MiB"``, ``"1.5 GB"``.
        what: How it is called in a refusal.

    Raises:
        BadRequest: It is none; the message says how to write one.
    """
    wanted = f'write it with a unit, as {what}="512MiB" or "4GiB"'
    if isinstance(amount, bool) or not isinstance(amount, int | str):
        raise BadRequest(f"{what} of {str(amount)[:40]!r} is no whole number of bytes; {wanted}")
    count = amount if isinstance(amount, int) else _bytes(amount, what, wanted)
    if not MEMORY_BYTES_MIN <= count <= AMOUNT_MAX:
        raise BadRequest(f"{what} of {str(amount)[:40]!r} is out of range; {wanted}")
    return count


def _bytes(text: str, what: str, wanted: str) -> int:
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise BadRequest(f"{what} of {text[:40]!r} is no amount; {wanted}")
    unit = UNITS.get((found[2] or "B").upper())
    if unit is None:
        raise BadRequest(f"{what} of {text[:40]!r}: the unit is unknown; use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB")
    return round(float(found[1]) * unit)


def read_count(amount: object, what: str) -> int:
    """Return how many of something are meant, in thousandths.

    Args:
        amount: A number, or text with one.
        what: How it is called in a refusal.

    Raises:
        BadRequest: It is none, or out of range.
    """
    try:
        if isinstance(amount, bool) or not isinstance(amount, int | float | str):
            raise TypeError  # noqa: TRY301 - as what float() refuses
        count = float(amount)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest(f"{what} of {str(amount)[:40]!r} is no number; write it as {what}=2 or {what}=0.5") from None
    if not math.isfinite(count) or not ONE**-1 <= count <= COUNT_MAX:
        raise BadRequest(f"{what} of {str(amount)[:40]} is out of range; it goes from 0.001 to {COUNT_MAX:,}")
    return round(count * ONE)
