"""Retention: finished tasks are kept for an age and a size, then taken away.

The FINISHED records are the job: each step deletes one of them, with the tasks it
names, in one batch. So a crash at any point leaves either of the two. A task that
was retried since is named by a later one, if any, and passed over here. Its key is
kept for its own time, see ``lapses``.
"""

from collections.abc import Sequence

import msgspec

from taskd.core import dead, log_retention, records
from taskd.core.attempts import kept_ids
from taskd.core.commands import Loaded, Now, PurgeFinished
from taskd.core.effects import WantFinished
from taskd.core.endings import weight_of
from taskd.core.flows import nodes_id, stem_of
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.records import FinishedRecord, Key, SpecRecord, StateRecord, Value
from taskd.core.reports import log_id
from taskd.core.workflow_records import WorkflowRecord
from taskd.core.working import Working
from taskd_protocol.ids import TaskId, is_made_id, task_id_unix_ms
from taskd_protocol.workflow import is_workflow_id, member_id, workflow_of

CHECK_MS = 10_000
"""How often the oldest finished tasks are looked at."""

STEPS = 20
"""FINISHED records read at once."""

AGAIN_MS = 100
"""After a step there may be more; a look at once would find the same records, still under way."""

RECORDS_MAX = 5_000
"""Deleted by one step, roughly: a task may have a million log entries."""

ANY_MS = 1 << 62
"""Before this instant is every FINISHED record, also one of a wall clock that was wrong."""


def tick(w: Working, now: Now) -> None:
    """Ask for the oldest finished tasks when it is time."""
    if now.mono_ms < w.next_purge_mono_ms:
        return
    w.next_purge_mono_ms = now.mono_ms + CHECK_MS
    too_large = w.counters.finished_bytes > w.settings.retention_bytes
    before_ms = ANY_MS if too_large else now.wall_ms - w.settings.retention_age_ms
    if any(w.counters.ended.values()) or w.counters.finished_bytes:
        w.effects.append(WantFinished(before_ms, STEPS))
        log_retention.tick(w, now)


def purge(w: Working, command: PurgeFinished, now: Now, loaded: Loaded) -> None:
    """Take one FINISHED record's tasks away, if it is still to go.

    Raises:
        NeedRecords: It or its tasks are not loaded.
    """
    finished_key: Key = (records.FINISHED, command.finished_id)
    w.need([finished_key], loaded)
    finished = loaded[finished_key]
    if not isinstance(finished, FinishedRecord):
        return
    ended_at_ms = int.from_bytes(command.finished_id[:8], "big")
    aged = ended_at_ms < now.wall_ms - w.settings.retention_age_ms
    if not aged and w.counters.finished_bytes <= w.settings.retention_bytes:
        return
    tasks: list[Key] = [(kind, task_id) for task_id in finished.ids for kind in (records.SPEC, records.STATE)]
    flows: list[Key] = [
        (records.WORKFLOW, i) for i in dict.fromkeys(workflow_of(i) for i in finished.ids if is_made_id(i))
    ]
    w.need([finished_key, *tasks, *flows], loaded)
    loaded = {**loaded, **_going_on(w, flows)}
    order = int.from_bytes(command.finished_id[8:], "big")
    ids, moved = _put_off(w, finished, ended_at_ms, now, loaded, order=order) if flows else (finished.ids, False)
    ended = ended_of(ids, loaded, order)
    rest = take_away_some(w, ended)
    gone = [spec.spec.id for spec, _ in ended[: len(ended) - len(rest)]]
    w.counters.purged_to_ms = max([w.counters.purged_to_ms, *[task_id_unix_ms(TaskId(task_id)) for task_id in gone]])
    rest += [i for i in ids if is_workflow_id(i) and not _take_workflow_away(w, loaded[records.WORKFLOW, i])]
    rest_bytes = finished.stored_bytes * len(rest) // len(finished.ids)
    if rest:
        w.put(*finished_key, FinishedRecord(rest, rest_bytes))
    else:
        w.delete(*finished_key)
    gone_bytes = finished.stored_bytes * len(ids) // len(finished.ids) - rest_bytes
    w.counters.finished_bytes -= gone_bytes
    w.counters_dirty = True
    if ids or moved:
        w.next_purge_mono_ms = now.mono_ms + AGAIN_MS


def _going_on(w: Working, flows: Sequence[Key]) -> dict[Key, WorkflowRecord]:
    """Return those of these workflows that have not ended, as they are: one may go on again since this very turn."""
    moving = {key: w.flows.get(stem_of(key[1])) for key in flows}
    return {key: flow.record for key, flow in moving.items() if flow is not None and flow.id == key[1]}


