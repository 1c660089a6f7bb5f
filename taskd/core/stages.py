"""Stages: how a workflow is stopped, and what comes when all that had its turn has ended."""

from typing import Final

from msgspec.structs import replace

from taskd.core import fans, records, waits
from taskd.core.commands import CancelTasks, Now
from taskd.core.effects import Continue
from taskd.core.flows import Flow
from taskd.core.graph import RELEASED, SKIPPED, SUCCEEDED, Graph
from taskd.core.lifecycle import State
from taskd.core.working import Working
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Outcome
from taskd_protocol.workflow import COMPENSATE, ON_FAILURE, ON_SUCCESS, member_id

SIGNALS: Final = 500
"""Taken away in one turn, of a workflow that ends."""


def halt(w: Working, flow: Flow, graph: Graph) -> None:
    """Begin to end what is in motion of a workflow that was stopped; what has not begun is not begun."""
    flow.halted = True
    flow.ending = 0, 0
    flow.verdicts.extend(graph.stop())
    for position, fan in flow.fans.items():
        if graph.statuses[position] == RELEASED:
            fan.stop()
            flow.spreading[position] = None
    w.moving[flow.stem] = flow


def end_some(w: Working, flow: Flow, graph: Graph, room: int, now: Now) -> int:
    """End some of what is in motion, from where that was left; return how many nodes and children.

    After a restart it begins anew: who has ended, or was told to, is so still.
    """
    assert flow.ending is not None
    position, child = flow.ending
    running: list[bytes] = []
    for spent in range(room):
        position, child = _next_in_motion(flow, graph, position, child)
        if position < 0:
            flow.ending = None
            _cancel(w, running)
            return spent
        if position in flow.waits:
            waits.stop(w, flow, position, now)
        elif position in flow.unsized:
            fans.stop_unsized(w, flow, position, now)
        else:
            running.append(member_id(flow.id, position, child))
        position, child = (position, child + 1) if child >= 0 else (position + 1, 0)
    flow.ending = position, child
    _cancel(w, running)
    return room


def _next_in_motion(flow: Flow, graph: Graph, position: int, child: int) -> tuple[int, int]:
    """Return the first node, and its child or -1, from these on, that has begun and not ended; or -1 for the node."""
    while (found := graph.statuses.find(RELEASED, position)) >= 0:
        fan = flow.fans.get(found)
        if fan is None:
            return found, -1
        if (running := fan.statuses.find(RELEASED, child if found == position else 0)) >= 0:
            return found, running
        position, child = found + 1, 0
    return -1, -1


def _cancel(w: Working, running: list[bytes]) -> None:
    if running:
        w.effects.append(Continue(CancelTasks(running)))


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
        elif held:
            _pass_over(flow, held)
        else:
            flow.record = replace(flow.record, stage=2)
        return
    taken, passed = (ON_FAILURE, [ON_SUCCESS]) if record.failed_node >= 0 else (ON_SUCCESS, [ON_FAILURE])
    if record.state == State.CANCELLING:
        taken, passed = "", [ON_SUCCESS, ON_FAILURE]
    going = [node for node, _ in flow.phases.get(taken, ()) if graph.is_held(node)]
    if going:
        flow.verdicts.extend(graph.let_go(going))
        return
    rest = [node for phase in passed for node, _ in flow.phases.get(phase, ()) if graph.is_held(node)]
    if rest:
        _pass_over(flow, rest)
    elif not _forget_signals(w, flow):
        _end(w, flow, now)


def _pass_over(flow: Flow, nodes: list[int]) -> None:
    """Have nodes skipped, in their turn, whose phase does not come."""
    flow.verdicts.extend((node, SKIPPED) for node in dict.fromkeys(nodes))


def _forget_signals(w: Working, flow: Flow) -> bool:
    """Take some signals away that came; return whether there are more."""
    for name in list(flow.signals)[:SIGNALS]:
        w.delete(records.SIGNAL, flow.id + name.encode())
        del flow.signals[name]
    return bool(flow.signals)


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
    w.ended.append(Outcome(flow.id, state, failure=why_failed(record.failed_name)))
    w.ended_bytes += sum(map(len, flow.packed))
    del w.flows[stem]
    w.moving.pop(stem, None)
    w.dirty_flows.pop(stem, None)


def why_failed(node: str) -> Failure | None:
    """Return why a workflow failed, of which that node was the first to; empty: none was."""
    return Failure(TaskCodes.UPSTREAM_FAILED, f"its node {node!r} failed") if node else None
