"""Counts: how much there is of what is stored, by queue and state; it commits with what it counts."""

from dataclasses import dataclass, field

from taskd.core import records
from taskd.core.lifecycle import State


@dataclass(slots=True, kw_only=True)
class Counters:
    """What is stored, counted."""

    by_queue: dict[str, dict[str, int]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    next_order: int = 1
    finished_bytes: int = 0
    purged_to_ms: int = 0
    latest_wall_ms: int = 0
    parked: dict[str, int] = field(default_factory=dict)
    logs_bytes: int = 0
    swept_to: bytes = b""

    def move(self, queue: str, start: State | None, end: State | None, count: int = 1) -> None:
        """Count tasks of a queue from one state to another; None: not stored, or ended."""
        states = self.by_queue.get(queue)
        if states is None:
            states = self.by_queue[queue] = {}
        if start is not None:
            states[start] = states.get(start, 0) - count
        if end is not None:
            states[end] = states.get(end, 0) + count

    def record(self) -> records.CountersRecord:
        """Return them as a record, without zeros."""
        for queue in [name for name, states in self.by_queue.items() if not any(states.values())]:
            del self.by_queue[queue]
        for queue in [name for name, count in self.parked.items() if not count]:
            del self.parked[queue]
        by_queue = {
            queue: {str(state): count for state, count in states.items() if count}
            for queue, states in self.by_queue.items()
        }
        ended = {str(state): count for state, count in self.ended.items() if count}
        return records.CountersRecord(
            by_queue,
            ended,
            self.next_order,
            self.finished_bytes,
            self.purged_to_ms,
            self.latest_wall_ms,
            dict(self.parked),
            self.logs_bytes,
            self.swept_to,
        )
