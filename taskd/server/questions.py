"""Questions about many tasks: counts, bulk jobs and groups of dead letters."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import trio

from taskd.core import records
from taskd.core.commands import Loaded
from taskd.core.filters import ACTIONS, concerns, standing
from taskd.core.records import DeadGroupRecord, JobRecord, SpecRecord
from taskd.core.working import Working
from taskd.server.selecting import PAUSE_SECONDS, Candidate, Piece, select
from taskd.server.services import Services
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol.errors import BadRequest
from taskd_protocol.filtering import TaskFilter, check_filter

SCAN_ROWS_MAX: Final = 4_000
"""Tasks looked at for one step of a count: a filter that fits nothing must not read the whole store."""


async def count_tasks(services: Services, message: m.TaskCount) -> m.TaskCounted:
    """Answer TASK_COUNT.

    Raises:
        BadRequest: The action or the filter is out of range.
    """
    if message.action and message.action not in ACTIONS:
        raise BadRequest(f"action {message.action[:32]!r} is unknown; use one of {', '.join(ACTIONS)}")
    check_filter(message.filter)
    count = looked_at = 0
    cursor = message.cursor
    async with aclosing(_pieces(services, message.filter, cursor)) as pieces:
        async for piece, rows in pieces:
            count += sum(_is_concerned(services.working, message, candidate, rows) for candidate in piece.found)
            looked_at += piece.looked_at
            cursor = b"" if piece.last else piece.cursor
    return m.TaskCounted(message.request_id, count, looked_at, cursor)


async def list_jobs(services: Services, message: m.JobList) -> m.JobPage:
    """Answer JOB_LIST, when one of the jobs has come far enough."""
    jobs = services.working.jobs
    watched = [jobs[job_id] for job_id in message.ids if job_id in jobs]
    while watched and all(not job.finished_at_ms and job.looked_at <= message.beyond for job in watched):
        await services.hub.jobs_moved.wait()
        watched = [jobs[job_id] for job_id in message.ids if job_id in jobs]
    return job_page(services.working, message)


def job_page(w: Working, message: m.JobList) -> m.JobPage:
    """Return the jobs that are asked for, as they stand."""
    ids = [job_id for job_id in w.jobs if not message.ids or job_id in message.ids]
    return m.JobPage(message.request_id, [_job_view(job_id, w.jobs[job_id]) for job_id in sorted(ids, reverse=True)])


def dead_page(w: Working, message: m.DeadList) -> m.DeadPage:
    """Answer DEAD_LIST."""
    newest = sorted(w.dead_groups.items(), key=_by_last_death, reverse=True)
    views = [
        m.DeadGroupView(i, group.kind, group.place, group.message, group.count, group.first_at_ms, group.last_at_ms)
        for i, group in newest[: max(message.limit, 1)]
    ]
    return m.DeadPage(message.request_id, views, len(newest), sum(group.count for _, group in newest))


async def _pieces(services: Services, wanted: TaskFilter, after: bytes) -> AsyncGenerator[tuple[Piece, Loaded]]:
    """Yield what fits by its spec, with the records as they stand, as far as one answer may read."""
    budget = SCAN_ROWS_MAX
    while budget > 0:
        step = min(limits.PAGE_ROWS_MAX, budget)
        piece = await select(services.store, wanted, after, step)
        keys = [(kind, candidate.id) for candidate in piece.found for kind in (records.SPEC, records.STATE)]
        yield piece, await services.reader.read_now(keys)
        if piece.last:
            return
        after = piece.cursor
        budget -= piece.looked_at
        await trio.sleep(PAUSE_SECONDS)


def _is_concerned(w: Working, message: m.TaskCount, candidate: Candidate, rows: Loaded) -> bool:
    if not isinstance(rows[records.SPEC, candidate.id], SpecRecord):
        return False
    return concerns(message.action, message.filter, candidate.id, standing(w, candidate.id, rows))


def _job_view(job_id: bytes, job: JobRecord) -> m.JobView:
    return m.JobView(
        job_id, job.action, job.filter, job.created_at_ms, job.looked_at, job.changed, job.finished_at_ms or None
    )


def _by_last_death(entry: tuple[bytes, DeadGroupRecord]) -> tuple[int, bytes]:
    return entry[1].last_at_ms, entry[0]
