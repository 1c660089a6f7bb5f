"""Schedules: made, changed, paused, triggered and removed, by people and by the code that defines them.

When they fire is decided in ``schedule_looks``.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final

from msgspec.structs import replace

from taskd.core import firings, leftovers, records, schedule_work
from taskd.core.commands import Loaded, Now
from taskd.core.following import followed, keep_standing
from taskd.core.schedule_commands import (
    BackfillSchedule,
    OrderSchedule,
    PutSchedule,
    ScheduleBackfilled,
    SchedulesChanged,
    ScheduleTriggered,
    SyncSchedules,
    TriggerSchedule,
)
from taskd.core.schedule_looks import (
    PAUSED,
    look_at,
    noted,
    schedule_key,
    why_unread,
)
from taskd.core.schedule_records import FiringRecord, ScheduleRecord, StandingRecord
from taskd.core.working import Working
from taskd_protocol import limits
from taskd_protocol.errors import (
    BadRequest,
    QueueDraining,
    ScheduleExists,
    ScheduleLimit,
    ScheduleUnknown,
    StoreCorrupt,
    SubmitTooNew,
)
from taskd_protocol.ids import TaskId, is_task_id, task_id_unix_ms
from taskd_protocol.schedule import NO_TASK, NO_TASK_ID, Schedule, check_schedule
from taskd_protocol.task import check_name

ORPHANED: Final = "its module was loaded again, and defines it no longer"

ACTIONS: Final = ("pause", "resume", "remove")

FUTURE_MS_MAX: Final = 3_600_000
"""As of a submit: ids are made from the server's time."""


def put(w: Working, command: PutSchedule, now: Now, loaded: Loaded) -> SchedulesChanged:
    """Keep a schedule, or change the one of its name.

    Raises:
        BadRequest: A field is out of its range, or it would never fire.
        WorkflowInvalid: Its workflow is no graph that can run.
        NeedRecords: The one of its name is not loaded.
        ScheduleExists: That one is defined in code, or is not to be changed.
        ScheduleLimit: There are too many.
    """
    schedule = _plain(command.schedule)
    _check(w, schedule, now)
    if schedule.source:
        raise BadRequest("only a sync defines schedules of a module's code; leave source empty")
    stored = _load(w, [schedule], loaded)
    standing, record = w.schedules.of.get(schedule.name), stored.get(schedule.name)
    if standing is None and firings.plan(schedule.timing, now.wall_ms).next_ms(now.wall_ms) is None:
        raise BadRequest(f"schedule {schedule.name[:64]!r} would never fire: all its times are past, or excluded")
    if standing is not None and standing.source and not standing.orphaned:
        raise ScheduleExists(
            f"schedule {schedule.name[:64]!r} is defined in the code of {standing.source[:64]}: change it there"
        )
    if standing is not None and command.only_new and not _is_same(record, schedule):
        raise ScheduleExists(f"a schedule named {schedule.name[:64]!r} is there; replace it, or choose another name")
    if standing is not None and standing.broken:
        stored = {}  # as one that was not there: it begins now
    return _apply(w, [schedule], [], stored, owner=command.owner, now=now)


def sync(w: Working, command: SyncSchedules, now: Now, loaded: Loaded) -> SchedulesChanged:
    """Have a module's schedules be these: others that it defined before fire no more, or are removed.

    An older version of the module may define them still, where it is loaded again: then they go on as after a pause.

    Raises:
        BadRequest: One is out of range, or stands twice.
        WorkflowInvalid: The workflow of one is no graph that can run.
        NeedRecords: Those of their names are not loaded.
        ScheduleExists: One of the names is another's: of a module, or made by hand.
        ScheduleLimit: There are too many.
    """
    check_name("source", command.source)
    if len(command.schedules) > limits.SCHEDULE_SYNC_MAX:
        raise BadRequest(f"{len(command.schedules)} schedules in one module; the limit is {limits.SCHEDULE_SYNC_MAX}")
    counts = Counter(schedule.name for schedule in command.schedules)
    for schedule in command.schedules:
        _check(w, schedule, now)
        if counts[schedule.name] > 1:
            raise BadRequest(f"two schedules of {command.source[:64]} are named {schedule.name[:64]!r}: rename one")
        standing = w.schedules.of.get(schedule.name)
        if standing is not None and standing.source != command.source and not standing.orphaned:
            whose = f"defined in the code of {standing.source[:64]}" if standing.source else "made by hand"
            raise ScheduleExists(
                f"schedule {schedule.name[:64]!r} is {whose}: rename one, or remove that one with `taskd schedule rm`"
            )
    schedules = [replace(_plain(schedule), source=command.source) for schedule in command.schedules]
    gone = [n for n, standing in w.schedules.of.items() if standing.source == command.source and n not in counts]
    removed = gone if command.prune else []
    changed = _apply(w, schedules, removed, _load(w, schedules, loaded), owner=command.owner, now=now)
    if command.prune:
        return changed
    for name in gone:
        _orphan(w, name, w.schedules.of[name], now)
    return changed._replace(orphaned=tuple(sorted(gone)))


