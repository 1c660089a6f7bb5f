"""Retention of output: what ended tasks have said is kept for an age and a size of its own, then goes before them.

It is gone through once, in the order of FINISHED: ``swept_to`` tells how far. A task's entries go from the first, and a
mark stands in place of the last that went, so that who reads from any place on is told. A task that runs again and
ends anew is named by a later entry.
"""

from typing import Final

from msgspec.structs import replace

from taskd.core import attempts, records
from taskd.core.commands import Loaded, Now, SweepLogs
from taskd.core.effects import WantFinished
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.records import FinishedRecord, Key, LogRecord, StateRecord
from taskd.core.reports import log_id
from taskd.core.working import Working
from taskd_protocol.streams import CUT, RETENTION, CutLine, decode_line, encode_line

STEPS: Final = 20
"""FINISHED records read at once."""

AGAIN_MS: Final = 100
"""After a step there may be more."""

ENTRIES_MAX: Final = 5_000
"""Deleted by one step: a task may have a million."""

ANY_MS: Final = 1 << 62
"""Before this instant is every FINISHED record."""

OF_ANY: Final = 0
"""The attempt of a mark: it stands for what all of them said."""


def tick(w: Working, now: Now) -> None:
    """Ask for the oldest finished tasks that may have said something."""
    if w.counters.logs_bytes:
        before_ms = _before_ms(w, now)
        if before_ms:
            w.effects.append(WantFinished(before_ms, STEPS, w.counters.swept_to, logs_only=True))


def sweep(w: Working, command: SweepLogs, now: Now, loaded: Loaded) -> None:
    """Take away what one FINISHED record's tasks have said, as far as one step goes.

    Raises:
        NeedRecords: It or its tasks are not loaded.
    """
    finished_id = command.finished_id
    if w.counters.swept_to != command.after or int.from_bytes(finished_id[:8], "big") >= _before_ms(w, now):
        return
    finished_key: Key = (records.FINISHED, finished_id)
    w.need([finished_key], loaded)
    finished = loaded[finished_key]
    ids = finished.ids if isinstance(finished, FinishedRecord) else []
    w.need([finished_key, *[(records.STATE, task_id) for task_id in ids]], loaded)
    order = int.from_bytes(finished_id[8:], "big")
    room, succeeded_bytes = ENTRIES_MAX, 0
    for task_id in ids:
        state = loaded[records.STATE, task_id]
        if not isinstance(state, StateRecord) or state.state not in TERMINAL or state.end_order > order:
            continue  # it was taken away, or ran again since
        if state.logs_swept >= state.logs:
            continue
        if not room:
            break
        after = _sweep_some(w, task_id, state, room)
        room -= after.logs_swept - state.logs_swept
        gone_bytes = state.log_bytes - after.log_bytes
        w.counters.logs_bytes -= gone_bytes
        if state.state == State.SUCCEEDED:
            succeeded_bytes += gone_bytes
        else:
            w.counters.finished_bytes -= gone_bytes
        if after.logs_swept < after.logs:
            break
    else:
        w.counters.swept_to = finished_id
    if succeeded_bytes:
        assert isinstance(finished, FinishedRecord)
        succeeded_bytes = min(succeeded_bytes, finished.stored_bytes)  # it tells their share of what several weighed
        w.put(*finished_key, FinishedRecord(finished.ids, finished.stored_bytes - succeeded_bytes))
        w.counters.finished_bytes -= succeeded_bytes
    w.counters_dirty = True
    w.next_purge_mono_ms = min(w.next_purge_mono_ms, now.mono_ms + AGAIN_MS)


def is_swept_mark(record: LogRecord) -> bool:
    """Tell whether an entry stands in place of those that were taken away."""
    if record.attempt != OF_ANY or record.stream != CUT:
        return False
    line = decode_line(CUT, record.data)
    return isinstance(line, CutLine) and line.reason == RETENTION


def _before_ms(w: Working, now: Now) -> int:
    """Return before which instant a task must have ended whose output is to go; 0: it goes with its task."""
    settings = w.settings
    if w.counters.logs_bytes > settings.log_retention_bytes:
        return ANY_MS
    goes_before = settings.log_retention_age_ms < settings.retention_age_ms
    return now.wall_ms - settings.log_retention_age_ms if goes_before else 0


def _sweep_some(w: Working, task_id: bytes, state: StateRecord, room: int) -> StateRecord:
    """Take away the first entries of a task, so many at most; return what is to be known of it."""
    start, end = state.logs_swept, min(state.logs, state.logs_swept + room)
    for sequence in range(max(start - 1, 0), end - 1):
        w.delete(records.LOG, log_id(task_id, sequence))
    mark = encode_line(CutLine(state.finished_at_ms, 0, 0, RETENTION))
    w.put(records.LOG, log_id(task_id, end - 1), LogRecord(OF_ANY, CUT, state.finished_at_ms, mark))
    attempts_bytes = min(state.log_bytes, attempts.ENTRY_BYTES * state.past.kept if state.past is not None else 0)
    left_bytes = (state.log_bytes - attempts_bytes) * (state.logs - end) // (state.logs - start)
    after = replace(state, logs_swept=end, log_bytes=attempts_bytes + left_bytes)
    w.put(records.STATE, task_id, after)
    return after
