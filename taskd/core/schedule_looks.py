"""Looks at schedules: for every nominal time exactly one decision, in the batch that carries what it decides.

A look goes on from ``decided_to_ms``, in the order of the nominal times, and moves it. So no
time is decided twice, and none left out, whatever the clock on the wall does: put back, nothing is
due until it comes by again; put forward, what it jumped over was missed.

What is longer ago than ``LATE_MS`` was missed. What follows from that, and from a task that has
not ended yet, is the schedule's to say.
"""

import hashlib
from typing import Final

from msgspec.structs import replace

from taskd.core import firings, records, schedule_work, workflows
from taskd.core.commands import CancelTasks, Loaded, Now
from taskd.core.effects import Continue, ScheduleStopped
from taskd.core.firings import Plan
from taskd.core.following import followed, is_held_up, keep_standing
from taskd.core.records import Damaged, Key, Value
from taskd.core.schedule_commands import LookAtSchedules
from taskd.core.schedule_records import FiringRecord, ScheduleRecord, StandingRecord
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest
from taskd_protocol.workflow import is_workflow_id

LATE_MS: Final = 10_000
"""A nominal time that is decided later than this was missed: a restart of the server takes less."""

HISTORY_KEPT: Final = 500
"""Decisions kept of one schedule; those of which the same was decided in a row are one."""

LOOKS_MAX: Final = 1_000
"""Schedules looked at in one turn: some 50 ms of it."""
LOOK_AT_ONCE: Final = 100
"""By one command."""
LOOK_NODES: Final = 2_000
"""Nodes of workflows after whose submits a command leaves the rest to the next: some 20 ms."""

TALLY_MAX: Final = 5_000
"""Missed firings, or days of them, that one look counts; then other work comes between."""

PAUSED: Final = "paused"
MISSED: Final = "missed"
OVERLAP: Final = "the task before has not ended"
OVERLAP_WORKFLOW: Final = "the workflow before has not ended"
WAITED: Final = "when the task before had ended"
WAITED_WORKFLOW: Final = "when the workflow before had ended"

NEVER_MONO_MS: Final = 1 << 62


def firing_prefix(name: str) -> bytes:
    """Return what the FIRING ids of a schedule begin with."""
    return hashlib.blake2b(name.encode(), digest_size=16, person=b"schedule").digest()


def firing_id(name: str, sequence: int) -> bytes:
    """Return a FIRING id."""
    return firing_prefix(name) + sequence.to_bytes(8, "big")


def sequence_of(firing: bytes) -> int:
    """Return which decision of its schedule a FIRING id is of."""
    return int.from_bytes(firing[-8:], "big")


def kept_from(standing: StandingRecord) -> int:
    """Return the sequence of the oldest decision that is kept."""
    return max(0, standing.sequence - HISTORY_KEPT)


def schedule_key(name: str) -> Key:
    """Return where a schedule is stored."""
    return records.SCHEDULE, name.encode()


def tick(w: Working, now: Now) -> None:
    """Have those looked at that are due."""
    schedules = w.schedules
    schedules.wall_ahead_ms = now.wall_ms - now.mono_ms
    names = schedules.take_due(now.wall_ms, LOOKS_MAX)
    for start in range(0, len(names), LOOK_AT_ONCE):
        w.effects.append(Continue(LookAtSchedules(names[start : start + LOOK_AT_ONCE])))


def next_deadline_mono_ms(w: Working) -> int:
    """Return when ``tick`` has something to do, if the wall clock is not set before."""
    schedules = w.schedules
    if schedules.unchecked:
        return 0
    return schedules.heap[0][0] - schedules.wall_ahead_ms if schedules.heap else NEVER_MONO_MS


def look(w: Working, command: LookAtSchedules, now: Now, loaded: Loaded) -> None:
    """Decide on what is due of some schedules.

    Raises:
        NeedRecords: They are not loaded.
    """
    w.need([schedule_key(name) for name in command.names], loaded)
    spent = 0
    for position, name in enumerate(command.names):
        if spent > LOOK_NODES:
            w.effects.append(Continue(LookAtSchedules(command.names[position:])))
            return
        is_first = w.schedules.begin_look(name)
        record, standing = loaded[schedule_key(name)], w.schedules.of.get(name)
        if standing is None:
            continue
        if isinstance(record, ScheduleRecord):
            flows = len(w.flows)
            look_at(w, record, standing, now, is_first=is_first)
            spent += (len(w.flows) - flows) * schedule_work.nodes_of(record)
        else:
            _break(w, name, standing, why_unread(record))