def order(w: Working, command: OrderSchedule, now: Now, loaded: Loaded) -> None:
    """Pause, resume or remove a schedule; what is so already stays.

    Raises:
        BadRequest: The action is no word of the protocol.
        NeedRecords: The schedule is not loaded.
        ScheduleUnknown: There is none of that name.
        StoreCorrupt: What it is cannot be read.
    """
    name, standing = command.name, _standing(w, command.name)
    match command.action:
        case "pause":
            if not standing.paused_at_ms:
                keep_standing(w, name, replace(standing, paused_at_ms=max(now.wall_ms, 1), why_paused="by hand"))
        case "resume":
            if standing.paused_at_ms or standing.broken:
                _resume(w, _record(w, name, loaded), now)
        case "remove":
            _remove(w, name, standing)
        case _:
            raise BadRequest(f"action {command.action[:32]!r} is unknown; use one of {', '.join(ACTIONS)}")


def trigger(w: Working, command: TriggerSchedule, now: Now, loaded: Loaded) -> ScheduleTriggered:
    """Submit a schedule's work now, whatever else of it goes on; the same command again finds its task.

    Raises:
        BadRequest: The id is none, or of the future.
        NeedRecords: The schedule, or what is stored under the id, is not loaded.
        QueueDraining: Its queue takes no new tasks.
        ScheduleUnknown: There is none of that name.
        StoreCorrupt: What it is cannot be read.
    """
    name, standing = command.name, _standing(w, command.name)
    _check_id(command.id, now)
    record = _record(w, name, loaded)
    work = schedule_work.id_of_trigger(record, command.id, _begun(command.id, now))
    if schedule_work.stored(w, [work], loaded, [schedule_key(name)]):
        return ScheduleTriggered(work)
    _check_queue(w, record)
    schedule_work.start(w, record, [(work, now.wall_ms)], now)
    fired = FiringRecord(now.wall_ms, now.wall_ms, 1, "triggered", "by hand", work, now.wall_ms)
    keep_standing(w, name, followed(noted(w, name, standing, fired), record, [work]))
    return ScheduleTriggered(work)


def backfill(w: Working, command: BackfillSchedule, now: Now, loaded: Loaded) -> ScheduleBackfilled:
    """Submit a schedule's work for its times in the past; the same command again finds its tasks.

    Raises:
        BadRequest: The id is none, or the range is not of the past.
        NeedRecords: The schedule, or what is stored under the ids, is not loaded.
        QueueDraining: Its queue takes no new tasks.
        ScheduleUnknown: There is none of that name.
        StoreCorrupt: What it is cannot be read.
    """
    name, standing = command.name, _standing(w, command.name)
    _check_id(command.id, now)
    if not 0 <= command.from_ms <= command.until_ms <= now.wall_ms:
        raise BadRequest("a backfill is of the past: it begins before it ends, and ends no later than now")
    record = _record(w, name, loaded)
    plan = firings.plan(record.schedule.timing, record.created_at_ms)
    most = schedule_work.most_at_once(record)
    at_ms = [firing.at_ms for firing in islice(plan.after(command.from_ms - 1, command.until_ms), most)]
    until_ms = at_ms[-1] if len(at_ms) == most else command.until_ms
    ids = [schedule_work.id_of(record, each, _begun(command.id, now), command.id) for each in at_ms]
    stored = schedule_work.stored(w, ids, loaded, [schedule_key(name)])
    _check_queue(w, record)
    fresh = [(task_id, each) for task_id, each in zip(ids, at_ms, strict=True) if task_id not in stored]
    if fresh:
        schedule_work.start(w, record, fresh, now)
        only = fresh[0][0] if len(fresh) == 1 else b""
        fired = FiringRecord(fresh[0][1], fresh[-1][1], len(fresh), "backfilled", "by hand", only, now.wall_ms)
        keep_standing(w, name, noted(w, name, standing, fired))
    return ScheduleBackfilled(at_ms, until_ms)


def _check(w: Working, schedule: Schedule, now: Now) -> None:
    check_schedule(schedule, w.settings.payload_bytes_max)
    schedule_work.check(w, schedule)
    firings.plan(schedule.timing, now.wall_ms)


def _plain(schedule: Schedule) -> Schedule:
    """Return a schedule without what each firing has of its own."""
    if schedule.workflow is not None:
        return replace(schedule, task=NO_TASK)
    return replace(schedule, task=replace(schedule.task, id=NO_TASK_ID, traceparent=""))


def _load(w: Working, schedules: Sequence[Schedule], loaded: Loaded) -> dict[str, ScheduleRecord]:
    """Return the schedules of these names that are stored."""
    known = [schedule.name for schedule in schedules if schedule.name in w.schedules.of]
    w.need([schedule_key(name) for name in known], loaded)
    return {name: record for name in known if isinstance(record := loaded[schedule_key(name)], ScheduleRecord)}