def _put_off(
    w: Working, finished: FinishedRecord, ended_at_ms: int, now: Now, loaded: Loaded, *, order: int
) -> tuple[list[bytes], bool]:
    """Return those of these that may be taken away now: what is of a workflow is kept for as long as that is.

    The others are entered anew: behind their workflow's end, so that no part of it is gone while it can be resumed; or,
    if that has not ended, as if they ended now. Not tasks that have run again since: their new end has its own entry.
    What belongs to a workflow that cannot be read is kept as if that went on. Tells, too, whether any was of a workflow
    that has ended.
    """
    standing = {spec.spec.id for spec, _ in ended_of(finished.ids, loaded, order)}
    going: list[bytes] = []
    later: dict[int, list[bytes]] = {}
    ending = {task_id for task_id in finished.ids if is_workflow_id(task_id)}
    for task_id in finished.ids:
        record = loaded[records.WORKFLOW, workflow_of(task_id)] if is_made_id(task_id) else None
        is_void = task_id not in standing and not is_workflow_id(task_id)
        if is_void or record is None:
            going.append(task_id)
        elif not isinstance(record, WorkflowRecord) or not record.finished_at_ms:
            later.setdefault(now.wall_ms, []).append(task_id)
        elif ended_at_ms < record.finished_at_ms or workflow_of(task_id) not in ending:
            later.setdefault(record.finished_at_ms, []).append(task_id)
        else:
            going.append(task_id)
    left_bytes = finished.stored_bytes - finished.stored_bytes * len(going) // len(finished.ids)
    for instant_ms, ids in later.items():
        share = left_bytes * len(ids) // (len(finished.ids) - len(going))
        w.enter_finished(instant_ms, ids, share)
    return going, any(instant_ms != now.wall_ms for instant_ms in later)


def _take_workflow_away(w: Working, record: Value) -> bool:
    """Take a workflow away that has ended, a part of its nodes at a time; tell whether that was all of it."""
    if not isinstance(record, WorkflowRecord) or not record.finished_at_ms:
        return True  # it is gone, or was resumed since
    workflow = record.spec.id
    end = min(record.swept + RECORDS_MAX, record.spec.nodes)
    for position in range(record.swept, end):
        w.delete(records.NODE, member_id(workflow, position))
    if end < record.spec.nodes:
        w.put(records.WORKFLOW, workflow, msgspec.structs.replace(record, swept=end))
        return False
    for first in record.parts:
        w.delete(records.NODES, nodes_id(workflow, first))
    w.delete(records.WORKFLOW, workflow)
    w.counters.purged_to_ms = max(w.counters.purged_to_ms, task_id_unix_ms(TaskId(workflow)))
    return True


Ended = tuple[SpecRecord, StateRecord]


def ended_of(ids: Sequence[bytes], loaded: Loaded, order: int) -> list[Ended]:
    """Return those of these tasks that are stored and ended no later than with the FINISHED entry of that order.

    Others have been taken away, or were retried since: they may be at work, or have ended anew.
    """
    found = [(loaded[records.SPEC, task_id], loaded[records.STATE, task_id]) for task_id in ids]
    return [
        (spec, state)
        for spec, state in found
        if isinstance(spec, SpecRecord)
        and isinstance(state, StateRecord)
        and state.state in TERMINAL
        and state.end_order <= order
    ]


def take_away_some(w: Working, ended: Sequence[Ended]) -> list[bytes]:
    """Take tasks away, from the first, as far as one step goes; return the ids of the others."""
    room = RECORDS_MAX
    for index, (spec, state) in enumerate(ended):
        task_id = spec.spec.id
        logs_left = max(0, state.logs - room)
        if logs_left <= state.logs_swept:
            logs_left = 0  # of what is left there is only the mark
        for sequence in range(max(logs_left, state.logs_swept - 1), state.logs):
            w.delete(records.LOG, log_id(task_id, sequence))
        if logs_left:
            w.put(records.STATE, task_id, msgspec.structs.replace(state, logs=logs_left))
        else:
            _take_away(w, spec, state)
        room -= state.logs - max(logs_left, state.logs_swept) + 1 + (state.past.kept if state.past is not None else 0)
        if room <= 0:
            return [left.spec.id for left, _ in ended[index if logs_left else index + 1 :]]
    return []


def _take_away(w: Working, spec: SpecRecord, state: StateRecord) -> None:
    task_id = spec.spec.id
    w.delete(records.SPEC, task_id)
    w.delete(records.STATE, task_id)
    last = state.attempt - (state.state == State.SUCCEEDED)
    for attempt_id in kept_ids(task_id, last, state.past):
        w.delete(records.ATTEMPT, attempt_id)
    if state.result_apart:
        w.delete(records.RESULT, task_id)
    dead.leave(w, task_id, state)
    w.counters.ended[state.state] -= 1
    w.counters.logs_bytes -= state.log_bytes
    if state.state != State.SUCCEEDED:
        w.counters.finished_bytes -= weight_of(spec.spec, state)
