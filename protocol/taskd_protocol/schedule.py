"""Schedules: when work is to be submitted, again and again; one definition for wire and disk.

Fields are only ever appended, each with a default; what a field's absence means is its default.
"""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from taskd_protocol import limits
from taskd_protocol.errors import BadRequest
from taskd_protocol.task import TaskSpec, check_name, check_spec
from taskd_protocol.workflow import FINISH, POLICIES, Node, check_nodes

CRON_CHARS_MAX: Final = 256
"""Of one cron line: far more than one that a person can read."""
CRON_LINES_MAX: Final = 32
DATES_MAX: Final = 1_000
"""Dates on which one schedule does not fire, or instants at which it does."""
EVERY_MS_MIN: Final = 1_000
ZONE_CHARS_MAX: Final = 64
SCHEDULE_PAYLOAD_BYTES_MAX: Final = 64 * 1024
"""Arguments of a schedule's work: they are read and written again at each firing."""
SCHEDULE_WORKFLOW_BYTES_MAX: Final = 256 * 1024
"""All nodes of a schedule's workflow, packed: as those."""
SCHEDULE_NODES_AT_ONCE_MAX: Final = 10_000
"""Of all workflows that one schedule starts in one commit."""
NO_TASK_ID: Final = bytes((0,) * 6 + (0x70, 0, 0x80) + (0,) * 7)
"""What stands in place of a task's id: each firing has its own."""
INSTANT_MS_MAX: Final = 100_000 * 86_400_000
"""UTC: the year 2243. Zones are asked for no later time."""

NO_TASK: Final = TaskSpec(NO_TASK_ID, "")
"""What stands in place of a task whose schedule submits a workflow: who does not know of those refuses it."""

SCHEDULE_HEADER: Final = "taskd.schedule"
"""Header of a task that a schedule submitted, itself or in a workflow: the schedule's name."""
NOMINAL_HEADER: Final = "taskd.scheduled-for"
"""Of the same: the nominal time, ISO 8601, UTC."""

CRON_ALIASES: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

GAPS: Final = ("next", "skip", "shift")
FOLDS: Final = ("auto", "first", "second", "both")
OVERLAPS: Final = ("allow", "skip", "queue_one", "cancel_running")
MISSED: Final = ("latest", "skip", "all")

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*", re.ASCII)


class Timing(msgspec.Struct, array_like=True, frozen=True):
    """When: cron lines, an interval or instants; exactly one of the three."""

    cron: tuple[str, ...] = ()
    """Of five fields, of six with the second first, or a word such as ``@daily``. Any of them is enough."""
    every_ms: int = 0
    """An interval: counted from ``start_ms``, else from when the schedule was made."""
    at_ms: tuple[int, ...] = ()
    """Instants, UTC."""
    zone: str = "UTC"
    """IANA name: whose clock the cron lines and the dates go by."""
    gap: str = "next"
    """What a time of day does that a clock set forward jumps over. ``next``: it is the first instant after the gap;
    ``skip``: it is not; ``shift``: it comes later by as much as the clock was set forward."""
    fold: str = "auto"
    """What one does that a clock set back shows twice. ``first``, ``second`` or ``both``; ``auto``: ``both`` for a line
    that names every hour, ``first`` for others."""
    start_ms: int = 0
    """Nothing before; 0: no limit."""
    end_ms: int = 0
    """Nothing after; 0: no limit."""
    not_dates: tuple[str, ...] = ()
    """``YYYY-MM-DD``, in the zone: not on these."""
    not_cron: tuple[str, ...] = ()
    """Not at what these lines name; one of five fields names whole minutes."""


class ScheduledWorkflow(msgspec.Struct, array_like=True, frozen=True):
    """A workflow as each firing submits it."""

    name: str
    nodes: list[Node]
    """As of a submit, 1 to ``NODES_MAX``."""
    policy: str = FINISH
    """As of a submit."""


