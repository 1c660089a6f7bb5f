"""Moves: how workflows go on, at the end of each turn, from what has happened in it.

What ended is noted in the graph; what the graph then decides is carried out: tasks
are made, nodes begin to wait or to map, others are skipped. A turn carries out a
bounded number of these, over all workflows in turns; the rest comes in the next.
All of it lies in the batch of the turn in which it is done.
"""

from typing import Final

from msgspec.structs import replace

from taskd.core import families, fans, records, stages, submit, waits
from taskd.core.commands import MoveFlows, Now, RerunTasks
from taskd.core.effects import Continue
from taskd.core.flows import Flow, Happened, inputs_of
from taskd.core.graph import BLOCKED, RELEASED, RUN, SKIPPED, STOPPED, SUCCEEDED
from taskd.core.records import NodeRecord
from taskd.core.settling import end_node, settle, skip, want
from taskd.core.working import Working
from taskd_protocol.task import Given, Member, Rules, TaskSpec
from taskd_protocol.workflow import MAP, STEM_BYTES, TASK, VALUE, member_id, place_of

STEP_NODES: Final = 1_000
"""Nodes and children dealt with in one turn, over all workflows: some ten milliseconds."""

SLICE_NODES: Final = 200
"""Of one workflow, before another has its turn."""

READS: Final = 4
"""Workflows that are read at the same time because of a start."""


_MEMBER_ALONE: Final = Rules(member=Member())


def advance(w: Working, now: Now) -> None:  # noqa: C901 - one case a kind of event
    """Take up what has happened to workflows, and carry out what follows, as far as one turn goes."""
    happened, w.happened = w.happened, []
    flows = w.flows
    for event in happened:
        flow = flows.get(event.id[:STEM_BYTES])
        if flow is None:
            continue  # a task of a workflow that has ended
        node, child = place_of(event.id)
        if node < 0:
            families.parent_ended(w, flow, event.status)
        elif flow.graph is None:
            if not flow.broken:
                flow.late.append(event)
                want(w, flow)
        elif child < 0 and event.status > RELEASED:
            if flow.graph.statuses[node] <= RELEASED:
                settle(w, flow, node, event.status, event.result)
        else:
            take_up(w, flow, event, now)
    left = STEP_NODES
    while w.moving and left > 0:
        stem, flow = next(iter(w.moving.items()))
        del w.moving[stem]
        spent = _move(w, flow, now)
        left -= max(spent, 1)
        if spent >= SLICE_NODES:
            w.moving[stem] = flow
    while w.unread and w.reads < READS:
        want(w, w.unread.pop(next(iter(w.unread))))
    if w.moving:
        w.effects.append(Continue(MoveFlows()))


def take_up(w: Working, flow: Flow, event: Happened, now: Now) -> None:
    """Note what has happened to a workflow whose nodes are read; what was noted before changes nothing."""
    node, child = place_of(event.id)
    graph = flow.graph
    assert graph is not None
    if child >= 0:
        fan = flow.fans.get(node)
        if fan is not None and child < fan.released:
            fan.note(child, event.status)
            flow.spreading[node] = None
            w.moving[flow.stem] = flow
    elif event.status == BLOCKED:
        waits.time_has_come(w, flow, node, now)
    elif graph.statuses[node] <= RELEASED < event.status:
        settle(w, flow, node, event.status, event.result)


class _Making:
    """The tasks that a workflow makes in one go."""

    def __init__(self, w: Working, flow: Flow, now: Now) -> None:
        self._w = w
        self._flow = flow
        self._now = now
        self._specs: list[TaskSpec] = []

    def add(self, template: TaskSpec, task_id: bytes, inputs: list[Given]) -> None:
        if template.given is None:
            rules = Rules(member=Member(inputs)) if inputs else _MEMBER_ALONE
        else:
            rules = replace(template.given, member=Member(inputs))
        trace = template.traceparent or self._flow.record.spec.traceparent
        self._specs.append(
            TaskSpec(
                task_id,
                template.name,
                template.payload,
                template.queue,
                template.priority,
                template.delay_ms,
                template.retry,
                "",
                trace,
                rules,
            )
        )

    def finish(self) -> None:
        if self._specs:
            submit.keep(self._w, self._specs, self._flow.record.owner, self._now)


def _move(w: Working, flow: Flow, now: Now) -> int:
    """Carry out what is decided of a workflow, as far as its slice goes; return how many nodes that were."""
    graph = flow.graph
    assert graph is not None
    if flow.record.stopped and flow.record.stage == 0 and not flow.halted:
        stages.halt(w, flow, graph, now)
    making = _Making(w, flow, now)
    spent = 0
    while flow.verdicts and spent < SLICE_NODES:
        spent += 1
        node, verdict = flow.verdicts.popleft()
        if verdict == RUN and flow.record.stopped and flow.record.stage == 0:
            verdict = STOPPED
        if verdict == RUN and node in flow.ruled_out:
            verdict = SKIPPED
        if verdict == RUN:
            _begin(w, flow, node, making, now)
        else:
            skip(w, flow, node, verdict, now)
    spreading, flow.spreading = flow.spreading, {}
    for node in spreading:
        if flow.record.parent:
            families.look(w, flow, now)
        elif graph.statuses[node] == RELEASED:
            spent += fans.spread(w, flow, node, making.add, SLICE_NODES - spent, now)
    spent += _rerun(w, flow, SLICE_NODES - spent)
    making.finish()
    if not spent and not flow.verdicts and not flow.reruns and graph.open_count == 0:
        stages.go_on(w, flow, graph, now)
        return 1
    return spent


def _begin(w: Working, flow: Flow, position: int, making: _Making, now: Now) -> None:
    """Have a node's turn begin."""
    graph = flow.graph
    assert graph is not None
    node = flow.node(position)
    node_id = member_id(flow.id, position)
    graph.release(position)
    flow.tally[BLOCKED] -= 1
    flow.tally[RELEASED] += 1
    w.dirty_flows[flow.stem] = flow
    if node.kind == TASK and node.task is not None:
        if flow.made[position]:
            flow.reruns.append((node_id, b""))
        else:
            flow.made[position] = 1
            making.add(node.task, node_id, inputs_of(flow, node) if node.needs else [])
    elif node.kind == VALUE:
        w.put(records.NODE, node_id, NodeRecord("succeeded", now.wall_ms, now.wall_ms, packed=node.packed))
        end_node(w, flow, position, SUCCEEDED, result=node.packed)
    elif node.kind == MAP:
        fans.begin(w, flow, position, node, now)
    else:
        waits.begin(w, flow, position, node, now)


def _rerun(w: Working, flow: Flow, room: int) -> int:
    """Have tasks run again that have ended, with what their nodes are given now; return how many."""
    tasks: list[tuple[bytes, list[Given]]] = []
    while flow.reruns and len(tasks) < room:
        task_id, item = flow.reruns.popleft()
        position, child = place_of(task_id)
        node = flow.node(position)
        inputs = inputs_of(flow, node)
        if child >= 0 and item:
            inputs[node.over] = Given(item)
        tasks.append((task_id, inputs if child < 0 or item else []))
    if tasks:
        w.effects.append(Continue(RerunTasks(tasks)))
    return len(tasks)
