"""Messages about schedules; they belong to the unions of ``messages``, and follow its rules of change.

Type numbers: 112-125.
"""

import msgspec

from taskd_protocol.schedule import Schedule, Timing


class ScheduleSet(msgspec.Struct, array_like=True, frozen=True, tag=112):
    """Keep this schedule, or change the one of its name. Answered SCHEDULE_CHANGES."""

    request_id: int
    schedule: Schedule
    only_new: bool = False
    """Refuse to change another one."""


class ScheduleSync(msgspec.Struct, array_like=True, frozen=True, tag=113):
    """These are the schedules that a module's code defines; others that it has defined fire no more.

    Answered SCHEDULE_CHANGES.
    """

    request_id: int
    source: str
    """The module."""
    schedules: list[Schedule]
    prune: bool = False
    """Remove those others."""


class ScheduleChanges(msgspec.Struct, array_like=True, frozen=True, tag=114):
    """So it is durable; names, sorted."""

    request_id: int
    added: list[str]
    changed: list[str]
    removed: list[str]
    same: list[str]
    orphaned: list[str] = []
    """Of those that are kept, what the module of a sync has defined and defines no longer."""


class ScheduleList(msgspec.Struct, array_like=True, frozen=True, tag=115):
    """Show me schedules, by name. Answered SCHEDULE_PAGE."""

    request_id: int
    names: list[str] = []
    """Only these; empty: all."""
    after: str = ""
    """Only names behind this one: the last of the page before."""
    limit: int = 100


class FiringView(msgspec.Struct, array_like=True, frozen=True):
    """What was decided of one nominal time, or of several in a row of which the same was decided."""

    sequence: int
    """Rises with each decision on the schedule."""
    at_ms: int
    until_ms: int
    """The last of them; ``at_ms`` of one."""
    count: int
    outcome: str
    """``fired``, ``waiting``, ``skipped``, ``coalesced``; beside the nominal times ``triggered``, ``backfilled``."""
    reason: str
    """Empty: it fired in its time."""
    task_id: bytes
    """Of the task, or workflow, that was submitted. Empty: none, or several."""
    decided_at_ms: int
    task_state: str = ""
    """Of that task or workflow; empty: there is none, or it is not kept any more."""


class ScheduleView(msgspec.Struct, array_like=True, frozen=True):
    """One schedule."""

    schedule: Schedule
    state: str
    """``active``, ``paused``, ``broken``, or ``done``: it fires no more."""
    reason: str
    """Why it is paused or broken."""
    owner: str
    """Key id of the token that asked for it last."""
    created_at_ms: int
    """When its timing became what it is."""
    next_at_ms: int | None
    """None: it does not fire any more, as it stands."""
    decided_to_ms: int
    failures: int
    """Tasks, or workflows, that have failed since one succeeded, as far as it needs to know."""
    running: list[bytes]
    """Its tasks and workflows that have not ended, as far as it needs to know."""
    waiting_at_ms: int | None
    """The nominal time that waits for the end of the task before."""
    last: FiringView | None
    """The newest decision."""
    orphaned: bool = False
    """Its module was loaded again, and defines it no longer."""


class SchedulePage(msgspec.Struct, array_like=True, frozen=True, tag=116):
    """Schedules, sorted by name."""

    request_id: int
    schedules: list[ScheduleView]
    more: bool
    """There are some behind the last."""


class ScheduleOrder(msgspec.Struct, array_like=True, frozen=True, tag=117):
    """Pause, resume or remove a schedule. Answered DONE."""

    request_id: int
    name: str
    action: str
    """``pause``, ``resume`` or ``remove``."""


class ScheduleTrigger(msgspec.Struct, array_like=True, frozen=True, tag=118):
    """Submit a schedule's work now, beside its times. Answered SCHEDULE_TRIGGERED."""

    request_id: int
    name: str
    id: bytes
    """Of the task: 16 bytes, UUIDv7, by the client; the same again finds it. A workflow's id follows from it."""


class ScheduleTriggered(msgspec.Struct, array_like=True, frozen=True, tag=119):
    """The task, or workflow, is durable."""

    request_id: int
    id: bytes
    """Of the task, or workflow."""


class ScheduleBackfill(msgspec.Struct, array_like=True, frozen=True, tag=120):
    """Submit a schedule's work for its times in the past. Answered SCHEDULE_BACKFILLED."""

    request_id: int
    name: str
    id: bytes
    """16 bytes, UUIDv7, by the client; the same again with the same range finds its tasks."""
    from_ms: int
    until_ms: int
    """Both ends belong to the range."""
    dry_run: bool = False
    """Only tell which times these are."""


class ScheduleBackfilled(msgspec.Struct, array_like=True, frozen=True, tag=121):
    """Their tasks are durable, unless that was a dry run."""

    request_id: int
    at_ms: list[int]
    """The nominal times."""
    until_ms: int
    """Up to here; less than was asked: ask on behind it, under a new id."""


class ScheduleHistory(msgspec.Struct, array_like=True, frozen=True, tag=122):
    """Show me what was decided of a schedule's times, newest first. Answered FIRING_PAGE."""

    request_id: int
    name: str
    before: int = -1
    """Only decisions of a lower sequence: the last of the page before; -1: from the newest."""
    limit: int = 100


class FiringPage(msgspec.Struct, array_like=True, frozen=True, tag=123):
    """Decisions, newest first."""

    request_id: int
    firings: list[FiringView]
    more: bool
    """Older ones are kept."""


class SchedulePreview(msgspec.Struct, array_like=True, frozen=True, tag=124):
    """Tell me when a schedule, or a timing, fires. Answered PREVIEW_PAGE."""

    request_id: int
    name: str = ""
    """Empty: ``timing`` says."""
    timing: Timing | None = None
    from_ms: int = 0
    """From then on; 0: from now on."""
    count: int = 5


class PreviewFiring(msgspec.Struct, array_like=True, frozen=True):
    """One instant at which a timing fires."""

    at_ms: int
    note: str
    """What is odd about it; empty: nothing."""


class PreviewPage(msgspec.Struct, array_like=True, frozen=True, tag=125):
    """The firings, in order; fewer than were asked for: there are no more."""

    request_id: int
    firings: list[PreviewFiring]
    zone: str
    """Of the timing."""
    skipped: list[PreviewFiring] = []
    """Up to the last of them, each gap by its end of which times do not fire, under the rule ``skip``."""
