"""S20: no more run than limits allow, nothing of a paused queue begins, and tasks of a key run one after another."""

from collections import Counter

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.sites import uses_of
from taskd.core.records import LeaseRecord
from taskd_protocol.task import NO_RULES, TaskSpec


class Limits(Checker):
    """Counts leases, after each batch that has given one: what ran before a limit was lowered, may."""

    promise = "S20"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._leased: dict[bytes, TaskSpec] = {}
        self._granted: dict[bytes, TaskSpec] = {}
        self._turns: dict[str, bytes] = {}  # by fifo_key: whose turn it is, until that has ended
        self._most: dict[str, int] = {}  # places that a limit has had since it was set
        self._limited: dict[bytes, set[str]] = {}  # by task, the limits that it names and that were set all the while

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        spec = self.world.journal.find(task_id).spec
        if spec is not None:
            self._granted[task_id] = spec.spec

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        spec = after.spec or before.spec
        assert spec is not None
        if before.spec is None:
            self._limited[task_id] = {name for name, _, _ in uses_of(spec.spec.given or NO_RULES)} & self._most.keys()
        if after.lease is None:
            self._leased.pop(task_id, None)
        else:
            self._leased[task_id] = spec.spec
            if before.lease is None or before.lease.token != after.lease.token:
                self._granted[task_id] = spec.spec
        key = (spec.spec.given or NO_RULES).fifo_key
        if key and (after.spec is None or after.has_ended) and self._turns.get(key) == task_id:
            del self._turns[key]

    def committed(self) -> None:
        journal = self.world.journal
        for name in [name for name in self._most if name not in journal.limits]:
            del self._most[name]  # whatever names it passes now
            for limited in self._limited.values():
                limited.discard(name)
        for name, limit in journal.limits.items():
            self._most[name] = max(self._most.get(name, 0), limit.concurrency)
        if self._granted:
            self._count_lines()
            self._count_keys()
            for task_id, spec in self._granted.items():
                self._take_turn(task_id, spec)
            self._granted.clear()

    def _count_lines(self) -> None:
        journal = self.world.journal
        running = Counter(f"queue:{spec.queue}" for spec in self._leased.values())
        running.update(f"task:{spec.name}" for spec in self._leased.values())
        begun = {name for spec in self._granted.values() for name in (f"queue:{spec.queue}", f"task:{spec.name}")}
        for spec in self._granted.values():
            if spec.queue in journal.paused:
                self.broken(f"{spec.id.hex()} of {spec.queue!r} began, which is paused")
        for name in sorted(begun & journal.limits.keys()):
            most = journal.limits[name].concurrency
            if most and running[name] > most:
                self.broken(f"{running[name]} of {name} run, and {most} may")
            elif most == running[name]:
                self.world.reach("as many ran as a limit allows")

    def _count_keys(self) -> None:
        places: Counter[tuple[str, str]] = Counter()
        for task_id, spec in self._leased.items():
            for name, key, weight in uses_of(spec.given or NO_RULES):
                if name in self._limited.get(task_id, ()):
                    places[name, key] += min(weight, self._most[name])
        for (name, key), taken in places.items():
            if self._most[name] and taken > self._most[name]:
                self.broken(f"{taken} places of {name} are taken by {key!r}, and there are {self._most[name]}")
            elif taken == self._most[name]:
                self.world.reach("all places of a key were taken")

    def _take_turn(self, task_id: bytes, spec: TaskSpec) -> None:
        key = (spec.given or NO_RULES).fifo_key
        if not key:
            return
        other = self._turns.get(key, task_id)
        if other != task_id:
            self.broken(f"{task_id.hex()} of key {key!r} began before {other.hex()} has ended")
        self._turns[key] = task_id
        if self.world.journal.find(task_id).attempt > 1:
            self.world.reach("a task kept its turn among those of its key")
