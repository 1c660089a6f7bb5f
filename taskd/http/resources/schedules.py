"""Schedules: listed, shown with the times that come next; made, paused, resumed, removed, triggered, backfilled."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from taskd.http.errors import FieldRefused, placed
from taskd.http.paging import Limit
from taskd.http.resources.limits import RemovedDocument
from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.http.submitting import Milliseconds, Name, TaskBody, read_task
from taskd.text.schedules import (
    FiringDocument,
    ScheduleDetail,
    ScheduleDocument,
    UpcomingDocument,
    firing_document,
    schedule_detail,
    schedule_document,
)
from taskd.text.spans import read_instant_ms
from taskd.text.values import iso
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest, ScheduleUnknown
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import SCHEDULE_PREVIEW_MAX
from taskd_protocol.schedule import INSTANT_MS_MAX, NO_TASK_ID, Schedule, Timing
from taskd_protocol.schedule_messages import (
    FiringPage,
    PreviewPage,
    ScheduleBackfill,
    ScheduleBackfilled,
    ScheduleChanges,
    ScheduleHistory,
    ScheduleList,
    ScheduleOrder,
    SchedulePage,
    SchedulePreview,
    ScheduleSet,
    ScheduleTrigger,
    ScheduleTriggered,
    ScheduleView,
)
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import is_workflow_id


class SchedulesAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which schedules."""

    after: str = ""
    """Only names behind this one: the last of the page before."""
    limit: Limit = 100


class ScheduleAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A schedule."""

    name: str


class HistoryAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Which decisions on a schedule's times."""

    name: str
    before: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """Only those before this one: the ``cursor`` of the page before; -1: from the newest on."""
    limit: Limit = 20


class Schedules(msgspec.Struct):
    """Schedules, by name."""

    schedules: list[ScheduleDocument]
    more: bool
    """There are some behind the last."""


class History(msgspec.Struct):
    """Decisions on a schedule's times, newest first."""

    firings: list[FiringDocument]
    cursor: int | None
    """For the next page; null: there is none."""


class TimingBody(msgspec.Struct, forbid_unknown_fields=True):
    """When: cron lines, an interval or instants; exactly one of the three."""

    cron: list[str] = []
    every_ms: Milliseconds = 0
    at: list[str] = []
    """Instants, ISO 8601; without an offset by the clock of ``tz``."""
    tz: str = "UTC"
    gap: Literal["next", "skip", "shift"] = "next"
    fold: Literal["auto", "first", "second", "both"] = "auto"
    start: str = ""
    end: str = ""
    not_on: list[str] = []
    """Days, in the zone: ``2026-12-25``."""
    not_cron: list[str] = []


class ScheduleBody(msgspec.Struct, forbid_unknown_fields=True):
    """A schedule that submits a task."""

    name: Name
    timing: TimingBody
    task: TaskBody
    """As of a submit; ``id`` and ``key`` are not said."""
    jitter_ms: Milliseconds = 0
    overlap: Literal["allow", "skip", "queue_one", "cancel_running"] = "skip"
    missed: Literal["latest", "skip", "all"] = "latest"
    missed_max: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 0
    pause_after: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 0
    replace: bool = False
    """Change the schedule of that name, if there is one."""


class PreviewBody(msgspec.Struct, forbid_unknown_fields=True):
    """What fires when."""

    timing: TimingBody
    first: str = ""
    """From then on; empty: from now on."""
    count: Annotated[int, msgspec.Meta(ge=1, le=SCHEDULE_PREVIEW_MAX)] = 5


class BackfillBody(msgspec.Struct, forbid_unknown_fields=True):
    """A range of the past."""

    first: str
    last: str
    dry_run: bool = False
    """Only tell which times these are."""


class TriggeredDocument(msgspec.Struct):
    """What was submitted."""

    name: str
    task: str | None
    workflow: str | None


class BackfilledDocument(msgspec.Struct):
    """The times for which it was submitted, or would be."""

    name: str
    dry_run: bool
    times: list[str | None]


