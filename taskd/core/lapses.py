"""Lapses: what is kept until an instant, whatever becomes of its task: idempotency keys, and claims for a time.

The record tells until when it counts; past that it is as good as gone, and a new one
may take its place. The LAPSE entries are the job that takes away what nobody replaced:
each step deletes some of them, with the records that they name, in one batch.

Invariants:
- Each record that counts until an instant has its entry at that instant, and no other.
"""

from typing import Final

from taskd.core import records
from taskd.core.commands import DropLapsed, Loaded, Now
from taskd.core.effects import WantLapsed
from taskd.core.records import BucketRecord, Key, KeyRecord, Kind, UniqueRecord
from taskd.core.working import Working
from taskd_protocol.ids import TaskId, task_id_unix_ms

CHECK_MS: Final = 60_000
"""How often the oldest entries are looked at; they are kept for hours."""

STEP: Final = 1_000
"""Entries read, and dropped, at once: some milliseconds of a turn."""

AGAIN_MS: Final = 100
"""After a full step there may be more; a look at once would find the same entries, still under way."""

INSTANT_BYTES: Final = 8


def key_of_id(task_id: bytes) -> bytes:
    """Return the KEY id under which a task's own id is kept; no key of a user's is the same, as it is no UTF-8."""
    return b"\xff" + task_id


def id_of_key(key: bytes) -> bytes:
    """Return the task id of a KEY id that ``key_of_id`` gave; empty for a user's key."""
    return key[1:] if key.startswith(b"\xff") else b""


def lapse_id(until_ms: int, kind: Kind, record_id: bytes) -> bytes:
    """Return the LAPSE id of a record that counts until then."""
    return until_ms.to_bytes(INSTANT_BYTES, "big") + kind + record_id


def record_of(lapse: bytes) -> tuple[int, Key]:
    """Return the instant of a LAPSE id, and which record it names."""
    kind_end = INSTANT_BYTES + 1
    return int.from_bytes(lapse[:INSTANT_BYTES], "big"), (Kind(lapse[INSTANT_BYTES:kind_end]), lapse[kind_end:])


def start(w: Working, until_ms: int, kind: Kind, record_id: bytes) -> None:
    """Note until when a record counts that is written now."""
    w.put(records.LAPSE, lapse_id(until_ms, kind, record_id), b"")


def stop(w: Working, until_ms: int, kind: Kind, record_id: bytes) -> None:
    """Take back until when a record counts, of one that is deleted or replaced now."""
    w.delete(records.LAPSE, lapse_id(until_ms, kind, record_id))


def tick(w: Working, now: Now) -> None:
    """Ask for what has lapsed when it is time."""
    if now.mono_ms >= w.next_lapse_mono_ms:
        w.next_lapse_mono_ms = now.mono_ms + CHECK_MS
        w.effects.append(WantLapsed(now.wall_ms, STEP))


def drop(w: Working, command: DropLapsed, now: Now, loaded: Loaded) -> list[tuple[bytes, BucketRecord]]:
    """Take away what has lapsed, unless another record has taken its place since; return what is left of rates.

    Raises:
        NeedRecords: The records are not loaded.
    """
    lapsed = [(lapse, *record_of(lapse)) for lapse in command.ids]
    w.need([key for _, _, key in lapsed], loaded)
    lapsed_buckets: list[tuple[bytes, BucketRecord]] = []
    for lapse, until_ms, key in lapsed:
        record = loaded[key]
        if until_ms > now.wall_ms:
            continue  # the clock was set back since it was read
        if isinstance(record, KeyRecord | UniqueRecord) and record.until_ms == until_ms:
            w.delete(*key)
            _forget_id(w, id_of_key(key[1]))
        w.delete(records.LAPSE, lapse)
        if isinstance(record, BucketRecord) and record.until_ms == until_ms:
            lapsed_buckets.append((key[1], record))
    if len(command.ids) >= STEP:
        w.next_lapse_mono_ms = now.mono_ms + AGAIN_MS
    return lapsed_buckets


def _forget_id(w: Working, task_id: bytes) -> None:
    """Have the id of a task that was taken away be refused as too old from now on; empty: it is none.

    By now so is every id that is not younger, unless the wall clock was set forward: then it is better that some new
    work has to be sent under other ids than that this one runs again.
    """
    if task_id:
        w.counters.purged_to_ms = max(w.counters.purged_to_ms, task_id_unix_ms(TaskId(task_id)))
        w.counters_dirty = True
