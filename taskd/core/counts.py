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
    changed: dict[str, None] = field(default_factory=dict)
    """Queues of which counts have changed since they were written."""

    def move(self, queue: str, start: State | None, end: State | None, count: int = 1) -> None:
        """Count tasks of a queue from one state to another; None: not stored, or ended."""
        states = self.by_queue.get(queue)
        if states is None:
            states = self.by_queue[queue] = {}
        if start is not None:
            states[start] = states.get(start, 0) - count
        if end is not None:
            states[end] = states.get(end, 0) + count
        self.changed[queue] = None

    def park(self, queue: str, count: int) -> None:
        """Count tasks of a queue as waiting at a gate; negative: no longer."""
        self.parked[queue] = self.parked.get(queue, 0) + count
        self.changed[queue] = None

    def write(self, mutations: list[records.Mutation]) -> None:
        """Write what is the same for all queues, and the queues that have changed; one without tasks costs nothing."""
        mutations.append((records.META, b"counters", self.record()))
        for queue in self.changed:
            counts = self.of_queue(queue)
            mutations.append((records.COUNTS, queue.encode(), counts))
            if counts is None:
                self.by_queue.pop(queue, None)
            if counts is None or not counts.parked:
                self.parked.pop(queue, None)
        self.changed.clear()

    def of_queue(self, queue: str) -> records.CountsRecord | None:
        """Return those of a queue as a record, without zeros; None: it has no tasks."""
        states = {str(state): count for state, count in self.by_queue.get(queue, {}).items() if count}
        return records.CountsRecord(states, self.parked.get(queue, 0)) if states else None

    def record(self) -> records.CountersRecord:
        """Return those that are of no queue as a record, without zeros."""
        ended = {str(state): count for state, count in self.ended.items() if count}
        return records.CountersRecord(
            {},
            ended,
            self.next_order,
            self.finished_bytes,
            self.purged_to_ms,
            self.latest_wall_ms,
            logs_bytes=self.logs_bytes,
            swept_to=self.swept_to,
        )