class Preview(msgspec.Struct):
    """Times that come."""

    upcoming: list[UpcomingDocument]
    tz: str


async def list_schedules(call: Call[SchedulesAsked, Nothing]) -> Schedules:
    """List the schedules, with when they fire next and what came of the last time."""
    page = await call.ask(ScheduleList(0, after=call.asked.after, limit=call.asked.limit), SchedulePage)
    return Schedules([schedule_document(view) for view in page.schedules], page.more)


async def show_schedule(call: Call[ScheduleAsked, Nothing]) -> ScheduleDetail:
    """Show a schedule with its next five firings."""
    name = call.asked.name
    view = _found(name, await call.ask(ScheduleList(0, [name]), SchedulePage))
    upcoming = [] if view.state == "broken" else (await call.ask(SchedulePreview(0, name), PreviewPage)).firings
    return schedule_detail(view, upcoming)


async def schedule_history(call: Call[HistoryAsked, Nothing]) -> History:
    """Tell what was decided on a schedule's times, newest first, and what became of their tasks."""
    asked = call.asked
    page = await call.ask(ScheduleHistory(0, asked.name, asked.before, asked.limit), FiringPage)
    cursor = page.firings[-1].sequence if page.more and page.firings else None
    return History([firing_document(firing) for firing in page.firings], cursor)


async def set_schedule(call: Call[Nothing, ScheduleBody]) -> ScheduleDocument:
    """Have the server submit a task again and again."""
    body = call.body
    if body.task.id is not None or body.task.key:
        raise FieldRefused("each firing's task has its own id, and no key", "$.task")
    schedule = Schedule(
        name=body.name,
        timing=_timing(body.timing),
        task=_task(body.task),
        jitter_ms=body.jitter_ms,
        overlap=body.overlap,
        missed=body.missed,
        missed_max=body.missed_max,
        pause_after=body.pause_after,
    )
    await call.ask(ScheduleSet(0, schedule, only_new=not body.replace), ScheduleChanges)
    return schedule_document(_found(body.name, await call.ask(ScheduleList(0, [body.name]), SchedulePage)))


async def preview_timing(call: Call[Nothing, PreviewBody]) -> Preview:
    """Tell when a timing fires, and what is odd about it."""
    timing = _timing(call.body.timing)
    from_ms = _instant_ms(call.body.first, timing.zone, "$.first") if call.body.first else 0
    page = await call.ask(SchedulePreview(0, "", timing, from_ms, call.body.count), PreviewPage)
    return Preview([UpcomingDocument(iso(firing.at_ms), firing.note) for firing in page.firings], page.zone)


async def pause_schedule(call: Call[ScheduleAsked, Nothing]) -> ScheduleDocument:
    """Have a schedule fire no more, until it is resumed."""
    return await _ordered(call, "pause")


async def resume_schedule(call: Call[ScheduleAsked, Nothing]) -> ScheduleDocument:
    """Have a paused schedule fire again; what it missed is as its rule says."""
    return await _ordered(call, "resume")


async def remove_schedule(call: Call[ScheduleAsked, Nothing]) -> RemovedDocument:
    """Remove a schedule with its history; what it has submitted goes on."""
    await call.ask(ScheduleOrder(0, call.asked.name, "remove"), Done)
    return RemovedDocument(call.asked.name, removed=True)


async def trigger_schedule(call: Call[ScheduleAsked, Nothing]) -> TriggeredDocument:
    """Submit a schedule's work now, beside its times."""
    name = call.asked.name
    raw = (await call.ask(ScheduleTrigger(0, name, call.make_ids(1)[0]), ScheduleTriggered)).id
    text, is_workflow = format_task_id(raw), is_workflow_id(raw)
    return TriggeredDocument(name, None if is_workflow else text, text if is_workflow else None)


