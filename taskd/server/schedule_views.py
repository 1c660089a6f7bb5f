"""What clients are shown of schedules, and what they ask about them."""

from itertools import islice
from typing import Final

from msgspec.structs import replace

from taskd.core import firings, records
from taskd.core.commands import Loaded
from taskd.core.flows import stem_of
from taskd.core.records import Key, StateRecord, Value
from taskd.core.schedule_looks import firing_id, kept_from, schedule_key, sequence_of, why_unread
from taskd.core.schedule_records import FiringRecord, ScheduleRecord, StandingRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd.core.working import Working
from taskd.server.services import Services
from taskd_protocol import limits
from taskd_protocol import schedule_messages as sm
from taskd_protocol.errors import BadRequest, ScheduleUnknown, StoreCorrupt
from taskd_protocol.payload import pack_arguments
from taskd_protocol.schedule import NO_TASK_ID, Schedule, Timing
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import is_workflow_id

PAGE_BYTES: Final = 8 * 1024 * 1024
"""What a page of schedules may weigh, roughly: each carries its work's arguments."""

NODE_BYTES: Final = 200
"""What a node weighs beside its arguments, roughly."""


async def list_schedules(services: Services, message: sm.ScheduleList) -> sm.SchedulePage:
    """Answer SCHEDULE_LIST."""
    wanted = set(message.names)
    standings = services.working.schedules.of
    names = sorted(name for name in standings if name > message.after and (not wanted or name in wanted))
    limit = min(max(message.limit, 1), limits.PAGE_ROWS_MAX)
    views: list[sm.ScheduleView] = []
    weight = 0
    for name in names[:limit]:
        found = await services.reader.read_now([schedule_key(name)])
        record, standing = found[schedule_key(name)], standings.get(name)
        if standing is None:
            continue  # it was removed meanwhile
        if isinstance(record, ScheduleRecord):
            views.append(_view(record, standing))
            weight += weight_of(record.schedule)
        else:
            views.append(_view_unread(name, record, standing))
        if weight > PAGE_BYTES:
            break
    more = bool(views) and views[-1].schedule.name < names[-1]
    return sm.SchedulePage(message.request_id, views, more)


async def list_firings(services: Services, message: sm.ScheduleHistory) -> sm.FiringPage:
    """Answer SCHEDULE_HISTORY.

    Raises:
        ScheduleUnknown: There is no schedule of that name.
    """
    standing = _standing(services.working, message.name)
    end = standing.sequence if message.before < 0 else min(message.before, standing.sequence)
    limit = min(max(message.limit, 1), limits.PAGE_ROWS_MAX)
    first = max(kept_from(standing), end - limit)
    keys: list[Key] = [(records.FIRING, firing_id(message.name, n)) for n in range(end - 1, first - 1, -1)]
    found = await services.reader.read_now(keys)
    decided = [(sequence_of(key[1]), found[key]) for key in keys]
    kept = [(sequence, firing) for sequence, firing in decided if isinstance(firing, FiringRecord)]
    work = [key for _, firing in kept if firing.task_id for key in _keys_of(firing.task_id)]
    loaded = await services.reader.read_now(work)
    views = [firing_view(n, firing, _work_state(services.working, firing.task_id, loaded)) for n, firing in kept]
    return sm.FiringPage(message.request_id, views, first > kept_from(standing))


async def preview(services: Services, message: sm.SchedulePreview) -> sm.PreviewPage:
    """Answer SCHEDULE_PREVIEW.

    Raises:
        BadRequest: The timing cannot be read, or neither a name nor one is given.
        ScheduleUnknown: There is no schedule of that name.
    """
    now_ms = services.loop.now().wall_ms
    from_ms = message.from_ms or now_ms
    if message.name:
        _standing(services.working, message.name)
        timing, anchor_ms = await _timing_of(services, message.name)
    elif message.timing is not None:
        timing, anchor_ms = message.timing, from_ms
    else:
        raise BadRequest("name a schedule, or tell a timing")
    count = min(max(message.count, 1), limits.SCHEDULE_PREVIEW_MAX)
    found, skipped = firings.plan(timing, anchor_ms).preview(from_ms, count)
    shown, passed = ([sm.PreviewFiring(*firing) for firing in each] for each in (found, skipped))
    return sm.PreviewPage(message.request_id, shown, timing.zone, passed)


