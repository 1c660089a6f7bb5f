"""Shares: queues take turns at the room that agents have, each by its weight.

A queue's time is what it was granted, divided by its weight: in a pass the queue that
is behind goes next. What a queue did not ask for it does not get later: one that has
tasks again begins at the clock, the time of the queue that was served last; and for one
that no agent could serve, time goes on as it does for the others.

Nothing of it is stored: after a start all begin alike.

Invariants:
- The clock never falls.
- ``times`` holds the queues that had tasks in the last pass; of others, those are known that are ahead of the clock.
"""

from collections.abc import Iterable
from typing import Final

TASK: Final = 1 << 20
"""By how much one task moves the time of a queue of weight 1."""

TURN_TASKS: Final = 16
"""Granted in one turn to a queue of weight 1, if there is room enough: a turn costs as much as some tasks."""

TURNS: Final = 2
"""So often each queue gets its turn in a pass, if there is less room: what runs for hours is shared out, too."""


class Shares:
    """The times of queues."""

    __slots__ = ("_idle", "clock", "times")

    def __init__(self) -> None:
        self.clock = 0
        self.times: dict[str, int] = {}
        self._idle: dict[str, int] = {}

    def begin(self, queues: Iterable[str]) -> None:
        """Begin a pass in which these have tasks."""
        before, idle, clock = self.times, self._idle, self.clock
        times = {queue: before[queue] if queue in before else max(idle.get(queue, 0), clock) for queue in queues}
        self._idle = {queue: at for queue, at in (idle | before).items() if at > clock and queue not in times}
        self.times = times

    def note(self, queue: str, tasks: int, weight: int) -> int:
        """Count what a queue was granted in its turn; return its time now."""
        before = self.times[queue]
        self.times[queue] = at = before + tasks * TASK // weight
        self.clock = max(self.clock, before + (tasks - 1) * TASK // weight)
        return at

    def pass_over(self, queues: Iterable[str], clock: int) -> None:
        """Let time go on for queues that no agent could serve in this pass.

        Args:
            queues: Those.
            clock: When the pass began.
        """
        if gone := self.clock - clock:
            for queue in queues:
                self.times[queue] += gone


def turn_tasks(room: int, weights: int) -> int:
    """Return how many tasks a queue of weight 1 gets in a turn, of the room that is shared by so many weights."""
    return max(1, min(TURN_TASKS, room // (TURNS * weights)))
