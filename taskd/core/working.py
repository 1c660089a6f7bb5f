"""The working set: what is moving, in memory, and what this turn has changed.

Everything here can be built again from the records (``restore``); nothing here is
told to anyone before the turn's mutations are durable.

Invariants:
- ``tasks`` holds exactly the tasks in some window and the leased ones.
- A leased task is in ``agents[task.agent].leases`` under its token.
- ``active`` holds exactly the lines whose window is not empty.
- ``having`` holds exactly the connected agents under each task name that they have.
- ``asking`` holds all agents that have credit, and some that have none any more.
- No agent can have been silent for too long before ``silence_look_mono_ms``.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from taskd.core import records
from taskd.core.commands import NOTHING_LOADED, Charge, Loaded, NeedRecords, Now, TakeGate
from taskd.core.fair import Fairness
from taskd.core.lifecycle import State
from taskd.core.lines import AGEING_MS, ORDER_MASK, RANK_BYTES, Line, Task, is_fair, ready_id, where_of
from taskd.core.peaks import proposal
from taskd.core.records import (
    AgentRecord,
    DeadGroupRecord,
    JobRecord,
    Key,
    LineRecord,
    Mutation,
    Past,
    PeaksRecord,
    QueueRecord,
    StateRecord,
    TokenRecord,
)
from taskd.core.room import Room
from taskd.core.shares import Shares
from taskd.core.standing import Schedules
from taskd.core.yielding import Yielding
from taskd_protocol import limits
from taskd_protocol.limiting import QUEUE_PREFIX, TASK_PREFIX, Limit
from taskd_protocol.resources import CPU, Granted
from taskd_protocol.task import Pool, TaskSpec

if TYPE_CHECKING:
    from taskd.core.drafts import Draft
    from taskd.core.effects import Effect
    from taskd.core.flows import Flow, Happened
    from taskd_protocol.task import Outcome

LineKey = tuple[str, str, bytes, bool]
"""Queue, task name, what its tasks ask of an agent, and whether they have fair keys."""

DAY_MS = 24 * 3600 * 1000

KEY_RETENTION_MS = DAY_MS
"""Well above the hour for which the most patient client repeats a submit."""

FINISHED_IDS_MAX = 500
"""Tasks in one FINISHED record: what one step of the purge takes away."""

FINISHED_BYTES_MAX = 8 * 1024 * 1024
"""What they weigh, roughly: the purge reads their arguments with them."""

RECENT_IDS = 65_536
"""Ids that a resend is looked up in before the disk is asked: a second or more of submits at full speed."""

ASYNC = "async"
"""The kind of a pool whose slots take no CPU each."""

NEVER_MS = 1 << 62
"""Later than any instant."""

EPOCH_BITS = 31
"""A fencing token is ``epoch << 31 | counter``, 63 bits in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may choose."""

    payload_bytes_max: int = limits.PAYLOAD_BYTES_MAX
    retention_age_ms: int = 7 * DAY_MS
    """Finished tasks and their results are kept so long."""
    retention_bytes: int = 4 * 1024**3
    """And while they weigh less in all than this."""
    key_retention_ms: int = KEY_RETENTION_MS
    """Idempotency keys are kept so long after the submit, whatever becomes of their tasks."""
    workflow_nodes_max: int = limits.WORKFLOW_NODES_MAX
    heartbeat_ms: int = limits.HEARTBEAT_MS
    heartbeats_missed: int = limits.HEARTBEATS_MISSED
    gone_ms: int = DAY_MS
    """After so long without a word a lost agent is taken to be gone, with all that it ran."""
    ageing_ms: int = AGEING_MS
    """For how much waiting a task gets ahead by one priority; what waits already keeps its place when this changes."""

    @property
    def silence_ms(self) -> int:
        """After so long an agent is lost."""
        return self.heartbeat_ms * self.heartbeats_missed


@dataclass(slots=True, kw_only=True)
class PoolState:
    """A pool of a connected agent."""

    pool: Pool
    names: frozenset[str]
    credit: int = 0
    slot_cpu: int = 0
    """Thousandths of a CPU that an attempt takes that asks for nothing, if slots are CPUs here."""
    busy: int = 0
    """Leases here that ask for nothing, if so: running, or waiting for a slot."""
    granted: int = 0
    """Leases here that hold resources, if so."""

    @property
    def has_slots(self) -> bool:
        """Each of its slots stands for a CPU, or a share of it."""
        return self.pool.kind != ASYNC


@dataclass(slots=True, kw_only=True)
class Agent:
    """An agent that is connected, or still holds leases; one that lost both is forgotten when it has been silent."""

    name: str
    boot_id: bytes = b""
    """Empty: known from its leases only, since the server's start."""
    connection: int = 0
    """0: not connected."""
    pools: list[PoolState] = field(default_factory=list)
    queues: frozenset[str] = frozenset()
    labels: dict[str, str] = field(default_factory=dict)
    software: str = ""
    marks_starts: bool = True
    """As in ``OfferAgent``; until it has offered something, as if it did."""
    draining: bool = False
    lease_number: int = 0
    """Of the last LEASE on this connection."""
    seen_mono_ms: int = 0
    lost: bool = False
    """It fell silent: what it holds still is to be cancelled, and not known to have ended."""
    leases: dict[int, Task] = field(default_factory=dict)
    """By fencing token."""
    granted_bytes: int = 0
    """Arguments granted since they were last counted: at least those that ``leases`` hold."""
    drained: bool = False
    """A person ordered so."""
    quarantined: bool = False
    streak: list[Charge] = field(default_factory=list)
    """What it has failed since its last success, kept by ``taskd.core.quarantine``."""
    room: Room = field(default_factory=lambda: Room([], []))
    sort: bytes = b""
    """A digest of what it offers beside its name: what one of a sort can run, all can."""
    apart: dict[str, int] = field(default_factory=dict)
    """Leases that are to be apart from others of the same word."""
    holder: int = 0
    """Fencing token of the lease that has all of it; 0: none."""
    held_for: bytes = b""
    """Id of the line whose first task it is kept free for; empty: none."""
    held_flow: tuple[str, bool] = "", False
    """Of that line: tasks of others may not have the agent, however long they have waited."""
    held_rank: int = 0
    """The rank of that task: what comes before it may have the agent still. 0: nothing does, as others were stopped for
    it."""
    ends_mono_ms: int = 0
    """When its machine goes; 0: that is not known."""

    @property
    def takes_leases(self) -> bool:
        """It is granted to, if it has credit."""
        return bool(self.connection) and not (self.draining or self.drained or self.quarantined)

    @property
    def is_reserved(self) -> bool:
        """Others were stopped there for a task, which alone may be granted there now."""
        return bool(self.held_for) and not self.held_rank

    def pool_of(self, name: str) -> int:
        """Return the pool that has the task; -1: none."""
        for index, pool in enumerate(self.pools):
            if name in pool.names:
                return index
        return -1

    @property
    def slots(self) -> int:
        """Attempts that it runs at a time."""
        return sum([pool.pool.slots for pool in self.pools])

    def has_free_slot(self, name: str) -> bool:
        """Tell whether an attempt that asks for something would start at once in its pool."""
        pool = self.pools[self.pool_of(name)]
        return not pool.has_slots or pool.granted + pool.busy < pool.pool.slots

    def runs_plain(self, pool: PoolState) -> bool:
        """Tell whether what asks for nothing could run in a pool beside what holds CPUs."""
        return not pool.slot_cpu or self.room.total.get(CPU, 0) - self.room.held_cpu >= pool.slot_cpu

    @property
    def busy_cpu(self) -> int:
        """Thousandths of a CPU that attempts take that asked for nothing."""
        return sum([min(pool.busy, pool.pool.slots) * pool.slot_cpu for pool in self.pools if pool.busy])

    @property
    def cpu_left(self) -> int:
        """What tasks that ask for CPUs may still have."""
        return self.room.cpu_left(self.busy_cpu)

    def lives_for(self, life_ms: int, now: Now) -> bool:
        """Tell whether its machine has so long left, as far as is known."""
        return not self.ends_mono_ms or self.ends_mono_ms - now.mono_ms >= life_ms

    def can_run(self, queue: str, name: str) -> bool:
        """Tell whether it has the task and serves the queue."""
        return (not self.queues or queue in self.queues) and any(name in pool.names for pool in self.pools)


