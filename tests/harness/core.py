"""A shell for the core: a dict as the disk, a clock that is told, nothing awaited.

It does what the commit loop does, one call at a time: ``apply`` commands, ``turn``,
``flush``. Between any two calls a test may ``crash``. What the core wants read is
read in steps (``reads``), so that turns can come between a read and its answer.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

from harness.specs import changed
from harness.told import check_told, standing
from taskd.core import records
from taskd.core.commands import (
    Answer,
    Command,
    DropLapsed,
    LineEntry,
    NeedRecords,
    Now,
    PurgeFinished,
    RefillTimers,
    RefillWindow,
    StepJob,
    SubmitTasks,
    Submitted,
    SweepFair,
    SweepLogs,
)
from taskd.core.coordinator import Coordinator, Turn
from taskd.core.effects import (
    Continue,
    Effect,
    WantFair,
    WantFinished,
    WantFlow,
    WantGate,
    WantGates,
    WantItems,
    WantLapsed,
    WantLine,
    WantTasks,
    WantTimers,
)
from taskd.core.filters import spec_fits
from taskd.core.invariants import check_invariants
from taskd.core.lapses import id_of_key, record_of
from taskd.core.lines import RANK_BYTES, ready_id
from taskd.core.records import (
    AgentRecord,
    AgeRecord,
    BucketRecord,
    CountersRecord,
    CountsRecord,
    DeadGroupRecord,
    EpochRecord,
    FairRecord,
    JobRecord,
    Key,
    Kind,
    LeaseRecord,
    LimitRecord,
    LineRecord,
    Mutation,
    PaceRecord,
    PeaksRecord,
    QueueRecord,
    Record,
    SpecRecord,
    StateRecord,
    TokenRecord,
)
from taskd.core.restore import Stored, restore
from taskd.core.schedule_records import RemovedRecord, StandingRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd.core.working import Settings, Working
from taskd.server.flow_loading import FlowLoader
from taskd.server.loading import Loader
from taskd.store import codec
from taskd.store.memory import MemoryStore
from taskd_protocol.ids import TaskId, make_task_ids, task_id_unix_ms
from taskd_protocol.resources import Where
from taskd_protocol.task import Retry, TaskSpec, Unique, Use

if TYPE_CHECKING:
    from taskd.core.events import Event

MONO_MS = 50_000
WALL_MS = 1_763_760_000_000
TICK_MS = 500

Value = Record | bytes
Wanted = (
    WantLine
    | WantGate
    | WantGates
    | WantTimers
    | WantFinished
    | WantLapsed
    | WantFair
    | WantTasks
    | WantFlow
    | WantItems
)
R = TypeVar("R", bound=Record)
E = TypeVar("E")
T = TypeVar("T")


class Disk:
    """What is staged, and how to take back what is not durable."""

    def __init__(self) -> None:
        self.values: dict[Key, Value] = {}
        self.undo: list[list[tuple[Key, Value | None]]] = []

    def stage(self, mutations: Sequence[Mutation]) -> None:
        """Apply a batch; it is not durable."""
        undo: list[tuple[Key, Value | None]] = []
        for kind, record_id, value in mutations:
            key = (kind, record_id)
            undo.append((key, self.values.get(key)))
            _set(self.values, key, value)
        self.undo.append(undo)

    def flush(self) -> None:
        """Make all batches durable."""
        self.undo.clear()

    def crash(self, kept: int) -> None:
        """Lose all batches that are not durable but the first ``kept``."""
        while len(self.undo) > kept:
            for key, value in reversed(self.undo.pop()):
                _set(self.values, key, value)
        self.undo.clear()

    def scan(self, kind: Kind, prefix: bytes = b"", after: bytes = b"") -> list[bytes]:
        """Return the ids of a kind beyond one, sorted."""
        ids = sorted(i for k, i in self.values if k == kind and i.startswith(prefix))
        return ids[bisect_right(ids, after) :] if after else ids

    def of(self, kind: Kind, record: type[R]) -> dict[bytes, R]:
        """Return all records of a kind by id, sorted."""
        return {i: self.get(kind, i, record) for i in self.scan(kind)}

    def get(self, kind: Kind, record_id: bytes, record: type[R]) -> R:
        """Return a record that must be there."""
        value = self.values[kind, record_id]
        assert isinstance(value, record)
        return value

    def find(self, kind: Kind, record_id: bytes, record: type[R]) -> R | None:
        """Return a record, or None."""
        return self.get(kind, record_id, record) if (kind, record_id) in self.values else None

    def raw(self, kind: Kind, record_id: bytes) -> bytes:
        """Return a value that is bare bytes."""
        value = self.values[kind, record_id]
        assert isinstance(value, bytes)
        return value

    def details(self, task_id: bytes) -> bytes:
        """Return a task's details, empty if there are none."""
        return self.raw(records.DETAILS, task_id) if (records.DETAILS, task_id) in self.values else b""

    def stored(self) -> Stored:
        """Return what a start reads."""
        specs = self.scan(records.SPEC)
        going = self.scan(records.OPEN)
        lost = [i for i in going if (records.WORKFLOW, i) not in self.values]
        return Stored(
            counters=self.find(records.META, b"counters", CountersRecord),
            epoch=self.find(records.META, b"epoch", EpochRecord),
            tokens=list(self.of(records.TOKEN, TokenRecord).items()),
            peaks=list(self.of(records.PEAKS, PeaksRecord).items()),
            lines=list(self.of(records.LINE, LineRecord).items()),
            leases=[
                (i, lease, self.find(records.SPEC, i, SpecRecord), self.details(i))
                for i, lease in self.of(records.LEASE, LeaseRecord).items()
            ],
            newest_id=max([*specs[-1:], *[id_of_key(key) for key in self.scan(records.KEY)[-1:]]], default=b""),
            dead_groups=list(self.of(records.DEAD_GROUP, DeadGroupRecord).items()),
            jobs=list(self.of(records.JOB, JobRecord).items()),
            queues=list(self.of(records.QUEUE, QueueRecord).items()),
            counts=list(self.of(records.COUNTS, CountsRecord).items()),
            paces=list(self.of(records.PACE, PaceRecord).items()),
            drained_agents=list(self.of(records.AGENT, AgentRecord).items()),
            limits=list(self.of(records.LIMIT, LimitRecord).items()),
            buckets=list(self.of(records.BUCKET, BucketRecord).items()),
            age=self.find(records.META, b"age", AgeRecord),
            flows=[self.get(records.WORKFLOW, i, WorkflowRecord) for i in going if i not in lost],
            lost_flows=lost,
            standings=list(self.of(records.STANDING, StandingRecord).items()),
            removed=list(self.of(records.REMOVED, RemovedRecord).items()),
        )


