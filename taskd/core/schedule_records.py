"""Records of schedules: what they are, where they stand, and what was decided; see ``taskd.core.records``."""

import msgspec

from taskd_protocol.schedule import Schedule


class ScheduleRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A schedule as it was asked for. Written when that changes."""

    schedule: Schedule
    owner: str
    """Key id of the token that asked last."""
    created_at_ms: int
    """When its timing became what it is: from here its intervals count, and nothing before is a missed firing."""


class FiringRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """What was decided of one nominal time, or of several in a row of which the same was decided."""

    at_ms: int
    """The time, or the first of them; of a firing beside them, when it was asked for."""
    until_ms: int
    """The last of them."""
    count: int
    outcome: str
    """``fired``, ``waiting``, ``skipped``, ``coalesced``; beside the nominal times ``triggered``, ``backfilled``."""
    reason: str
    """Why, if it was not fired in its time; else empty."""
    task_id: bytes
    """Of the task, or workflow, that was submitted; empty: none, or several."""
    decided_at_ms: int


class RemovedRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """What is left in FIRING of a schedule that was removed."""

    first: int
    """The sequence of the oldest decision that is still there."""
    end: int
    """The first sequence beyond the newest."""


class StandingRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Where a schedule stands."""

    decided_to_ms: int
    """Every nominal time up to here has its decision."""
    next_at_ms: int
    """The first nominal time beyond; 0: there is none."""
    sequence: int = 0
    """Records that were written in FIRING, all told; the newest of them are kept."""
    begun_ms: int = 0
    """When its timing became what it is: decisions on times before are another timing's."""
    source: str = ""
    """As in the schedule."""
    pause_after: int = 0
    """As in the schedule."""
    failures: int = 0
    """Tasks, or workflows, that have failed since one succeeded."""
    running: list[bytes] = []
    """Its tasks and workflows that have not ended, as far as it needs to know."""
    paused_at_ms: int = 0
    """0: it is not."""
    why_paused: str = ""
    broken: str = ""
    """Why it cannot fire: a zone or a line of it is no longer known; empty: it can."""
    last: FiringRecord | None = None
    """The newest in FIRING."""
    waiting: FiringRecord | None = None
    """The time of which the task is submitted when those in ``running`` have ended; None: none waits."""
    waiting_sequence: int = 0
    """Where that stands in FIRING."""
    orphaned: bool = False
    """Its module was loaded again, and defines it no longer; it was paused for that, until a person says otherwise."""
    begun_sequence: int = 0
    """Of its first decision under the timing that it has: where the wall clock was put back, times do not tell."""
