"""Bulk actions: one action on all tasks that fit a filter: counted first, then started, then watched."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
import trio

from taskd.http.errors import FieldRefused, NotFound
from taskd.http.paging import Cursor, FilterWords, cursor_text, read_cursor, wanted_tasks
from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.text.documents import JobDocument, job_document
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import parse_task_id
from taskd_protocol.messages import JobList, JobPage, JobStart, TaskCount, TaskCounted

Action = Literal["cancel", "retry", "purge"]

COUNT_SECONDS: Final = 2.0
"""A count of many tasks is told in parts: no answer takes much longer than that."""

WATCH_SECONDS: Final = 30.0


class CountAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which tasks, and what for."""

    filter: FilterWords = ""
    action: Literal["", "cancel", "retry", "purge"] = ""
    """Only those that it would change; empty: all that fit."""
    cursor: Cursor = ""


class Count(msgspec.Struct):
    """How many tasks that is."""

    count: int
    looked_at: int
    """Tasks that were gone through for it."""
    cursor: str | None
    """To count on with, and add up; null: that was all."""


class BulkBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be done, and to which tasks."""

    action: Action
    filter: str
    """As of a listing, and not empty. ``retry`` is for dead tasks, unless it says another state."""
    id: str | None = None
    """A UUID of version 7, of the job: the same again finds it. Null: the server makes one."""
    all: bool = False
    """All tasks are meant, if the filter is empty."""


class JobAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A job."""

    id: str
    beyond: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """Answer when it has looked at more tasks than so many, or has ended, or after 30 s; -1: at once."""


class Jobs(msgspec.Struct):
    """Jobs, newest first: those under way, and the last that have ended."""

    jobs: list[JobDocument]


async def count_tasks(call: Call[CountAsked, Nothing]) -> Count:
    """Count the tasks that fit a filter, or that an action would change."""
    asked = call.asked
    wanted = _wanted(asked.filter, asked.action, call.wall_ms)
    count, looked_at, cursor = 0, 0, read_cursor("count", asked.cursor)
    until_s = trio.current_time() + COUNT_SECONDS
    while True:
        counted = await call.ask(TaskCount(0, asked.action, wanted, cursor), TaskCounted)
        count, looked_at, cursor = count + counted.count, looked_at + counted.looked_at, counted.cursor
        if not cursor or trio.current_time() >= until_s:
            return Count(count, looked_at, cursor_text("count", cursor))


async def start_job(call: Call[Nothing, BulkBody]) -> JobDocument:
    """Do something to all tasks that fit: a durable job, which goes on over restarts."""
    body = call.body
    if not body.filter.strip() and not body.all:
        raise FieldRefused("an empty filter is for all tasks; say so with all, or say which", "$.filter")
    job_id = call.make_ids(1)[0] if body.id is None else parse_task_id(body.id)
    wanted = _wanted(body.filter, body.action, call.wall_ms)
    page = await call.ask(JobStart(0, job_id, body.action, wanted), JobPage)
    return job_document(page.jobs[0])


async def list_jobs(call: Call[Nothing, Nothing]) -> Jobs:
    """List what was done to many tasks at once, and is under way."""
    return Jobs([job_document(view) for view in (await call.ask(JobList(0), JobPage)).jobs])


async def show_job(call: Call[JobAsked, Nothing]) -> JobDocument:
    """Show a job: how far it is; or wait until it has come further."""
    job_id, beyond = parse_task_id(call.asked.id), call.asked.beyond
    with trio.move_on_after(WATCH_SECONDS) as patience:
        page = await call.ask(JobList(0, [job_id], beyond), JobPage)
    if patience.cancelled_caught:
        page = await call.ask(JobList(0, [job_id]), JobPage)
    if not page.jobs:
        raise NotFound(f"no job {call.asked.id} is known; the last 50 that have ended are")
    return job_document(page.jobs[0])


def _wanted(words: str, action: str, now_ms: int) -> TaskFilter:
    wanted = wanted_tasks(words, now_ms)
    by_itself = {"retry": "dead", "purge": "dead"}.get(action, "")
    return msgspec.structs.replace(wanted, state=wanted.state or by_itself)


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/tasks/count", count_tasks, CountAsked, Count, TaskCount),
    post("/tasks/bulk", start_job, Nothing, BulkBody, JobDocument, JobStart, status=202),
    get("/jobs", list_jobs, Nothing, Jobs, JobList),
    get("/jobs/{id}", show_job, JobAsked, JobDocument, JobList),
)