class Schedule(msgspec.Struct, array_like=True, frozen=True):
    """A schedule as its maker asked for it."""

    name: str
    timing: Timing
    task: TaskSpec
    """What each firing submits; its id is not looked at. Of a schedule with a ``workflow``: ``NO_TASK``."""
    jitter_ms: int = 0
    """Each task waits up to so long, by its nominal time: the same one always as long."""
    overlap: str = "skip"
    """What a firing does while the task of one before has not ended. ``allow``: it is submitted; ``skip``: it is not;
    ``queue_one``: one waits for the end; ``cancel_running``: the one before is cancelled."""
    missed: str = "latest"
    """What becomes of nominal times that passed while the server was down or the schedule paused. ``latest``: the last
    of them fires; ``skip``: none; ``all``: the last ``missed_max``."""
    missed_max: int = 0
    """Of ``all``: how many at most, at least 1; else 0."""
    pause_after: int = 0
    """It is paused after so many tasks in a row have failed; 0: never."""
    source: str = ""
    """The module whose code defines it; empty: it was made by hand."""
    workflow: ScheduledWorkflow | None = None
    """What each firing submits in place of a task: the rules above are then about workflows. It has no jitter."""


def firing_headers(name: str, at_ms: int) -> dict[str, str]:
    """Return the headers of a task that a schedule of that name submits for a nominal time."""
    at = _EPOCH + dt.timedelta(milliseconds=at_ms)
    return {SCHEDULE_HEADER: name, NOMINAL_HEADER: at.isoformat(timespec="milliseconds")}


def check_schedule(schedule: Schedule, payload_bytes_max: int) -> None:
    """Refuse a schedule of which a field is out of range; cron lines and zones are read elsewhere.

    Raises:
        BadRequest: A field is out of its range; it is named.
        PayloadTooLarge: The arguments of its task are.
        WorkflowInvalid: A node of its workflow is; it is named.
    """
    check_name("schedule name", schedule.name)
    check_timing(schedule.timing)
    _check_word("overlap", schedule.overlap, OVERLAPS)
    _check_word("missed", schedule.missed, MISSED)
    if schedule.missed == "all" and not 1 <= schedule.missed_max <= limits.SCHEDULE_CATCH_UP_MAX:
        most = limits.SCHEDULE_CATCH_UP_MAX
        raise BadRequest(f"missed all({schedule.missed_max}) is out of range; say how many at most, 1 to {most}")
    if schedule.missed != "all" and schedule.missed_max:
        raise BadRequest(f"missed {schedule.missed} takes no number; only all does")
    if not 0 <= schedule.jitter_ms <= limits.DELAY_MS_MAX:
        raise BadRequest(f"jitter of {schedule.jitter_ms} ms is out of range; it goes from 0 to ten years")
    if not 0 <= schedule.pause_after <= limits.MAX_ATTEMPTS_MAX:
        raise BadRequest(f"pause_after {schedule.pause_after} is out of range; it goes from 0, for never, to 1,000,000")
    if schedule.source:
        check_name("source", schedule.source)
    if schedule.workflow is None:
        _check_task(schedule, payload_bytes_max)
    else:
        _check_workflow(schedule, schedule.workflow, payload_bytes_max)


