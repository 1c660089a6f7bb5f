"""Workflows: what is asked of them, and what is read of them.

A workflow is kept whole with the last of its nodes; until then those that have come
are a draft, in memory alone, which its client sends again after a lost server.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from taskd.core import drafts, following, records, waits
from taskd.core.commands import Loaded, Now
from taskd.core.drafts import Draft
from taskd.core.flows import Flow, nodes_id, read_in, stem_of
from taskd.core.graph import RELEASED
from taskd.core.lifecycle import State
from taskd.core.orders import carry_out
from taskd.core.records import Damaged, Key
from taskd.core.settling import want
from taskd.core.submit import FUTURE_MS_MAX
from taskd.core.workflow_commands import NodesTaken, OrderWorkflow, SignalWorkflow, SubmitWorkflow
from taskd.core.workflow_records import NodesRecord, WorkflowRecord
from taskd.core.working import Working
from taskd_protocol.errors import (
    BadRequest,
    QueueDraining,
    ServerBusy,
    StoreCorrupt,
    SubmitConflict,
    SubmitTooNew,
    SubmitTooOld,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowUnknown,
)
from taskd_protocol.ids import TaskId, format_task_id, task_id_unix_ms
from taskd_protocol.limits import NODES_MAX
from taskd_protocol.task import check_name
from taskd_protocol.workflow import (
    COMPENSATE,
    ORDER_ID_BYTES,
    SIGNAL,
    Node,
    WorkflowSpec,
    check_nodes,
    check_packed,
    check_workflow,
)

DRAFT_BYTES_MAX: Final = 64 * 1024 * 1024
"""All nodes of one workflow, packed: they are one commit."""

SIGNAL_BYTES_MAX: Final = 64 * 1024
EDGES_MAX: Final = 1_000_000
"""Of one workflow: its graph is made in one turn, each time that it is read."""

SIGNALS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Values of the signals that came to one workflow: they are in memory until it ends."""

DIGEST_BYTES: Final = 16

ORDERS_KEPT: Final = 8
"""Ids of the newest orders to a workflow: one that is resent after so many others is a new one."""

ACTIONS: Final = ("cancel", "resume", "rerun")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Node).decode


def submit(w: Working, command: SubmitWorkflow, now: Now, loaded: Loaded) -> NodesTaken:
    """Take some nodes of a workflow; with the last of them, keep it.

    Raises:
        WorkflowInvalid: It is no graph that can run.
        BadRequest: Something else is out of range, or nodes before these have not come.
        QueueDraining: A node's queue takes no new tasks.
        StoreCorrupt: What is stored under its id cannot be read.
        SubmitConflict: The id belongs to another workflow.
        SubmitTooOld: It may have been removed: whether it ran cannot be told.
        ServerBusy: Too many others come in parts.
        NeedRecords: Whether it is known must be looked up.
    """
    spec, first, nodes = command.spec, command.first, command.nodes
    check_workflow(spec, w.settings.workflow_nodes_max)
    if int.from_bytes(spec.id[:6], "big") > now.wall_ms + FUTURE_MS_MAX:
        raise SubmitTooNew("a workflow's id lies in the future; make ids from the server's time, as PONG tells it")
    if not 0 < len(nodes) <= NODES_MAX or first + len(nodes) > spec.nodes:
        raise BadRequest(f"{len(nodes)} nodes from number {first} on; a part holds 1 to {NODES_MAX} of {spec.nodes}")
    check_nodes(nodes, first, w.settings.payload_bytes_max)
    if first + len(nodes) == spec.nodes and stem_of(spec.id) not in w.flows:
        w.need([(records.WORKFLOW, spec.id)], loaded)  # before all else: what follows takes time
    if first == 0:
        drafts.check_begin(w, spec, command.owner, whole=len(nodes) == spec.nodes)
    draft = Draft(spec, command.owner) if first == 0 else w.drafts.get(spec.id)
    if draft is None or len(draft.packed) != first or (draft.spec, draft.owner) != (spec, command.owner):
        raise BadRequest(f"nodes before number {first} of this workflow have not come; send it from the first on")
    _check_names(nodes, draft)
    _check_phases(nodes, first, draft)
    for node in nodes if w.queues else ():
        if node.task is not None and w.is_draining(node.task.queue):
            raise QueueDraining(
                f"node {node.name[:64]!r}: queue {node.task.queue[:64]!r} is drained and takes no new tasks"
            )
    packed = list(map(msgspec.Raw, map(_encode, nodes)))
    packed_bytes = _size(nodes, packed, draft)
    taken = first + len(nodes)
    if taken == spec.nodes and _is_known(w, draft, packed, loaded):
        w.drafts.pop(spec.id, None)
        return NodesTaken(taken)
    draft.packed_bytes = packed_bytes
    _take_in(draft, nodes, packed)
    draft.heard_mono_ms = now.mono_ms
    if taken == spec.nodes:
        w.drafts.pop(spec.id, None)
        _keep(w, draft, now)
    else:
        w.drafts[spec.id] = draft
    return NodesTaken(taken)


