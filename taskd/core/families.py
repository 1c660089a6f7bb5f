"""Families: tasks that a task has spawned while it ran, and its waiting for them.

What a task spawns are the children of the one node of a workflow of its own, which is
open until the task and all of them have ended. The n-th that it spawns is the n-th
child, whichever attempt spawns it: a later attempt finds what an earlier one made. A
task that waits for them has ended its attempt and holds nothing; it goes back in line
when they have ended, and its next attempt finds their results.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from taskd.core import attempts, due, endings, expiry, fans, records, submit
from taskd.core.commands import Loaded, Now
from taskd.core.effects import Continue
from taskd.core.flows import Fan, Flow, nodes_id, read_in, stem_of
from taskd.core.graph import RELEASED, STOPPED
from taskd.core.lifecycle import State
from taskd.core.lines import Task, lease_record
from taskd.core.records import Key, SpecRecord, StateRecord
from taskd.core.settling import want
from taskd.core.workflow_commands import SpawnTasks, WakeTask
from taskd.core.workflow_records import NodeRecord, NodesRecord, WorkflowRecord
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest, LeaseStale, StoreCorrupt
from taskd_protocol.task import Member, Spawned, TaskSpec, check_template
from taskd_protocol.tracing import context_below
from taskd_protocol.workflow import CHILDREN_MAX, SPAWN, Node, WorkflowSpec, make_workflow_id, member_id, spawn_digest

NODE: Final = 0
"""The node whose children they are."""

ENTROPY_BYTES: Final = 5


def spawned(w: Working, family: bytes) -> Spawned | None:
    """Return what a task has spawned so far, for its next attempt."""
    flow = w.flows.get(stem_of(family))
    if flow is None or not flow.record.spawned:
        return None
    return Spawned(member_id(family, NODE), flow.record.spawned, flow.record.digest)


def spawn(w: Working, command: SpawnTasks, now: Now) -> None:
    """Make the tasks that a running one has spawned, those that are not there yet.

    Raises:
        LeaseStale: The agent holds no such lease.
        BadRequest: One is out of range, or some before them are not known.
        StoreCorrupt: What it has spawned before cannot be read.
        PayloadTooLarge: Arguments are.
    """
    agent = w.agents.get(command.agent)
    task = agent.leases.get(command.token) if agent is not None else None
    if agent is None or task is None:
        raise LeaseStale("the agent holds no lease of that token: what its attempt spawns is not made")
    agent.seen_mono_ms = now.mono_ms
    for spec in command.specs:
        check_template(spec, w.settings.payload_bytes_max)
    family = task.past.family if task.past is not None else b""
    flow = w.flows.get(stem_of(family)) if family else None
    if family and (flow is None or flow.broken):
        raise StoreCorrupt("what the task has spawned before cannot be read: stop the server and run `taskd fsck`")
    known = flow.record.spawned if flow is not None else 0
    if not 0 <= command.first <= known or command.first + len(command.specs) > CHILDREN_MAX:
        raise BadRequest(f"tasks from number {command.first} on; {known} are known, and {CHILDREN_MAX} are the most")
    fresh = command.specs[known - command.first :]
    if fresh:
        below = context_below(task.spec.traceparent, task.spec.id, task.attempt)
        _make(w, flow or _begin(w, task, now), fresh, below, now)


def _begin(w: Working, task: Task, now: Now) -> Flow:
    """Begin a task's family."""
    family = make_workflow_id(now.wall_ms, w.rng.randbytes(ENTROPY_BYTES))
    while stem_of(family) in w.flows:
        family = make_workflow_id(now.wall_ms, w.rng.randbytes(ENTROPY_BYTES))
    task.past = replace(task.past or attempts.NO_PAST, family=family)
    w.put(records.LEASE, task.spec.id, lease_record(task))
    packed = msgspec.Raw(msgspec.msgpack.encode(Node("children", kind=SPAWN)))
    spec = WorkflowSpec(family, f"children of {task.spec.name}"[:256], 1, traceparent=task.spec.traceparent)
    record = WorkflowRecord(spec, task.owner, now.wall_ms, State.RUNNING, {}, parts=[0], parent=task.spec.id)
    flow = w.flows[stem_of(family)] = Flow(record)
    read_in(flow, [packed]).release((NODE,))
    flow.fans[NODE] = Fan(bytearray(), 0, now.wall_ms)
    flow.count_anew()
    w.put(records.NODES, nodes_id(family, 0), NodesRecord([packed]))
    w.put(records.OPEN, family, b"")
    return flow


