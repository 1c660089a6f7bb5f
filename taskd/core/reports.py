"""Reports: what agents say of their attempts, counted at most once each.

A report counts iff its (task, attempt, token) is what is stored, and its agent
the one that was given the lease. The same report again is answered "recorded";
anything else is stale and changes nothing.
"""

from collections.abc import Sequence
from typing import TypeVar

from taskd.core import attempts, endings, families, learned, quarantine, records
from taskd.core.agent_commands import (
    AckAttempts,
    AppendLogs,
    LogsKept,
    MarkStarted,
    NackAttempts,
    ReportsRecorded,
    StartsRecorded,
)
from taskd.core.commands import Charge, Loaded, Now
from taskd.core.effects import LogsAppended
from taskd.core.lines import Task, lease_record
from taskd.core.records import Key, LogRecord, StateRecord
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest, PayloadTooLarge, TaskCodes
from taskd_protocol.limits import DELAY_MS_MAX, LOG_BYTES_PER_ATTEMPT_MAX, LOG_DATA_BYTES_MAX, NAME_CHARS_MAX
from taskd_protocol.streams import STREAMS
from taskd_protocol.task import Failure, FailureReport, LogPiece, Report

FAILURE_TEXT_CHARS_MAX = 64 * 1024
"""Of a failure's message, and of its traceback."""

R = TypeVar("R", Report, FailureReport)

CHARGED = frozenset({attempts.FAILED, attempts.CRASHED})
"""Outcomes that cost a budget something."""

TOLD = CHARGED | {attempts.LOST}
"""Outcomes that tell their reason."""

OUTCOMES = CHARGED | {attempts.CANCELLED, attempts.RELEASED, attempts.LOST, attempts.WAITING}

KILLED = Failure(TaskCodes.CANCELLED, "its agent killed it")
"""Of a task that may run at most once, whose end the server did not order."""

LOG_ENTRY_BYTES = 64
"""What an entry's key and fields weigh beside its data, roughly: so that many small ones are bounded, too."""

LOG_CUT = b"\n[taskd: output limit reached]\n"


def ack(w: Working, command: AckAttempts, now: Now, loaded: Loaded) -> ReportsRecorded:
    """Record these successes.

    Raises:
        PayloadTooLarge: A result is over the limit; the agent should have reported a failure.
        NeedRecords: Some are not leased; what became of them must be looked up.
    """
    payload_bytes_max = w.settings.payload_bytes_max
    longest = max([len(report.result) for report in command.reports], default=0)
    if longest > payload_bytes_max:
        raise PayloadTooLarge(f"a result of {longest} bytes; the limit is {payload_bytes_max}")
    recorded, stale, counting = _sort(w, command.agent, command.reports, loaded)
    agent = w.agents.get(command.agent)
    if agent is not None:
        agent.seen_mono_ms = now.mono_ms
        leases = agent.leases
        # the same report twice in one message counts once
        ended = [pair for pair in counting if leases.pop(pair[0].token, None) is not None]
        peaks = [(task.spec.name, report.peak_bytes) for report, task in ended if report.peak_bytes]
        w.note_gone(agent, [task for _, task in ended])
        endings.succeed(w, ended, now)
        if peaks:
            learned.note_peaks(w, peaks)
        if agent.streak and counting:
            agent.streak = []
    return ReportsRecorded(recorded, stale)


def nack(w: Working, command: NackAttempts, now: Now, loaded: Loaded) -> ReportsRecorded:
    """Record these attempts that ended otherwise.

    Raises:
        BadRequest: An outcome is not a word of the protocol, a failure tells no reason, or a wait is out of range.
        NeedRecords: Some are not leased; what became of them must be looked up.
    """
    for report in command.reports:
        if report.outcome not in OUTCOMES or (report.outcome in TOLD and report.failure is None):
            raise BadRequest(f"an attempt cannot end as {report.outcome[:32]!r} without its reason")
        if report.retry_after_ms is not None and not 0 <= report.retry_after_ms <= DELAY_MS_MAX:
            raise BadRequest(f"a retry after {report.retry_after_ms} ms is out of range; it goes from 0 to ten years")
    recorded, stale, counting = _sort(w, command.agent, command.reports, loaded)
    agent = w.agents.get(command.agent)
    if agent is None:
        return ReportsRecorded(recorded, stale)
    agent.seen_mono_ms = now.mono_ms
    # the same report twice in one message counts once
    ended = [(report, task) for report, task in counting if agent.leases.pop(report.token, None) is not None]
    for report, task in ended:
        if report.failure is not None and report.failure.code == TaskCodes.WORKER_OUT_OF_MEMORY:
            learned.note_death(w, task, report.peak_bytes)
    w.note_gone(agent, [task for _, task in ended])
    charges = [
        Charge(task.spec.id, task.spec.queue, task.spec.name, report.outcome)
        for report, task in ended
        if report.outcome in CHARGED and not task.cancelling and not report.final  # which its own code said, anywhere
    ]
    if charges:
        quarantine.note_failures(w, agent, charges)  # before what may end a task for good
    for report, task in ended:
        _settle(w, report, task, now, is_agents_fault=agent.quarantined)
    return ReportsRecorded(recorded, stale)


