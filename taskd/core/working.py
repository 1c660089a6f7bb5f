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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from taskd.core import records
from taskd.core.affinity import Affinity
from taskd.core.bounds import Bucket, Gates, Gauge
from taskd.core.commands import NOTHING_LOADED, Loaded, NeedRecords
from taskd.core.counts import Counters
from taskd.core.events import SUBMITTED, TasksMoved
from taskd.core.fair import Fairness
from taskd.core.fleet import Agent, Quarantine, Rooms
from taskd.core.lifecycle import State
from taskd.core.lines import (
    AGEING_MS,
    ORDER_MASK,
    RANK_BYTES,
    WINDOWS_TASKS_MAX,
    Line,
    Task,
    is_fair,
    ready_id,
    where_of,
)
from taskd.core.noting import TOLD
from taskd.core.peaks import proposal
from taskd.core.recent import RecentIds
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
    TokenRecord,
)
from taskd.core.shares import Shares
from taskd.core.slots import Slots
from taskd.core.standing import Schedules
from taskd.core.yielding import Yielding
from taskd_protocol import limits
from taskd_protocol.limiting import QUEUE_PREFIX, TASK_PREFIX
from taskd_protocol.resources import Granted
from taskd_protocol.task import TaskSpec

if TYPE_CHECKING:
    from taskd.core.drafts import Draft
    from taskd.core.effects import Effect
    from taskd.core.events import Event
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
    log_retention_age_ms: int = 7 * DAY_MS
    """What ended tasks have said is kept so long: no longer than the tasks."""
    log_retention_bytes: int = 2 * 1024**3
    """And while it weighs less in all than this."""
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
        self.asking: dict[str, Agent] = {}
        self.silence_look_mono_ms = 0
        self.tokens: dict[str, TokenRecord] = {}
        self.dead_groups: dict[bytes, DeadGroupRecord] = {}
        self.jobs: dict[bytes, JobRecord] = {}
        self.queues: dict[str, QueueRecord] = {}
        self.shares = Shares()
        self.limits: dict[str, Gauge] = {}
        self.gates = Gates()
        self.spent: dict[bytes, Bucket | Gauge] = {}  # by BUCKET id, of which this turn has taken tokens
        self.age_ahead_ms = 0  # of the clock that never steps: by how much the store's age is, see ``buckets``
        self.limits_wake_mono_ms = NEVER_MS  # when a line may go on that the last pass found at its rate
        self.fair = Fairness()
        self.drained_agents: dict[str, AgentRecord] = {}
        self.quarantined: dict[str, Quarantine] = {}
        self.rooms, self.slots = Rooms(), Slots()
        self.yielding, self.affinity = Yielding(), Affinity()
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
        self.events: list[Event] = []
        self.noted: dict[Key, records.Record | bytes | None] = {}  # records of kinds that are events, see ``events``
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
        self.refilling = 0  # tasks that are being read for windows
        self.entered: list[tuple[bytes, list[Task]]] = []  # by line id, tasks that this turn submitted to it
        self.entered_from = 0  # the lowest of their orders
        self.entered_and_left: set[int] = set()  # the ranks of those that have left it since
        self.dirty_dead_groups: dict[bytes, None] = {}
        self.counters_dirty = False
        self.next_purge_mono_ms = self.next_lapse_mono_ms = 0
        self.ticked_mono_ms: int | None = None
        self.looked_at = self.next_look_mono_ms = 0  # at how many of ``active``, and when again, see ``holdups``

    # -- events -------------------------------------------------------------------------

    def tell(
        self,
        what: str,
        spec: TaskSpec,
        agent: str = "",
        attempt: int = 0,
        code: str = "",
        *,
        spans_ms: Sequence[int] = (),
    ) -> None:
        """Note what has happened to one task."""
        self.events.append(
            TasksMoved(what, spec.queue, spec.name, agent, attempt, [spec.id], list(spans_ms), code, spec.trace_id)
        )

    # -- records ------------------------------------------------------------------------

    def put(self, kind: records.Kind, record_id: bytes, record: records.Record | bytes) -> None:
        """Have the turn write a record."""
        self.mutations.append((kind, record_id, record))
        if kind in TOLD:
            self.noted[kind, record_id] = record

    def delete(self, kind: records.Kind, record_id: bytes) -> None:
        """Have the turn delete a record."""
        self.mutations.append((kind, record_id, None))
        if kind in TOLD:
            self.noted[kind, record_id] = None

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

    @property
    def is_lean(self) -> bool:
        """Windows, and leases, hold as many tasks as they are to hold together."""
        return len(self.tasks) + self.refilling >= WINDOWS_TASKS_MAX

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
        if line.add(task, lean=self.is_lean):
            self.tasks[task.spec.id] = task
            self.note_head(line)
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
        count = line.extend(tasks, lean=self.is_lean)
        if count:
            self.tasks.update({task.spec.id: task for task in tasks[:count]})
            self.note_head(line)
            self._spill(line)
        self.dirty_lines[line_id] = line
        self.counters.move(queue, None, State.READY, len(tasks))
        self.events.append(TasksMoved(SUBMITTED, queue, name, "", 0, [task.spec.id for task in tasks], []))

    def note_head(self, line: Line) -> None:
        """Note that another task may be the first of a line's window, or that there is none any more."""
        if line.window_count:
            self.active[line.id] = line
            self.shares.enter(line, self.weight_of(line.queue))
        elif self.active.pop(line.id, None) is not None:
            self.shares.leave(line)

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
        self.note_head(line)
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
            self.counters.write(self.mutations)
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