def check_timing(timing: Timing) -> None:
    """Refuse a timing of which a field is out of range.

    Raises:
        BadRequest: It is named.
    """
    kinds = bool(timing.cron) + bool(timing.every_ms) + bool(timing.at_ms)
    if kinds != 1:
        raise BadRequest("a schedule has cron lines, an interval above zero, or instants: exactly one of the three")
    if timing.every_ms and not EVERY_MS_MIN <= timing.every_ms <= limits.DELAY_MS_MAX:
        raise BadRequest(f"interval of {timing.every_ms} ms is out of range; it goes from one second to ten years")
    for what, several, most in (
        ("cron lines", timing.cron, CRON_LINES_MAX),
        ("exclusion lines", timing.not_cron, CRON_LINES_MAX),
        ("instants", timing.at_ms, DATES_MAX),
        ("exclusion dates", timing.not_dates, DATES_MAX),
    ):
        if len(several) > most:
            raise BadRequest(f"{len(several)} {what}; a schedule has at most {most}")
    for line in (*timing.cron, *timing.not_cron):
        check_line_length(line)
    for text in timing.not_dates:
        _check_date(text)
    if len(timing.zone) > ZONE_CHARS_MAX or not _ZONE.fullmatch(timing.zone):
        raise BadRequest(f"time zone {timing.zone[:64]!r} is no IANA name; write it as Europe/Oslo or UTC")
    _check_word("gap", timing.gap, GAPS)
    _check_word("fold", timing.fold, FOLDS)
    if any(not 0 <= at_ms < INSTANT_MS_MAX for at_ms in (timing.start_ms, timing.end_ms, *timing.at_ms)):
        raise BadRequest("start, end and instants are UTC milliseconds")
    if timing.end_ms and timing.end_ms < timing.start_ms:
        raise BadRequest("the schedule ends before it starts; exchange start and end")


def check_line_length(line: str) -> None:
    """Refuse a cron line that is too long to be read.

    Raises:
        BadRequest: Says how long it is.
    """
    if len(line) > CRON_CHARS_MAX:
        raise BadRequest(f"a cron line of {len(line)} characters; one has at most {CRON_CHARS_MAX}")


def _check_date(text: str) -> None:
    try:
        if dt.date.fromisoformat(text).isoformat() == text:
            return
    except ValueError:
        pass
    raise BadRequest(f"exclusion date {text[:32]!r} is none that there is; write it as 2026-12-24")


def _check_word(what: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise BadRequest(f"{what} {word[:32]!r} is unknown; use one of {', '.join(words)}")


def _check_task(schedule: Schedule, payload_bytes_max: int) -> None:
    task = schedule.task
    check_spec(task, min(payload_bytes_max, SCHEDULE_PAYLOAD_BYTES_MAX))
    if task.key:
        raise BadRequest("a schedule's task has no key: it would fire once, and then find its first task for a day")
    if task.rules.unique is not None:
        raise BadRequest("a schedule's task is not unique: overlap= says what happens while the one before goes on")
    longest_ms = task.delay_ms + schedule.jitter_ms
    if longest_ms > limits.DELAY_MS_MAX:
        raise BadRequest("delay and jitter together are over ten years")
    for what, limit_ms in (("ttl", task.rules.ttl_ms), ("deadline", task.rules.deadline_ms)):
        if 0 < limit_ms <= longest_ms:
            raise BadRequest(f"{what} of {limit_ms} ms passes before delay and jitter of {longest_ms} ms do")


def _check_workflow(schedule: Schedule, workflow: ScheduledWorkflow, payload_bytes_max: int) -> None:
    check_name("workflow name", workflow.name)
    _check_word("policy", workflow.policy, POLICIES)
    count = len(workflow.nodes)
    if not 0 < count <= limits.NODES_MAX:
        raise BadRequest(
            f"a workflow of {count} nodes; that of a schedule has 1 to {limits.NODES_MAX}: use map for many of a kind"
        )
    check_nodes(workflow.nodes, 0, payload_bytes_max)
    weight = len(msgspec.msgpack.encode(workflow.nodes))
    if weight > SCHEDULE_WORKFLOW_BYTES_MAX:
        raise BadRequest(
            f"a workflow of {weight} bytes; that of a schedule has at most {SCHEDULE_WORKFLOW_BYTES_MAX}: store large"
            " arguments elsewhere and pass a reference"
        )
    if schedule.jitter_ms:
        raise BadRequest("jitter is for tasks: let a workflow begin with a node that sleeps")
    if schedule.missed_max * count > SCHEDULE_NODES_AT_ONCE_MAX:
        most = SCHEDULE_NODES_AT_ONCE_MAX // count
        raise BadRequest(f"missed all({schedule.missed_max}) of {count} nodes each is too much at once; {most} at most")