def _settle(w: Working, report: FailureReport, task: Task, now: Now, *, is_agents_fault: bool) -> None:
    """Settle a task whose attempt ended otherwise."""
    if task.cancelling:
        endings.cancelled(w, task, now, started_at_ms=report.started_at_ms)
    elif report.failure is not None and report.outcome in CHARGED:
        failure = _bounded(report.failure)
        endings.charge(w, task, report, now, failure=failure, is_agents_fault=is_agents_fault)
    elif report.outcome == attempts.LOST and report.failure is not None:
        endings.give_up(w, task, now, failure=_bounded(report.failure))
    elif report.outcome == attempts.WAITING and not task.spec.rules.at_most_once:
        families.suspend(w, task, now, started_at_ms=report.started_at_ms)
    elif report.outcome in {attempts.CANCELLED, attempts.WAITING} and task.spec.rules.at_most_once:
        endings.charge(w, task, report, now, failure=KILLED)
    elif report.unstarted and (report.outcome == attempts.RELEASED or task.preempted):
        endings.release(w, task, now)
    elif task.preempted and report.outcome in {attempts.CANCELLED, attempts.RELEASED}:
        endings.put_back(w, task, attempts.PREEMPTED, now, started_at_ms=report.started_at_ms)
    else:
        endings.put_back(w, task, report.outcome, now, started_at_ms=report.started_at_ms)


def mark_started(w: Working, command: MarkStarted, now: Now) -> StartsRecorded:
    """Write into these leases that they are about to start; tell which are no longer the agent's."""
    agent = w.agents.get(command.agent)
    leases = agent.leases if agent is not None else {}
    if agent is not None:
        agent.seen_mono_ms = now.mono_ms
    answer = StartsRecorded([], [])
    for token in command.tokens:
        task = leases.get(token)
        if task is None:
            answer.stale.append(token)
            continue
        answer.recorded.append(token)
        if not task.started:
            task.started = True
            w.put(records.LEASE, task.spec.id, lease_record(task))
    return answer


def append_logs(w: Working, command: AppendLogs, now: Now) -> LogsKept:
    """Keep output of leased attempts, each piece once; drop what is stale or over the attempt's limit.

    Raises:
        BadRequest: A piece is over the limit, or of no known stream.
    """
    for piece in command.pieces:
        if len(piece.data) > LOG_DATA_BYTES_MAX or piece.stream not in STREAMS:
            raise BadRequest(f"a log piece holds at most {LOG_DATA_BYTES_MAX} bytes of stream 1 to {max(STREAMS)}")
    agent = w.agents.get(command.agent)
    if agent is not None:
        agent.seen_mono_ms = now.mono_ms
    changed: dict[bytes, Task] = {}
    for piece in command.pieces:
        task = agent.leases.get(piece.token) if agent is not None else None
        if task is None or not _is_new(task, piece):
            continue
        task.log_number = max(task.log_number, piece.number)
        changed[piece.id] = task
        kept_bytes = task.log_bytes - task.log_bytes_before
        if kept_bytes > LOG_BYTES_PER_ATTEMPT_MAX + LOG_ENTRY_BYTES:
            continue  # only the entry with the mark can have come so far
        room = max(LOG_BYTES_PER_ATTEMPT_MAX - kept_bytes, 0)
        data = piece.data if len(piece.data) <= room else piece.data[:room] + LOG_CUT
        record = LogRecord(task.attempt, piece.stream, piece.at_ms, data)
        w.put(records.LOG, log_id(piece.id, task.logs), record)
        task.logs += 1
        task.log_bytes += len(piece.data) + LOG_ENTRY_BYTES
    for task in changed.values():
        w.put(records.LEASE, task.spec.id, lease_record(task))
    if changed:
        w.effects.append(LogsAppended(list(changed)))
    return LogsKept(sum(len(piece.data) for piece in command.pieces))


def _is_new(task: Task, piece: LogPiece) -> bool:
    """Tell whether it is output of the task's attempt that did not come before, without its agent being told."""
    return task.spec.id == piece.id and bool(piece.data) and (not piece.number or piece.number > task.log_number)


def log_id(task_id: bytes, sequence: int) -> bytes:
    """Return the LOG id of an entry."""
    return task_id + sequence.to_bytes(8, "big")


def _sort(
    w: Working, agent_name: str, reports: Sequence[R], loaded: Loaded
) -> tuple[list[int], list[int], list[tuple[R, Task]]]:
    """Tell the reports that count, with their tasks, from those recorded before and the stale ones."""
    agent = w.agents.get(agent_name)
    leases = agent.leases if agent is not None else {}
    recorded: list[int] = []
    stale: list[int] = []
    counting: list[tuple[R, Task]] = []
    needed: list[Key] = []
    for report in reports:
        task = leases.get(report.token)
        if task is not None:
            if task.spec.id == report.id and task.attempt == report.attempt:
                counting.append((report, task))
                recorded.append(report.token)
            else:
                stale.append(report.token)
            continue
        key = (records.STATE, report.id)
        needed.append(key)
        state = loaded.get(key)
        same = isinstance(state, StateRecord) and (state.token, state.attempt, state.agent) == (
            report.token,
            report.attempt,
            agent_name,
        )
        (recorded if same else stale).append(report.token)
    w.need(needed, loaded)
    return recorded, stale, counting


def _bounded(failure: Failure) -> Failure:
    limit = FAILURE_TEXT_CHARS_MAX
    return Failure(
        failure.code[:NAME_CHARS_MAX],
        failure.message[:limit],
        failure.type[:NAME_CHARS_MAX],
        failure.traceback[-limit:],  # it tells most at its end
        failure.exit_code,
    )
