"""Bulk jobs: one action on all tasks that fit a filter, however many.

A job goes through the tasks that there were when it was started, once, a bounded
piece a turn: its record with the cursor commits with what the piece changed. So it
goes on where it was after a restart, and no task is met twice.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from taskd.core import cancel, known, records, retention, retry
from taskd.core.commands import JobStarted, Loaded, Now, StartJob, StepJob
from taskd.core.effects import JobsMoved, WantTasks
from taskd.core.filters import ACTIONS, concerns, standing
from taskd.core.records import JobRecord, Key, SpecRecord, StateRecord
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest, JobLimit
from taskd_protocol.filtering import check_filter
from taskd_protocol.ids import is_task_id

RUNNING_MAX: Final = 4
"""Each takes some of every turn."""

KEPT: Final = 50
"""Jobs that have ended and are still told of."""

STEP_TASKS: Final = 500
"""Looked at in one step: some milliseconds of a turn."""

STEP_BYTES: Final = 8 * 1024 * 1024
"""Arguments read by one step, roughly."""

ANY_ORDER: Final = 1 << 64
"""Above every order: a purge by hand asks for no FINISHED entry."""


def start(w: Working, command: StartJob, now: Now) -> JobStarted:
    """Begin a job; the same command again finds it.

    Raises:
        BadRequest: The action is no word of the protocol, or the filter or the id is out of range.
        JobLimit: Too many are under way.
    """
    known = w.jobs.get(command.id)
    if known is not None and (known.action, known.filter) == (command.action, command.filter):
        return JobStarted(command.id)
    if known is not None or not is_task_id(command.id):
        raise BadRequest("a job's id is a new UUID of version 7 for each job")
    if command.action not in ACTIONS:
        raise BadRequest(f"action {command.action[:32]!r} is unknown; use one of {', '.join(ACTIONS)}")
    check_filter(command.filter)
    running = sum(not job.finished_at_ms for job in w.jobs.values())
    if running >= RUNNING_MAX:
        raise JobLimit(f"{running} bulk jobs are under way; start this one when one of them has ended")
    job = w.jobs[command.id] = JobRecord(command.action, command.filter, command.owner, now.wall_ms)
    w.put(records.JOB, command.id, job)
    go_on(w, command.id, job)
    _forget_oldest(w)
    return JobStarted(command.id)


def go_on(w: Working, job_id: bytes, job: JobRecord) -> None:
    """Have the next piece read of a job that has not ended."""
    w.effects.append(WantTasks(job_id, job.filter, job.cursor, job.created_at_ms, STEP_TASKS, STEP_BYTES))


def step(w: Working, command: StepJob, now: Now, loaded: Loaded) -> None:
    """Do what a job is for to one piece of the tasks.

    Raises:
        NeedRecords: Some are not in memory.
    """
    job = w.jobs.get(command.job)
    if job is None or job.finished_at_ms or job.cursor != command.after:
        return
    ids = list(dict.fromkeys(task_id for _, task_id in command.found))
    tasks: list[Key] = [(kind, task_id) for task_id in ids for kind in (records.SPEC, records.STATE)]
    w.need(tasks, loaded)
    stored = [task_id for task_id in ids if isinstance(loaded[records.SPEC, task_id], SpecRecord)]
    meant = [i for i in stored if concerns(job.action, job.filter, i, standing(w, i, loaded))]
    rest: Sequence[bytes] = ()
    match job.action:
        case "cancel":
            cancel.cancel_some(w, meant, now, loaded)
        case "retry":
            meant = _retry_some(w, meant, tasks, now, loaded)
        case _:
            ended = retention.ended_of(meant, loaded, ANY_ORDER)
            rest = retention.take_away_some(w, ended)
            for spec, _ in ended[: len(ended) - len(rest)]:
                known.keep_id(w, spec.spec, now)
    w.counters_dirty = True
    _move(w, command, now, len(meant) - len(rest), rest[0] if rest else None)


def _retry_some(w: Working, ids: Sequence[bytes], tasks: Sequence[Key], now: Now, loaded: Loaded) -> list[bytes]:
    """Put tasks back in line; return which: not one whose work another does by now."""
    specs = [spec for task_id in ids if isinstance(spec := loaded[records.SPEC, task_id], SpecRecord)]
    revived = retry.revivable(w, specs, tasks, loaded)
    for spec in revived:
        state = loaded[records.STATE, spec.spec.id]
        assert isinstance(state, StateRecord)
        retry.revive(w, spec, state, now)
    return [spec.spec.id for spec in revived]


def _move(w: Working, command: StepJob, now: Now, changed: int, again: bytes | None) -> None:
    """Note how far the job has come: before the task that is to be met again, or all that was found."""
    job = w.jobs[command.job]
    cursor, last, looked_at = command.cursor, command.last, command.looked_at
    if again is not None:
        index = next(i for i, (_, task_id) in enumerate(command.found) if task_id == again)
        cursor = command.found[index - 1][0] if index else job.cursor
        last, looked_at = False, index
    moved = replace(
        job,
        cursor=cursor,
        looked_at=job.looked_at + looked_at,
        changed=job.changed + changed,
        finished_at_ms=now.wall_ms if last else 0,
    )
    w.jobs[command.job] = moved
    w.put(records.JOB, command.job, moved)
    w.effects.append(JobsMoved())
    if not last:
        go_on(w, command.job, moved)


def _forget_oldest(w: Working) -> None:
    ended = sorted(job_id for job_id, job in w.jobs.items() if job.finished_at_ms)
    for job_id in ended[: max(0, len(ended) - KEPT)]:
        del w.jobs[job_id]
        w.delete(records.JOB, job_id)
