"""Views: what people and programs are shown of the state."""

from collections.abc import Sequence

import msgspec

from taskd.core import gates, limiting, records
from taskd.core.attempts import attempt_of, kept_ids
from taskd.core.commands import Now
from taskd.core.explain import first_reason
from taskd.core.fleet import Agent
from taskd.core.lifecycle import State
from taskd.core.lines import Task, where_of
from taskd.core.peaks import proposal
from taskd.core.reasons import why_cancelling, why_waiting
from taskd.core.records import AttemptRecord, Key, SpecRecord, StateRecord
from taskd.core.working import Working
from taskd.server.loading import Found
from taskd_protocol.agent_messages import HostStats
from taskd_protocol.house_messages import AgentView, MemoryView, QueueView, StockView
from taskd_protocol.limits import PAYLOAD_BYTES_MAX
from taskd_protocol.messages import AttemptView, TaskView
from taskd_protocol.task import DEFAULT_RETRY, Failure, TaskSpec
from taskd_protocol.words import reason_text

LISTED_CHARS = 500
"""Of a failure's message in a listing; its traceback is left out."""


class WaitTexts:
    """Why tasks wait that are shown together: found once for those of a line, since it takes a look at each agent."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._known: dict[tuple[str, str, str, bytes], str] = {}

    def of(self, w: Working, spec: TaskSpec, stored: StateRecord) -> str:
        """Return why a task waits, in words; empty: it does not."""
        at_gate = gates.waits_at(w, spec, stored.gates, stored.past, self._now) if stored.state == State.READY else None
        if at_gate is not None:
            return f"waits for {reason_text(at_gate)}"
        if stored.state == State.CANCELLING:
            like = stored.state, stored.agent, "", b""
        else:
            like = stored.state, spec.queue, spec.name, where_of(spec, stored.past)
        if like not in self._known:
            self._known[like] = self._text(w, *like)
        return self._known[like]

    def _text(self, w: Working, state: str, queue: str, name: str, where: bytes) -> str:
        if state == State.CANCELLING:
            return why_cancelling(w, queue)
        lines = [w.lines.get((queue, name, where, fair)) for fair in (False, True)] if state == State.READY else []
        line = next((line for line in lines if where and line is not None), None)
        reason = limiting.holds_back(w, queue, name, self._now) if state == State.READY else None
        if reason is None and line is not None:
            reason = first_reason(w, line, self._now)
        return why_waiting(w, state, queue, name) if reason is None else f"waits for {reason_text(reason)}"


def task_keys(task_id: bytes) -> list[Key]:
    """Return what ``task_view`` wants to have read."""
    return [(records.SPEC, task_id), (records.STATE, task_id), (records.RESULT, task_id)]


def task_view(w: Working, task_id: bytes, found: Found, texts: WaitTexts, *, whole: bool) -> TaskView | None:
    """Return a task as it stands, or None if it is not stored.

    Args:
        w: What is in memory counts before what was read.
        task_id: Which.
        found: ``task_keys``, as they stand now; RESULT may be left out.
        texts: Of the tasks that are shown together.
        whole: With payload, result and traceback; listings go without. A payload that fits no message beside
            its result is left out all the same.
    """
    spec_record = found.get((records.SPEC, task_id))
    state = found.get((records.STATE, task_id))
    task = w.tasks.get(task_id)
    if not isinstance(spec_record, SpecRecord):
        return None
    stored = state if isinstance(state, StateRecord) else StateRecord(State.READY, 0, 0, 0, "", 0)
    if task is not None:
        stored = _state_in_memory(task, stored)
    spec = spec_record.spec
    apart = found.get((records.RESULT, task_id)) if stored.result_apart else stored.result
    result = apart if whole and isinstance(apart, bytes) else None
    fits = len(spec.payload) + len(result or b"") <= PAYLOAD_BYTES_MAX
    retry = spec.retry or DEFAULT_RETRY
    return TaskView(
        id=task_id,
        name=spec.name,
        queue=spec.queue,
        state=str(stored.state),
        priority=spec.priority,
        attempt=stored.attempt,
        failures=stored.failures,
        max_attempts=retry.max_attempts,
        agent=stored.agent,
        created_at_ms=spec_record.created_at_ms,
        due_at_ms=stored.due_at_ms or None,
        started_at_ms=stored.started_at_ms or None,
        finished_at_ms=stored.finished_at_ms or None,
        payload=spec.payload if whole and fits else b"",
        result=result,
        failure=stored.failure if whole else in_short(stored.failure),
        key=spec.key,
        traceparent=spec.traceparent,
        waits_for=texts.of(w, spec, stored),
        crashes=stored.past.crashes if stored.past is not None else 0,
        crash_limit=min(retry.crash_limit, retry.max_attempts),
    )


def attempt_keys(w: Working, task_id: bytes, found: Found) -> list[Key]:
    """Return what ``with_attempts`` wants to have read, given ``task_keys``."""
    task, state = w.tasks.get(task_id), found.get((records.STATE, task_id))
    if task is not None:
        ids = kept_ids(task_id, task.attempt - (task.token > 0), task.past)
    elif isinstance(state, StateRecord):
        ids = kept_ids(task_id, state.attempt - (state.state == State.SUCCEEDED), state.past)
    else:
        return []
    return [(records.ATTEMPT, attempt_id) for attempt_id in ids]


def with_attempts(view: TaskView, keys: Sequence[Key], found: Found) -> TaskView:
    """Return the view with the attempts that have ended, oldest first; of one that succeeded the view itself tells."""
    attempts = [
        AttemptView(
            attempt_of(key[1], ended), ended.agent, ended.started_at_ms, ended.ended_at_ms, ended.outcome, ended.failure
        )
        for key in keys
        if isinstance(ended := found[key], AttemptRecord)
    ]
    if view.state == State.SUCCEEDED:
        started_at_ms, ended_at_ms = view.started_at_ms or 0, view.finished_at_ms or 0
        attempts.append(AttemptView(view.attempt, view.agent, started_at_ms, ended_at_ms, view.state))
    return msgspec.structs.replace(view, attempts=attempts)


def in_short(failure: Failure | None) -> Failure | None:
    """Return a failure as listings show it."""
    if failure is None:
        return None
    return Failure(failure.code, failure.message[:LISTED_CHARS], failure.type, "", failure.exit_code)


def _state_in_memory(task: Task, stored: StateRecord) -> StateRecord:
    leased = State.CANCELLING if task.cancelling else State.RUNNING
    state = leased if task.token else State.READY
    return StateRecord(
        state,
        task.attempt,
        task.failures,
        task.token,
        task.agent or stored.agent,
        task.granted_at_ms or stored.started_at_ms,
        failure=task.failure,
        past=task.past,
        gates=task.gates,
    )


def queue_views(w: Working) -> list[QueueView]:
    """Return every queue that holds a task that has not ended, or of which something was ordered, by name."""
    views = []
    for name in sorted(w.counters.by_queue.keys() | w.queues.keys()):
        states = w.counters.by_queue.get(name, {})
        paused, draining, weight = w.is_paused(name), w.is_draining(name), w.weight_of(name)
        running = states.get(State.RUNNING, 0) + states.get(State.CANCELLING, 0)
        ready, scheduled = states.get(State.READY, 0), states.get(State.SCHEDULED, 0)
        if ready or scheduled or running or name in w.queues:
            record = w.queues.get(name)
            keys = dict(sorted(record.fair_weights.items())) if record is not None else {}
            views.append(QueueView(name, ready, scheduled, running, paused, draining, weight, keys))
    return views


def agent_views(w: Working, hosts: dict[int, HostStats], now: Now) -> list[AgentView]:
    """Return every agent that is connected, holds leases, or was told to take nothing, by name."""
    absent = {name: Agent(name=name) for name in {**w.drained_agents, **w.quarantined} if name not in w.agents}
    return [_agent_view(w, agent, hosts, now) for _, agent in sorted({**w.agents, **absent}.items())]


def _agent_view(w: Working, agent: Agent, hosts: dict[int, HostStats], now: Now) -> AgentView:
    return AgentView(
        name=agent.name,
        boot_id=agent.boot_id,
        state=state_of(w, agent),
        slots=sum(pool.pool.slots for pool in agent.pools),
        running=len(agent.leases),
        host=hosts.get(agent.connection, HostStats()),
        labels=agent.labels,
        task_names=sorted({name for pool in agent.pools for name in pool.names}),
        queues=sorted(agent.queues),
        software=agent.software,
        seen_at_ms=now.wall_ms - (now.mono_ms - agent.seen_mono_ms) if agent.name in w.agents else 0,
        stock=[
            StockView(name, total, agent.room.free[name], dict(agent.room.items.get(name, {})))
            for name, total in agent.room.total.items()
        ],
        pressed=agent.room.is_pressed,
    )


def memory_views(w: Working) -> list[MemoryView]:
    """Return what was learned of each task name that asks for memory."""
    return [
        MemoryView(name, sum(peaks.counts.values()), peaks.highest, proposal(peaks))
        for name, peaks in sorted(w.peaks.items())
    ]


def state_of(w: Working, agent: Agent) -> str:
    """Return an agent's state, in a word."""
    if not agent.connection:
        if agent.leases or not (agent.name in w.drained_agents or agent.name in w.quarantined):
            return "lost"
        return "drained" if agent.name in w.drained_agents else "quarantined"
    if agent.quarantined:
        return "quarantined"
    if agent.drained and not agent.leases:
        return "drained"
    return "draining" if agent.drained or agent.draining else "live"


def task_counts(w: Working) -> dict[str, int]:
    """Return stored tasks by state."""
    counts: dict[str, int] = {}
    for states in [*w.counters.by_queue.values(), w.counters.ended]:
        for state, count in states.items():
            counts[str(state)] = counts.get(str(state), 0) + count
    return {state: count for state, count in sorted(counts.items()) if count}