def why_unread(record: Value) -> str:
    """Return why a schedule is broken of which no record was read."""
    return record.why if isinstance(record, Damaged) else "what it is was lost; set it anew"


def look_at(
    w: Working,
    record: ScheduleRecord,
    standing: StandingRecord,
    now: Now,
    missed: str = MISSED,
    *,
    is_first: bool = False,
) -> None:
    """Decide on what is due of one schedule.

    Args:
        w: The working set.
        record: What it is.
        standing: Where it stands.
        now: This instant.
        missed: What is to be said of nominal times that are long past.
        is_first: Nobody has looked at it since the start: the zone data may be other than when it was looked at last.
    """
    try:
        plan = firings.plan(record.schedule.timing, record.created_at_ms)
    except BadRequest as error:
        _break(w, record.schedule.name, standing, error.message)
        return
    if standing.paused_at_ms:
        _close(w, record.schedule.name, standing, replace(standing, broken=""))
        return
    moving = _Look(w, record, replace(standing, broken=""), now)
    moving.start_waiting()
    if now.wall_ms > standing.decided_to_ms:
        try:
            at_ms = moving.decide(plan, missed, is_first=is_first)
        except BadRequest as error:  # what was decided stands; what is next takes too long to find
            _break(w, record.schedule.name, moving.standing, error.message)
            return
        moving.standing = replace(moving.standing, next_at_ms=at_ms or 0)
    _close(w, record.schedule.name, standing, moving.standing)


def _close(w: Working, name: str, before: StandingRecord, after: StandingRecord) -> None:
    if after != before:
        keep_standing(w, name, after)
    else:
        w.schedules.adopt(name, after)  # it was taken from the heap to be looked at


def _break(w: Working, name: str, standing: StandingRecord, why: str) -> None:
    """Set a schedule aside that cannot be read: all others go on."""
    broken = w.schedules.of[name].broken
    if broken != why:
        w.effects.append(ScheduleStopped(name, why, broken=True))
    _close(w, name, w.schedules.of[name], replace(standing, broken=why))


