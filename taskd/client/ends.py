"""Who wants to know how which tasks end. Belongs to who moves the session's bytes.

Invariants:
- A task's outcome is set before anybody is told of it.
- A watch is woken once for each batch of outcomes, however many of its tasks are in it.
"""

from collections import deque
from collections.abc import Iterable

from taskd.client.promise import Signal
from taskd_protocol.errors import TaskdError
from taskd_protocol.task import Outcome


class Awaited:
    """A task whose end somebody may wait for.

    Attributes:
        raw_id: 16 bytes.
        outcome: How it ended; None: not known here yet.
    """

    __slots__ = ("outcome", "raw_id")

    def __init__(self, raw_id: bytes) -> None:
        self.raw_id = raw_id
        self.outcome: Outcome | None = None


class Watch:
    """Collects tasks as they end.

    Attributes:
        arrived: Ended and not taken yet.
        error: Why no more will arrive.
        signal: Fires when either changes.
    """

    __slots__ = ("arrived", "error", "signal")

    def __init__(self) -> None:
        self.arrived: deque[Awaited] = deque()
        self.error: TaskdError | None = None
        self.signal = Signal()


class Ends:
    """What is wanted, and who watches for it."""

    def __init__(self) -> None:
        self._wanted: dict[bytes, Awaited] = {}
        self._watches: dict[bytes, list[tuple[Watch, Awaited]]] = {}

    @property
    def watched(self) -> bytes | None:
        """The id of a task that somebody waits for now; None: nobody waits."""
        return next(iter(self._watches), None)

    @property
    def wanted(self) -> Iterable[bytes]:
        """The ids of the tasks whose ends are wanted."""
        return self._wanted.keys()

    def want(self, tasks: Iterable[Awaited]) -> list[bytes]:
        """Take on tasks; return the ids that were not wanted before."""
        wanted = self._wanted
        fresh = {task.raw_id: task for task in tasks if task.outcome is None and task.raw_id not in wanted}
        wanted.update(fresh)
        return list(fresh)

    def watch(self, targets: Iterable[Awaited], watch: Watch) -> None:
        """Tell the watch of these when they end, or now if they have."""
        for target in targets:
            if target.outcome is None:
                self._watches.setdefault(target.raw_id, []).append((watch, target))
            else:
                watch.arrived.append(target)
        if watch.arrived:
            watch.signal.fire()

    def unwatch(self, targets: Iterable[Awaited], watch: Watch) -> None:
        """Tell the watch no more; its tasks stay wanted."""
        for target in targets:
            left = [pair for pair in self._watches.pop(target.raw_id, ()) if pair[0] is not watch]
            if left:
                self._watches[target.raw_id] = left

    def end(self, outcomes: Iterable[Outcome]) -> None:
        """Set the outcomes, then wake each watch that has one among them."""
        wanted, watches = self._wanted, self._watches
        touched: dict[int, Watch] = {}
        for outcome in outcomes:
            awaited = wanted.pop(outcome.id, None)
            if awaited is not None:
                awaited.outcome = outcome
            for watch, target in watches.pop(outcome.id, ()):
                target.outcome = outcome
                watch.arrived.append(target)
                touched[id(watch)] = watch
        for watch in touched.values():
            watch.signal.fire()

    def give_up(self, error: TaskdError) -> None:
        """Tell every watch that nothing more will come; who still wants to know asks anew."""
        self._wanted.clear()
        watches, self._watches = self._watches, {}
        touched = {id(watch): watch for pairs in watches.values() for watch, _ in pairs}
        for watch in touched.values():
            watch.error = error
            watch.signal.fire()
