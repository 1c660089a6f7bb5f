"""Dead letters: tasks whose attempts are spent, listed by what they died of.

Invariants:
- A dead task has its entry in DEAD under the fingerprint that its state record names.
- ``dead_groups`` holds every group, and its count is that of its entries.

Only tasks that die, and dead ones that leave, cost anything here.
"""

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.fingerprint import FINGERPRINT_BYTES, MESSAGE_CHARS, fingerprint_of, kind_of, place_of
from taskd.core.records import DeadGroupRecord, StateRecord
from taskd.core.working import Working
from taskd_protocol.task import Failure

GROUPS_MAX = 2_000
"""Groups in memory, a kilobyte each at most; what dies of something else then stands under ``OTHERS``."""

OTHERS = bytes(FINGERPRINT_BYTES)
"""The fingerprint of all failures that found no room for a group of their own."""


def dead_id(fingerprint: bytes, ended_at_ms: int, task_id: bytes) -> bytes:
    """Return the DEAD id of a task."""
    return fingerprint + ended_at_ms.to_bytes(8, "big") + task_id


def enter(w: Working, task_id: bytes, failure: Failure, now: Now) -> bytes:
    """List a task that dies now; return the fingerprint that its state record must name."""
    fingerprint = fingerprint_of(failure)
    groups = w.dead_groups
    known = groups.get(fingerprint)
    if known is None and len(groups) >= GROUPS_MAX:
        fingerprint = OTHERS
        known = groups.get(fingerprint)
    if known is not None:
        kind, place, message = known.kind, known.place, known.message
    elif fingerprint == OTHERS:
        kind, place, message = "", "", "failures of more kinds than are told apart"
    else:
        kind, place, message = kind_of(failure), place_of(failure.traceback), failure.message[:MESSAGE_CHARS]
    count, first_at_ms, last_at_ms = 0, now.wall_ms, now.wall_ms
    if known is not None:
        count = known.count
        first_at_ms, last_at_ms = min(first_at_ms, known.first_at_ms), max(last_at_ms, known.last_at_ms)
    groups[fingerprint] = DeadGroupRecord(kind, place, message, count + 1, first_at_ms, last_at_ms)
    w.dirty_dead_groups[fingerprint] = None
    w.put(records.DEAD, dead_id(fingerprint, now.wall_ms, task_id), b"")
    return fingerprint


def leave(w: Working, task_id: bytes, state: StateRecord) -> None:
    """Take a dead task off its list; nothing for a task that is on none."""
    fingerprint = state.fingerprint
    if not fingerprint:
        return
    w.delete(records.DEAD, dead_id(fingerprint, state.finished_at_ms, task_id))
    known = w.dead_groups[fingerprint]
    if known.count > 1:
        w.dead_groups[fingerprint] = DeadGroupRecord(
            known.kind, known.place, known.message, known.count - 1, known.first_at_ms, known.last_at_ms
        )
    else:
        del w.dead_groups[fingerprint]
    w.dirty_dead_groups[fingerprint] = None
