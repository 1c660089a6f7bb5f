"""Waits: nodes of workflows that sleep, or wait for a signal, and hold nothing meanwhile."""

from collections.abc import Container

from msgspec.structs import replace

from taskd.core import records, timers
from taskd.core.commands import Now
from taskd.core.flows import Flow, stem_of
from taskd.core.graph import FAILED, STOPPED, SUCCEEDED
from taskd.core.settling import SKIPS, end_node
from taskd.core.workflow_records import NodeRecord
from taskd.core.working import Working
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure
from taskd_protocol.workflow import NIL, SIGNAL, SLEEP, Node, member_id, place_of


def begin(w: Working, flow: Flow, position: int, node: Node, now: Now) -> None:
    """Have a node wait, unless its signal has come already."""
    node_id = member_id(flow.id, position)
    due_at_ms = now.wall_ms + node.wait_ms if node.wait_ms else 0
    record = NodeRecord("waiting", now.wall_ms, due_at_ms=due_at_ms)
    if node.kind == SIGNAL and node.signal in flow.signals:
        _pass(w, flow, position, replace(record, due_at_ms=0), flow.signals[node.signal], now)
        return
    flow.waits[position] = record
    w.put(records.NODE, node_id, record)
    if due_at_ms:
        timers.start(w, node_id, due_at_ms, node.wait_ms, now)


def may_be_due(w: Working, node_id: bytes, due_at_ms: Container[int]) -> bool:
    """Tell whether a node waits until one of these instants, or is not read: a timer may be of a wait before."""
    flow = w.flows.get(stem_of(node_id))
    if flow is None or flow.graph is None:
        return flow is not None
    record = flow.waits.get(place_of(node_id)[0])
    return record is not None and record.due_at_ms in due_at_ms


def time_has_come(w: Working, flow: Flow, position: int, now: Now) -> None:
    """Let a node go on that slept; one whose signal did not come in time has failed."""
    record = flow.waits.get(position)
    if record is None or not record.due_at_ms:
        return
    node = flow.node(position)
    if node.kind == SLEEP:
        _end(w, flow, position, replace(record, state="succeeded", packed=NIL), SUCCEEDED, now)
    elif node.signal in flow.signals:
        _pass(w, flow, position, record, flow.signals[node.signal], now)  # it was about to
    else:
        late = Failure(TaskCodes.SIGNAL_LATE, f"the signal {node.signal!r} did not come in time")
        _end(w, flow, position, replace(record, state="dead", failure=late), FAILED, now)


def call(w: Working, flow: Flow, name: str) -> None:
    """Call the nodes that wait for a signal, which has come: they go on in their turn, since they may be many."""
    flow.called.extend([position for position in flow.awaited.get(name, ()) if position in flow.waits])
    if flow.called:
        w.moving[flow.stem] = flow


def let_go(w: Working, flow: Flow, room: int, now: Now) -> int:
    """Let nodes go on that were called, as far as there is room; return how many."""
    spent = 0
    while flow.called and spent < room:
        position = flow.called.popleft()
        record = flow.waits.get(position)
        if record is not None:
            spent += 1
            _pass(w, flow, position, record, flow.signals[flow.node(position).signal], now)
    return spent


def stop(w: Working, flow: Flow, position: int, now: Now) -> None:
    """End a node's wait, whose workflow was stopped."""
    stopped = replace(flow.waits[position], state="cancelled", failure=SKIPS[STOPPED])
    _end(w, flow, position, stopped, FAILED, now)


def _pass(w: Working, flow: Flow, position: int, record: NodeRecord, packed: bytes, now: Now) -> None:  # noqa: PLR0917 - as its fellows
    _end(w, flow, position, replace(record, state="succeeded", packed=packed), SUCCEEDED, now)


def _end(w: Working, flow: Flow, position: int, record: NodeRecord, status: int, now: Now) -> None:  # noqa: PLR0917 - as its fellows
    flow.waits.pop(position, None)
    node_id = member_id(flow.id, position)
    if record.due_at_ms:
        timers.stop(w, node_id, record.due_at_ms)
    w.put(records.NODE, node_id, replace(record, due_at_ms=0, finished_at_ms=now.wall_ms))
    end_node(w, flow, position, status, result=record.packed or None, failure=record.failure)
