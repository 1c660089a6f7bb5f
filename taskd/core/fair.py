"""Fair keys: tasks of a queue that name one share the queue key by key, however many each has.

A keyed task gets a tag when it comes into line, which is its place for good: the time at
which it would begin if all keys were served in turn. That is the queue's time, or the
end of what its key has waiting already, whichever is later; a task takes one ``UNIT``,
divided by the weight of its key, if a person gave it one.
The queue's time is the largest tag that was granted. So tags are in the order of a fair
share, and a line of keyed tasks is read like any other: how many keys there are costs
disk, and neither memory nor time.

Within a key, a task comes after those of its priority or a higher one, and before the
lower ones that come later. Tasks of the queue without a key share it as one key would.

Where a key ends is kept as long as that lies ahead of the queue's time, on disk, and in
memory for the keys that were last used. It is looked up for submits, and for tasks that
become due; what a workflow or a schedule submits, and what is retried, begins at the
queue's time if its key is not in memory.

Invariants:
- A queue's time never falls, over restarts too, and each grant moves it on: a tag is reached whatever comes.
- A key's end, once it is behind its queue's time, is the same as none.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from taskd.core import records
from taskd.core.commands import NOTHING_LOADED, Loaded, Now, SweepFair
from taskd.core.effects import WantFair
from taskd.core.lines import ORDER_MASK, rank_of
from taskd.core.records import FairRecord, Key, Mutation, PaceRecord, SpecRecord
from taskd_protocol.task import TaskSpec

if TYPE_CHECKING:
    from taskd.core.lines import Task
    from taskd.core.working import Working

UNIT: Final = 1 << 20
"""What a task takes of its key's time. A grant moves the queue's time on by 1 at least: so a tag that is one task ahead
is reached within a million grants, also while new keys come without end."""

KEYS_MAX: Final = 100_000
"""Keys whose end is in memory: some 40 MB with long names."""

SWEEP_MS: Final = 60_000
"""How often ends are looked through for those that are behind."""

SWEEP_STEP: Final = 1_000
"""Looked at in one turn: a few milliseconds."""

SWEEP_AGAIN_MS: Final = 100
"""Until the next step, if there is more."""


class Pace:
    """A queue's time.

    Attributes:
        at: Now.
        highest: The latest end that any key was given.
        beyond: The latest end of a key that may be on disk only; no later than ``at``: nothing is to be looked up.
        plain: Where the tasks without a key go on.
    """

    __slots__ = ("at", "beyond", "highest", "plain")

    def __init__(self, at: int = UNIT, highest: int = 0) -> None:
        self.at = at
        self.highest = self.beyond = highest
        self.plain = 0


class Fairness:
    """The times of queues, and the ends of keys."""

    def __init__(self) -> None:
        self.paces: dict[str, Pace] = {}
        self.weights: dict[tuple[str, str], int] = {}
        self.next_sweep_mono_ms = 0
        self._ends: OrderedDict[tuple[str, str], dict[int, int]] = OrderedDict()  # by priority: of it and the higher
        self._changed: dict[tuple[str, str], None] = {}
        self._moved: dict[str, None] = {}
        self._cursor = b""
        self._written: set[bytes] | None = None  # since a sweep's read began

    def restore(self, paces: Iterable[tuple[str, PaceRecord]]) -> None:
        """Take up where the queues were."""
        self.paces = {queue: Pace(record.at, record.highest) for queue, record in paces}

    def needed(self, specs: Iterable[TaskSpec]) -> list[Key]:
        """Return what is to be loaded before these are placed."""
        if not self.paces:
            return []
        needed: dict[Key, None] = {}
        for spec in specs:
            if spec.given is not None and spec.given.fair_key:
                pace, key = self.paces.get(spec.queue), (spec.queue, spec.given.fair_key)
                if pace is not None and pace.beyond > pace.at and key not in self._ends:
                    needed[records.FAIR, fair_id(*key)] = None
        return list(needed)

    def place(self, spec: TaskSpec, loaded: Loaded = NOTHING_LOADED) -> int:
        """Return the tag of a keyed task that comes into line now."""
        queue, priority = spec.queue, spec.priority
        key = queue, spec.rules.fair_key
        unit = UNIT // self.weights[key] if key in self.weights else UNIT
        pace = self.paces.get(queue)
        if pace is None:
            pace = self.paces[queue] = Pace()
        ends = self._ends.get(key)
        if ends is None:
            record = loaded.get((records.FAIR, fair_id(*key)))
            ends = self._ends[key] = dict(record.ends) if isinstance(record, FairRecord) else {}
        else:
            self._ends.move_to_end(key)
        now = pace.at
        self._changed[key] = self._moved[queue] = None
        if priority in ends and len(ends) == 1:
            tag = max(now, ends[priority])
            ends[priority] = end = tag + unit
            pace.highest = max(pace.highest, end)
            return tag
        higher = min((each for each in ends if each >= priority), default=None)
        tag = now if higher is None else max(now, ends[higher])
        ends[priority] = tag
        for each in [*ends]:
            if each <= priority:
                ends[each] = max(now, ends[each]) + unit
            elif ends[each] <= now:
                del ends[each]
        pace.highest = max(pace.highest, *ends.values())
        return tag

    def note_granted(self, queue: str, tag: int, count: int) -> None:
        """Move a queue's time on: so many keyed tasks were granted, the last of them of this tag."""
        pace = self.paces[queue]
        pace.at = max(pace.at + count, tag)
        self._moved[queue] = None

    def plain_at(self, queue: str) -> int:
        """Return the tag of the queue's next task without a key."""
        pace = self.paces[queue]
        return max(pace.at, pace.plain)

    def note_plain(self, queue: str, count: int) -> None:
        """Count tasks without a key that were granted while keyed ones wait."""
        if count:
            self.paces[queue].plain = end = self.plain_at(queue) + count * UNIT
            self.note_granted(queue, end - UNIT, count)

    def write(self, mutations: list[Mutation]) -> None:
        """Have the turn write what has changed; forget what was not used for longest."""
        for key in self._changed:
            end_id = fair_id(*key)
            mutations.append((records.FAIR, end_id, FairRecord(key[0], sorted(self._ends[key].items()))))
            if self._written is not None:
                self._written.add(end_id)
        for queue in self._moved:
            pace = self.paces[queue]
            mutations.append((records.PACE, queue.encode(), PaceRecord(pace.at, pace.highest)))
        self._changed.clear()
        self._moved.clear()
        while len(self._ends) > KEYS_MAX:
            (queue, _), ends = self._ends.popitem(last=False)
            self.paces[queue].beyond = max(self.paces[queue].beyond, *ends.values())

    def start_sweep(self) -> WantFair:
        """Return what is to be read next."""
        self._written = set()
        return WantFair(self._cursor, SWEEP_STEP)

    def sweep(self, found: Sequence[tuple[bytes, FairRecord]], *, last: bool) -> list[bytes]:
        """Return which ends, of those that were read, are behind."""
        written, self._written = self._written or set(), None
        self._cursor = b"" if last else found[-1][0]
        return [
            end_id
            for end_id, record in found
            if end_id not in written and max(end for _, end in record.ends) <= self.paces[record.queue].at
        ]


