"""Points, as they are kept: some in one record."""

import msgspec

from taskd_protocol.point import Point


class Loads(msgspec.Struct, array_like=True, frozen=True):
    """What agents' machines did at an instant: one entry for each agent in each of the lists, by name."""

    at_ms: int
    """UTC."""
    agents: list[str]
    cpu_percent: list[int]
    """Of all cores."""
    memory_mib: list[int]
    """In use."""
    running: list[int]
    """Attempts that the agent held."""


class HistoryRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Some points that follow each other, oldest first."""

    points: list[Point]
    loads: list[Loads] = []
    """In the ring of agents, in place of points."""
