"""Shares: queues take turns at the room that agents have, each by its weight, and stand in the order of their turns.

A queue's time is what it was granted, divided by its weight: in a pass the queue that
is behind goes next. What a queue did not ask for it does not get later: one that has
tasks again begins at the clock, the time of the queue that was served last; and for one
that no agent could serve, time goes on as it does for the others.

Lines stand here from when they have tasks until they have none, and nothing is sorted anew for a pass: it costs what
it looks at, however many wait (``rows``). A queue of which all lines are stuck sleeps: it stands by the least that one
of them asks for, and by how far it was ahead of the clock, so that its time need not be touched.

Nothing of it is stored: after a start all begin alike.

Invariants:
- The clock never falls.
- ``shares`` holds the queues that have lines here, and some that have none since the last pass; of others, those are
  known that are ahead of the clock.
- Between passes each line that has tasks stands here once, or is one of ``unserved``.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from taskd.core.lines import Entry, Line
from taskd.core.rows import LOOSE, PLAIN, UNSERVED, Row

TASK: Final = 1 << 20
"""By how much one task moves the time of a queue of weight 1."""

TURN_TASKS: Final = 16
"""Granted in one turn to a queue of weight 1, if there is room enough: a turn costs as much as some tasks."""

TURNS: Final = 2
"""So often each queue gets its turn in a pass, if there is less room: what runs for hours is shared out, too."""

AHEAD_KEPT: Final = 1_000
"""Queues without tasks of which it is known how far they are ahead, before those are looked through that are not."""


class Share:
    """A queue that has tasks.

    Attributes:
        name: Of the queue.
        weight: Its.
        at: Its time; while it sleeps, by how much that is ahead of the clock.
        rows: Its lines without fair keys, and with.
        asleep: The least that one of its lines asks for, which are all stuck; -1: it does not sleep.
        turn: Where it stands; None: it is being served.
    """

    __slots__ = ("asleep", "at", "name", "rows", "turn", "weight")

    def __init__(self, name: str, weight: int, at: int) -> None:
        self.name = name
        self.weight = weight
        self.at = at
        self.rows = Row(), Row()
        self.asleep = -1
        self.turn: _Turn | None = None

    @property
    def is_empty(self) -> bool:
        """It has no line."""
        return not (self.rows[0].count or self.rows[1].count)

    @property
    def least(self) -> int:
        """The least that one of its lines asks for, if all are stuck; -1: some are not."""
        return min([row.least for row in self.rows if row.count])


_Turn = tuple[int, str, int, Share]
"""Time, or what it is ahead; the queue; a number that tells one from those before; itself."""


class Shares:
    """The queues that have tasks, and the times of all.

    Attributes:
        clock: The time of the queue that was served last.
        queues: Those that have tasks, or had some in the last pass.
        weights: Theirs, in all.
        unserved: By task name, lines that ask for nothing and that no connected agent serves.
        standing: Of lines of each shelf, how many stand here and were not looked at in this pass, see ``rows``.
    """

    def __init__(self) -> None:
        self.clock = 0
        self.queues: dict[str, Share] = {}
        self.weights = 0
        self.unserved: dict[str, dict[bytes, Line]] = {}
        self.standing: dict[int, int] = {}
        self._began = 0  # the clock at the beginning of the pass
        self._turns: list[_Turn] = []
        self._asleep: dict[int, list[_Turn]] = {}
        self._emptied: dict[str, Share] = {}
        self._ahead: dict[str, int] = {}
        self._ahead_max = AHEAD_KEPT
        self._number = 0

    # -- lines --------------------------------------------------------------------------

    def enter(self, line: Line, weight: int) -> None:
        """Have a line stand here that has tasks, or in another place if what is first by now comes earlier."""
        if line.shelf == UNSERVED:
            return
        if line.entry is not None:
            if line.head_rank() >= line.entry[0]:
                return
            self.leave(line)
        share = self.queues.get(line.queue)
        if share is None:
            share = self.queues[line.queue] = Share(line.queue, weight, max(self._ahead.pop(line.queue, 0), self.clock))
            self.weights += weight
        self.put(share, line, PLAIN if line.wants is None else LOOSE)
        if share.asleep >= 0:
            share.at += self.clock
        elif share.turn is not None:
            return
        self._stand(share)

    def leave(self, line: Line) -> None:
        """Forget a line that has no tasks any more."""
        if line.shelf == UNSERVED:
            self._unpark(line)
        elif line.entry is not None:
            share = self.queues[line.queue]
            self._take(share, line)
            if share.is_empty:
                self._emptied[share.name] = share

    def loosen(self, line: Line) -> None:
        """Have a line be looked at that is stuck, whatever agents have."""
        if line.entry is not None and line.shelf >= 0:
            weight = self.queues[line.queue].weight
            self.leave(line)
            self.enter(line, weight)

    def set_aside(self, share: Share, shelf: list[Entry]) -> None:
        """Take out the first line of a shelf, which is to be put back when the pass ends."""
        _, _, line = heappop(shelf)
        self._take(share, line)

    def _take(self, share: Share, line: Line) -> None:
        line.entry = None
        self.standing[line.shelf] -= 1
        share.rows[line.fair].count -= 1

    def put(self, share: Share, line: Line, shelf: int) -> None:
        """Put a line onto a shelf of its queue."""
        share.rows[line.fair].put(line, shelf)
        self.standing[shelf] = self.standing.get(shelf, 0) + 1

    def park(self, line: Line) -> None:
        """Have a line that asks for nothing wait for an agent that serves it."""
        self.leave(line)
        line.shelf = UNSERVED
        self.unserved.setdefault(line.name, {})[line.id] = line

    def found(self, name: str, queues: frozenset[str]) -> list[Line]:
        """Return the lines that waited for an agent which has tasks of a name, and serves these queues; empty: all."""
        found = [line for line in self.unserved.get(name, {}).values() if not queues or line.queue in queues]
        for line in found:
            self._unpark(line)
        return found

    def _unpark(self, line: Line) -> None:
        line.shelf = PLAIN
        waiting = self.unserved[line.name]
        del waiting[line.id]
        if not waiting:
            del self.unserved[line.name]

    # -- queues -------------------------------------------------------------------------

    def weigh(self, queue: str, weight: int) -> None:
        """Note a queue's weight."""
        share = self.queues.get(queue)
        if share is not None:
            self.weights += weight - share.weight
            share.weight = weight

    def time_of(self, queue: str) -> int:
        """Return the time of a queue that has lines."""
        share = self.queues[queue]
        return share.at + self.clock if share.asleep >= 0 else share.at

    def begin(self) -> None:
        """Begin a pass: queues that have had no tasks since the last one have none."""
        self._began = self.clock
        if not self._emptied:
            return
        for queue, share in self._emptied.items():
            if share.is_empty and self.queues.get(queue) is share:
                self.weights -= share.weight
                at = self.time_of(queue)
                if at > self.clock:
                    self._ahead[queue] = at
                del self.queues[queue]
                share.turn = None
        self._emptied.clear()
        if len(self._ahead) > self._ahead_max:
            self._ahead = {queue: at for queue, at in self._ahead.items() if at > self.clock}
            self._ahead_max = max(AHEAD_KEPT, 2 * len(self._ahead))

    def may_be_served(self, reach: int, *, plain: bool) -> bool:
        """Tell whether lines were not looked at that may be: ``reach`` as in ``Row.first``."""
        standing = self.standing
        if plain and standing.get(PLAIN):
            return True
        return bool([s for s, count in standing.items() if count and PLAIN < s <= reach])

    def first(self, reach: int) -> Share | None:
        """Take out the queue that is most behind, of those that may be served."""
        best = self._first_of(self._turns)
        best_at, best_heap = (best[0], self._turns) if best is not None else (0, None)
        for shelf in [shelf for shelf in self._asleep if shelf <= reach]:
            turn = self._first_of(self._asleep[shelf])
            if turn is None:
                del self._asleep[shelf]
            elif best is None or (turn[0] + self._began, turn[1]) < (best_at, best[1]):
                best, best_at, best_heap = turn, turn[0] + self._began, self._asleep[shelf]
        if best is None or best_heap is None:
            return None
        heappop(best_heap)
        return self.take_out(best[3])

    def take_out(self, share: Share) -> Share:
        """Have a queue be served."""
        if share.asleep >= 0:
            share.at += self._began
            share.asleep = -1
        share.turn = None
        return share

    def note(self, share: Share, tasks: int) -> None:
        """Count what a queue was granted in its turn."""
        before = share.at
        share.at = before + tasks * TASK // share.weight
        self.clock = max(self.clock, before + (tasks - 1) * TASK // share.weight)

    def give_back(self, share: Share) -> None:
        """Have a queue stand in line again that may be served once more in this pass."""
        self._stand(share)

    def end(self, share: Share, *, is_refused: bool) -> None:
        """Have a queue stand in line again at the end of a pass, after its lines.

        Args:
            share: It.
            is_refused: No agent had room for some of its tasks: time goes on for it.
        """
        if share.is_empty:
            self._emptied[share.name] = share
            return
        if is_refused:
            share.at += self.clock - self._began
        least = share.least
        if least >= 0:
            share.at -= self.clock
        self._stand(share, least)

    def _stand(self, share: Share, asleep: int = -1) -> None:
        self._number += 1
        share.asleep = asleep
        share.turn = (share.at, share.name, self._number, share)
        heappush(self._turns if asleep < 0 else self._asleep.setdefault(asleep, []), share.turn)

    @staticmethod
    def _first_of(heap: list[_Turn]) -> _Turn | None:
        while heap:
            if heap[0][3].turn is heap[0]:
                return heap[0]
            heappop(heap)
        return None


def turn_tasks(room_up_to: Callable[[int], int], weights: int) -> int:
    """Return how many tasks a queue of weight 1 gets in a turn, of the room that is shared by so many weights."""
    shares = TURNS * weights
    return max(1, min(TURN_TASKS, room_up_to(TURN_TASKS * shares) // shares))
