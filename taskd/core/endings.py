"""Endings: how a leased task, or one that waits, becomes terminal or waits again.

Each function writes the records of one task, counts it, and notes what is to be
told. None refuses anything: what is allowed was checked before.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from taskd.core import attempts, claims, dead, expiry, fair, gates, records, timers
from taskd.core.commands import Now
from taskd.core.events import BLOCKED, READY, SCHEDULED, TASK, TasksMoved
from taskd.core.flows import Happened
from taskd.core.graph import FAILED, STOPPED, SUCCEEDED
from taskd.core.lifecycle import State
from taskd.core.lines import ORDER_BITS, Task, is_fair
from taskd.core.records import INLINE_RESULT_BYTES, StateRecord
from taskd.core.working import Working
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import DEFAULT_RETRY, Failure, FailureReport, Outcome, Report, Rules, TaskSpec
from taskd_protocol.workflow import STEM_BYTES

_SUCCEEDED: Final = TASK + State.SUCCEEDED

RECORD_BYTES = 250
"""What a finished task's keys and fields weigh beside its payload and result, roughly."""


def cancelled(w: Working, task: Task, now: Now, *, started_at_ms: int) -> None:
    """End a leased task that was to be cancelled, and whose work is gone: its lease is gone from its agent already."""
    attempts.keep(w, task, attempts.CANCELLED, now, started_at_ms=started_at_ms)
    _end_leased(w, task, State.CANCELLED, now, started_at_ms=started_at_ms)


def succeed(w: Working, reported: Sequence[tuple[Report, Task]], now: Now) -> None:
    """Make leased tasks terminal that succeeded: in one go, at half the time of a call for each."""
    mutate = w.mutations.append
    tell = w.ended.append
    state, wall_ms, end_order = State.SUCCEEDED, now.wall_ms, w.counters.next_order
    weight = said = 0
    moved: dict[tuple[str, str, int, bool, str], TasksMoved] = {}
    for report, task in reported:
        spec = task.spec
        task_id = spec.id
        result: bytes | None = report.result
        packed = report.result
        apart = len(packed) > INLINE_RESULT_BYTES
        if apart:
            mutate((records.RESULT, task_id, packed))
            result = None
        started_at_ms = report.started_at_ms or task.granted_at_ms
        attempt, logs, log_bytes = task.attempt, task.logs, task.log_bytes
        record = StateRecord(
            state,
            attempt,
            task.failures,
            task.token,
            task.agent,
            started_at_ms,
            wall_ms,
            0,
            result,
            apart,
            None,
            logs,
            log_bytes,
            end_order,
        )
        if task.past is not None:
            record = replace(record, past=task.past)
            if task.past.family:
                w.happened.append(Happened(task.past.family, SUCCEEDED))
        mutate((records.LEASE, task_id, None))
        mutate((records.STATE, task_id, record))
        if task.details:
            mutate((records.DETAILS, task_id, None))
        if spec.given is not None:
            _let_go(w, task, spec.given, packed)
        tell(Outcome(task_id, state, attempt, packed))
        del w.tasks[task_id]
        weight += RECORD_BYTES + len(spec.payload) + log_bytes + len(packed)
        said += log_bytes
        key = (spec.queue, spec.name, attempt, task.cancelling, task.agent)
        same = moved.get(key)
        if same is None:
            same = moved[key] = TasksMoved(_SUCCEEDED, spec.queue, spec.name, task.agent, attempt, [], [])
        same.ids.append(task_id)
        same.spans_ms.append(wall_ms - started_at_ms)
    for (queue, _, _, cancelling, _), same in moved.items():
        w.counters.move(queue, State.CANCELLING if cancelling else State.RUNNING, None, len(same.ids))
    w.events += moved.values()
    w.counters.ended[state] = w.counters.ended.get(state, 0) + len(reported)
    w.ended_bytes += weight
    w.counters.logs_bytes += said
    w.counters_dirty = w.counters_dirty or bool(reported)


def _let_go(w: Working, task: Task, rules: Rules, result: bytes) -> None:
    """End what a task had by its rules, and has no more since it succeeded."""
    task_id = task.spec.id
    if rules.unique is not None:
        claims.note_end_leased(w, task.spec, rules.unique)
    gates.end_lease(w, task, ends=True)
    if rules.member is not None:
        w.succeeded.setdefault(task_id[:STEM_BYTES], {})[task_id] = result
        w.affinity.note_made(task_id, task.token, task.agent, len(result))