async def dry_run(services: Services, message: sm.ScheduleBackfill) -> sm.ScheduleBackfilled:
    """Answer SCHEDULE_BACKFILL that is only to tell.

    Raises:
        BadRequest: The range ends before it begins.
        ScheduleUnknown: There is no schedule of that name.
    """
    _standing(services.working, message.name)
    if not 0 <= message.from_ms <= message.until_ms:
        raise BadRequest("a backfill begins before it ends")
    timing, anchor_ms = await _timing_of(services, message.name)
    until_ms = min(message.until_ms, services.loop.now().wall_ms)
    found = firings.plan(timing, anchor_ms).after(max(message.from_ms, 0) - 1, until_ms)
    at_ms = [firing.at_ms for firing in islice(found, limits.SCHEDULE_BACKFILL_MAX)]
    reached_ms = at_ms[-1] if len(at_ms) == limits.SCHEDULE_BACKFILL_MAX else message.until_ms
    return sm.ScheduleBackfilled(message.request_id, at_ms, reached_ms)


def weight_of(schedule: Schedule) -> int:
    """Return what a schedule weighs in a page, roughly, in bytes."""
    if schedule.workflow is None:
        return len(schedule.task.payload)
    nodes = schedule.workflow.nodes
    return sum([NODE_BYTES + len(n.packed) + (0 if n.task is None else len(n.task.payload)) for n in nodes])


def firing_view(sequence: int, firing: FiringRecord, task_state: str = "") -> sm.FiringView:
    """Return a decision as clients see it."""
    return sm.FiringView(
        sequence,
        firing.at_ms,
        firing.until_ms,
        firing.count,
        firing.outcome,
        firing.reason,
        firing.task_id,
        firing.decided_at_ms,
        task_state,
    )


def _view(record: ScheduleRecord, standing: StandingRecord) -> sm.ScheduleView:
    state, reason = "active", ""
    if standing.broken:
        state, reason = "broken", standing.broken
    elif standing.paused_at_ms:
        state, reason = "paused", standing.why_paused
    elif not standing.next_at_ms:
        state = "done"
    return sm.ScheduleView(
        record.schedule,
        state,
        reason,
        record.owner,
        record.created_at_ms,
        standing.next_at_ms or None,
        standing.decided_to_ms,
        standing.failures,
        list(standing.running),
        None if standing.waiting is None else standing.waiting.at_ms,
        None if standing.last is None else firing_view(standing.sequence - 1, standing.last),
        standing.orphaned,
    )


def _view_unread(name: str, record: Value, standing: StandingRecord) -> sm.ScheduleView:
    """Return what can be told of a schedule that cannot be read: not when, nor what it submits."""
    task = TaskSpec(NO_TASK_ID, "", pack_arguments((), {}))
    unknown = Schedule(name, Timing(), task, source=standing.source)
    broken = replace(standing, broken=standing.broken or why_unread(record), next_at_ms=0)
    return _view(ScheduleRecord(unknown, "", standing.begun_ms), broken)


def _keys_of(work: bytes) -> list[Key]:
    """Return what tells the state of a task, or a workflow."""
    return [(records.WORKFLOW, work)] if is_workflow_id(work) else [(records.SPEC, work), (records.STATE, work)]


def _work_state(w: Working, task_id: bytes, found: Loaded) -> str:
    """Return the state of the task, or workflow, that a decision names; empty: it is not kept any more."""
    if not task_id:
        return ""
    if is_workflow_id(task_id):
        flow, stored = w.flows.get(stem_of(task_id)), found[records.WORKFLOW, task_id]
        if flow is not None:
            return flow.record.state
        return stored.state if isinstance(stored, WorkflowRecord) else ""
    if found[records.SPEC, task_id] is None:
        return ""
    task, state = w.tasks.get(task_id), found[records.STATE, task_id]
    if task is not None and task.token:
        return "cancelling" if task.cancelling else "running"
    return state.state if isinstance(state, StateRecord) else "ready"


async def _timing_of(services: Services, name: str) -> tuple[Timing, int]:
    found = await services.reader.read_now([schedule_key(name)])
    record = found[schedule_key(name)]
    if not isinstance(record, ScheduleRecord):
        _standing(services.working, name)  # it may have been removed meanwhile
        raise StoreCorrupt(f"schedule {name[:64]!r} cannot be read: {why_unread(record)}")
    return record.schedule.timing, record.created_at_ms


def _standing(w: Working, name: str) -> StandingRecord:
    standing = w.schedules.of.get(name)
    if standing is None:
        raise ScheduleUnknown(f"no schedule named {name[:64]!r} is kept; `taskd schedule ls` lists them")
    return standing