@dataclass(slots=True, kw_only=True)
class Quarantine:
    """An agent that is granted nothing, since it failed what it took."""

    boot_id: bytes
    tasks: dict[bytes, None]
    """What it had failed."""
    cleared: dict[bytes, None] = field(default_factory=dict)
    """Of those, what has failed elsewhere since."""


class Gauge:
    """A limit, and how far it is used; kept by ``taskd.core.limiting``.

    Attributes:
        limit: What holds.
        running: Leases that it counts.
        level: Of its bucket, at ``at_mono_ms``: tokens times ``period_ms``.
    """

    __slots__ = ("at_mono_ms", "level", "limit", "running")

    def __init__(self, limit: Limit, now_mono_ms: int) -> None:
        self.limit = limit
        self.running = 0
        self.level = 0
        self.at_mono_ms = now_mono_ms

    @property
    def full(self) -> int:
        """The level of a full bucket."""
        return self.limit.burst_tokens * self.limit.period_ms

    @property
    def slots_left(self) -> int:
        """How many more leases it allows at a time."""
        return self.limit.concurrency - self.running if self.limit.concurrency else 1 << 62

    def level_at(self, mono_ms: int) -> int:
        """Return the level at an instant that is no earlier than the last one."""
        return min(self.full, self.level + (mono_ms - self.at_mono_ms) * self.limit.tokens)


