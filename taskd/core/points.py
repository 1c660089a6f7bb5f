"""Points: how the server stood, and what it did, over a stretch of time; its history is made of them."""

import msgspec


class Point(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One stretch. Tasks are those of all queues."""

    at_ms: int
    """When it ended (UTC)."""
    span_ms: int
    """How long it was."""
    submitted: int
    started: int
    """Attempts that began."""
    succeeded: int
    failed: int
    """Tasks that died, or whose time was up."""
    cancelled: int
    retried: int
    """Attempts that failed and are followed by another one."""
    ready: int
    """Tasks that stood so at its end; the same below."""
    scheduled: int
    blocked: int
    running: int
    agents: int
    """Connected."""
    waits_ms: tuple[int, int, int]
    """What half, 95 and 99 of a hundred attempts that began had waited at most; -1: none began."""
    runs_ms: tuple[int, int, int]
    """What those that ended ran, likewise."""
    queues: list[tuple[str, int, int]]
    """Queues in which most waits, with how much waits and runs in each."""


class HistoryRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Some points that follow each other, oldest first."""

    points: list[Point]