def end_waiting(
    w: Working,
    spec: TaskSpec,
    last: StateRecord,
    now: Now,
    state: State,
    *,
    since_ms: int,
    failure: Failure | None = None,
) -> None:
    """Make a task terminal that was ready or scheduled, and has left its line or timer.

    Args:
        w: The working set.
        spec: Of the task.
        last: What it was until now.
        now: This instant.
        state: What it is from now on.
        since_ms: When its time limits began.
        failure: Why; None: that of its last attempt stays.
    """
    task_id = spec.id
    expiry.stop(w, spec, since_ms, last.attempt)
    if last.gates:
        gates.let_go(w, spec, last.gates)
    if last.has_details:
        w.delete(records.DETAILS, task_id)
    if (unique := spec.rules.unique) is not None:
        claims.note_end_waiting(w, spec, unique, last.attempt, last.revived_attempt)
    record = StateRecord(
        state,
        last.attempt,
        last.failures,
        last.token,
        last.agent,
        last.started_at_ms,
        now.wall_ms,
        failure=failure or last.failure,
        logs=last.logs,
        log_bytes=last.log_bytes,
        end_order=w.counters.next_order,
        fingerprint=dead.enter(w, task_id, failure, now) if state == State.DEAD and failure else b"",
        past=last.past,
    )
    w.put(records.STATE, task_id, record)
    w.counters.move(spec.queue, State(last.state), None)
    _note_ended(w, spec, record)


def put_ready(w: Working, task: Task, last: StateRecord, *, moves: bool = True) -> StateRecord:
    """Write, enter and return a task that is ready again; a limit to its waiting is the caller's to start.

    Args:
        w: The working set.
        task: It.
        last: How it stood before.
        moves: It stood elsewhere, which is an event; False: it was in line already.
    """
    state = StateRecord(
        State.READY,
        task.attempt,
        task.failures,
        last.token,
        last.agent,
        last.started_at_ms,
        failure=task.failure,
        logs=task.logs,
        log_bytes=task.log_bytes,
        has_details=bool(task.details),
        revived_at_ms=task.revived_at_ms,
        past=task.past,
        revived_attempt=task.revived_attempt,
        gates=task.gates,
    )
    w.put(records.STATE, task.spec.id, state)
    task.fresh = False
    task.ready_mono_ms = w.ticked_mono_ms or 0
    gates.enter(w, task, state)
    if moves:
        w.tell(READY, task.spec, last.agent, task.attempt)
    return state


def charge(
    w: Working, task: Task, report: FailureReport, now: Now, *, failure: Failure, is_agents_fault: bool = False
) -> None:
    """Charge an attempt to a leased task: another one later, or none. Its lease is gone from its agent already.

    Args:
        w: The working set.
        task: Leased until now.
        report: Of the attempt.
        now: This instant.
        failure: Of the attempt, within bounds.
        is_agents_fault: It costs the task nothing, up to a number of times.
    """
    attempts.keep(w, task, report.outcome, now, started_at_ms=report.started_at_ms, failure=failure)
    if is_agents_fault and not report.final:
        task.failures, task.past = attempts.take_back(task.failures, task.past, Counter([report.outcome]))
    if report.final or failure.code == TaskCodes.DEADLINE:
        _die(w, task, failure, now, started_at_ms=report.started_at_ms)
    else:
        _go_on(w, task, failure, now, started_at_ms=report.started_at_ms, wait_ms=report.retry_after_ms)


def put_back(w: Working, task: Task, outcome: str, now: Now, *, started_at_ms: int) -> None:
    """Put a leased task back to its place in line, uncharged: its lease is gone from its agent already."""
    attempts.keep(w, task, outcome, now, started_at_ms=started_at_ms)
    requeue(w, task, now)


def release(w: Working, task: Task, now: Now) -> None:
    """Put a leased task that never started back to its place in line; else as ``put_back``."""
    attempts.pass_over(task)
    requeue(w, task, now)


