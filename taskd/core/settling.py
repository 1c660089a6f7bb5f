"""Settling: noting how the nodes of a workflow ended, and what is to become of others therefore."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from taskd.core import following, records
from taskd.core.commands import Now
from taskd.core.effects import WantFlow, WorkflowBroken
from taskd.core.flows import Flow
from taskd.core.graph import FAILED, RELEASED, SKIPPED, STOPPED, SUCCEEDED, UPSTREAM_FAILED
from taskd.core.workflow_records import NodeRecord
from taskd.core.working import Working
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Outcome
from taskd_protocol.workflow import FAIL_FAST, member_id

SKIPS: Final = {
    UPSTREAM_FAILED: Failure(TaskCodes.UPSTREAM_FAILED, "a node that it waited for did not succeed"),
    SKIPPED: Failure(TaskCodes.RULED_OUT, "its branch was not taken, or its trigger rule can no longer hold"),
    STOPPED: Failure(TaskCodes.STOPPED, "its workflow was stopped before its turn came"),
}
"""Why nodes are skipped, by their statuses."""

SKIP_CODES: Final = {failure.code: status for status, failure in SKIPS.items()}
"""What a skipped node's record says of its status."""


def want(w: Working, flow: Flow) -> None:
    """Have a workflow's nodes read."""
    if not (flow.reading or flow.broken):
        flow.reading = True
        w.reads += 1
        w.unread.pop(flow.stem, None)
        w.effects.append(WantFlow(flow.id))


def succeed(w: Working, flow: Flow, ended: Mapping[int, bytes | None]) -> None:
    """Note nodes that succeeded, with their results, and what is to become of others; those that had ended, stay so."""
    graph = flow.graph
    assert graph is not None
    statuses, tally, needed, deciding = graph.statuses, flow.tally, flow.needed, flow.deciding
    nodes = [node for node in ended if statuses[node] <= RELEASED]
    for node in nodes:
        tally[statuses[node]] -= 1
        if needed[node] and (result := ended[node]) is not None:
            flow.keep_result(node, result)
        if deciding:
            flow.decide(node, ended[node])
    tally[SUCCEEDED] += len(nodes)
    w.dirty_flows[flow.stem] = w.moving[flow.stem] = flow
    flow.verdicts.extend(graph.succeed(nodes))


def set_aside(w: Working, flow: Flow, why: str) -> None:
    """Have a workflow stay as it is, of which something cannot be read: the next start tries it again."""
    aside = w.flows[flow.stem] = Flow(replace(flow.record, counts=flow.standing), broken=why)
    w.moving.pop(flow.stem, None)
    w.unread.pop(flow.stem, None)
    if flow.stem in w.dirty_flows:
        w.dirty_flows[flow.stem] = aside
    w.effects.append(WorkflowBroken(flow.id, flow.record.spec.name, why))
    following.note_aside(w, flow.id)


def settle(w: Working, flow: Flow, node: int, status: int, result: bytes | None = None) -> None:
    """Note how a node ended, and what is to become of others therefore."""
    if status == SUCCEEDED:
        succeed(w, flow, {node: result})
        return
    graph = flow.graph
    assert graph is not None
    flow.tally[graph.statuses[node]] -= 1
    flow.tally[status] += 1
    w.dirty_flows[flow.stem] = w.moving[flow.stem] = flow
    if flow.deciding:
        flow.decide(node, None)
    flow.verdicts.extend(graph.settle(node, status))
    if status == FAILED and node not in flow.may_fail:
        _note_failure(flow, node)


def note_failures(w: Working, flow: Flow) -> None:
    """Note the first node that has failed, of a flow whose nodes' ends were not noted one by one, unless one is."""
    assert flow.graph is not None
    if flow.record.failed_node >= 0:
        return
    for node, status in enumerate(flow.graph.statuses):
        if status == FAILED and node not in flow.may_fail:
            _note_failure(flow, node)
            w.dirty_flows[flow.stem] = flow
            return


def _note_failure(flow: Flow, node: int) -> None:
    changes: dict[str, object] = {}
    if flow.record.failed_node < 0:
        changes |= {"failed_node": node, "failed_name": flow.node(node).name}
    if flow.record.spec.policy == FAIL_FAST and flow.record.stage == 0:
        changes["stopped"] = True
    if changes:
        flow.record = replace(flow.record, **changes)


def skip(w: Working, flow: Flow, node: int, status: int, now: Now) -> None:
    """Note for good that a node is not to run."""
    failure = SKIPS[status]
    node_id = member_id(flow.id, node)
    record = NodeRecord("skipped", 0, now.wall_ms, made=flow.refanned.get(node, 0), failure=failure)
    fan = flow.fans.get(node)  # of before, for when it maps again
    w.put(records.NODE, node_id, record if fan is None else fan.noted(record))
    w.told.append(Outcome(node_id, "skipped", failure=failure))
    settle(w, flow, node, status)


def end_node(
    w: Working, flow: Flow, node: int, status: int, *, result: bytes | None = None, failure: Failure | None = None
) -> None:
    """Tell of the end of a node that is no task, whose record is written, and note it."""
    state = "succeeded" if status == SUCCEEDED else "cancelled" if failure == SKIPS[STOPPED] else "dead"
    w.told.append(Outcome(member_id(flow.id, node), state, 0, result or b"", failure))
    settle(w, flow, node, status, result)
