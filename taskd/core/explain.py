"""Explaining: why a task, or a node of a workflow, is where it is.

Pure: what is in memory and what was read is looked at, and nothing changes. Whether an
agent may run a task is asked of ``fitting``, as placement does; so what is told here is
what holds the task back.

What holds a task back is asked of `fitting` alone.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from taskd.core import gates, holdups, limiting
from taskd.core.attempts import attempt_of
from taskd.core.commands import Now
from taskd.core.families import NODE
from taskd.core.fitting import NEARNESS, Ruled, nearness, never, reason_of, ruled_out
from taskd.core.fleet import Agent
from taskd.core.flows import Flow, stem_of
from taskd.core.graph import RELEASED
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.lines import ORDER_BITS, ORDER_MASK, Line, Task, is_fair, place_of, rank_in, where_of
from taskd.core.records import AttemptRecord, Past, SpecRecord, StateRecord
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd.core.working import Working
from taskd_protocol import workflow as graphs
from taskd_protocol.explanation import (
    AGENTS_LISTED_MAX,
    NAMED_MAX,
    AgentReason,
    AttemptWaited,
    Explanation,
    Place,
    Reason,
    Reasons,
)
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Failure
from taskd_protocol.workflow import COMPENSATE, MAP, SIGNAL, SPAWN, Node, member_id

ENDED: Final = TERMINAL | {"skipped", "unknown"}
"""How nodes have ended that others come after; what is not known any more had."""


def explain_task(w: Working, stored: SpecRecord, state: StateRecord | None, now: Now) -> Explanation:
    """Explain a task.

    Args:
        w: What is in memory counts before what was read.
        stored: Its SPEC.
        state: Its STATE; None: there is none.
        now: This instant.
    """
    spec = stored.spec
    task = w.tasks.get(spec.id)
    if task is not None and task.token:
        return _explain_leased(w, task)
    if state is None:
        state = StateRecord(State.READY, 0, 0, 0, "", 0)
    waits_at = gates.waits_at(w, spec, state.gates, state.past, now) if state.state == State.READY else None
    if waits_at is not None:
        return Explanation(spec.id, spec.name, spec.queue, State.READY, state.attempt, waits_at, agent=state.agent)
    if state.state == State.READY or task is not None:
        return _explain_ready(w, stored, state if task is None else _of_memory(task, state), now)
    return Explanation(
        spec.id,
        spec.name,
        spec.queue,
        state.state,
        state.attempt,
        _why_waiting(w, state),
        agent=state.agent,
        started_at_ms=state.started_at_ms,
        finished_at_ms=state.finished_at_ms,
        failure=_in_short(state.failure),
        waited=_waited(state.attempt, state.past),
    )


def with_ended(told: Explanation, ended: Sequence[tuple[bytes, AttemptRecord]]) -> Explanation:
    """Return an explanation with what was waited for before attempts that have ended, oldest first.

    Args:
        told: Of the task.
        ended: ATTEMPT ids and records.
    """
    before = [AttemptWaited(attempt_of(i, attempt), attempt.waited) for i, attempt in ended if attempt.waited]
    return replace(told, waited=before + told.waited)


def explain_node(
    w: Working,
    node: Node,
    node_id: bytes,
    *,
    workflow: WorkflowRecord,
    record: NodeRecord | None,
    parents: Sequence[tuple[str, str]],
) -> Explanation:
    """Explain a node of a workflow that is no task, or none yet.

    Args:
        w: The working set.
        node: As it was submitted.
        node_id: Of its task, if it had one.
        workflow: It is of.
        record: Of the node; None: there is none.
        parents: Name and state of each node that it comes after.
    """
    task = node.task
    reason = None
    if record is None or not record.finished_at_ms:
        flow = w.flows.get(stem_of(node_id))
        reason = _why_blocked(node, node_id, workflow=workflow, record=record, parents=parents, flow=flow)
    record = record or NodeRecord(State.BLOCKED, 0)
    return Explanation(
        node_id,
        node.name if task is None else task.name,
        "" if task is None else task.queue,
        record.state,
        0,
        reason,
        started_at_ms=record.started_at_ms,
        finished_at_ms=record.finished_at_ms,
        failure=_in_short(record.failure),
    )


def holds_back(w: Working, line: Line, now: Now) -> Reason | None:
    """Return what holds the whole line back, whatever agents have; None: nothing does."""
    return limiting.holds_back(w, line.queue, line.name, now)


def first_reason(w: Working, line: Line, now: Now) -> Reason | None:
    """Return the first thing that a line's next task waits for; None: some agent has room for it."""
    return holds_back(w, line, now) or _agents(w, line, now)[1]