def give_up(w: Working, task: Task, now: Now, *, failure: Failure = attempts.LOST_FAILURE) -> None:
    """Settle a leased task whose agent or worker is gone, or has it no more: its lease is gone from its agent already.

    No token stands in its state, so that a report of the attempt that was given up is stale from here on.
    """
    blamed = not task.cancelling and (task.started or _may_have_started(w, task))
    outcome = attempts.CRASHED if blamed else attempts.LOST
    attempts.keep(w, task, outcome, now, started_at_ms=0, failure=failure)
    task.token = 0
    if task.cancelling:
        _end_leased(w, task, State.CANCELLED, now, started_at_ms=0)
    elif blamed or task.spec.rules.at_most_once:
        _go_on(w, task, failure, now, started_at_ms=0)
    else:
        requeue(w, task, now)


def _may_have_started(w: Working, task: Task) -> bool:
    """Tell whether a lost attempt counts as started though no mark says so.

    One that was lost before marks its start, unless its agent knows no marks: it could take that down for ever.
    """
    was_lost = task.past is not None and task.past.losses > 0
    return was_lost and not w.agents[task.agent].marks_starts


def _go_on(
    w: Working, task: Task, failure: Failure, now: Now, *, started_at_ms: int, wait_ms: int | None = None
) -> None:
    """Have a task tried again after an attempt that was charged to it; or not, also when that could not begin in time.

    Args:
        w: The working set.
        task: Leased until now.
        failure: Of the attempt.
        now: This instant.
        started_at_ms: Of the attempt; 0: not known.
        wait_ms: Until the next attempt; None: as the policy says.
    """
    retry = task.spec.retry or DEFAULT_RETRY
    if wait_ms is None:
        wait_ms = attempts.wait_ms(task, retry, w.rng.random())
    is_late = expiry.is_late(task.spec, task.since_ms, now.wall_ms + wait_ms)
    if is_late or task.spec.rules.at_most_once or attempts.are_spent(task, retry):
        _die(w, task, failure, now, started_at_ms=started_at_ms)
    else:
        _try_later(w, task, failure, wait_ms, now, started_at_ms=started_at_ms)


def _die(w: Working, task: Task, failure: Failure, now: Now, *, started_at_ms: int) -> None:
    told = attempts.maybe_ran(failure) if task.spec.rules.at_most_once else failure
    _end_leased(w, task, State.DEAD, now, started_at_ms=started_at_ms, failure=told)


def _end_leased(
    w: Working,
    task: Task,
    state: State,
    now: Now,
    *,
    started_at_ms: int,
    failure: Failure | None = None,
) -> None:
    """Make a leased task terminal that did not succeed."""
    gates.end_lease(w, task, ends=True)
    task_id = task.spec.id
    record = StateRecord(
        state,
        task.attempt,
        task.failures,
        task.token,
        task.agent,
        started_at_ms or task.granted_at_ms,
        now.wall_ms,
        failure=failure,
        logs=task.logs,
        log_bytes=task.log_bytes,
        end_order=w.counters.next_order,
        fingerprint=dead.enter(w, task_id, failure, now) if state == State.DEAD and failure else b"",
        past=task.past,
    )
    w.mutations.append((records.LEASE, task_id, None))
    w.mutations.append((records.STATE, task_id, record))
    if task.details:
        w.delete(records.DETAILS, task_id)
    if (unique := task.spec.rules.unique) is not None:
        claims.note_end_leased(w, task.spec, unique)
    del w.tasks[task_id]
    w.counters.move(task.spec.queue, State.CANCELLING if task.cancelling else State.RUNNING, None)
    w.counters_dirty = True
    _note_ended(w, task.spec, record)


def _try_later(w: Working, task: Task, failure: Failure, wait_ms: int, now: Now, *, started_at_ms: int) -> None:
    """Have a leased task wait for its next attempt."""
    gates.end_lease(w, task, ends=False)
    task_id = task.spec.id
    due_at_ms = now.wall_ms + wait_ms
    record = StateRecord(
        State.SCHEDULED,
        task.attempt,
        task.failures,
        task.token,
        task.agent,
        started_at_ms or task.granted_at_ms,
        due_at_ms=due_at_ms,
        failure=failure,
        logs=task.logs,
        log_bytes=task.log_bytes,
        has_details=bool(task.details),
        revived_at_ms=task.revived_at_ms,
        gates=task.gates,
        past=task.past,
    )
    w.delete(records.LEASE, task_id)
    w.put(records.STATE, task_id, record)
    timers.start(w, task_id, due_at_ms, wait_ms, now)
    expiry.start(w, task.spec, task.since_ms, task.attempt, now)
    del w.tasks[task_id]
    w.counters.move(task.spec.queue, State.RUNNING, State.SCHEDULED)
    w.tell(SCHEDULED, task.spec, task.agent, task.attempt, failure.code)
    w.counters_dirty = True