class _Look:
    """One look at one schedule.

    Attributes:
        standing: As it is by now.
    """

    def __init__(self, w: Working, record: ScheduleRecord, standing: StandingRecord, now: Now) -> None:
        self._w = w
        self._record = record
        self._now = now
        self._is_task = record.schedule.workflow is None
        self._overlap = OVERLAP if self._is_task else OVERLAP_WORKFLOW
        self.standing = standing

    def start_waiting(self) -> None:
        """Submit the task of the time that waits, if nothing is in its way any more."""
        waiting = self.standing.waiting
        if waiting is None:
            return
        if is_held_up(self._w, self.standing):
            if self._record.schedule.overlap == "cancel_running":
                self._cancel_running()
            return
        why_not = schedule_work.why_not(self._w, self._record)
        decided = replace(waiting, outcome="skipped", reason=why_not)
        if not why_not:
            reason = WAITED if self._is_task else WAITED_WORKFLOW
            decided = replace(waiting, outcome="fired", reason=reason, task_id=self._submit(waiting.at_ms))
        self._settle_waiting(decided)

    def decide(self, plan: Plan, missed: str, *, is_first: bool) -> int | None:
        """Decide on the nominal times up to now, as many as one look may; return the first one that is left."""
        standing, late_ms, wall_ms = self.standing, self._now.wall_ms - LATE_MS, self._now.wall_ms
        _, _, due, next_ms = plan.due(max(standing.decided_to_ms, late_ms), wall_ms)
        if standing.decided_to_ms < late_ms and (is_first or standing.next_at_ms <= late_ms):
            left_ms = self._decide_missed(plan, late_ms, missed, any_due=bool(due))
            if left_ms is not None:
                return plan.next_ms(left_ms)
        for firing in due:
            self._fire(firing.at_ms, firing.note)
        return next_ms

    def _decide_missed(self, plan: Plan, late_ms: int, missed: str, *, any_due: bool) -> int | None:
        """Decide on what was missed; return behind which instant some is left, None if that was all."""
        schedule = self._record.schedule
        count = {"latest": 0 if any_due else 1, "all": schedule.missed_max}.get(schedule.missed, 0)
        fired = plan.newest(self.standing.decided_to_ms, late_ms, count) if count else []
        until_ms = fired[0].at_ms - 1 if fired else late_ms
        after_ms = self.standing.decided_to_ms
        if until_ms > after_ms:
            passed, until_reached_ms = plan.tally(after_ms, until_ms, TALLY_MAX)
            if passed:
                self._pass_over(plan, after_ms, until_reached_ms, passed, missed)
            if until_reached_ms < until_ms:
                return until_reached_ms
        for firing in fired:
            self._fire(firing.at_ms, missed)
        return None

    def _pass_over(self, plan: Plan, after_ms: int, until_ms: int, count: int, missed: str) -> None:
        first = next(plan.after(after_ms, until_ms)).at_ms
        last = plan.newest(after_ms, until_ms, 1)[0].at_ms
        outcome = "coalesced" if self._record.schedule.missed == "latest" else "skipped"
        self._note(FiringRecord(first, last, count, outcome, missed, b"", self._now.wall_ms))
        self.standing = replace(self.standing, decided_to_ms=last)

    def _fire(self, at_ms: int, reason: str) -> None:
        """Decide on one nominal time."""
        decided = FiringRecord(at_ms, at_ms, 1, "fired", reason, b"", self._now.wall_ms)
        why_not = schedule_work.why_not(self._w, self._record)
        overlap = self._record.schedule.overlap
        if why_not:
            self._note(replace(decided, outcome="skipped", reason=why_not))
        elif overlap == "allow" or not is_held_up(self._w, self.standing):
            self._note(replace(decided, task_id=self._submit(at_ms)))
        elif overlap == "skip" or (overlap == "queue_one" and self.standing.waiting is not None):
            self._note(replace(decided, outcome="skipped", reason=self._overlap))
        else:
            self._wait(replace(decided, outcome="waiting", reason=self._overlap))
        self.standing = replace(self.standing, decided_to_ms=at_ms)

    def _wait(self, decided: FiringRecord) -> None:
        """Have a time wait for the end of the task before; one that waited already makes room."""
        if self.standing.waiting is not None:
            self._settle_waiting(replace(self.standing.waiting, outcome="skipped", reason="a later one took its place"))
        self._note(decided)
        self.standing = replace(self.standing, waiting=decided, waiting_sequence=self.standing.sequence - 1)
        if self._record.schedule.overlap == "cancel_running":
            self._cancel_running()

    def _cancel_running(self) -> None:
        running = self.standing.running
        tasks = [task_id for task_id in running if not is_workflow_id(task_id)]
        if tasks:
            self._w.effects.append(Continue(CancelTasks(tasks)))
        for workflow in running:
            if is_workflow_id(workflow):
                workflows.cancel_if_open(self._w, workflow)

    def _settle_waiting(self, decided: FiringRecord) -> None:
        standing, name = self.standing, self._record.schedule.name
        if standing.waiting_sequence >= kept_from(standing):
            self._w.put(records.FIRING, firing_id(name, standing.waiting_sequence), decided)
        is_last = standing.waiting_sequence == standing.sequence - 1
        self.standing = replace(
            self.standing, waiting=None, waiting_sequence=0, last=decided if is_last else self.standing.last
        )

    def _submit(self, at_ms: int) -> bytes:
        work = schedule_work.fresh_id(self._w, self._record, at_ms, self._now)
        schedule_work.start(self._w, self._record, [(work, at_ms)], self._now)
        self.standing = followed(self.standing, self._record, [work])
        return work

    def _note(self, decided: FiringRecord) -> None:
        self.standing = noted(self._w, self._record.schedule.name, self.standing, decided)


def noted(w: Working, name: str, standing: StandingRecord, decided: FiringRecord) -> StandingRecord:
    """Write a decision: behind the newest one, or into it where the same was decided again."""
    last, sequence = standing.last, standing.sequence
    if (
        last is not None
        and last.outcome == decided.outcome
        and last.reason == decided.reason
        and decided.outcome in {"skipped", "coalesced"}
        and standing.begun_sequence < sequence
        and standing.begun_ms < last.at_ms <= last.until_ms < decided.at_ms
    ):
        decided = replace(decided, at_ms=last.at_ms, count=last.count + decided.count)
        sequence -= 1
    w.put(records.FIRING, firing_id(name, sequence), decided)
    if sequence >= HISTORY_KEPT and sequence == standing.sequence:
        w.delete(records.FIRING, firing_id(name, sequence - HISTORY_KEPT))
    return replace(standing, sequence=sequence + 1, last=decided)