def _explain_leased(w: Working, task: Task) -> Explanation:
    spec, agent = task.spec, w.agents.get(task.agent)
    reason = None
    if task.cancelling:
        here = agent is not None and agent.connection
        reason = Reason(Reasons.PROOF if here else Reasons.AWAY, task.agent)
    return Explanation(
        spec.id,
        spec.name,
        spec.queue,
        State.CANCELLING if task.cancelling else State.RUNNING,
        task.attempt,
        reason,
        agent=task.agent,
        started_at_ms=task.granted_at_ms,
        holds=task.granted,
        failure=_in_short(task.failure),
        waited=_waited(task.attempt, task.past),
    )


def _explain_ready(w: Working, stored: SpecRecord, state: StateRecord, now: Now) -> Explanation:
    spec = stored.spec
    task = w.tasks.get(spec.id)
    line = w.lines.get((spec.queue, spec.name, where_of(spec, state.past), is_fair(spec)))
    assert line is not None, "a line that is not empty is in memory"
    place = _place(w, line, stored, now)
    agents, reason, others = _agents(w, line, now)
    held_back = holds_back(w, line, now)
    if held_back is not None:
        reason = held_back
    elif reason is None and not line.window_count:
        reason = Reason(Reasons.READING)
    elif reason is None:
        reason = Reason(Reasons.AHEAD, count=place.ahead) if place.ahead else Reason(Reasons.PLACING)
    per_ms = line.granted_per_ms(now.mono_ms)
    rate, first_ms = (0.0, 0) if per_ms or w.is_paused(line.queue) else limiting.rate_of(w, line.queue, line.name, now)
    connected = [agent for agent in w.agents.values() if agent.connection]
    rather = next((agent for agent in w.affinity.agents_of(spec) if agent in w.agents), "")
    impossible = bool(connected) and all(never(agent, line) is not None for agent in connected)
    return Explanation(
        spec.id,
        spec.name,
        spec.queue,
        State.READY,
        state.attempt,
        reason,
        place,
        agents,
        others,
        impossible,
        w.rooms.held.get(line.id, "") if place.is_exact and not place.ahead else "",
        -1 if impossible else _starts_in_ms(place, per_ms, rate, first_ms),
        (per_ms or rate) * 60_000,
        agent=state.agent,
        started_at_ms=state.started_at_ms,
        failure=_in_short(state.failure),
        waited=[] if task is None else _so_far(line, task, now),
        rather=rather,
        rather_for=w.affinity.wish_of(spec, rather) if rather else "",
        by_rate=bool(rate),
    )


def _starts_in_ms(place: Place, per_ms: float, rate: float, first_ms: int) -> int:
    """Return when a task may be expected to start: as its line has moved of late, else as its limits let it.

    Args:
        place: Of the task.
        per_ms: How fast its line has moved; 0: not at all.
        rate: How many of its line may begin in a ms; 0: that is not limited.
        first_ms: When the first of them may.
    """
    if per_ms:
        return round((place.ahead + 1) / per_ms)
    return first_ms + round(place.ahead / rate) if rate else -1


def _so_far(line: Line, task: Task, now: Now) -> list[AttemptWaited]:
    waited = holdups.so_far(line, task, now)
    return [AttemptWaited(task.attempt + 1, waited)] if waited else []


def _waited(attempt: int, past: Past | None) -> list[AttemptWaited]:
    return [AttemptWaited(attempt, past.waited)] if past is not None and past.waited else []


def _agents(w: Working, line: Line, now: Now) -> tuple[list[AgentReason], Reason | None, dict[str, int]]:
    """Return what rules out the nearest agents, the first thing that is waited for, and how many others there are."""
    ruled = [(agent, *ruled_out(w, agent, line, now)) for agent in w.agents.values()]
    ruled.sort(key=_by_nearness)
    listed = [
        AgentReason(agent.name, Reason(Reasons.PLACING) if why is None else reason_of(agent, line, why), is_for_ever)
        for agent, why, is_for_ever in ruled[:AGENTS_LISTED_MAX]
    ]
    first: Reason | None = Reason(Reasons.NO_AGENT)
    if any(agent.connection for agent, _, _ in ruled):
        first = None if ruled[0][1] is None else listed[0].reason
    others = Counter([Reasons.PLACING if why is None else str(why[0]) for _, why, _ in ruled[AGENTS_LISTED_MAX:]])
    return listed, first, dict(sorted(others.items()))


def _place(w: Working, line: Line, stored: SpecRecord, now: Now) -> Place:
    """Return where a task stands in its line: exactly, if it is in the window."""
    rank = rank_in(stored)
    lines_before = sum(
        [other.head_rank() < rank for other in w.active.values() if other is not line and other.flow == line.flow]
    )
    index = line.index_of(rank)
    if index is not None:
        return Place(index, line.ready, ahead_min=index, lines_before=lines_before)
    known = line.window_count
    beyond = max(0, line.ready - known - 1)
    share = _share(w, line, stored, now)
    return Place(known + round(share * beyond), line.ready, is_exact=False, ahead_min=known, lines_before=lines_before)