class Scanned(MemoryStore):
    """The disk as a store that can be read."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(lineage=bytes(16), sync=_never)
        self.stage(codec.encode([(kind, record_id, value) for (kind, record_id), value in disk.values.items()]))


async def _never() -> None:
    raise AssertionError("it is only read")


def at_once(work: Coroutine[object, object, T]) -> T:
    """Return what comes of work that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits for something")


@dataclass
class Read:
    """A read that the core wants, in steps: scan, load, hand over; turns may come between any two."""

    wanted: Wanted
    found: list[tuple[bytes, bytes]] | None = None
    commands: list[Command] | None = None


@dataclass
class Waiting:
    """A command that waits for records."""

    command: Command
    respond: Callable[[Answer], None]
    keys: Sequence[Key]


@dataclass
class Unreleased:
    """What a turn is to tell once it is durable."""

    effects: list[Effect]
    answers: list[tuple[Callable[[Answer], None], Answer]] = field(default_factory=list)


class Shell:
    """One server's life after another, over one disk."""

    def __init__(self, *, settings: Settings | None = None, seed: int = 0) -> None:
        self.settings = settings or Settings()
        self.disk = Disk()
        self.mono_ms = MONO_MS
        self.wall_ms = WALL_MS
        self.ids = random.Random(seed)
        self.told: list[Effect] = []
        self.events: list[Event] = []
        self.reads: list[Read] = []
        self.waiting: list[Waiting] = []
        self.continued: list[Command] = []  # while a turn is looked at, what it goes on with
        self.connections = 0
        self._answers: list[tuple[Callable[[Answer], None], Answer]] = []
        self._unreleased: list[Unreleased] = []
        self.seed = seed
        self.coordinator = self._start()

    @property
    def now(self) -> Now:
        """This instant."""
        return Now(self.mono_ms, self.wall_ms)

    @property
    def working(self) -> Working:
        """The working set."""
        return self.coordinator.working

    def _start(self) -> Coordinator:
        coordinator = Coordinator(self.settings, random.Random(self.seed))
        restore(coordinator.working, self.disk.stored(), self.now)
        self.coordinator = coordinator
        return coordinator

    # -- one step at a time -------------------------------------------------------------

    def ask(self, command: Command, respond: Callable[[Answer], None] = lambda _: None) -> None:
        """Apply a command, or note that it waits for records; its answer is released by ``flush``."""
        try:
            answer = self.coordinator.apply(command, self.now)
        except NeedRecords as need:
            self.waiting.append(Waiting(command, respond, need.keys))
        else:
            self._answers.append((respond, answer))

    def feed(self, waiting: Waiting) -> None:
        """Apply a command that waited, with its records as they stand now."""
        self.waiting.remove(waiting)
        try:
            answer = self.coordinator.apply(waiting.command, self.now, self.load(waiting.keys))
        except NeedRecords as need:
            self.waiting.append(Waiting(waiting.command, waiting.respond, need.keys))
        else:
            self._answers.append((waiting.respond, answer))

    def load(self, keys: Iterable[Key]) -> dict[Key, Value | None]:
        """Return records as they stand now, with what this turn has decided."""
        decided = {(kind, record_id): value for kind, record_id, value in self.working.mutations}
        return {key: decided[key] if key in decided else self.disk.values.get(key) for key in keys}

    def turn(self, look: Callable[[Turn], None] = lambda _: None) -> Turn:
        """End the turn: stage its batch, begin its reads; ``look`` is called when memory and disk are the same."""
        turn = self.coordinator.take_turn(self.now)
        before = standing(self.disk.values, turn)
        self.disk.stage(turn.mutations)
        self.events += turn.events
        check_told(before, standing(self.disk.values, turn), turn.events)
        self.continued = [effect.command for effect in turn.effects if isinstance(effect, Continue)]
        look(turn)
        told: list[Effect] = []
        for effect in turn.effects:
            match effect:
                case (
                    WantLine()
                    | WantGate()
                    | WantGates()
                    | WantTimers()
                    | WantFinished()
                    | WantLapsed()
                    | WantFair()
                    | WantTasks()
                    | WantFlow()
                    | WantItems()
                ):
                    self.reads.append(Read(effect))
                case Continue():
                    self.ask(self.continued.pop(0))
                case _:
                    told.append(effect)
        self._unreleased.append(Unreleased(told, self._answers))
        self._answers = []
        return turn

    def flush(self) -> None:
        """Make what is staged durable, and tell what it covers."""
        self.disk.flush()
        unreleased, self._unreleased = self._unreleased, []
        for turn in unreleased:
            for respond, answer in turn.answers:
                respond(answer)
            self.told += turn.effects

    def step(self, read: Read) -> None:
        """Take a read one step on."""
        if read.found is None:
            read.found = self._scan(read.wanted)
        elif read.commands is None:
            read.commands = self._read(read.wanted, read.found)
        else:
            self.reads.remove(read)
            for command in read.commands:
                self.ask(command)

    def crash(self, kept: int = 0) -> None:
        """Cut the power: the first ``kept`` batches that were not durable survive. Start again."""
        self.disk.crash(kept)
        self.reads.clear()
        self.waiting.clear()
        self._unreleased.clear()
        self._answers.clear()
        self.mono_ms += 1_000
        self.wall_ms += 1_000
        self._start()

    @property
    def staged_count(self) -> int:
        """Batches that are not durable."""
        return len(self.disk.undo)

    # -- the same at a stroke -----------------------------------------------------------

    def settle(self) -> None:
        """Turn, read and flush until nothing is left to do."""
        self.turn()
        while self.reads or self.waiting or self.working.mutations or self.working.effects or self.working.moving:
            for read in list(self.reads):
                while read in self.reads:
                    self.step(read)
            for waiting in list(self.waiting):
                self.feed(waiting)
            self.turn()
        self.flush()
        check_invariants(self.working)

    def do(self, command: Command) -> Answer:
        """Apply a command and settle; return its answer."""
        answers: list[Answer] = []
        loaded: dict[Key, Value | None] = {}
        while True:
            try:
                answer = self.coordinator.apply(command, self.now, loaded)
                break
            except NeedRecords as need:
                loaded = self.load(need.keys)
        self._answers.append((answers.append, answer))
        self.settle()
        [given] = answers
        return given

    def pass_ms(self, ms: int) -> None:
        """Let time pass, with a tick as often as the server has one."""
        end = self.mono_ms + ms
        while self.mono_ms < end:
            self.jump_ms(min(TICK_MS, end - self.mono_ms))

    def jump_ms(self, ms: int) -> None:
        """Let time pass unnoticed, then tick once and settle."""
        self.mono_ms += ms
        self.wall_ms += ms
        self.tick()

    def tick(self) -> None:
        """Tick and settle."""
        self.coordinator.tick(self.now)
        self.settle()
        while self.coordinator.next_deadline_mono_ms() <= self.mono_ms:
            self.coordinator.tick(self.now)
            self.settle()

    def take_told(self, kind: type[E]) -> list[E]:
        """Take the effects of a class that were released."""
        found: list[E] = []
        rest: list[Effect] = []
        for effect in self.told:
            if isinstance(effect, kind):
                found.append(effect)
            else:
                rest.append(effect)
        self.told = rest
        return found

    # -- tasks --------------------------------------------------------------------------

    def new_id(self) -> bytes:
        """Make a task id of this instant."""
        [task_id] = make_task_ids(1, self.wall_ms, self.ids.randbytes(10))
        return task_id

    def spec(
        self,
        name: str = "m.f",
        *,
        payload: bytes = b"\x90",
        queue: str = "default",
        priority: int = 0,
        delay_ms: int = 0,
        retry: Retry | None = None,
        key: str = "",
        ttl_ms: int = 0,
        deadline_ms: int = 0,
        at_most_once: bool = False,
        unique: Unique | None = None,
        where: Where | None = None,
        limits: Sequence[Use] = (),
        fifo_key: str = "",
        preemptible: bool = False,
        fair_key: str = "",
        sticky: str = "",
    ) -> TaskSpec:
        """Make a spec with a new id."""
        spec = TaskSpec(self.new_id(), name, payload, queue, priority, delay_ms, retry, key)
        return changed(
            spec,
            ttl_ms=ttl_ms,
            deadline_ms=deadline_ms,
            at_most_once=at_most_once,
            unique=unique,
            where=where,
            limits=list(limits),
            fifo_key=fifo_key,
            preemptible=preemptible,
            fair_key=fair_key,
            sticky=sticky,
        )

    def submit(self, *specs: TaskSpec, owner: str = "client") -> Submitted:
        """Submit and settle."""
        answer = self.do(SubmitTasks(owner, specs))
        assert isinstance(answer, Submitted)
        return answer

    # -- reads --------------------------------------------------------------------------

    def _scan(self, wanted: Wanted) -> list[tuple[bytes, bytes]]:  # noqa: PLR0911 - one case a read
        match wanted:
            case WantLine():
                after = ready_id(wanted.line, wanted.after) if wanted.after >= 0 else b""
                ids = self.disk.scan(records.READY, wanted.line, after)[: wanted.limit]
                return [(i, self.disk.raw(records.READY, i)) for i in ids]
            case WantTimers():
                ids = self.disk.scan(records.TIMER, after=wanted.after)[: wanted.limit]
                return [(i, self.disk.raw(records.TIMER, i)) for i in ids if i <= wanted.until]
            case WantFinished():
                ids = self.disk.scan(records.FINISHED, after=wanted.after)[: wanted.limit]
                return [(i, b"") for i in ids if int.from_bytes(i[:8], "big") < wanted.before_ms]
            case WantLapsed():
                ids = self.disk.scan(records.LAPSE)[: wanted.limit]
                return [(i, b"") for i in ids if record_of(i)[0] <= wanted.until_ms]
            case WantFair():
                ends = self.disk.of(records.FAIR, FairRecord)
                ids = self.disk.scan(records.FAIR, after=wanted.after)[: wanted.limit]
                return [(i, msgspec.msgpack.encode(ends[i])) for i in ids]
            case WantTasks():
                return self._scan_tasks(wanted)
            case WantFlow() | WantItems() | WantGate() | WantGates():
                return []  # read at a stroke, when it is to be read

    def _read(self, wanted: Wanted, found: list[tuple[bytes, bytes]]) -> list[Command]:  # noqa: C901, PLR0911 - one case a read
        match wanted:
            case WantLine():
                return [self._read_line(wanted, found)]
            case WantTimers():
                timers = [(timer, int.from_bytes(length, "big")) for timer, length in found]
                return [RefillTimers(timers, last=len(found) < wanted.limit)]
            case WantFinished():
                ids = [i for i, _ in found]
                if wanted.logs_only:
                    return [SweepLogs(i, after) for i, after in zip(ids, [wanted.after, *ids], strict=False)]
                return [PurgeFinished(i) for i in ids]
            case WantLapsed():
                return [DropLapsed([i for i, _ in found])] if found else []
            case WantFair():
                ends = [(i, codec.decode_as(FairRecord, records.FAIR, i, value)) for i, value in found]
                return [SweepFair(ends, last=len(found) < wanted.limit)]
            case WantTasks():
                return [self._read_tasks(wanted, found)]
            case WantGate():
                return [at_once(Loader(Scanned(self.disk), self.working).read_gate(wanted))]
            case WantGates():
                return [at_once(Loader(Scanned(self.disk), self.working).read_gates(wanted))]
            case WantFlow():
                return [at_once(FlowLoader(Scanned(self.disk)).read_flow(wanted))]
            case WantItems():
                return [at_once(FlowLoader(Scanned(self.disk)).read_items(wanted))]

    def _scan_tasks(self, wanted: WantTasks) -> list[tuple[bytes, bytes]]:
        """Return cursors and ids of what a bulk job is to look at next, as the server's ``select`` does."""
        asked = wanted.filter
        if asked.ids:
            start = int.from_bytes(wanted.after, "big")
            some = asked.ids[start : start + wanted.limit]
            return [((start + 1 + index).to_bytes(8, "big"), task_id) for index, task_id in enumerate(some)]
        if asked.group:
            dead = self.disk.scan(records.DEAD, asked.group, wanted.after)
            old = [i for i in dead if int.from_bytes(i[16:24], "big") <= wanted.until_ms]
            return [(i, i[24:]) for i in old[: wanted.limit]]
        ids = [
            i for i in self.disk.scan(records.SPEC, after=wanted.after) if task_id_unix_ms(TaskId(i)) <= wanted.until_ms
        ]
        return [(i, i) for i in ids[: wanted.limit]]

    def _read_tasks(self, wanted: WantTasks, found: list[tuple[bytes, bytes]]) -> StepJob:
        specs = [(cursor, i, self.disk.find(records.SPEC, i, SpecRecord)) for cursor, i in found]
        fitting = [(cursor, i) for cursor, i, spec in specs if spec is not None and spec_fits(wanted.filter, spec)]
        cursor = found[-1][0] if found else wanted.after
        return StepJob(
            job=wanted.job,
            after=wanted.after,
            found=fitting,
            looked_at=len(found),
            cursor=cursor,
            last=len(found) < wanted.limit,
        )

    def _read_line(self, wanted: WantLine, found: list[tuple[bytes, bytes]]) -> RefillWindow:
        entries: list[LineEntry] = []
        room = wanted.bytes_max
        for index, (ready, task_id) in enumerate(found):
            spec = self.disk.find(records.SPEC, task_id, SpecRecord)
            if spec is None:
                continue  # ended and purged since the scan
            state = self.disk.find(records.STATE, task_id, StateRecord)
            details = self.disk.details(task_id)
            entries.append(LineEntry(int.from_bytes(ready[-RANK_BYTES:], "big"), spec, state, details))
            room -= len(spec.spec.payload) + len(details)
            if room <= 0 and index + 1 < len(found):
                return RefillWindow(wanted.line, entries, last=False)
        return RefillWindow(wanted.line, entries, last=len(found) < wanted.limit)


def _set(values: dict[Key, Value], key: Key, value: Value | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
