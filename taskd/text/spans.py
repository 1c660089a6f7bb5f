"""Lengths of time and instants, as people write them."""

import datetime as dt
import re
from typing import Final

from taskd_protocol.errors import BadRequest

UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def read_span_ms(text: str, unit: str) -> int:
    """Read a length of time, such as ``90``, ``1.5h`` or ``30d``, into milliseconds.

    Args:
        text: As it was written.
        unit: Of a bare number: ``s`` or ``d``.

    Raises:
        BadRequest: It is none.
    """
    found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?|\.\d+)(ms|[smhdw])?", text.strip(), re.ASCII)
    if found is None:
        raise BadRequest(f"{text[:40]!r} is no duration; write it as 90s, 15m, 1.5h or 30d")
    return round(float(found[1]) * UNITS_MS[found[2] or unit])


def read_instant_ms(text: str, zone: str) -> int:
    """Read an instant; one without an offset is by the clock of the zone.

    Raises:
        BadRequest: It is none, or there is no such zone.
    """
    try:
        read = dt.datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            f"{text[:40]!r} is no instant; write it as 2026-12-24T18:00, or with an offset as 2026-12-24T18:00Z"
        ) from None
    if read.tzinfo is None:
        from taskd.core.firings import find_zone  # noqa: PLC0415 - what knows zones takes long to import

        read = read.replace(tzinfo=find_zone(zone))
    try:
        return round((read - _EPOCH) / dt.timedelta(milliseconds=1))
    except OverflowError:
        raise BadRequest(f"{text[:40]!r} is out of range") from None
