"""Retry: tasks that ended without success are given another chance, at a person's word.

The task goes back to its own place in line, with its attempts numbered on and what
they left kept; only its budget, and its time limits, begin anew. What was told of its end is not taken
back: who asks again is told how it ends next.
"""

import msgspec

from taskd.core import dead, endings, expiry, records
from taskd.core.commands import Loaded, Now, RetryStates, RetryTasks
from taskd.core.lifecycle import RETRIABLE, State
from taskd.core.lines import Task, rank_of
from taskd.core.records import Key, SpecRecord, StateRecord
from taskd.core.working import Working


def retry(w: Working, command: RetryTasks, now: Now, loaded: Loaded) -> RetryStates:
    """Put those of these tasks back in line that ended without success.

    Raises:
        NeedRecords: Some are not in memory.
    """
    needed: list[Key] = []
    for task_id in command.ids:
        if task_id not in w.tasks:
            needed += [(records.SPEC, task_id), (records.STATE, task_id)]
    w.need(needed, loaded)
    done: dict[bytes, str] = {}
    for task_id in command.ids:
        if task_id in done:
            continue
        task = w.tasks.get(task_id)
        done[task_id] = _retry_cold(w, task_id, now, loaded) if task is None else _state_of(task)
    w.counters_dirty = True
    return RetryStates([str(done[task_id]) for task_id in command.ids])


def revive(w: Working, spec: SpecRecord, last: StateRecord, now: Now, *, since_ms: int) -> None:
    """Put a task that has ended without success back to its place in line; its time limits run from then."""
    task_id = spec.spec.id
    dead.leave(w, task_id, last)
    endings.forget_end(w, spec.spec, last)
    task = Task(spec.spec, rank_of(spec.spec.priority, spec.order), spec.created_at_ms, spec.owner, fresh=False)
    task.attempt, task.failure = last.attempt, last.failure
    task.logs, task.log_bytes, task.revived_at_ms = last.logs, last.log_bytes, since_ms
    task.past = None if last.past is None else msgspec.structs.replace(last.past, crashes=0)
    endings.put_ready(w, task, last)
    expiry.start(w, spec.spec, since_ms, task.attempt, now)
    w.counters.move(spec.spec.queue, None, State.READY)


def _retry_cold(w: Working, task_id: bytes, now: Now, loaded: Loaded) -> str:
    spec, state = loaded[records.SPEC, task_id], loaded[records.STATE, task_id]
    if not isinstance(spec, SpecRecord):
        return "unknown"
    if not isinstance(state, StateRecord):
        return State.READY
    if state.state not in RETRIABLE:
        return state.state
    revive(w, spec, state, now, since_ms=now.wall_ms)
    return State.READY


def _state_of(task: Task) -> str:
    if not task.token:
        return State.READY
    return State.CANCELLING if task.cancelling else State.RUNNING
