"""Readings: what was read of workflows, and of tasks of theirs, and how they go on with it."""

import msgspec
from msgspec.structs import replace

from taskd.core import cancel, fans, moves, records, retry, waits
from taskd.core.commands import Loaded, Now
from taskd.core.flows import Fan, Flow, Happened, read_in, stem_of
from taskd.core.graph import BLOCKED, FAILED, RELEASED, SUCCEEDED, Graph
from taskd.core.lifecycle import TERMINAL
from taskd.core.orders import carry_out
from taskd.core.records import Key, SpecRecord, StateRecord, Value
from taskd.core.settling import SKIP_CODES, end_node, note_failures, set_aside
from taskd.core.workflow_commands import MapItems, RerunTasks, TakeFlow
from taskd.core.workflow_records import NodeRecord
from taskd.core.working import Working
from taskd_protocol.errors import ResultGone
from taskd_protocol.task import Failure, Member
from taskd_protocol.workflow import member_id, place_of


def take(w: Working, command: TakeFlow, now: Now) -> None:
    """Take in a workflow's nodes, and go on with it."""
    w.reads -= 1
    flow = w.flows.get(stem_of(command.id))
    if flow is None or flow.graph is not None:
        return
    flow.reading = False
    graph = command.broken or _take_nodes(flow, command)
    if isinstance(graph, str):
        set_aside(w, flow, graph)
        return
    if flow.record.signals:
        flow.record = replace(flow.record, signals=[])  # it is written often, and they may be many
    graph.restore(_statuses(flow, command).items())
    flow.signals = {**command.signals, **flow.signals}
    _decide(flow, command)
    flow.count_anew()
    w.moving[stem_of(command.id)] = flow
    late, flow.late = flow.late, []
    for event in late:  # before an order voids what they tell of
        moves.take_up(w, flow, event, now)
    if flow.record.order:
        carry_out(w, flow)
    else:
        note_failures(w, flow)
        flow.verdicts.extend(graph.judge_all())
    for name in flow.signals:
        waits.call(w, flow, name)
    for position in flow.unsized:
        fans.want_items(w, flow, position, flow.node(position), 0)


def _take_nodes(flow: Flow, command: TakeFlow) -> Graph | str:
    """Make a flow's graph, and return it, or why that cannot be."""
    count = flow.record.spec.nodes
    if len(command.nodes) != count:
        return f"it has {count} nodes, and {len(command.nodes)} are there; run `taskd fsck`"
    told = [*command.made, *command.children, *(position for position, _ in command.records)]
    told += [position for position, *_ in command.ended] + [position for position, *_ in command.void]
    if told and not 0 <= min(told) <= max(told) < count:
        return f"it has {count} nodes, and there is a record of number {max(told)}; run `taskd fsck`"
    for position, record in command.records:
        if record.state == "skipped" and (record.failure is None or record.failure.code not in SKIP_CODES):
            return f"why its node number {position} was skipped cannot be read; run `taskd fsck`"
    try:
        return read_in(flow, list(command.nodes))
    except (msgspec.MsgspecError, IndexError) as error:
        return f"a node of it does not decode: {error}; run `taskd fsck`"


def _statuses(flow: Flow, command: TakeFlow) -> dict[int, int]:
    """Take in what is stored of nodes and children; return the nodes' statuses."""
    statuses: dict[int, int] = {}
    for position in command.made:
        flow.made[position] = 1
        statuses[position] = RELEASED
    for position, succeeded, result in command.ended:
        statuses[position] = SUCCEEDED if succeeded else FAILED
        if succeeded and result is not None:
            flow.keep_result(position, result)
    for position, record in command.records:
        statuses[position] = _take_node(flow, position, record, command.children.get(position, b""))
    for node, child, item in command.void:
        fan = flow.fans.get(node)
        if fan is not None and child < fan.released:
            fan.note(child, RELEASED)
            flow.reruns.append((member_id(command.id, node, child), item))
    return statuses