def _share(w: Working, line: Line, stored: SpecRecord, now: Now) -> float:
    """Return which share of what is beyond a line's window comes before a task, as if it were spread evenly.

    Over the submits since, if the window ends with tasks of its priority; else over the instants of places, or tags.
    """
    rank, tail = rank_in(stored), max(line.tail, 0)
    if line.fair:
        first, at, last = tail >> ORDER_BITS, rank >> ORDER_BITS, w.fair.paces[line.queue].highest
    elif line.last_priority == stored.spec.priority:
        first, at, last = tail & ORDER_MASK, stored.order, w.counters.next_order
    else:
        newest = place_of(max(now.wall_ms, w.counters.latest_wall_ms), stored.spec, w.settings.ageing_ms)
        first, at, last = tail >> ORDER_BITS, rank >> ORDER_BITS, newest
    return min(1.0, max(0.0, (at - first) / max(1, last - first)))


def _why_waiting(w: Working, state: StateRecord) -> Reason | None:
    """Return what a task waits for that is in no line."""
    if state.state == State.SCHEDULED:
        if state.attempt:
            charged = state.failures + (state.past.crashes if state.past is not None else 0)
            return Reason(Reasons.BACKOFF, count=charged, until_ms=state.due_at_ms)
        return Reason(Reasons.DELAY, until_ms=state.due_at_ms)
    if state.state == State.BLOCKED:
        return _children(w, state.past)
    return None


def _children(w: Working, past: Past | None) -> Reason:
    """Return which of the tasks that one has spawned have not ended."""
    family = past.family if past is not None else b""
    flow = w.flows.get(stem_of(family)) if family else None
    if flow is None or flow.broken:
        return Reason(Reasons.UNREADABLE, w.lost_flows.get(family, "") if flow is None else flow.broken)
    fan = flow.fans.get(NODE)
    if fan is None:
        return Reason(Reasons.CHILDREN, total=flow.record.spawned)
    return _open_children(fan.statuses, member_id(flow.id, NODE), len(fan.statuses))


def _open_children(statuses: bytearray, node_id: bytes, total: int) -> Reason:
    found: list[str] = []
    workflow, (node, _) = node_id, graphs.place_of(node_id)
    at = statuses.find(RELEASED)
    while at >= 0 and len(found) < NAMED_MAX:
        found.append(format_task_id(member_id(workflow, node, at)))
        at = statuses.find(RELEASED, at + 1)
    return Reason(Reasons.CHILDREN, total=total, count=statuses.count(RELEASED), named=found)


def _why_blocked(  # noqa: PLR0911 - one return a reason
    node: Node,
    node_id: bytes,
    *,
    workflow: WorkflowRecord,
    record: NodeRecord | None,
    parents: Sequence[tuple[str, str]],
    flow: Flow | None,
) -> Reason | None:
    if flow is None:
        return None  # its workflow has ended
    if flow.broken:
        return Reason(Reasons.UNREADABLE, flow.broken)
    if record is not None and record.state == "waiting":
        code = Reasons.SIGNAL if node.kind == SIGNAL else Reasons.SLEEP
        return Reason(code, node.signal, until_ms=record.due_at_ms)
    if record is not None and record.state == "running" and node.kind in {MAP, SPAWN}:
        fan = flow.fans.get(graphs.place_of(node_id)[0])
        return (
            Reason(Reasons.CHILDREN, total=max(0, record.total))
            if fan is None
            else _open_children(fan.statuses, node_id, len(fan.statuses))
        )
    going = [name for name, state in parents if state not in ENDED]
    if going:
        return Reason(Reasons.NODES, total=len(parents), count=len(going), named=going[:NAMED_MAX])
    if node.phase and workflow.stage < (1 if node.phase == COMPENSATE else 2):
        return Reason(Reasons.PHASE, node.phase)
    return Reason(Reasons.TURN)


def _of_memory(task: Task, state: StateRecord) -> StateRecord:
    """Return what is known of a task in a window."""
    return StateRecord(
        State.READY,
        task.attempt,
        task.failures,
        0,
        state.agent,
        state.started_at_ms,
        failure=task.failure,
        past=task.past,
    )


def _in_short(failure: Failure | None) -> Failure | None:
    return None if failure is None else Failure(failure.code, failure.message, failure.type, "", failure.exit_code)


def _by_nearness(entry: tuple[Agent, Ruled | None, bool]) -> tuple[int, int, str]:
    agent, why, _ = entry
    near, has = (len(NEARNESS), 0) if why is None else nearness(agent, why)
    return -near, -has, agent.name
