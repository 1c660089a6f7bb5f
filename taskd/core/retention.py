"""Retention: finished tasks are kept for an age and a size, then taken away.

The FINISHED records are the job: each step deletes one of them, with the tasks it
names, in one batch. So a crash at any point leaves either of the two.
"""

from taskd.core import records
from taskd.core.commands import Loaded, Now, PurgeFinished
from taskd.core.effects import WantFinished
from taskd.core.records import FinishedRecord, Key, KeyRecord, SpecRecord, StateRecord
from taskd.core.reports import log_id
from taskd.core.working import Working
from taskd_protocol.ids import TaskId, task_id_unix_ms

CHECK_MS = 10_000
"""How often the oldest finished tasks are looked at."""

STEPS = 20
"""FINISHED records read at once; when there were as many, the next look follows at once."""


def tick(w: Working, now: Now) -> None:
    """Ask for the oldest finished tasks when it is time."""
    if now.mono_ms < w.next_purge_mono_ms:
        return
    w.next_purge_mono_ms = now.mono_ms + CHECK_MS
    too_large = w.counters.finished_bytes > w.settings.retention_bytes
    before_ms = now.wall_ms + 1 if too_large else now.wall_ms - w.settings.retention_age_ms
    if any(w.counters.ended.values()):
        w.effects.append(WantFinished(before_ms, STEPS))


def purge(w: Working, command: PurgeFinished, now: Now, loaded: Loaded) -> None:
    """Take one FINISHED record's tasks away, if it is still to go.

    Raises:
        NeedRecords: It, its tasks or their keys are not loaded.
    """
    finished_key: Key = (records.FINISHED, command.finished_id)
    w.need([finished_key], loaded)
    finished = loaded[finished_key]
    if not isinstance(finished, FinishedRecord):
        return
    aged = int.from_bytes(command.finished_id[:8], "big") < now.wall_ms - w.settings.retention_age_ms
    if not aged and w.counters.finished_bytes <= w.settings.retention_bytes:
        return
    tasks: list[Key] = [(kind, task_id) for task_id in finished.ids for kind in (records.SPEC, records.STATE)]
    w.need([finished_key, *tasks], loaded)
    specs = [spec for key in tasks if isinstance(spec := loaded[key], SpecRecord)]
    keys: list[Key] = [(records.KEY, spec.spec.key.encode()) for spec in specs if spec.spec.key]
    w.need([finished_key, *tasks, *keys], loaded)
    for spec in specs:
        _take_away(w, spec, loaded)
    w.delete(*finished_key)
    w.counters.finished_bytes -= finished.stored_bytes
    w.counters_dirty = True
    w.next_purge_mono_ms = now.mono_ms  # there may be more


def _take_away(w: Working, spec: SpecRecord, loaded: Loaded) -> None:
    task_id = spec.spec.id
    state = loaded[records.STATE, task_id]
    assert isinstance(state, StateRecord), "a finished task has a state"
    w.delete(records.SPEC, task_id)
    w.delete(records.STATE, task_id)
    if state.result_apart:
        w.delete(records.RESULT, task_id)
    for sequence in range(state.logs):
        w.delete(records.LOG, log_id(task_id, sequence))
    if spec.spec.key:
        key = spec.spec.key.encode()
        stored = loaded[records.KEY, key]
        if isinstance(stored, KeyRecord) and stored.task_id == task_id:
            w.delete(records.KEY, key)
    w.counters.ended[state.state] -= 1
    w.counters.purged_to_ms = max(w.counters.purged_to_ms, task_id_unix_ms(TaskId(task_id)))