def _take_node(flow: Flow, position: int, record: NodeRecord, children: bytes) -> int:
    """Take in what is stored of a node that is no task; return its status."""
    if record.total >= 0:
        statuses = bytearray(max(record.total, flow.record.spawned))
        if flow.record.parent:  # it may have spawned more since that was read
            statuses = bytearray([RELEASED]) * len(statuses)
        begun = children[: record.released if record.made else record.total]
        statuses[: len(begun)] = begun
        flow.fans[position] = Fan(statuses, record.made, record.started_at_ms, record.again)
        flow.spreading[position] = None
    elif record.made and record.state != "running":
        flow.refanned[position] = record.made
    match record.state:
        case "waiting":
            flow.waits[position] = record
            return RELEASED
        case "running":
            if record.total < 0:
                flow.unsized[position] = record.made
            return RELEASED
        case "succeeded":
            flow.keep_result(position, record.packed)
            return SUCCEEDED
        case "skipped":
            assert record.failure is not None
            return SKIP_CODES[record.failure.code]
        case "blocked":
            return BLOCKED
        case _:
            return FAILED


def _decide(flow: Flow, command: TakeFlow) -> None:
    """Find the nodes again whose branch was not taken."""
    graph = flow.graph
    assert graph is not None
    if not flow.deciding:
        return
    results = {position: result for position, _, result in command.ended}
    results |= {position: record.packed for position, record in command.records}
    for position in flow.deciding:
        status = graph.statuses[position]
        if status > RELEASED:
            flow.decide(position, results.get(position) if status == SUCCEEDED else None)


def take_items(w: Working, command: MapItems, now: Now) -> None:
    """Take in items that were read for a node that maps."""
    flow = w.flows.get(stem_of(command.id))
    if flow is None or flow.graph is None:
        return
    if command.broken:
        set_aside(w, flow, command.broken)
    else:
        fans.take_items(w, flow, command, now)


def rerun(w: Working, command: RerunTasks, now: Now, loaded: Loaded) -> None:
    """Put tasks back in line that have ended, with what they are given now.

    Raises:
        NeedRecords: They are not loaded.
    """
    keys: list[Key] = [(kind, task_id) for task_id, _ in command.tasks for kind in (records.SPEC, records.STATE)]
    w.need(keys, loaded)
    stopped: dict[Key, Value] = {}
    for task_id, inputs in command.tasks:
        spec, last = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
        flow = w.flows.get(stem_of(task_id))
        if flow is None or flow.graph is None:
            continue
        if not isinstance(spec, SpecRecord):
            _fail(w, flow, task_id, now)
            continue
        w.delete(records.NODE, task_id)
        if isinstance(last, StateRecord) and last.state in TERMINAL:
            if inputs:
                rules = replace(spec.spec.rules, member=Member(list(inputs)))
                spec = replace(spec, spec=replace(spec.spec, given=rules))
                w.put(records.SPEC, task_id, spec)
            if last.result_apart:
                w.delete(records.RESULT, task_id)
            spec, state = retry.revive(w, spec, last, now)
            if flow.record.stopped and flow.record.stage == 0:  # since it was told to run again
                stopped |= {(records.SPEC, task_id): spec, (records.STATE, task_id): state}
    cancel.cancel_some(w, [task_id for kind, task_id in stopped if kind == records.SPEC], now, stopped)
    w.counters_dirty = True


def _fail(w: Working, flow: Flow, task_id: bytes, now: Now) -> None:
    """Note that a task cannot run again, since its spec is not there. Of a child the record that voids it stays."""
    position, child = place_of(task_id)
    if child >= 0:
        moves.take_up(w, flow, Happened(task_id, FAILED), now)
        return
    failure = Failure(ResultGone.code, "what it ran on is not there: submit the workflow anew")
    w.put(records.NODE, task_id, NodeRecord("dead", 0, now.wall_ms, failure=failure))
    end_node(w, flow, position, FAILED, failure=failure)
