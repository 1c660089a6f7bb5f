"""Moves: how workflows go on, at the end of each turn, from what has happened in it.

What ended is noted in the graph; what the graph then decides is carried out: tasks
are made, nodes begin to wait or to map, others are skipped. A turn carries out a
bounded number of these, over all workflows in turns; the rest comes in the next.
All of it lies in the batch of the turn in which it is done.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from taskd.core import families, fans, records, settling, stages, submit, waits
from taskd.core.commands import GoOn, Now
from taskd.core.effects import Continue
from taskd.core.flows import Flow, Happened, decode_start, inputs_of
from taskd.core.graph import BLOCKED, RELEASED, RUN, SKIPPED, STOPPED, SUCCEEDED, Graph
from taskd.core.settling import end_node, settle, skip, want
from taskd.core.workflow_commands import RerunTasks
from taskd.core.workflow_records import NodeRecord
from taskd.core.working import Working
from taskd_protocol.schedule import firing_headers
from taskd_protocol.task import Given, Member, Rules, TaskSpec
from taskd_protocol.workflow import MAP, STEM_BYTES, TASK, VALUE, member_id, place_of

STEP_NODES: Final = 1_000
"""Nodes and children dealt with in one turn, over all workflows: some ten milliseconds."""

SLICE_NODES: Final = 200
"""Of one workflow, before another has its turn."""

READS: Final = 4
"""Workflows that are read at the same time because of a start."""

_MEMBER_ALONE: Final = Rules(member=Member())


def advance(w: Working, now: Now) -> None:
    """Take up what has happened to workflows, and carry out what follows, as far as one turn goes."""
    _take_up_all(w, now)
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
        w.effects.append(Continue(GoOn()))


def _take_up_all(w: Working, now: Now) -> None:
    """Take up what has happened: a workflow's successes together, since in which order they came changes nothing."""
    flows = w.flows
    happened, w.happened = w.happened, []
    for event in happened:
        flow = flows.get(event.id[:STEM_BYTES])
        if flow is None:
            continue  # a task of a workflow that has ended
        if event.id == flow.id:
            families.parent_ended(w, flow, event.status)
        elif flow.graph is not None:
            take_up(w, flow, event, now)
        else:
            _keep_for_later(w, flow, [event])
    succeeded, w.succeeded = w.succeeded, {}
    for stem, results in succeeded.items():
        flow = flows.get(stem)
        if flow is None:
            continue
        if flow.graph is not None:
            _take_up_successes(w, flow, results)
        else:
            _keep_for_later(w, flow, [Happened(task_id, SUCCEEDED, result) for task_id, result in results.items()])


def _keep_for_later(w: Working, flow: Flow, events: Sequence[Happened]) -> None:
    """Keep what has happened to a workflow whose nodes are not read, and have them read."""
    if not flow.broken:
        flow.late += events
        want(w, flow)


def _take_up_successes(w: Working, flow: Flow, results: Mapping[bytes, bytes]) -> None:
    nodes: dict[int, bytes | None] = {}
    for task_id, result in results.items():
        node, child = place_of(task_id)
        if child < 0:
            nodes[node] = result
        else:
            _note_child(w, flow, node, child, SUCCEEDED)
    if nodes:
        settling.succeed(w, flow, nodes)


def _note_child(w: Working, flow: Flow, node: int, child: int, status: int) -> None:
    fan = flow.fans.get(node)
    if fan is not None and child < fan.released:
        fan.note(child, status)
        flow.spreading[node] = None
        w.moving[flow.stem] = flow


