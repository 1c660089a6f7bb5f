"""Retry: tasks that ended without success are given another chance, at a person's word.

The task goes back to its own place in line, with its attempts numbered on and what
they left kept; only its budget, and its time limits, begin anew. What was told of its end is not taken
back: who asks again is told how it ends next.
"""

from collections.abc import Sequence

import msgspec

from taskd.core import attempts, claims, dead, endings, expiry, fair, following, records
from taskd.core.commands import Loaded, Now, RetryStates, RetryTasks
from taskd.core.due import state_of
from taskd.core.lifecycle import RETRIABLE, State
from taskd.core.lines import Task, rank_in
from taskd.core.records import Key, SpecRecord, StateRecord, Value
from taskd.core.working import Working
from taskd_protocol.errors import UniqueHeld, WorkflowEnded
from taskd_protocol.ids import format_task_id, is_made_id
from taskd_protocol.schedule import SCHEDULE_HEADER
from taskd_protocol.task import WINDOW
from taskd_protocol.workflow import workflow_of


def retry(w: Working, command: RetryTasks, now: Now, loaded: Loaded) -> RetryStates:
    """Put those of these tasks back in line that ended without success.

    Raises:
        UniqueHeld: Another does the work of one of them, which is to be the only one.
        WorkflowEnded: One is of a workflow, which is resumed as a whole.
        NeedRecords: Some are not in memory.
    """
    needed: list[Key] = []
    for task_id in command.ids:
        if task_id not in w.tasks:
            needed += [(records.SPEC, task_id), (records.STATE, task_id)]
    w.need(needed, loaded)
    _refuse_members(command.ids, loaded)
    _refuse_second(w, command.ids, needed, loaded)
    # first what is in memory: a task that goes back in line may push another out of its window
    done = {task_id: state_of(task) for task_id in command.ids if (task := w.tasks.get(task_id)) is not None}
    for task_id in command.ids:
        if task_id not in done:
            done[task_id] = _retry_cold(w, task_id, now, loaded)
    w.counters_dirty = True
    return RetryStates([str(done[task_id]) for task_id in command.ids])


def revivable(w: Working, specs: Sequence[SpecRecord], needed: Sequence[Key], loaded: Loaded) -> list[SpecRecord]:
    """Return those of these tasks, which have ended, that may go back in line: whose work no other one does.

    Args:
        w: The working set.
        specs: Of tasks that are not in memory.
        needed: What the command needs beside, loaded already.
        loaded: What was loaded.

    Raises:
        NeedRecords: The claims of some are not loaded.
    """
    anew = claims.to_claim_anew(specs)
    if not anew:
        return list(specs)
    w.need([*needed, *anew.values()], loaded)
    held = claims.holders(anew, loaded)
    return [spec for spec in specs if spec.spec.id not in held]


def revive(w: Working, spec: SpecRecord, last: StateRecord, now: Now) -> tuple[SpecRecord, StateRecord]:
    """Put a task that has ended back in line, and return it; its time limits run from now.

    Without success, and ``revivable``; or its workflow is to run it again. One that has a fair key gets a new tag:
    its old one is behind, and of thousands that are retried each would come before all that waits.
    """
    spec = fair.placed(w, spec)
    task_id = spec.spec.id
    dead.leave(w, task_id, last)
    endings.forget_end(w, spec.spec, last)
    task = Task(spec.spec, rank_in(spec), spec.created_at_ms, spec.owner, fresh=False)
    task.attempt, task.failure = last.attempt, last.failure
    task.logs, task.log_bytes, task.revived_at_ms = last.logs, last.log_bytes, now.wall_ms
    task.past = None if last.past is None else msgspec.structs.replace(last.past, crashes=0, family=b"", waited=[])
    task.revived_attempt = last.attempt
    if last.state == State.SUCCEEDED:
        attempts.pass_over(task)
    state = endings.put_ready(w, task, last)
    unique = spec.spec.rules.unique
    if unique is not None and unique.mode != WINDOW:
        claims.begin(w, spec.spec, unique, now)
    expiry.start(w, spec.spec, now.wall_ms, task.attempt, now)
    w.counters.move(spec.spec.queue, None, State.READY)
    schedule = (spec.spec.rules.headers or {}).get(SCHEDULE_HEADER)
    if schedule and spec.spec.rules.member is None:
        following.note_again(w, schedule, task_id)
    return spec, state


def _refuse_members(ids: Sequence[bytes], loaded: Loaded) -> None:
    """Refuse to retry a workflow's task alone: what came after it was decided by its end."""
    for task_id in ids:
        if is_made_id(task_id) and _has_failed(loaded.get((records.STATE, task_id))):
            raise WorkflowEnded(
                f"task {format_task_id(task_id)} is of a workflow: `taskd workflow resume"
                f" {format_task_id(workflow_of(task_id))}` runs it again, and goes on from it"
            )


def _refuse_second(w: Working, ids: Sequence[bytes], needed: Sequence[Key], loaded: Loaded) -> None:
    """Refuse to have two tasks of the same work where there is to be one."""
    ended: dict[bytes, SpecRecord] = {}
    for task_id in ids:
        spec, state = loaded.get((records.SPEC, task_id)), loaded.get((records.STATE, task_id))
        if task_id not in w.tasks and isinstance(spec, SpecRecord) and _has_failed(state):
            ended[task_id] = spec
    anew = claims.to_claim_anew(list(ended.values()))
    if anew:
        w.need([*needed, *anew.values()], loaded)
        for task_id, holder in claims.holders(anew, loaded).items():
            raise UniqueHeld(
                f"task {format_task_id(task_id)} is to be the only one of its work, which task"
                f" {format_task_id(holder)} does now: wait for its end, or cancel it"
            )


def _has_failed(state: Value) -> bool:
    return isinstance(state, StateRecord) and state.state in RETRIABLE


def _retry_cold(w: Working, task_id: bytes, now: Now, loaded: Loaded) -> str:
    spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
    if not isinstance(spec, SpecRecord):
        return "unknown"
    if not isinstance(state, StateRecord):
        return State.READY
    if state.state not in RETRIABLE:
        return state.state
    revive(w, spec, state, now)
    return State.READY
