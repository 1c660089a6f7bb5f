"""Leftovers: what was decided of schedules that were removed, taken away some a turn.

A module that defines none of its schedules any more takes them all away at once, and each has up to 500 decisions.

Invariants:
- A schedule has no leftovers: one that is made under a name of before has them taken away first, so that its own
  decisions begin at nothing.
- What is left is stored as REMOVED with the batch that changes it: a start goes on where the last one was.
"""

from typing import Final

from taskd.core import records
from taskd.core.commands import GoOn
from taskd.core.effects import Continue
from taskd.core.schedule_looks import firing_prefix, kept_from
from taskd.core.schedule_records import RemovedRecord, StandingRecord
from taskd.core.working import Working

STEP_DECISIONS: Final = 2_000
"""Taken away in one turn: some milliseconds."""


def leave(w: Working, name: str, standing: StandingRecord) -> None:
    """Have the decisions of a schedule taken away, that is removed."""
    left = RemovedRecord(kept_from(standing), standing.sequence)
    if left.first < left.end:
        w.schedules.left[firing_prefix(name)] = left
        w.schedules.left_new[firing_prefix(name)] = None


def clear(w: Working, name: str) -> None:
    """Take away at once what is left under the name of a schedule that is made."""
    prefix = firing_prefix(name)
    if prefix in w.schedules.left:
        _take(w, prefix, STEP_DECISIONS)
        assert prefix not in w.schedules.left, "one schedule has fewer than a step takes"


def sweep(w: Working) -> None:
    """Take away what fits into this turn, and have the rest go on in the next."""
    left, new = w.schedules.left, w.schedules.left_new
    room = STEP_DECISIONS
    while left and room:
        room -= _take(w, next(iter(left)), room)
    for prefix in new:
        if prefix in left:
            w.put(records.REMOVED, prefix, left[prefix])
    new.clear()
    if left and not w.moving:  # which has asked for the next turn by itself
        w.effects.append(Continue(GoOn()))


def _take(w: Working, prefix: bytes, most: int) -> int:
    """Take away some decisions of one that was removed; return how many."""
    left = w.schedules.left[prefix]
    end = min(left.first + most, left.end)
    for sequence in range(left.first, end):
        w.delete(records.FIRING, prefix + sequence.to_bytes(8, "big"))
    if end < left.end:
        w.schedules.left[prefix] = RemovedRecord(end, left.end)
        w.schedules.left_new[prefix] = None
    else:
        del w.schedules.left[prefix]
        w.delete(records.REMOVED, prefix)
    return end - left.first
