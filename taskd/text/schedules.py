"""What the server tells of schedules, as JSON documents: see ``documents``."""

from collections.abc import Sequence

import msgspec

from taskd.text.values import iso
from taskd_protocol.ids import format_task_id
from taskd_protocol.schedule import Schedule, Timing
from taskd_protocol.schedule_messages import FiringView, PreviewFiring, ScheduleChanges, ScheduleView
from taskd_protocol.workflow import is_workflow_id


class TimingDocument(msgspec.Struct):
    """When a schedule fires."""

    cron: list[str]
    every_s: float | None
    at: list[str | None]
    tz: str
    gap: str
    fold: str
    start: str | None
    end: str | None
    not_on: list[str]
    not_cron: list[str]


class AskedDocument(msgspec.Struct):
    """What a schedule does, as it was asked for."""

    name: str
    task: str | None
    queue: str | None
    priority: int | None
    workflow: str | None
    node_count: int | None
    timing: TimingDocument
    jitter_s: float
    overlap: str
    missed: str
    missed_max: int | None
    pause_after: int | None


class FiringDocument(msgspec.Struct):
    """What was decided of a time, or of several in a row."""

    at: str | None
    until: str | None
    """The last of them."""
    count: int
    outcome: str
    reason: str | None
    task: str | None
    """Its id."""
    task_state: str | None
    workflow: str | None
    """Its id."""
    workflow_state: str | None
    decided_at: str | None


class ScheduleDocument(msgspec.Struct):
    """A schedule."""

    name: str
    state: str
    reason: str | None
    source: str | None
    """The module whose code defines it."""
    orphaned: bool
    task: str | None
    queue: str | None
    priority: int | None
    workflow: str | None
    node_count: int | None
    timing: TimingDocument
    jitter_s: float
    overlap: str
    missed: str
    missed_max: int | None
    pause_after: int | None
    created_at: str | None
    next_at: str | None
    failures: int
    running: list[str]
    waiting: str | None
    """The time that waits for the end of the task before."""
    last: FiringDocument | None


class UpcomingDocument(msgspec.Struct):
    """A time that comes."""

    at: str | None
    note: str


class ScheduleDetail(ScheduleDocument):
    """A schedule with the times that come next."""

    upcoming: list[UpcomingDocument]


class ChangesDocument(msgspec.Struct):
    """What became of schedules, or limits, that were set: names."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    same: list[str]
    orphaned: list[str]


def schedule_document(view: ScheduleView) -> ScheduleDocument:
    """Return a schedule."""
    return ScheduleDocument(
        **msgspec.structs.asdict(asked_document(view.schedule)),
        state=view.state,
        reason=view.reason or None,
        source=view.schedule.source or None,
        orphaned=view.orphaned,
        created_at=iso(view.created_at_ms),
        next_at=iso(view.next_at_ms),
        failures=view.failures,
        running=[format_task_id(task_id) for task_id in view.running],
        waiting=iso(view.waiting_at_ms),
        last=None if view.last is None else firing_document(view.last),
    )


def schedule_detail(view: ScheduleView, upcoming: Sequence[PreviewFiring]) -> ScheduleDetail:
    """Return a schedule with the times that come next."""
    told = [UpcomingDocument(iso(firing.at_ms), firing.note) for firing in upcoming]
    return ScheduleDetail(**msgspec.structs.asdict(schedule_document(view)), upcoming=told)


def asked_document(schedule: Schedule) -> AskedDocument:
    """Return what a schedule does, as it was asked for."""
    workflow = schedule.workflow
    return AskedDocument(
        name=schedule.name,
        task=schedule.task.name or None,
        queue=schedule.task.queue if workflow is None else None,
        priority=schedule.task.priority if workflow is None else None,
        workflow=None if workflow is None else workflow.name,
        node_count=None if workflow is None else len(workflow.nodes),
        timing=timing_document(schedule.timing),
        jitter_s=schedule.jitter_ms / 1000,
        overlap=schedule.overlap,
        missed=schedule.missed,
        missed_max=schedule.missed_max or None,
        pause_after=schedule.pause_after or None,
    )


def firing_document(view: FiringView) -> FiringDocument:
    """Return a decision."""
    is_workflow = is_workflow_id(view.task_id)
    return FiringDocument(
        at=iso(view.at_ms),
        until=iso(view.until_ms),
        count=view.count,
        outcome=view.outcome,
        reason=view.reason or None,
        task=format_task_id(view.task_id) if view.task_id and not is_workflow else None,
        task_state=(view.task_state or None) if not is_workflow else None,
        workflow=format_task_id(view.task_id) if is_workflow else None,
        workflow_state=(view.task_state or None) if is_workflow else None,
        decided_at=iso(view.decided_at_ms),
    )


def changes_document(changes: ScheduleChanges) -> ChangesDocument:
    """Return what a sync came to."""
    return ChangesDocument(
        added=[*changes.added],
        changed=[*changes.changed],
        removed=[*changes.removed],
        same=[*changes.same],
        orphaned=[*changes.orphaned],
    )


def timing_document(timing: Timing) -> TimingDocument:
    """Return when a schedule fires."""
    return TimingDocument(
        cron=[*timing.cron],
        every_s=timing.every_ms / 1000 if timing.every_ms else None,
        at=[iso(at_ms) for at_ms in timing.at_ms],
        tz=timing.zone,
        gap=timing.gap,
        fold=timing.fold,
        start=iso(timing.start_ms or None),
        end=iso(timing.end_ms or None),
        not_on=[*timing.not_dates],
        not_cron=[*timing.not_cron],
    )