class Gate:
    """What is in memory of a gate; kept by ``taskd.core.gates``.

    Attributes:
        limit: Of what limit it is; empty: of a ``fifo_key``; None: not known yet.
        held: Places that tasks hold, of those counted so far.
        counted_to: The last HELD id that was counted, while not all are.
        empty: Nothing is parked on disk.
        floor: Nothing is parked on disk with a lower rank: what has left from there is not stepped over again.
        reading: A read is under way; what has changed since it was asked for is noted.
        late: Ranks parked since.
        gone: Ranks that have left since.
        given_back: Tasks that have given their places back since.
        answer: What was read; None: that has not come.
    """

    __slots__ = (
        "answer",
        "counted_to",
        "empty",
        "floor",
        "given_back",
        "gone",
        "held",
        "id",
        "is_counted",
        "late",
        "limit",
        "reading",
    )

    def __init__(self, gate_id: bytes) -> None:
        self.id = gate_id
        self.limit: str | None = None
        self.held = self.floor = 0
        self.counted_to = b""
        self.is_counted = self.empty = self.reading = False
        self.answer: TakeGate | None = None
        self.late: dict[int, None] = {}
        self.gone: dict[int, None] = {}
        self.given_back: dict[bytes, None] = {}


class Gates:
    """All of them that are in memory; kept by ``taskd.core.gates``.

    Attributes:
        known: By id.
        touched: Those at which something has happened in this turn.
        parking: By gate and rank, what this turn has parked.
        walks: How often all gates that something waits at were begun to be looked at.
        walk_after: The gate beyond which the next ones are to be found; None: that is under way, or all are.
        walking: Those that were found and are not looked at yet.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, Gate] = {}
        self.touched: dict[bytes, None] = {}
        self.parking: dict[bytes, dict[int, tuple[Task, StateRecord | None]]] = {}
        self.walks = 0
        self.walk_after: bytes | None = None
        self.walking: dict[bytes, None] = {}


class RecentIds:
    """Knows every stored task id above ``floor``, so that a new task needs no look at the disk.

    In two generations: when the younger is full the older is forgotten, and the floor rises to its highest.
    """

    def __init__(self, floor: bytes) -> None:
        self.floor = floor
        self._older: set[bytes] = set()
        self._younger: set[bytes] = set()

    def may_be_stored(self, ids: list[bytes]) -> set[bytes]:
        """Return those for which the disk must be asked; of a list, as that takes a third of asking for each."""
        if min(ids, default=b"") > self.floor and self._younger.isdisjoint(ids) and self._older.isdisjoint(ids):
            return set()
        return {i for i in ids if i <= self.floor or i in self._younger or i in self._older}

    def add(self, ids: list[bytes]) -> None:
        """Note new tasks."""
        self._younger.update(ids)
        if len(self._younger) >= RECENT_IDS:
            self.floor = max(self.floor, max(self._older, default=b""))
            self._older, self._younger = self._younger, set()


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
        )


class Rooms:
    """Which agents have room, kept by ``taskd.core.choosing``.

    Attributes:
        growth: Rises whenever some agent has, or may have, room that it had not before.
        grown: Which, since they were last looked at.
        looked_at: ``growth`` then.
        cpu_left: What each that is granted to had left of its CPUs then; it may have less by now.
        by_cpu_left: The same, sorted.
        held: Agents that are kept free, by the id of the line for whose first task.
        next_keep_mono_ms: Before, none is chosen to be kept free.
    """

    def __init__(self) -> None:
        self.growth = 0
        self.grown: dict[str, None] = {}
        self.looked_at = 0
        self.cpu_left: dict[str, int] = {}
        self.by_cpu_left: list[tuple[int, str]] = []
        self.held: dict[bytes, str] = {}
        self.next_keep_mono_ms = 0

    def note(self, name: str) -> None:
        """Note an agent that has more room than it had, or may have."""
        self.growth += 1
        self.grown[name] = None

    def forget(self, name: str) -> None:
        """Note an agent that is gone."""
        if name in self.cpu_left:
            self.grown[name] = None  # its place is taken away when they are looked at
        else:
            self.grown.pop(name, None)


class Timers:
    """The timers in memory, kept by ``taskd.core.timers``.

    Attributes:
        cursor: TIMER id up to which all stored timers are here.
        near: When each is due, by the clock that never steps; by TIMER id.
        heap: The same, soonest first, with entries of timers that were stopped.
        short: The disk may hold more, beyond the cursor, that are due within the horizon.
        reading: A refill is under way, up to ``reading_until``.
        cancelled: Stopped while it is.
        wall_ahead_ms: By how much the wall clock is, or ever was, ahead of the one that never steps.
    """

    def __init__(self) -> None:
        self.cursor = b""
        self.near: dict[bytes, int] = {}
        self.heap: list[tuple[int, bytes]] = []
        self.short = False
        self.reading = False
        self.reading_until = b""
        self.cancelled: set[bytes] = set()
        self.next_refill_mono_ms = 0
        self.wall_ahead_ms = 0


class Working:
    """See the module's docstring."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:  # noqa: PLR0915 - one statement a part: the table itself
        self.settings = settings
        self.rng = rng
        self.tasks: dict[bytes, Task] = {}
        self.lines: dict[LineKey, Line] = {}
        self.lines_by_id: dict[bytes, Line] = {}
        self.active: dict[bytes, Line] = {}
        self.agents: dict[str, Agent] = {}
        self.having: dict[str, dict[str, Agent]] = {}
        self.offers = 0  # rises whenever what some agent has changes
        self.asking: dict[str, Agent] = {}
        self.silence_look_mono_ms = 0
        self.tokens: dict[str, TokenRecord] = {}
        self.dead_groups: dict[bytes, DeadGroupRecord] = {}
        self.jobs: dict[bytes, JobRecord] = {}
        self.queues: dict[str, QueueRecord] = {}
        self.shares = Shares()
        self.limits: dict[str, Gauge] = {}
        self.gates = Gates()
        self.limits_wake_mono_ms = NEVER_MS  # when a line may go on that the last pass found at its rate
        self.fair = Fairness()
        self.drained_agents: dict[str, AgentRecord] = {}
        self.quarantined: dict[str, Quarantine] = {}
        self.rooms = Rooms()
        self.yielding = Yielding()
        self.peaks: dict[str, PeaksRecord] = {}
        self.timers = Timers()
        self.schedules = Schedules()
        self.counters = Counters()
        self.recent = RecentIds(b"")
        self.epoch = 0
        self.lives: list[tuple[int, int]] = []  # see EpochRecord
        self.lease_counter = 0
        self.mutations: list[Mutation] = []
        self.effects: list[Effect] = []
        self.ended: list[Outcome] = []
        self.ended_bytes = 0  # what those of ``ended`` weigh that succeeded
        self.ended_otherwise_bytes = 0  # and the others
        self.first_order = 0  # ``next_order`` when this turn began: what has no lower ``end_order`` ended in it
        self.flows: dict[bytes, Flow] = {}
        self.lost_flows: dict[bytes, str] = {}
        self.drafts: dict[bytes, Draft] = {}
        self.unread: dict[bytes, Flow] = {}
        self.reads = 0
        self.moving: dict[bytes, Flow] = {}
        self.happened: list[Happened] = []
        self.succeeded: dict[bytes, dict[bytes, bytes]] = {}  # tasks of workflows, by their stem, with their results
        self.told: list[Outcome] = []
        self.dirty_flows: dict[bytes, Flow] = {}
        self.dirty_lines: dict[bytes, Line] = {}
        self.entered: list[tuple[bytes, list[Task]]] = []  # by line id, tasks that this turn submitted to it
        self.entered_from = 0  # the lowest of their orders
        self.entered_and_left: set[int] = set()  # the ranks of those that have left it since
        self.dirty_dead_groups: dict[bytes, None] = {}
        self.counters_dirty = False
        self.next_purge_mono_ms = self.next_lapse_mono_ms = 0
        self.ticked_mono_ms: int | None = None
        self.looked_at = self.next_look_mono_ms = 0  # at how many of ``active``, and when again, see ``holdups``

    # -- records ------------------------------------------------------------------------

    def put(self, kind: records.Kind, record_id: bytes, record: records.Record | bytes) -> None:
        """Have the turn write a record."""
        self.mutations.append((kind, record_id, record))

    def delete(self, kind: records.Kind, record_id: bytes) -> None:
        """Have the turn delete a record."""
        self.mutations.append((kind, record_id, None))

    @staticmethod
    def need(keys: list[Key], loaded: Loaded = NOTHING_LOADED) -> None:
        """Refuse to go on before these records are loaded.

        Raises:
            NeedRecords: Some are not.
        """
        if not all(key in loaded for key in keys):
            raise NeedRecords(keys)

    def tells_all_of(self, task_id: bytes) -> bool:
        """Tell whether memory has all there is of a task that goes on: not of one that waits for another attempt.

        Which agent had it last, when and under which token stands in its state record alone.
        """
        task = self.tasks.get(task_id)
        return task is not None and (task.fresh or bool(task.token))

    def is_draining(self, queue: str) -> bool:
        """Tell whether a queue takes no new tasks."""
        record = self.queues.get(queue)
        return record is not None and record.draining

    def is_paused(self, queue: str) -> bool:
        """Tell whether nothing of a queue is leased."""
        record = self.queues.get(queue)
        return record is not None and record.paused

    def weight_of(self, queue: str) -> int:
        """Return a queue's weight."""
        record = self.queues.get(queue)
        return 1 if record is None else record.weight

    # -- leases -------------------------------------------------------------------------

    def forget(self, agent: Agent) -> None:
        """Let go of an agent that is gone and holds nothing."""
        del self.agents[agent.name]
        self.rooms.forget(agent.name)

    def note_room(self, agent: Agent) -> None:
        """Note that an agent has room, or may have, that it had not before: what is stuck may look at it again."""
        self.rooms.note(agent.name)

    def note_leased(self, agent: Agent, task: Task, granted: Granted) -> None:
        """Take what a lease holds from its agent's room, and count it."""
        agent.room.take(granted)
        self.note_held(agent, task, granted)

    @staticmethod
    def note_held(agent: Agent, task: Task, granted: Granted) -> None:
        """Count a lease that holds resources among what its agent does."""
        if task.pool >= 0:
            agent.pools[task.pool].granted += 1
        if granted.exclusive_host:
            agent.holder = task.token
        where = task.spec.rules.where
        if where is not None and where.apart:
            agent.apart[where.apart] = agent.apart.get(where.apart, 0) + 1

    def note_gone(self, agent: Agent, tasks: Iterable[Task]) -> None:
        """Count leases out that are gone from their agent: what they held is free."""
        if self.limits:
            tasks = list(tasks)
            self._note_unlimited(tasks)
        for task in tasks:
            if task.granted is not None:
                self._give_back(agent, task, task.granted)
            elif task.pool >= 0:
                if task.pool < len(agent.pools):  # none are left of an agent whose connection is gone
                    agent.pools[task.pool].busy -= 1
                task.pool = -1
        self.rooms.note(agent.name)

    def _note_unlimited(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            for limited in (QUEUE_PREFIX + task.spec.queue, TASK_PREFIX + task.spec.name):
                gauge = self.limits.get(limited)
                if gauge is not None:
                    gauge.running -= 1

    @staticmethod
    def _give_back(agent: Agent, task: Task, granted: Granted) -> None:
        agent.room.give_back(granted)
        if 0 <= task.pool < len(agent.pools):
            agent.pools[task.pool].granted -= 1
        if agent.holder == task.token:
            agent.holder = 0
        where = task.spec.rules.where
        if where is not None and where.apart in agent.apart:
            agent.apart[where.apart] -= 1
            if not agent.apart[where.apart]:
                del agent.apart[where.apart]
        task.granted, task.pool = None, -1

    # -- lines --------------------------------------------------------------------------

    def line(self, queue: str, name: str, where: bytes, *, fair: bool) -> Line:
        """Return the line, opened if need be."""
        line = self.lines.get((queue, name, where, fair))
        if line is None:
            line = Line(queue, name, where, fair=fair)
            self.adopt_line(line)
        return line

    def adopt_line(self, line: Line) -> None:
        """Take a line in."""
        self.lines[line.queue, line.name, line.where, line.fair] = line
        self.lines_by_id[line.id] = line
        if line.learns:
            line.ask_for_memory(proposal(self.peaks.get(line.name)))

    def enter_line(self, task: Task) -> None:
        """Put a task into its line, in memory and on disk; its state is the caller's to write and count."""
        spec = task.spec
        line = self.line(spec.queue, spec.name, where_of(spec, task.past), fair=is_fair(spec))
        self.put(records.READY, ready_id(line.id, task.rank), task.spec.id)
        if line.add(task):
            self.tasks[task.spec.id] = task
            self.active[line.id] = line
            self._spill(line)
        else:
            self.tasks.pop(task.spec.id, None)
        self.dirty_lines[line.id] = line

    def enter_fresh(self, queue: str, name: str, where: bytes, tasks: list[Task], *, fair: bool = False) -> None:
        """Put new tasks, of rising rank, into one line, in memory and on disk, and count them.

        Their entries are written when the turn ends: of those that were granted in it, never.
        """
        line = self.line(queue, name, where, fair=fair)
        line_id = line.id
        self.entered.append((line_id, tasks))
        count = line.extend(tasks)
        if count:
            self.tasks.update({task.spec.id: task for task in tasks[:count]})
            self.active[line_id] = line
            self._spill(line)
        self.dirty_lines[line_id] = line
        self.counters.move(queue, None, State.READY, len(tasks))

    def _spill(self, line: Line) -> None:
        if line.overfull:
            for spilled in line.spill():
                del self.tasks[spilled.spec.id]

    def leave_line(self, spec: TaskSpec, past: Past | None, rank: int) -> None:
        """Take a task out of the middle of its line, in memory and on disk."""
        line = self.line(spec.queue, spec.name, where_of(spec, past), fair=is_fair(spec))
        self.delete(records.READY, ready_id(line.id, rank))
        if self.entered and rank & ORDER_MASK >= self.entered_from:
            self.entered_and_left.add(rank)
        task = line.remove(rank)
        if task is not None:
            self.tasks.pop(task.spec.id, None)
        if not line.window_count:
            self.active.pop(line.id, None)
        self.dirty_lines[line.id] = line

    # -- the end of a turn --------------------------------------------------------------

    def close_turn(self, wall_ms: int) -> None:
        """Write what is written once a turn: new entries, changed lines, finished tasks, counters."""
        self._write_entries()
        self.fair.write(self.mutations)
        for line in self.dirty_lines.values():
            if line.ready:
                self.put(records.LINE, line.id, LineRecord(line.queue, line.name, line.ready, line.where, line.fair))
            else:
                self.delete(records.LINE, line.id)
                if not line.refilling:  # an idle line costs no memory
                    del self.lines_by_id[line.id], self.lines[line.queue, line.name, line.where, line.fair]
        self.dirty_lines.clear()
        for fingerprint in self.dirty_dead_groups:
            group = self.dead_groups.get(fingerprint)
            if group is None:
                self.delete(records.DEAD_GROUP, fingerprint)
            else:
                self.put(records.DEAD_GROUP, fingerprint, group)
        self.dirty_dead_groups.clear()
        for flow in self.dirty_flows.values():
            flow.record = replace(flow.record, counts=flow.standing)
            self.put(records.WORKFLOW, flow.id, flow.record)
        self.dirty_flows.clear()
        if self.ended:
            self._note_finished(wall_ms)
        if self.counters_dirty:
            self.put(records.META, b"counters", self.counters.record())
            self.counters_dirty = False
        self.first_order = self.counters.next_order

    def _write_entries(self) -> None:
        ready, left = records.READY, self.entered_and_left
        for line_id, tasks in self.entered:
            self.mutations += [
                (ready, line_id + task.rank.to_bytes(RANK_BYTES, "big"), task.spec.id)
                for task in tasks
                if not task.token and task.rank not in left
            ]
        self.entered = []
        left.clear()

    def enter_finished(self, wall_ms: int, ids: list[bytes], stored_bytes: int) -> None:
        """Have retention find these, as if they had ended at an instant; what they weigh is the caller's to count."""
        finished_id = wall_ms.to_bytes(8, "big") + self.counters.next_order.to_bytes(8, "big")
        self.counters.next_order += 1
        self.put(records.FINISHED, finished_id, records.FinishedRecord(ids, stored_bytes))

    def _note_finished(self, wall_ms: int) -> None:
        ids = [ended.id for ended in self.ended]
        each = self.ended_bytes // len(ids)
        each_read = (self.ended_bytes + self.ended_otherwise_bytes) // len(ids)
        count = max(1, min(FINISHED_IDS_MAX, FINISHED_BYTES_MAX // (each_read or 1)))
        for start in range(0, len(ids), count):
            some = ids[start : start + count]
            self.enter_finished(wall_ms, some, each * len(some))
            self.counters.finished_bytes += each * len(some)
        self.ended = []
        self.ended_bytes = self.ended_otherwise_bytes = 0
        self.counters_dirty = True