async def backfill_schedule(call: Call[ScheduleAsked, BackfillBody]) -> BackfilledDocument:
    """Submit a schedule's work for all its times in a range of the past, whatever was decided on them then."""
    name, body = call.asked.name, call.body
    zone = _found(name, await call.ask(ScheduleList(0, [name]), SchedulePage)).schedule.timing.zone
    from_ms, until_ms = _instant_ms(body.first, zone, "$.first"), _instant_ms(body.last, zone, "$.last")
    times: list[str | None] = []
    while from_ms <= until_ms:
        [request] = call.make_ids(1)
        done = await call.ask(ScheduleBackfill(0, name, request, from_ms, until_ms, body.dry_run), ScheduleBackfilled)
        times += [iso(at_ms) for at_ms in done.at_ms]
        from_ms = done.until_ms + 1
    return BackfilledDocument(name, body.dry_run, times)


async def _ordered(call: Call[ScheduleAsked, Nothing], action: str) -> ScheduleDocument:
    name = call.asked.name
    await call.ask(ScheduleOrder(0, name, action), Done)
    return schedule_document(_found(name, await call.ask(ScheduleList(0, [name]), SchedulePage)))


def _task(body: TaskBody) -> TaskSpec:
    with placed("$.task"):
        return read_task(body, {}, lambda _: "", NO_TASK_ID)


def _found(name: str, page: SchedulePage) -> ScheduleView:
    if not page.schedules:
        raise ScheduleUnknown(f"no schedule {name[:64]!r} is stored")
    return page.schedules[0]


def _timing(body: TimingBody) -> Timing:
    return Timing(
        cron=tuple(body.cron),
        every_ms=body.every_ms,
        at_ms=tuple(_instant_ms(text, body.tz, f"$.timing.at[{i}]") for i, text in enumerate(body.at)),
        zone=body.tz,
        gap=body.gap,
        fold=body.fold,
        start_ms=_instant_ms(body.start, body.tz, "$.timing.start") if body.start else 0,
        end_ms=_instant_ms(body.end, body.tz, "$.timing.end") if body.end else 0,
        not_dates=tuple(body.not_on),
        not_cron=tuple(body.not_cron),
    )


def _instant_ms(text: str, zone: str, path: str) -> int:
    try:
        at_ms = read_instant_ms(text, zone)
    except BadRequest as why:
        raise FieldRefused(why.message, path) from None
    if not 0 < at_ms <= INSTANT_MS_MAX:
        raise FieldRefused(f"{text[:40]!r} is out of range", path)
    return at_ms


_ORDERS: Final = (ScheduleOrder, ScheduleList)

ROUTES: Final[Sequence[AnyRoute]] = (
    get("/schedules", list_schedules, SchedulesAsked, Schedules, ScheduleList),
    get("/schedules/{name:path}", show_schedule, ScheduleAsked, ScheduleDetail, ScheduleList, SchedulePreview),
    get("/schedules/{name:path}/history", schedule_history, HistoryAsked, History, ScheduleHistory),
    post("/schedules", set_schedule, Nothing, ScheduleBody, ScheduleDocument, ScheduleSet, ScheduleList, status=201),
    post("/preview", preview_timing, Nothing, PreviewBody, Preview, SchedulePreview),
    post("/schedules/{name:path}/pause", pause_schedule, ScheduleAsked, Nothing, ScheduleDocument, *_ORDERS),
    post("/schedules/{name:path}/resume", resume_schedule, ScheduleAsked, Nothing, ScheduleDocument, *_ORDERS),
    post("/schedules/{name:path}/remove", remove_schedule, ScheduleAsked, Nothing, RemovedDocument, ScheduleOrder),
    post(
        "/schedules/{name:path}/trigger", trigger_schedule, ScheduleAsked, Nothing, TriggeredDocument, ScheduleTrigger
    ),
    post(
        "/schedules/{name:path}/backfill",
        backfill_schedule,
        ScheduleAsked,
        BackfillBody,
        BackfilledDocument,
        ScheduleBackfill,
        ScheduleList,
    ),
)
