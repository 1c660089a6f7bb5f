"""Points, as they are kept: some in one record."""

import msgspec

from taskd_protocol.point import Point


class HistoryRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Some points that follow each other, oldest first."""

    points: list[Point]
