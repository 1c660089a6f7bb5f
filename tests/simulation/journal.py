"""The journal: what is durable, batch by batch, as a reader of the server's disk would see it.

Everything that must hold of tasks over time is decided from here: what was staged and lost
with a crash was never told to anyone, and does not count.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import structs

from taskd.core import records
from taskd.core.events import EventsRecord
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.records import AgentRecord, EpochRecord, LeaseRecord, LimitRecord, QueueRecord, SpecRecord, StateRecord
from taskd.core.schedule_records import ScheduleRecord, StandingRecord
from taskd.core.workflow_records import NodeRecord, NodesRecord, WorkflowRecord
from taskd.store import codec
from taskd.store.interface import Write
from taskd.store.keys import ID_START
from taskd_protocol.ids import TASK_ID_BYTES
from taskd_protocol.workflow import Node

if TYPE_CHECKING:
    from taskd_protocol.limiting import Limit

R = TypeVar("R")

_SCHEDULE, _STANDING = records.SCHEDULE[0], records.STANDING[0]
_FLOW, _NODES, _NODE, _RESULT = records.WORKFLOW[0], records.NODES[0], records.NODE[0], records.RESULT[0]
_SIGNAL, _EVENTS = records.SIGNAL[0], records.EVENTS[0]
_FLOWS = {_FLOW, _NODES, _NODE, _RESULT, _SIGNAL}
_SPEC, _LEASE, _STATE, _META = records.SPEC[0], records.LEASE[0], records.STATE[0], records.META[0]


class Standing(NamedTuple):
    """What is stored of one task."""

    spec: SpecRecord | None = None
    lease: LeaseRecord | None = None
    state: StateRecord | None = None

    @property
    def name(self) -> str:
        """Its state; empty when it is not stored."""
        if self.spec is None:
            return ""
        if self.lease is not None:
            return State.CANCELLING if self.lease.cancelling else State.RUNNING
        return State.READY if self.state is None else self.state.state

    @property
    def has_ended(self) -> bool:
        """It is terminal."""
        return self.state is not None and self.state.state in TERMINAL

    @property
    def end(self) -> StateRecord | None:
        """Its state record, less what goes away bit by bit before it does."""
        return None if self.state is None else structs.replace(self.state, logs=0, log_bytes=0)

    @property
    def attempt(self) -> int:
        """Leases granted so far."""
        holder = self.lease or self.state
        return 0 if holder is None else holder.attempt


_ORDERS = {records.AGENT[0], records.QUEUE[0]}
_BOUNDS = {records.LIMIT[0], records.QUEUE[0]}

NOTHING = Standing()

_EPOCH = b"epoch"


class Reader(Protocol):
    """Whoever follows the journal."""

    def kept(self, spec: SpecRecord) -> None:
        """A task is stored in this batch; told before anything else of it."""

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        """A new lease is durable; ``over``: one that was never taken away before."""

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        """A batch has changed what is stored of a task."""

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        """A batch has changed what is stored of a workflow."""

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        """A batch has changed what is stored of a node that is no task, or whose task is void."""

    def ordered(self, kind: str, name: str, *, drained: bool) -> None:
        """What a person ordered of a queue or an agent is durable."""

    def journaled(self, number: int, record: EventsRecord | None) -> None:
        """A batch holds this record of the server's own journal; None: it is kept no longer."""

    def committed(self) -> None:
        """A batch is durable, and all that it changed was told."""


