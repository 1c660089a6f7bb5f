"""Following: the tasks and workflows that a schedule waits for, and what their ends mean to it.

Invariants:
- Nothing that a schedule waits for has ended.
- What may never end holds up no later time: a workflow of which a record cannot be read.
"""

from typing import Final

from msgspec.structs import replace

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.effects import Continue, ScheduleStopped
from taskd.core.flows import stem_of
from taskd.core.lifecycle import State
from taskd.core.schedule_commands import LookAtSchedules
from taskd.core.schedule_records import ScheduleRecord, StandingRecord
from taskd.core.working import Working
from taskd_protocol.workflow import is_workflow_id

RUNNING_MAX: Final = 100
"""Tasks and workflows that a schedule waits for; of one that lets them overlap, the newest."""

FAILED: Final = (State.DEAD, State.EXPIRED, "failed")
"""How a task, or a workflow, ends that counts as a failure."""


def keep_standing(w: Working, name: str, standing: StandingRecord) -> None:
    """Write where a schedule stands."""
    w.put(records.STANDING, name.encode(), standing)
    w.schedules.adopt(name, standing)


def followed(standing: StandingRecord, record: ScheduleRecord, ids: list[bytes]) -> StandingRecord:
    """Have a schedule wait for these tasks or workflows, if it needs to know of their ends."""
    if record.schedule.overlap == "allow" and not record.schedule.pause_after:
        return standing
    return _with(standing, ids)


def note_again(w: Working, name: str, work: bytes) -> None:
    """Note that a task or workflow goes on which a schedule of that name had submitted, and which had ended."""
    standing = w.schedules.of.get(name)
    if standing is not None and work not in standing.running:
        keep_standing(w, name, _with(standing, [work]))


def is_held_up(w: Working, standing: StandingRecord) -> bool:
    """Tell whether something goes on that a schedule waits for."""
    return any(not is_workflow_id(work) or _moves(w, work) for work in standing.running)


def note_aside(w: Working, workflow: bytes) -> None:
    """Note that a workflow stays as it is: what waited for it waits no longer."""
    name = w.schedules.of_task.get(workflow)
    if name is not None:
        w.effects.append(Continue(LookAtSchedules([name])))


def note_ended(w: Working, now: Now) -> None:
    """Note which of the tasks and workflows that have ended in this turn a schedule waits for."""
    schedules = w.schedules
    for ended in w.ended:
        name = schedules.of_task.get(ended.id)
        if name is None:
            continue
        standing = schedules.of[name]
        failures = standing.failures
        if ended.state == State.SUCCEEDED:
            failures = 0
        elif ended.state in FAILED:
            failures += 1
        moved = replace(standing, running=[i for i in standing.running if i != ended.id], failures=failures)
        if standing.pause_after and failures >= standing.pause_after and not standing.paused_at_ms:
            why = f"{failures} {'workflows' if is_workflow_id(ended.id) else 'tasks'} in a row have failed"
            moved = replace(moved, paused_at_ms=max(now.wall_ms, 1), why_paused=why)
            w.effects.append(ScheduleStopped(name, why, broken=False))
        keep_standing(w, name, moved)
        if moved.waiting is not None and not is_held_up(w, moved) and not moved.paused_at_ms:
            w.effects.append(Continue(LookAtSchedules([name])))


def _with(standing: StandingRecord, ids: list[bytes]) -> StandingRecord:
    return replace(standing, running=[*standing.running, *ids][-RUNNING_MAX:])


def _moves(w: Working, workflow: bytes) -> bool:
    flow = w.flows.get(stem_of(workflow))
    return flow is not None and not flow.broken
