"""Orders: workflows that go on from what has failed, or from a node that is to run again.

What is to run again is noted for good in one batch with the order's end, in NODE
records that void what the tasks of those nodes came to: so a crash leaves an order
that is still to be carried out, or one that is.
"""

from msgspec.structs import replace

from taskd.core import records
from taskd.core.flows import Flow
from taskd.core.graph import BLOCKED, FAILED, RELEASED, SKIPPED, STOPPED, UPSTREAM_FAILED
from taskd.core.settling import note_failures
from taskd.core.workflow_records import NodeRecord
from taskd.core.working import Working
from taskd_protocol.workflow import member_id


def carry_out(w: Working, flow: Flow) -> None:
    """Carry out what was ordered of a workflow whose nodes are read."""
    graph = flow.graph
    assert graph is not None
    record = flow.record
    if record.order == "resume":
        again = _failed_and_after(flow)
    else:
        again = {n for n in (record.order_node, *graph.after_of(record.order_node)) if graph.statuses[n] > RELEASED}
    held = [node for nodes in flow.phases.values() for node, _ in nodes]
    again.update(node for node in held if graph.statuses[node] > RELEASED)
    for node in sorted(again):
        _void(w, flow, node, afresh=record.order != "resume")
    graph.hold(node for node in held if graph.statuses[node] != RELEASED)
    graph.restore((node, BLOCKED) for node in again)
    flow.verdicts.clear()
    flow.count_anew()
    flow.halted, flow.ending = False, None
    flow.record = replace(record, order="", order_node=-1, failed_node=-1, failed_name="", stage=0)
    note_failures(w, flow)
    flow.record = replace(flow.record, stopped=False)  # by what failed before the order, too
    flow.verdicts.extend(graph.judge_all())
    stem = flow.stem
    w.dirty_flows[stem] = w.moving[stem] = flow


def _failed_and_after(flow: Flow) -> set[int]:
    """Return the nodes that failed, and may not, and those that were skipped since."""
    graph = flow.graph
    assert graph is not None
    again: set[int] = set()
    after: set[int] = set()
    for node, status in enumerate(graph.statuses):
        is_failure = status in {UPSTREAM_FAILED, STOPPED} or (status == FAILED and node not in flow.may_fail)
        if is_failure or (status == SKIPPED and node in after):
            again.add(node)
            after.update(graph.children_of(node))
    return again


def _void(w: Working, flow: Flow, node: int, *, afresh: bool) -> None:
    """Void what a node came to."""
    node_id = member_id(flow.id, node)
    flow.forget_result(node)
    flow.undecide(node)
    fan = flow.fans.get(node)
    if fan is not None and (afresh or not fan.missed):
        flow.refanned[node] = max(fan.released, fan.made)
        del flow.fans[node]
        flow.spreading.pop(node, None)
        w.put(records.NODE, node_id, NodeRecord("blocked", 0, made=flow.refanned[node]))
    elif fan is not None:
        w.put(records.NODE, node_id, fan.noted(NodeRecord("blocked", 0)))
    elif flow.made[node] or node in flow.refanned:
        w.put(records.NODE, node_id, NodeRecord("blocked", 0, made=flow.refanned.get(node, 0)))
    else:
        w.delete(records.NODE, node_id)
