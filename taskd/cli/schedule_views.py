"""What the server tells of schedules, as JSON documents of fixed fields and as lines for people."""

from typing import TYPE_CHECKING

from taskd.cli.timings import span_text, timing_text
from taskd.cli.views import Document, arguments_text, iso
from taskd_protocol.ids import format_task_id
from taskd_protocol.schedule import Schedule, Timing
from taskd_protocol.schedule_messages import FiringView, ScheduleChanges, ScheduleView
from taskd_protocol.workflow import is_workflow_id

if TYPE_CHECKING:
    from taskd.cli.output import Json


def schedule_document(view: ScheduleView) -> Document:
    """Return a schedule as scripts see it."""
    return {
        "name": view.schedule.name,
        "state": view.state,
        "reason": view.reason or None,
        "source": view.schedule.source or None,
        "orphaned": view.orphaned,
        **asked_document(view.schedule),
        "created_at": iso(view.created_at_ms),
        "next_at": iso(view.next_at_ms),
        "failures": view.failures,
        "running": [format_task_id(task_id) for task_id in view.running],
        "waiting": iso(view.waiting_at_ms),
        "last": None if view.last is None else firing_document(view.last),
    }


def asked_document(schedule: Schedule) -> Document:
    """Return what a schedule does, as it was asked for, as scripts see it."""
    workflow = schedule.workflow
    return {
        "name": schedule.name,
        "task": schedule.task.name or None,
        "queue": schedule.task.queue if workflow is None else None,
        "priority": schedule.task.priority if workflow is None else None,
        "workflow": None if workflow is None else workflow.name,
        "node_count": None if workflow is None else len(workflow.nodes),
        "timing": _timing_document(schedule.timing),
        "jitter_s": schedule.jitter_ms / 1000,
        "overlap": schedule.overlap,
        "missed": schedule.missed,
        "missed_max": schedule.missed_max or None,
        "pause_after": schedule.pause_after or None,
    }


def firing_document(view: FiringView) -> Document:
    """Return a decision as scripts see it."""
    is_workflow = is_workflow_id(view.task_id)
    return {
        "at": iso(view.at_ms),
        "until": iso(view.until_ms),
        "count": view.count,
        "outcome": view.outcome,
        "reason": view.reason or None,
        "task": format_task_id(view.task_id) if view.task_id and not is_workflow else None,
        "task_state": (view.task_state or None) if not is_workflow else None,
        "workflow": format_task_id(view.task_id) if is_workflow else None,
        "workflow_state": (view.task_state or None) if is_workflow else None,
        "decided_at": iso(view.decided_at_ms),
    }


def changes_document(changes: ScheduleChanges) -> Document:
    """Return what a sync came to as scripts see it."""
    return {
        "added": [*changes.added],
        "changed": [*changes.changed],
        "removed": [*changes.removed],
        "same": [*changes.same],
        "orphaned": [*changes.orphaned],
    }


def changes_text(changes: ScheduleChanges) -> str:
    """Return what a sync came to."""
    told = [
        f"{what} {', '.join(names)}"
        for what, names in (
            ("added", changes.added),
            ("changed", changes.changed),
            ("removed", changes.removed),
            ("no longer defined", changes.orphaned),
        )
        if names
    ]
    return "; ".join([*told, f"{len(changes.same)} as before"])


def change_text(changes: ScheduleChanges) -> str:
    """Return what became of one schedule that was set."""
    return "is as it was" if changes.same else "is changed" if changes.changed else "is made"


def missed_text(schedule: Schedule) -> str:
    """Return what becomes of missed times."""
    return f"all, at most {schedule.missed_max}" if schedule.missed == "all" else schedule.missed


def overview_row(view: ScheduleView) -> tuple[str, ...]:
    """Return a schedule as a row of the list."""
    schedule, last = view.schedule, view.last
    return (
        schedule.name,
        view.state,
        timing_text(schedule.timing),
        iso(view.next_at_ms) or "-",
        "-" if last is None else f"{last.outcome} {iso(last.until_ms)}",
        schedule.task.name if schedule.workflow is None else f"workflow {schedule.workflow.name}",
        _source_text(view) or "-",
    )


def orphan_advice(name: str) -> str:
    """Return what can be done about a schedule that its code defines no longer."""
    return f"taskd schedule rm {name} removes it; taskd schedule resume {name} has it fire all the same"


def _source_text(view: ScheduleView) -> str:
    source = view.schedule.source
    return f"{'no longer ' if view.orphaned else ''}defined in code: {source}" if source else ""


def firing_row(view: FiringView) -> tuple[str, ...]:
    """Return a decision as a row of the history."""
    at = iso(view.at_ms) or ""
    return (
        at if view.count == 1 else f"{at} to {iso(view.until_ms)}",
        str(view.count),
        view.outcome,
        format_task_id(view.task_id) if view.task_id else "-",
        view.task_state or "-",
        view.reason,
    )


def schedule_lines(view: ScheduleView) -> list[str]:
    """Return a schedule as lines for people."""
    schedule, timing, workflow = view.schedule, view.schedule.timing, view.schedule.workflow
    task = f"{schedule.task.name}({arguments_text(schedule.task.payload)}) in queue {schedule.task.queue}"
    facts = {
        "schedule": schedule.name,
        "state": f"{view.state}: {view.reason}" if view.reason else view.state,
        "source": _source_text(view) or "made by hand",
        "next": orphan_advice(schedule.name) if view.orphaned else "",
        "when": timing_text(timing),
        "zone": f"{timing.zone}, gap {timing.gap}, fold {timing.fold}",
        "not on": ", ".join([*timing.not_dates, *timing.not_cron]),
        "from": iso(timing.start_ms or None) or "",
        "until": iso(timing.end_ms or None) or "",
        "task": task if workflow is None else "",
        "workflow": "" if workflow is None else f"{workflow.name}, {len(workflow.nodes):,} nodes, {workflow.policy}",
        "jitter": span_text(schedule.jitter_ms) if schedule.jitter_ms else "",
        "overlap": schedule.overlap,
        "missed": missed_text(schedule),
        "pause": f"after {schedule.pause_after} failures, {view.failures} so far" if schedule.pause_after else "",
        "running": ", ".join(format_task_id(task_id) for task_id in view.running),
        "waiting": iso(view.waiting_at_ms) or "",
    }
    return [f"{what:<9} {text}" for what, text in facts.items() if text]


def _timing_document(timing: Timing) -> Document:
    instants: list[Json] = [iso(at_ms) for at_ms in timing.at_ms]
    return {
        "cron": [*timing.cron],
        "every_s": timing.every_ms / 1000 if timing.every_ms else None,
        "at": instants,
        "tz": timing.zone,
        "gap": timing.gap,
        "fold": timing.fold,
        "start": iso(timing.start_ms or None),
        "end": iso(timing.end_ms or None),
        "not_on": [*timing.not_dates],
        "not_cron": [*timing.not_cron],
    }
