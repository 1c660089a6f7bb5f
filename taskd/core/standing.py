"""Standing: where each schedule stands, in memory, and which is to be looked at next.

What a schedule is stands on disk alone; what moves of it is small, and here.

Invariants:
- ``of`` holds exactly the STANDING records.
- ``of_task`` holds exactly the tasks in their ``running``.
- A schedule that has a next firing, and is neither paused nor broken, is in ``armed`` under it, or in ``looking`` or
  ``unchecked``.
"""

import heapq

from taskd.core.schedule_records import RemovedRecord, StandingRecord


class Schedules:
    """See the module's docstring.

    Attributes:
        of: By name.
        of_task: The schedule of a task that it waits for.
        armed: Of those that time alone has looked at, the next firing; by name.
        heap: The same as (next firing, name), soonest first, with entries that hold no longer.
        looking: Those that a command under way is to look at, and whether nobody has since the start.
        unchecked: Those that nobody has looked at since the start.
        left: What is left of those that were removed, by the digests of their names.
        left_new: Of these, those that are not stored as they are now.
        wall_ahead_ms: By how much the wall clock was ahead of the one that never steps, when it was looked at last.
    """

    def __init__(self) -> None:
        self.of: dict[str, StandingRecord] = {}
        self.of_task: dict[bytes, str] = {}
        self.armed: dict[str, int] = {}
        self.heap: list[tuple[int, str]] = []
        self.looking: dict[str, bool] = {}
        self.unchecked: dict[str, None] = {}
        self.left: dict[bytes, RemovedRecord] = {}
        self.left_new: dict[bytes, None] = {}
        self.wall_ahead_ms = 0

    def adopt(self, name: str, standing: StandingRecord) -> None:
        """Take in where a schedule stands."""
        before = self.of.get(name)
        for task_id in before.running if before is not None else ():
            if task_id not in standing.running:
                del self.of_task[task_id]
        for task_id in standing.running:
            self.of_task[task_id] = name
        self.of[name] = standing
        if not is_armed(standing):
            self.armed.pop(name, None)
        elif self.armed.get(name) != standing.next_at_ms:
            self.armed[name] = standing.next_at_ms
            heapq.heappush(self.heap, (standing.next_at_ms, name))
            if len(self.heap) > 2 * len(self.armed) + 1_000:
                self.heap = [(at_ms, armed) for armed, at_ms in self.armed.items()]
                heapq.heapify(self.heap)

    def restore(self, name: str, standing: StandingRecord) -> None:
        """Take in where a schedule stood at the start; it is looked at before its time."""
        self.of[name] = standing
        for task_id in standing.running:
            self.of_task[task_id] = name
        self.unchecked[name] = None

    def forget(self, name: str) -> None:
        """Let a schedule go."""
        for task_id in self.of.pop(name).running:
            del self.of_task[task_id]
        self.unchecked.pop(name, None)
        self.armed.pop(name, None)

    def take_due(self, wall_ms: int, most: int) -> list[str]:
        """Return the names of those that are to be looked at, and note that they are."""
        taken: dict[str, bool] = {}
        while self.unchecked and len(taken) < most:
            taken[self.unchecked.popitem()[0]] = True
        while self.heap and self.heap[0][0] <= wall_ms and len(taken) < most:
            at_ms, name = heapq.heappop(self.heap)
            if self.armed.get(name) == at_ms:
                del self.armed[name]
                if name not in self.looking:
                    taken.setdefault(name, False)
        self.looking.update(taken)
        return list(taken)

    def begin_look(self, name: str) -> bool:
        """Note that a schedule is looked at now; tell whether nobody has since the start."""
        is_first = self.looking.pop(name, False) or name in self.unchecked
        self.unchecked.pop(name, None)
        return is_first


def is_armed(standing: StandingRecord) -> bool:
    """Tell whether time alone has a schedule looked at."""
    return bool(standing.next_at_ms) and not standing.paused_at_ms and not standing.broken
