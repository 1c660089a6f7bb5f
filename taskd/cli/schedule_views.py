"""What the server tells of schedules, as lines for people."""

from taskd.cli.timings import span_text, timing_text
from taskd.text.values import arguments_text, iso
from taskd_protocol.ids import format_task_id
from taskd_protocol.schedule import Schedule
from taskd_protocol.schedule_messages import FiringView, ScheduleChanges, ScheduleView


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