def check_whole(w: Working, nodes: Sequence[Node]) -> None:
    """Refuse all nodes of a workflow together, if that is no graph that can run; each has been looked at.

    Raises:
        WorkflowInvalid: Says why.
    """
    if len(nodes) > w.settings.workflow_nodes_max:
        raise WorkflowInvalid(f"it has {len(nodes)} nodes; {w.settings.workflow_nodes_max} are the most here")
    whole = Draft(WorkflowSpec(b"", "", len(nodes)), "")
    _check_names(nodes, whole)
    _check_phases(nodes, 0, whole)
    _size(nodes, [], whole)


def begin(
    w: Working, spec: WorkflowSpec, nodes: Sequence[Node], owner: str, now: Now, *, schedule: str, for_ms: int
) -> None:
    """Keep a workflow whole that a schedule submits, which has been checked, and whose id is new."""
    draft = Draft(spec, owner)
    _take_in(draft, nodes, list(map(msgspec.Raw, map(_encode, nodes))))
    _keep(w, draft, now, schedule, for_ms)


def _take_in(draft: Draft, nodes: Sequence[Node], packed: list[msgspec.Raw]) -> None:
    """Take the next nodes into a draft."""
    first = len(draft.packed)
    draft.packed += packed
    draft.plan.add(nodes)
    draft.phases.update(_phases_of(nodes, first))
    draft.starts.append(first)
    draft.names.update(dict.fromkeys(node.name for node in nodes))


def _check_names(nodes: Sequence[Node], draft: Draft) -> None:
    names = [node.name for node in nodes]
    if len(set(names)) < len(names) or not draft.names.keys().isdisjoint(names):
        seen = dict(draft.names)
        for name in names:
            if name in seen:
                raise WorkflowInvalid(f"node {name[:64]!r} stands twice; each node has a name of its own")
            seen[name] = None


def _phases_of(nodes: Sequence[Node], first: int) -> dict[int, str]:
    return {position: node.phase for position, node in enumerate(nodes, first) if node.phase}


def _check_phases(nodes: Sequence[Node], first: int, draft: Draft) -> None:
    """Refuse a node that would wait for one whose phase comes only when the other has ended, or never."""
    phases = draft.phases | _phases_of(nodes, first)
    for node in nodes if phases else ():
        for parent in (*node.needs, *node.after):
            phase = phases.get(parent, "")
            if phase and (phase != node.phase or phase == COMPENSATE):
                raise WorkflowInvalid(
                    f"node {node.name[:64]!r} comes after node number {parent}, whose phase is {phase}: only nodes of"
                    " that phase may, and none after one that compensates"
                )


def _size(nodes: Sequence[Node], packed: Sequence[msgspec.Raw], draft: Draft) -> int:
    """Return what all nodes weigh, with these, in bytes; refuse too much, and too many edges."""
    packed_bytes = draft.packed_bytes + sum(map(len, packed))
    if packed_bytes > DRAFT_BYTES_MAX:
        raise WorkflowInvalid(
            f"its nodes are more than {DRAFT_BYTES_MAX >> 20} MiB: store large arguments elsewhere and pass a reference"
        )
    edges = len(draft.plan.layout.edges) + sum([len(node.needs) + len(node.after) for node in nodes])
    if edges > EDGES_MAX:
        raise WorkflowInvalid(
            f"its nodes come after {edges} others in all, {EDGES_MAX} are the most: put a node between those of one"
            " layer and those of the next"
        )
    return packed_bytes