def fair_id(queue: str, key: str) -> bytes:
    """Return the FAIR id of a key of a queue."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (queue.encode(), key.encode()):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def placed(w: "Working", spec: SpecRecord, loaded: Loaded = NOTHING_LOADED) -> SpecRecord:
    """Return a task that comes into line now, with its tag if it has a key; that is written.

    One that has gates to pass gets it as it comes into line behind them.
    """
    rules = spec.spec.rules
    if not rules.fair_key:
        return spec
    if rules.limits or rules.fifo_key:
        if spec.place:
            spec = replace(spec, place=0)
            w.put(records.SPEC, spec.spec.id, spec)
        return spec
    spec = replace(spec, place=w.fair.place(spec.spec, loaded))
    w.put(records.SPEC, spec.spec.id, spec)
    return spec


def tag(w: "Working", task: "Task", *, after: int = 0) -> None:
    """Give a task in memory a tag as of now; it is in no line.

    Args:
        w: The working set.
        task: It has a fair key.
        after: A tag that it is to come after; 0: none.
    """
    place = max(w.fair.place(task.spec), after + 1 if after else 0)
    order = task.rank & ORDER_MASK
    task.rank = rank_of(place, order)
    w.put(records.SPEC, task.spec.id, SpecRecord(order, task.created_at_ms, task.owner, task.spec, place))


def tick(w: "Working", now: Now) -> None:
    """Look through some ends when it is time."""
    if w.fair.paces and now.mono_ms >= w.fair.next_sweep_mono_ms:
        w.fair.next_sweep_mono_ms = now.mono_ms + SWEEP_MS
        w.effects.append(w.fair.start_sweep())


def sweep(w: "Working", command: SweepFair, now: Now) -> None:
    """Take away the ends that are behind."""
    for end_id in w.fair.sweep(command.found, last=command.last):
        w.delete(records.FAIR, end_id)
    if not command.last:
        w.fair.next_sweep_mono_ms = now.mono_ms + SWEEP_AGAIN_MS