def block(w: Working, task: Task, *, started_at_ms: int) -> None:
    """Have a leased task wait for others: its lease is gone from its agent; its limit is for the caller to start."""
    gates.end_lease(w, task, ends=False)
    task_id = task.spec.id
    record = StateRecord(
        State.BLOCKED,
        task.attempt,
        task.failures,
        task.token,
        task.agent,
        started_at_ms or task.granted_at_ms,
        failure=task.failure,
        logs=task.logs,
        log_bytes=task.log_bytes,
        has_details=bool(task.details),
        revived_at_ms=task.revived_at_ms,
        gates=task.gates,
        past=task.past,
        revived_attempt=task.revived_attempt,
    )
    w.delete(records.LEASE, task_id)
    w.put(records.STATE, task_id, record)
    del w.tasks[task_id]
    w.counters.move(task.spec.queue, State.RUNNING, State.BLOCKED)
    w.tell(BLOCKED, task.spec, task.agent, task.attempt)
    w.counters_dirty = True


def requeue(w: Working, task: Task, now: Now) -> None:
    """Put a leased task back to its place in line, with no token in its state; one past its deadline is dead."""
    if expiry.is_late(task.spec, task.since_ms, now.wall_ms):
        _end_leased(w, task, State.DEAD, now, started_at_ms=0, failure=expiry.deadline_failure(task.spec))
        return
    w.delete(records.LEASE, task.spec.id)
    last = StateRecord(State.READY, task.attempt, task.failures, 0, task.agent, task.granted_at_ms)
    if task.preempted and is_fair(task.spec):
        fair.tag(w, task, after=_stopped_for(w, task))
    _unlease(task)
    gates.end_lease(w, task, ends=False)
    put_ready(w, task, last)
    expiry.start(w, task.spec, task.since_ms, task.attempt, now)
    w.counters.move(task.spec.queue, State.RUNNING, State.READY)
    w.counters_dirty = True


def _stopped_for(w: Working, task: Task) -> int:
    """Return the tag of the task for which one was stopped, if it waits in the same queue; 0: it does not."""
    agent = w.agents.get(task.agent)
    line = w.active.get(agent.held_for) if agent is not None and agent.is_reserved else None
    return line.head_rank() >> ORDER_BITS if line is not None and line.flow == (task.spec.queue, True) else 0


def _unlease(task: Task) -> None:
    task.token = task.lease_number = task.granted_at_ms = 0
    task.agent = ""
    task.started = task.preempted = False


def _note_ended(w: Working, spec: TaskSpec, record: StateRecord) -> None:
    ended = w.counters.ended
    state = record.state
    ended[state] = ended.get(state, 0) + 1
    w.tell(TASK + state, spec, record.agent, record.attempt, record.failure.code if record.failure is not None else "")
    w.ended.append(Outcome(spec.id, state, record.attempt, failure=record.failure))
    weight = weight_of(spec, record)
    w.ended_otherwise_bytes += weight
    w.counters.finished_bytes += weight
    w.counters.logs_bytes += record.log_bytes
    if spec.rules.member is not None:
        w.happened.append(Happened(spec.id, FAILED))
    if record.past is not None and record.past.family:
        w.happened.append(Happened(record.past.family, STOPPED if state == State.CANCELLED else FAILED))


def forget_end(w: Working, spec: TaskSpec, last: StateRecord) -> None:
    """Take back what was noted of a task's end, which a retry, or an order to its workflow, undoes.

    An end of an earlier turn is on disk, in a FINISHED entry of which nobody knows the id: it stays there, and is
    known for void by its order. That of a success weighs what it did until it is taken away.
    """
    w.counters.ended[last.state] -= 1
    w.counters.logs_bytes -= last.log_bytes
    if last.state == State.SUCCEEDED:
        assert last.end_order < w.first_order, "its workflow has noted it in an earlier turn"
        return
    w.counters.finished_bytes -= weight_of(spec, last)
    if last.end_order >= w.first_order:
        w.ended = [ended for ended in w.ended if ended.id != spec.id]


def weight_of(spec: TaskSpec, record: StateRecord) -> int:
    """Return what a task that ended without success weighs: as long as its output is kept, that is the same."""
    return RECORD_BYTES + len(spec.payload) + record.log_bytes