class Journal:
    """See the module's docstring.

    Attributes:
        tasks: What is durable of each task that is stored.
        flows: Of each workflow that is stored.
        graphs: Nodes of each, in order.
        nodes: Of each node that is no task, or whose task is void.
        signals: Values of those that came, by workflow and name.
        results: Those that do not lie with the end of their tasks.
        begun: Of each schedule the number of its first decision under the timing that it has.
        leases: Every lease that ever was durable: (task, attempt, agent) by token.
        epoch: Of the server's life that wrote last.
        limits: Those that hold, by name.
        paused: Queues of which nothing begins.
    """

    def __init__(self, reader: Reader) -> None:
        self.tasks: dict[bytes, Standing] = {}
        self.flows: dict[bytes, WorkflowRecord] = {}
        self.graphs: dict[bytes, list[Node]] = {}
        self.nodes: dict[bytes, NodeRecord] = {}
        self.signals: dict[bytes, bytes] = {}
        self.results: dict[bytes, bytes] = {}
        self.leases: dict[int, tuple[bytes, int, str]] = {}
        self.begun: dict[str, int] = {}
        self.epoch = 0
        self.limits: dict[str, Limit] = {}
        self.paused: set[str] = set()
        self._timings: dict[str, tuple[object, int]] = {}
        self._reader = reader
        self._staged: deque[tuple[int, Sequence[Write]]] = deque()

    def stage(self, sequence: int, writes: Sequence[Write]) -> None:
        """Take note of a batch that is not durable."""
        self._staged.append((sequence, writes))

    @property
    def staged_count(self) -> int:
        """Batches that are not durable."""
        return len(self._staged)

    def commit(self, sequence: int) -> None:
        """Batches up to this one are durable."""
        while self._staged and self._staged[0][0] <= sequence:
            self._apply(self._staged.popleft()[1])

    def drop(self) -> int:
        """What is not durable is lost; return how many batches that is."""
        count = len(self._staged)
        self._staged.clear()
        return count

    def find(self, task_id: bytes) -> Standing:
        """Return what is durable of a task."""
        return self.tasks.get(task_id, NOTHING)

    def signals_of(self, workflow: bytes) -> list[str]:
        """Return the names of the signals that nodes of a workflow wait for."""
        return list(dict.fromkeys(node.signal for node in self.graphs.get(workflow, ()) if node.signal))

    def _apply(self, writes: Sequence[Write]) -> None:  # noqa: C901, PLR0912 - one case a kind of record
        last = {key: value for key, value in writes if key[1] in _ORDERS}
        orders = [self._order(key, value) for key, value in last.items()]
        for kind, name, drained in orders:
            if not drained:  # what the turn granted after it is in the same batch
                self._reader.ordered(kind, name, drained=False)
        changed: dict[bytes, Standing] = {}
        flowed: list[Write] = []
        self._tell_kept(writes)
        for key, value in writes:
            if key[1] in {_SPEC, _LEASE, _STATE}:
                self._change(changed, key, value)
            elif key[1] in _FLOWS:
                flowed.append((key, value))
            elif key[1] in _BOUNDS:
                self._bound(key[1], key[ID_START:].decode(), value)
            elif key[1] == _EVENTS:
                self._journal(key[ID_START:], value)
            elif key[1] in {_SCHEDULE, _STANDING}:
                self._schedule(key[1], key[ID_START:], value)
            elif key[1] == _META and key[ID_START:] == _EPOCH and value is not None:
                self.epoch = codec.decode_as(EpochRecord, records.META, _EPOCH, value).epoch
        for key, value in flowed:
            self._flow(key[1], key[ID_START:], value)
        for task_id, after in changed.items():
            before = self.tasks.get(task_id, NOTHING)
            if after == NOTHING:
                self.tasks.pop(task_id, None)
            else:
                self.tasks[task_id] = after
            self._reader.moved(task_id, before, after)
        for kind, name, drained in orders:
            if drained:
                self._reader.ordered(kind, name, drained=True)
        self._reader.committed()

    def _journal(self, record_id: bytes, value: bytes | None) -> None:
        record = None if value is None else codec.decode_as(EventsRecord, records.EVENTS, record_id, value)
        self._reader.journaled(int.from_bytes(record_id, "big"), record)

    def _bound(self, kind: int, name: str, value: bytes | None) -> None:
        """Take in a limit, or whether a queue is paused."""
        if kind == records.LIMIT[0]:
            if value is None:
                self.limits.pop(name, None)
            else:
                self.limits[name] = codec.decode_as(LimitRecord, records.LIMIT, name.encode(), value).limit
        elif value is not None and codec.decode_as(QueueRecord, records.QUEUE, name.encode(), value).paused:
            self.paused.add(name)
        else:
            self.paused.discard(name)

    def _tell_kept(self, writes: Sequence[Write]) -> None:
        for key, value in writes:
            if key[1] == _SPEC and value is not None:
                self._reader.kept(codec.decode_as(SpecRecord, records.SPEC, key[ID_START:], value))

    def _schedule(self, kind: int, record_id: bytes, value: bytes | None) -> None:
        """Note from which decision on a schedule has its timing.

        In a batch come all changes of what schedules are, then all of where they stand: the first of these that is
        under the timing of now was written with it.
        """
        name = record_id.decode()
        if value is None:
            self._timings.pop(name, None)
            self.begun.pop(name, None)
        elif kind == _SCHEDULE:
            record = codec.decode_as(ScheduleRecord, records.SCHEDULE, record_id, value)
            timing = (record.schedule.timing, record.created_at_ms)
            if self._timings.get(name) != timing:
                self._timings[name] = timing
                self.begun.pop(name, None)
        elif name not in self.begun:
            standing = codec.decode_as(StandingRecord, records.STANDING, record_id, value)
            _, begun_ms = self._timings.get(name, (None, -1))
            if standing.begun_ms == begun_ms:
                self.begun[name] = standing.sequence

    def _flow(self, kind: int, record_id: bytes, value: bytes | None) -> None:
        """Take in what is written of a workflow, beside its tasks."""
        if kind == _FLOW:
            flow = None if value is None else codec.decode_as(WorkflowRecord, records.WORKFLOW, record_id, value)
            before = _put(self.flows, record_id, flow)
            if flow is None:
                self.graphs.pop(record_id, None)
            self._reader.flow_moved(record_id, before, flow)
        elif kind == _NODE:
            node = None if value is None else codec.decode_as(NodeRecord, records.NODE, record_id, value)
            self._reader.node_moved(record_id, _put(self.nodes, record_id, node), node)
        elif kind in {_RESULT, _SIGNAL}:
            _put(self.results if kind == _RESULT else self.signals, record_id, value)
        elif value is not None:
            part = codec.decode_as(NodesRecord, records.NODES, record_id, value)
            nodes = [msgspec.msgpack.decode(packed, type=Node) for packed in part.nodes]
            self.graphs.setdefault(record_id[:TASK_ID_BYTES], []).extend(nodes)

    @staticmethod
    def _order(key: bytes, value: bytes | None) -> tuple[str, str, bool]:
        record_id = key[ID_START:]
        if key[1] == records.AGENT[0]:
            drained = value is not None and codec.decode_as(AgentRecord, records.AGENT, record_id, value).drained
            return "agent", record_id.decode(), drained
        drained = value is not None and codec.decode_as(QueueRecord, records.QUEUE, record_id, value).draining
        return "queue", record_id.decode(), drained

    def _change(self, changed: dict[bytes, Standing], key: bytes, value: bytes | None) -> None:
        """Lay one write over what is known of its task."""
        task_id = key[ID_START:]
        standing = changed.get(task_id)
        if standing is None:
            standing = self.tasks.get(task_id, NOTHING)
        if key[1] == _SPEC:
            spec = None if value is None else codec.decode_as(SpecRecord, records.SPEC, task_id, value)
            changed[task_id] = standing._replace(spec=spec)
        elif key[1] == _STATE:
            state = None if value is None else codec.decode_as(StateRecord, records.STATE, task_id, value)
            changed[task_id] = standing._replace(state=state)
        else:
            changed[task_id] = self._lease(task_id, standing, value)

    def _lease(self, task_id: bytes, standing: Standing, value: bytes | None) -> Standing:
        if value is None:
            return standing._replace(lease=None)
        lease = codec.decode_as(LeaseRecord, records.LEASE, task_id, value)
        if standing.lease is None or standing.lease.token != lease.token:
            self._reader.leased(task_id, lease, standing.lease)
            self.leases[lease.token] = (task_id, lease.attempt, lease.agent)
        return standing._replace(lease=lease)


def _put(into: dict[bytes, R], record_id: bytes, record: R | None) -> R | None:
    """Note what is stored under an id from now on; return what was."""
    before = into.pop(record_id, None)
    if record is not None:
        into[record_id] = record
    return before