def _digest(packed: Sequence[msgspec.Raw]) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for start in range(0, len(packed), NODES_MAX):
        digest.update(b"".join(packed[start : start + NODES_MAX]))  # each tells itself where it ends
    return digest.digest()


def _is_known(w: Working, draft: Draft, last: Sequence[msgspec.Raw], loaded: Loaded) -> bool:
    """Tell whether the workflow is kept already; refuse one of the same id that is another."""
    spec = draft.spec
    flow = w.flows.get(stem_of(spec.id))
    record: object = flow.record if flow is not None else None
    if record is None:
        key: Key = (records.WORKFLOW, spec.id)
        w.need([key], loaded)
        record = loaded[key]
    if isinstance(record, Damaged) or spec.id in w.lost_flows:
        raise _unreadable(spec.id)
    if isinstance(record, WorkflowRecord):
        if (record.spec, record.owner, record.digest) == (spec, draft.owner, _digest([*draft.packed, *last])):
            return True
        raise SubmitConflict(f"workflow id {format_task_id(spec.id)} belongs to another workflow; make a new one")
    if task_id_unix_ms(TaskId(spec.id)) <= w.counters.purged_to_ms:
        raise SubmitTooOld("the workflow's id is older than what is kept: whether it ran cannot be told")
    return False


def _keep(w: Working, draft: Draft, now: Now, schedule: str = "", for_ms: int = 0) -> None:
    record = WorkflowRecord(
        draft.spec,
        draft.owner,
        now.wall_ms,
        State.RUNNING,
        {},
        digest=_digest(draft.packed),
        parts=draft.starts,
        schedule=schedule,
        scheduled_for_ms=for_ms,
    )
    flow = Flow(record)
    graph = read_in(flow, draft.packed, draft.plan)
    flow.verdicts.extend(graph.judge_all())
    stem = stem_of(draft.spec.id)
    w.flows[stem] = w.moving[stem] = w.dirty_flows[stem] = flow
    w.put(records.OPEN, draft.spec.id, b"")
    for start, end in zip(draft.starts, [*draft.starts[1:], len(draft.packed)], strict=True):
        w.put(records.NODES, nodes_id(draft.spec.id, start), NodesRecord(draft.packed[start:end]))


# -- orders -----------------------------------------------------------------------------


def order(w: Working, command: OrderWorkflow, now: Now, loaded: Loaded) -> None:
    """Cancel a workflow, have it resumed, or a node of it run again.

    Raises:
        BadRequest: The action is unknown, or the order's id is none.
        WorkflowUnknown: There is no such workflow, or no such node.
        StoreCorrupt: It cannot be read.
        WorkflowEnded: It stands where that cannot be done.
        ServerBusy: Another order is still to be carried out, or it is still to be read.
        NeedRecords: It is not in memory.
    """
    if command.action not in ACTIONS:
        raise BadRequest(f"action {command.action[:32]!r} is unknown; use one of {', '.join(ACTIONS)}")
    if command.order_id and len(command.order_id) != ORDER_ID_BYTES:
        raise BadRequest(f"an order's id is {ORDER_ID_BYTES} bytes, drawn for each order, or empty")
    record = _record_of(w, command.id, loaded)
    if command.order_id and command.order_id in record.orders:
        return  # the same again: its answer was lost
    if record.parent:
        raise BadRequest(
            f"these are the {record.spec.name[:64]}, which go with it: `taskd task show|cancel|retry"
            f" {format_task_id(record.parent)}`"
        )
    if command.action == "cancel":
        _cancel(w, record)
    else:
        _run_again(w, command, record, now, loaded)
    if command.order_id:
        flow = w.flows[stem_of(command.id)]
        flow.record = replace(flow.record, orders=[*flow.record.orders, command.order_id][-ORDERS_KEPT:])
        w.dirty_flows[flow.stem] = flow