def _make(w: Working, flow: Flow, specs: Sequence[TaskSpec], below: str, now: Now) -> None:
    """Make children, whose spans stand below their parent's attempt where they name no other."""
    first = flow.record.spawned
    digest = flow.record.digest
    made: list[TaskSpec] = []
    for child, spec in enumerate(specs, first):
        digest = spawn_digest(digest, spec.name, spec.payload)
        rules = replace(spec.rules, member=Member())
        trace = spec.traceparent or below
        made.append(replace(spec, id=member_id(flow.id, NODE, child), traceparent=trace, given=rules))
    flow.record = replace(flow.record, spawned=first + len(specs), digest=digest)
    w.dirty_flows[flow.stem] = flow
    w.put(
        records.NODE,
        member_id(flow.id, NODE),
        NodeRecord("running", flow.record.created_at_ms, total=flow.record.spawned),
    )
    if flow.graph is not None:
        flow.fans[NODE].grow(len(specs))
    submit.keep(w, made, flow.record.owner, now)


def suspend(w: Working, task: Task, now: Now, *, started_at_ms: int) -> None:
    """Have a leased task wait for what it has spawned: its lease is gone from its agent already."""
    attempts.pass_over(task)
    past = task.past or attempts.NO_PAST
    if not past.family:
        endings.requeue(w, task, now)
        return
    endings.block(w, task, started_at_ms=started_at_ms)
    expiry.start(w, task.spec, task.since_ms, task.attempt, now)
    flow = w.flows.get(stem_of(past.family))
    if flow is not None:  # else it cannot be read, and the task stays blocked
        flow.record = replace(flow.record, waiting=True)
        _go_on(w, flow)


def parent_ended(w: Working, flow: Flow, status: int) -> None:
    """Note that a task with a family has ended: with one that was cancelled, its children are."""
    if status == STOPPED:
        flow.record = replace(flow.record, state=State.CANCELLING, stopped=True)
    flow.record = replace(flow.record, parent_ended=True, waiting=False)
    _go_on(w, flow)


def _go_on(w: Working, flow: Flow) -> None:
    stem = flow.stem
    w.dirty_flows[stem] = flow
    if flow.graph is None:
        want(w, flow)
    else:
        flow.spreading[NODE] = None
        w.moving[stem] = flow


def look(w: Working, flow: Flow, now: Now) -> None:
    """Wake a task that waits for its children, when they have ended; if it has ended itself, that was its family."""
    fan = flow.fans[NODE]
    if not fan.has_ended or flow.graph is None or flow.graph.statuses[NODE] != RELEASED:
        return
    if flow.record.parent_ended:
        fans.end(w, flow, NODE, fan, now)
    elif flow.record.waiting:
        w.effects.append(Continue(WakeTask(flow.record.parent, flow.id)))


def wake(w: Working, command: WakeTask, loaded: Loaded) -> None:
    """Put a task back in line that waited for its children.

    Raises:
        NeedRecords: It is not loaded.
    """
    task_id = command.id
    keys: list[Key] = [(records.SPEC, task_id), (records.STATE, task_id)]
    w.need(keys, loaded)
    spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
    if due.has_details(state):
        w.need([*keys, (records.DETAILS, task_id)], loaded)
    flow = w.flows.get(stem_of(command.family))
    if flow is None or not flow.record.waiting or (flow.graph is not None and flow.fans[NODE].open):
        return
    flow.record = replace(flow.record, waiting=False)
    w.dirty_flows[stem_of(command.family)] = flow
    if isinstance(spec, SpecRecord) and isinstance(state, StateRecord) and state.state == State.BLOCKED:
        endings.put_ready(w, due.waiting_task(spec, state, loaded), state)
        w.counters.move(spec.spec.queue, State.BLOCKED, State.READY)
        w.counters_dirty = True
