"""A point: how the server stood, and what it did, over a stretch of time. Shared by wire and disk."""

import msgspec


class Shares(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What so many of a hundred are at most, in ms, rounded up by an eighth at most; -1: there were none."""

    p50: int
    p95: int
    p99: int


class Depth(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How much there is in a queue."""

    queue: str
    ready: int
    """Tasks that wait in line."""
    running: int
    """Tasks that agents have."""


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
    waits_ms: Shares
    """How long attempts that began had waited in line."""
    runs_ms: Shares
    """How long attempts ran that ended."""
    queues: list[Depth]
    """The ten in which there is most."""


RANGES = ("15m", "1h", "6h", "24h")
"""How far points are kept back: every 2 s, 10 s, 1 min and 4 min."""