def cancel_if_open(w: Working, workflow: bytes) -> None:
    """Cancel a workflow, unless it is at its end, or past that."""
    flow = w.flows.get(stem_of(workflow))
    if flow is not None and not flow.record.stage and not flow.broken:
        _cancel(w, flow.record)


def _cancel(w: Working, record: WorkflowRecord) -> None:
    flow = w.flows.get(stem_of(record.spec.id))
    if flow is None or record.stage:
        stands = record.state if flow is None else "at its end"
        raise WorkflowEnded(f"workflow {record.spec.name[:64]!r} is {stands}: it cannot be cancelled")
    if record.state != State.CANCELLING:
        flow.record = replace(record, state=State.CANCELLING, stopped=True, order="")
        _go_on(w, flow)


def _run_again(w: Working, command: OrderWorkflow, record: WorkflowRecord, now: Now, loaded: Loaded) -> None:
    """Have a workflow resumed, or a node of it run again."""
    name = f"workflow {record.spec.name[:64]!r}"
    if record.state == State.CANCELLING:
        raise WorkflowEnded(f"{name} is being cancelled: {command.action} it when that is done")
    if record.compensated:
        raise WorkflowEnded(f"what {name} had done was taken back: submit it anew")
    if command.action == "resume" and record.state == State.SUCCEEDED:
        raise WorkflowEnded(f"{name} has succeeded: there is nothing to resume; rerun a node of it")
    if record.swept:
        raise WorkflowEnded(f"{name} is being removed, since it ended long ago: submit it anew")
    flow = w.flows.get(stem_of(command.id))
    node = -1 if command.action == "resume" else _position_of(w, command, record, flow, loaded)
    if record.order:
        if (record.order, record.order_node) == (command.action, node):
            return  # the same again
        raise ServerBusy(f"{name} is about to carry out another order, {record.order}: give this one when it has")
    if flow is None:
        flow = w.flows[stem_of(command.id)] = Flow(record)
        w.put(records.OPEN, command.id, b"")
        if record.schedule:
            following.note_again(w, record.schedule, command.id)
    elif node >= 0:
        _check_still(flow, node, name)
    reruns = record.reruns + 1
    flow.record = replace(
        record, state=State.RUNNING, finished_at_ms=0, stage=0, order=command.action, order_node=node, reruns=reruns
    )
    _go_on(w, flow, now)


def _go_on(w: Working, flow: Flow, now: Now | None = None) -> None:
    stem = flow.stem
    w.dirty_flows[stem] = flow
    if flow.graph is None:
        want(w, flow)
        return
    w.moving[stem] = flow
    if now is not None:
        carry_out(w, flow)


def _check_still(flow: Flow, node: int, name: str) -> None:
    """Refuse to run a node again that has not ended, or while one after it runs, on what it gave before."""
    if flow.graph is None:
        raise ServerBusy(f"{name} is being read after a start: give the order again in a moment")
    statuses = flow.graph.statuses
    if statuses[node] <= RELEASED:
        raise WorkflowEnded(f"node {flow.node(node).name[:64]!r} of {name} has not ended: it cannot be run again")
    running = next((other for other in flow.graph.after_of(node) if statuses[other] == RELEASED), -1)
    if running >= 0:
        raise WorkflowEnded(
            f"node {flow.node(running).name[:64]!r} of {name} comes after {flow.node(node).name[:64]!r} and runs:"
            " wait for its end, or cancel its task, and run it again then"
        )


def _record_of(w: Working, workflow: bytes, loaded: Loaded) -> WorkflowRecord:
    flow = w.flows.get(stem_of(workflow))
    if flow is not None and flow.id == workflow:
        if flow.broken:
            raise _unreadable(workflow)
        return flow.record
    key: Key = (records.WORKFLOW, workflow)
    w.need([key], loaded)
    record = loaded[key]
    if isinstance(record, Damaged) or workflow in w.lost_flows:
        raise _unreadable(workflow)
    if not isinstance(record, WorkflowRecord):
        raise WorkflowUnknown(f"no workflow {format_task_id(workflow) if len(workflow) == 16 else ''} is stored")  # noqa: PLR2004 - a UUID's bytes
    return record


