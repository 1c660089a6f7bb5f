"""What a firing of a schedule does: it submits a task.

The one place that turns a schedule and an instant into work. Whatever else a schedule may
start one day, a workflow say, begins here and is told by the id that it is followed by.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from taskd.core import submit
from taskd.core.commands import Now
from taskd.core.records import ScheduleRecord
from taskd.core.working import Working
from taskd_protocol.errors import QueueDraining
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.schedule import NOMINAL_HEADER, SCHEDULE_HEADER
from taskd_protocol.task import TaskSpec

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_JITTER_BYTES: Final = 8
_TRACE_HEX: Final = 48


def why_not(w: Working, record: ScheduleRecord) -> str:
    """Return why nothing can be submitted now; empty: it can."""
    try:
        submit.check_queues(w, [record.schedule.task])
    except QueueDraining as refusal:
        return refusal.message
    return ""


def task_id_of(record: ScheduleRecord, at_ms: int, now: Now, salt: bytes = b"") -> bytes:
    """Return the id of the task of one nominal time; it follows from that, so that nothing of it has to be kept.

    Args:
        record: The schedule.
        at_ms: The nominal time.
        now: When it is submitted: no task with that id is older.
        salt: Of firings beside the nominal times.
    """
    created = record.created_at_ms.to_bytes(8, "big") + at_ms.to_bytes(8, "big") + salt
    entropy = hashlib.blake2b(record.schedule.name.encode(), key=created, digest_size=RANDOM_BYTES_PER_TASK_ID)
    return make_task_ids(1, now.wall_ms, entropy.digest())[0]


def start(w: Working, record: ScheduleRecord, firings: Sequence[tuple[bytes, int]], now: Now) -> None:
    """Submit the tasks of some nominal times.

    Args:
        w: The working set.
        record: The schedule.
        firings: For each the task's id and the nominal time.
        now: This instant.
    """
    submit.keep(w, [_spec(record, task_id, at_ms) for task_id, at_ms in firings], record.owner, now)


def _spec(record: ScheduleRecord, task_id: bytes, at_ms: int) -> TaskSpec:
    schedule = record.schedule
    task = schedule.task
    digest = hashlib.blake2b(task_id, digest_size=32).digest()
    delay_ms = task.delay_ms
    if schedule.jitter_ms:
        nominal = hashlib.blake2b(schedule.name.encode(), key=at_ms.to_bytes(8, "big"), digest_size=_JITTER_BYTES)
        delay_ms += int.from_bytes(nominal.digest(), "big") % (schedule.jitter_ms + 1)
    trace = digest.hex()
    headers = {
        **(task.rules.headers or {}),
        SCHEDULE_HEADER: schedule.name,
        NOMINAL_HEADER: (_EPOCH + dt.timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds"),
    }
    return replace(
        task,
        id=task_id,
        delay_ms=delay_ms,
        traceparent=f"00-{trace[:32]}-{trace[32:_TRACE_HEX]}-01",
        given=replace(task.rules, headers=headers),
    )