def take_up(w: Working, flow: Flow, event: Happened, now: Now) -> None:
    """Note what has happened to a workflow whose nodes are read; what was noted before changes nothing."""
    node, child = place_of(event.id)
    graph = flow.graph
    assert graph is not None
    if child >= 0:
        _note_child(w, flow, node, child, event.status)
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
        self._trace = flow.record.spec.traceparent
        self._specs: list[TaskSpec] = []
        record = flow.record
        self._headers = firing_headers(record.schedule, record.scheduled_for_ms) if record.schedule else None

    def add(self, template: TaskSpec, task_id: bytes, inputs: list[Given]) -> None:
        if template.given is None:
            rules = Rules(member=Member(inputs)) if inputs else _MEMBER_ALONE
        else:
            rules = replace(template.given, member=Member(inputs))
        if self._headers is not None:
            rules = replace(rules, headers={**(rules.headers or {}), **self._headers})
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
                template.traceparent or self._trace,
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
        stages.halt(w, flow, graph)
    spent = stages.end_some(w, flow, graph, SLICE_NODES, now) if flow.ending is not None else 0
    spent += waits.let_go(w, flow, SLICE_NODES - spent, now)
    making = _Making(w, flow, now)
    while flow.verdicts and spent < SLICE_NODES:
        spent += _carry_out(w, flow, SLICE_NODES - spent, making, now)
    spent += _rerun(w, flow, SLICE_NODES - spent)
    spent += _spread(w, flow, graph, SLICE_NODES - spent, making, now)
    making.finish()
    if not spent and not flow.verdicts and not flow.reruns and graph.open_count == 0:
        stages.go_on(w, flow, graph, now)
        return 1
    if flow.reruns:
        w.moving[flow.stem] = flow
    return spent


def _spread(w: Working, flow: Flow, graph: Graph, room: int, making: _Making, now: Now) -> int:  # noqa: PLR0917 - as its fellows
    """Have nodes go on that map, as far as there is room; return how many nodes and children that concerned."""
    if flow.record.parent:
        if flow.spreading:
            families.look(w, flow, now)
        flow.spreading = {}
        return 0
    spent = 0
    spreading, flow.spreading = list(flow.spreading), {}
    for index, node in enumerate(spreading):
        if spent >= room:
            flow.spreading = dict.fromkeys(spreading[index:]) | flow.spreading
            w.moving[flow.stem] = flow
            break
        if graph.statuses[node] == RELEASED:
            spent += fans.spread(w, flow, node, making.add, room - spent, now)
    return spent


def _carry_out(w: Working, flow: Flow, room: int, making: _Making, now: Now) -> int:
    """Carry out what is decided of nodes, as far as there is room; return of how many."""
    verdicts, ruled_out = flow.verdicts, flow.ruled_out
    is_stopped = flow.record.stopped and flow.record.stage == 0
    spent = min(len(verdicts), room)
    begun: list[int] = []
    for _ in range(spent):
        node, verdict = verdicts.popleft()
        if verdict == RUN and is_stopped:
            verdict = STOPPED
        elif verdict == RUN and node in ruled_out:
            verdict = SKIPPED
        if verdict == RUN:
            begun.append(node)
        else:
            skip(w, flow, node, verdict, now)
    if begun:
        _begin(w, flow, begun, making, now)
    return spent


def _begin(w: Working, flow: Flow, positions: Sequence[int], making: _Making, now: Now) -> None:
    """Have the turns of nodes begin."""
    graph = flow.graph
    assert graph is not None
    graph.release(positions)
    flow.tally[BLOCKED] -= len(positions)
    flow.tally[RELEASED] += len(positions)
    w.dirty_flows[flow.stem] = flow
    made, packed, workflow, add = flow.made, flow.packed, flow.id, making.add
    for position in positions:
        start = decode_start(packed[position])
        node_id = member_id(workflow, position)
        if start.kind != TASK or start.task is None:
            _begin_other(w, flow, position, node_id, now)
        elif made[position]:
            flow.reruns.append((node_id, b""))
        else:
            made[position] = 1
            add(start.task, node_id, inputs_of(flow, start, w.affinity) if start.needs else [])


def _begin_other(w: Working, flow: Flow, position: int, node_id: bytes, now: Now) -> None:
    """Have the turn of a node begin that is no task."""
    node = flow.node(position)
    if node.kind == VALUE:
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
        inputs = inputs_of(flow, node, w.affinity)
        if child >= 0 and item:
            inputs[node.over] = Given(item)
        tasks.append((task_id, inputs if child < 0 or item else []))
    if tasks:
        w.effects.append(Continue(RerunTasks(tasks)))
    return len(tasks)