def _unreadable(workflow: bytes) -> StoreCorrupt:
    return StoreCorrupt(
        f"workflow {format_task_id(workflow)} cannot be read, and stays as it is: stop the server and run `taskd fsck`"
    )


def _position_of(w: Working, command: OrderWorkflow, record: WorkflowRecord, flow: Flow | None, loaded: Loaded) -> int:
    """Return where the node stands that an order names."""
    for position, node in enumerate(_nodes_of(w, record, flow, loaded)):
        if node.name == command.node:
            return position
    raise WorkflowUnknown(f"workflow {record.spec.name[:64]!r} has no node {command.node[:64]!r}")


def _nodes_of(w: Working, record: WorkflowRecord, flow: Flow | None, loaded: Loaded) -> list[Node]:
    """Return a workflow's nodes, which need not be read.

    Raises:
        StoreCorrupt: They cannot be.
    """
    if flow is not None and flow.graph is not None:
        packed: Sequence[msgspec.Raw] = flow.packed
    else:
        workflow = record.spec.id
        keys: list[Key] = [(records.NODES, nodes_id(workflow, first)) for first in record.parts]
        w.need([(records.WORKFLOW, workflow), *keys], loaded)
        parts = [loaded[key] for key in keys]
        packed = [node for part in parts if isinstance(part, NodesRecord) for node in part.nodes]
    try:
        nodes = list(map(_decode, packed))
    except msgspec.MsgspecError:
        nodes = []
    if len(nodes) != record.spec.nodes:
        raise _unreadable(record.spec.id)
    return nodes


def signal(w: Working, command: SignalWorkflow, loaded: Loaded) -> None:
    """Let the nodes go on that wait for a signal, now or when their turn has come.

    Raises:
        BadRequest: The name or the value is out of range.
        WorkflowUnknown: There is no such workflow, or no node of it waits for that.
        StoreCorrupt: It cannot be read.
        WorkflowEnded: It has ended.
        NeedRecords: It is not in memory.
    """
    check_name("signal name", command.name)
    if len(command.packed) > SIGNAL_BYTES_MAX:
        raise BadRequest(f"a signal of {len(command.packed)} bytes; the limit is {SIGNAL_BYTES_MAX}: pass a reference")
    check_packed("a signal's value", command.packed)
    record = _record_of(w, command.id, loaded)
    flow = w.flows.get(stem_of(command.id))
    if flow is None or record.state == State.CANCELLING:
        raise WorkflowEnded(f"workflow {record.spec.name[:64]!r} is {record.state}: it waits for no signal")
    awaited: Collection[str] = (
        flow.awaited if flow.graph is not None else _awaited_of(_nodes_of(w, record, flow, loaded))
    )
    if command.name not in awaited:
        known = ", ".join(list(awaited)[:8]) or "none"
        raise WorkflowUnknown(f"no node of {record.spec.name[:64]!r} waits for {command.name[:64]!r}; signals: {known}")
    others_bytes = sum(len(value) for name, value in flow.signals.items() if name != command.name)
    if others_bytes + len(command.packed) > SIGNALS_BYTES_MAX:
        raise BadRequest(
            f"the signals that came to {record.spec.name[:64]!r} are {others_bytes} bytes; with this one they would be"
            f" more than {SIGNALS_BYTES_MAX}: pass references"
        )
    w.put(records.SIGNAL, command.id + command.name.encode(), command.packed)
    flow.signals[command.name] = command.packed
    if flow.graph is not None:
        waits.call(w, flow, command.name)
    else:
        want(w, flow)


def _awaited_of(nodes: Iterable[Node]) -> Collection[str]:
    """Return the names of the signals that nodes wait for."""
    return {node.signal: None for node in nodes if node.kind == SIGNAL}
