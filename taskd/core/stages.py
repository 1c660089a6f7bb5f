"""Stages: how a workflow is stopped, and what comes when all that had its turn has ended."""

from typing import Final

from msgspec.structs import replace

from taskd.core import fans, records, waits
from taskd.core.commands import CancelTasks, Now
from taskd.core.effects import Continue
from taskd.core.flows import Flow
from taskd.core.graph import RELEASED, SKIPPED, SUCCEEDED, Graph
from taskd.core.lifecycle import State
from taskd.core.settling import skip
from taskd.core.working import Working
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Outcome
from taskd_protocol.workflow import COMPENSATE, ON_FAILURE, ON_SUCCESS, member_id

CANCELLED_AT_ONCE: Final = 1_000
"""Tasks that one command ends."""


def halt(w: Working, flow: Flow, graph: Graph, now: Now) -> None:
    """End what is in motion of a workflow that was stopped; what has not begun is not begun."""
    flow.halted = True
    flow.verdicts.extend(graph.stop())
    running: list[bytes] = []
    for position, status in enumerate(graph.statuses):
        if status != RELEASED:
            continue
        if position in flow.waits:
            waits.stop(w, flow, position, now)
        elif position in flow.fans or position in flow.unsized:
            running += fans.stop(w, flow, position, now)
        else:
            running.append(member_id(flow.id, position))
    for start in range(0, len(running), CANCELLED_AT_ONCE):
        w.effects.append(Continue(CancelTasks(running[start : start + CANCELLED_AT_ONCE])))


def go_on(w: Working, flow: Flow, graph: Graph, now: Now) -> None:
    """Go on when all that had its turn has ended: take back, then run what is for success or failure, then end."""
    record = flow.record
    has_failed = record.failed_node >= 0 or record.state == State.CANCELLING
    stem = flow.stem
    w.moving[stem] = flow
    w.dirty_flows[stem] = flow
    if record.stage == 0:
        flow.record = replace(record, stage=1)
        return
    if record.stage == 1:
        held = [node for node, _ in flow.phases.get(COMPENSATE, ()) if graph.is_held(node)]
        due = [
            (target, node)
            for node, target in flow.phases.get(COMPENSATE, ())
            if graph.is_held(node) and has_failed and graph.statuses[target] == SUCCEEDED
        ]
        if due:
            flow.record = replace(record, compensated=True)
            flow.verdicts.extend(graph.let_go([max(due)[1]]))
            return
        _pass_over(w, flow, held, now)
        flow.record = replace(flow.record, stage=2)
        return
    taken, passed = (ON_FAILURE, [ON_SUCCESS]) if record.failed_node >= 0 else (ON_SUCCESS, [ON_FAILURE])
    if record.state == State.CANCELLING:
        taken, passed = "", [ON_SUCCESS, ON_FAILURE]
    going = [node for node, _ in flow.phases.get(taken, ()) if graph.is_held(node)]
    if going:
        flow.verdicts.extend(graph.let_go(going))
        return
    rest = [node for phase in passed for node, _ in flow.phases.get(phase, ())]
    _pass_over(w, flow, [node for node in rest if graph.is_held(node)], now)
    _end(w, flow, now)


def _pass_over(w: Working, flow: Flow, nodes: list[int], now: Now) -> None:
    """Skip nodes whose phase does not come."""
    for node in dict.fromkeys(nodes):
        skip(w, flow, node, SKIPPED, now)


def _end(w: Working, flow: Flow, now: Now) -> None:
    """End a workflow of which all has ended."""
    record = flow.record
    state = "failed" if record.failed_node >= 0 else "succeeded"
    if record.state == State.CANCELLING:
        state = "cancelled"
    flow.record = replace(record, state=state, finished_at_ms=now.wall_ms, counts=flow.standing)
    stem = flow.stem
    w.put(records.WORKFLOW, flow.id, flow.record)
    w.delete(records.OPEN, flow.id)
    for name in flow.signals:
        w.delete(records.SIGNAL, flow.id + name.encode())
    w.ended.append(Outcome(flow.id, state, failure=why_failed(record.failed_name)))
    w.ended_bytes += sum(map(len, flow.packed))
    del w.flows[stem]
    w.moving.pop(stem, None)
    w.dirty_flows.pop(stem, None)


def why_failed(node: str) -> Failure | None:
    """Return why a workflow failed, of which that node was the first to; empty: none was."""
    return Failure(TaskCodes.UPSTREAM_FAILED, f"its node {node!r} failed") if node else None