def _apply(
    w: Working,
    schedules: Sequence[Schedule],
    removed: Sequence[str],
    stored: dict[str, ScheduleRecord],
    *,
    owner: str,
    now: Now,
) -> SchedulesChanged:
    added = [schedule.name for schedule in schedules if schedule.name not in w.schedules.of]
    if len(w.schedules.of) + len(added) - len(removed) > limits.SCHEDULES_MAX:
        raise ScheduleLimit(f"{len(w.schedules.of)} schedules are kept; the limit is {limits.SCHEDULES_MAX}")
    changed: list[str] = []
    same: list[str] = []
    for schedule in schedules:
        record = stored.get(schedule.name)
        if record is not None and record.schedule == schedule:
            same.append(schedule.name)
        else:
            if schedule.name in w.schedules.of:
                changed.append(schedule.name)
            else:
                leftovers.clear(w, schedule.name)
            record = _write(w, schedule, record, owner, now)
        _adopt(w, record, now)
    for name in removed:
        _remove(w, name, w.schedules.of[name])
    return SchedulesChanged(sorted(added), sorted(changed), sorted(removed), sorted(same))


def _orphan(w: Working, name: str, standing: StandingRecord, now: Now) -> None:
    """Have a schedule fire no more that its module defines no longer; who has it fire all the same is heeded."""
    if standing.orphaned:
        return
    orphaned = replace(standing, orphaned=True)
    if not standing.paused_at_ms:
        orphaned = replace(orphaned, paused_at_ms=max(now.wall_ms, 1), why_paused=ORPHANED)
    keep_standing(w, name, orphaned)


def _adopt(w: Working, record: ScheduleRecord, now: Now) -> None:
    """Have a schedule go on that nobody defined for a time."""
    name = record.schedule.name
    standing = w.schedules.of[name]
    if not standing.orphaned:
        return
    keep_standing(w, name, replace(standing, orphaned=False))
    if standing.paused_at_ms and standing.why_paused == ORPHANED:
        _resume(w, record, now)


def _resume(w: Working, record: ScheduleRecord, now: Now) -> None:
    name = record.schedule.name
    resumed = replace(w.schedules.of[name], paused_at_ms=0, why_paused="", failures=0)
    keep_standing(w, name, resumed)
    look_at(w, record, resumed, now, PAUSED)


def _write(w: Working, schedule: Schedule, before: ScheduleRecord | None, owner: str, now: Now) -> ScheduleRecord:
    """Write a schedule. A new timing counts from now on: what the one before would have missed is forgotten."""
    name = schedule.name
    goes_on = before is not None and before.schedule.timing == schedule.timing
    created_at_ms = before.created_at_ms if before is not None and goes_on else now.wall_ms
    record = ScheduleRecord(schedule, owner, created_at_ms)
    w.put(*schedule_key(name), record)
    standing = w.schedules.of.get(name) or StandingRecord(now.wall_ms, 0)
    decided_to_ms = standing.decided_to_ms if goes_on else now.wall_ms
    next_ms = firings.plan(schedule.timing, created_at_ms).next_ms(decided_to_ms)
    moved = replace(
        standing,
        decided_to_ms=decided_to_ms,
        next_at_ms=next_ms or 0,
        begun_ms=created_at_ms,
        begun_sequence=standing.begun_sequence if goes_on else standing.sequence,
        source=schedule.source,
        pause_after=schedule.pause_after,
        broken="",
    )
    keep_standing(w, name, moved)
    return record


def _is_same(record: ScheduleRecord | None, schedule: Schedule) -> bool:
    """Tell whether a schedule is as it is stored."""
    return record is not None and record.schedule == schedule


def _remove(w: Working, name: str, standing: StandingRecord) -> None:
    w.delete(*schedule_key(name))
    w.delete(records.STANDING, name.encode())
    leftovers.leave(w, name, standing)
    w.schedules.forget(name)


def _standing(w: Working, name: str) -> StandingRecord:
    standing = w.schedules.of.get(name)
    if standing is None:
        raise ScheduleUnknown(f"no schedule named {name[:64]!r} is kept; `taskd schedule ls` lists them")
    return standing


def _record(w: Working, name: str, loaded: Loaded) -> ScheduleRecord:
    w.need([schedule_key(name)], loaded)
    record = loaded[schedule_key(name)]
    if not isinstance(record, ScheduleRecord):
        raise StoreCorrupt(f"schedule {name[:64]!r} cannot be read: {why_unread(record)}")
    return record


def _check_id(raw: bytes, now: Now) -> None:
    if not is_task_id(raw):
        raise BadRequest("an id is a new UUID of version 7 for each request")
    if task_id_unix_ms(TaskId(raw)) > now.wall_ms + FUTURE_MS_MAX:
        raise SubmitTooNew("an id lies in the future; make ids from the server's time, as PONG tells it")


def _begun(request: bytes, now: Now) -> Now:
    """Return when a request was begun: the ids that follow from it are of then."""
    return Now(now.mono_ms, task_id_unix_ms(TaskId(request)))


def _check_queue(w: Working, record: ScheduleRecord) -> None:
    why_not = schedule_work.why_not(w, record)
    if why_not:
        raise QueueDraining(why_not)
