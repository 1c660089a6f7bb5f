"""Events: what a turn has changed, told once for those that it happened to together.

They are for who looks on: metrics, history, the event stream. Nothing is decided by them, and they say nothing that the
turn's records do not say as well.

Invariants:
- Of a task that stands elsewhere after a turn than before it, the turn's last event says where.
- They come in the order in which things happened.
"""

from typing import Final, NamedTuple

import msgspec

SUBMITTED: Final = "task.submitted"
READY: Final = "task.ready"
"""It is back in line: its time has come, its attempt was given back, a person has retried it."""
RUNNING: Final = "task.running"
SCHEDULED: Final = "task.scheduled"
"""It waits before another attempt."""
BLOCKED: Final = "task.blocked"
CANCELLING: Final = "task.cancelling"
TASK: Final = "task."
"""Followed by the state that it is in."""
ATTEMPT: Final = "attempt."
"""Followed by how it ended; a success is the task's own."""


class TasksMoved(NamedTuple):
    """The same has happened to these tasks of one queue and name."""

    what: str
    queue: str
    name: str
    agent: str
    """Who has, or had, it; empty: nobody, or that is not known any more."""
    attempt: int
    ids: list[bytes]
    spans_ms: list[int]
    """Of attempts that begin: how long each has waited in line. Of attempts that have ended: how long each has run.
    Empty for all else."""
    code: str = ""
    """Of the failure, if there is one."""
    trace_id: str = ""
    """Of one task that it happened to by itself, 32 hexadecimal digits; empty for those that share an event: their
    ids would make it twice as large."""


class Noted(NamedTuple):
    """Something has changed that is no task."""

    what: str
    """What sort of thing, and what has become of it: ``agent.lost``."""
    name: str
    id: bytes = b""
    """Of a workflow."""


Event = TasksMoved | Noted


class EventsRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """What one turn has told."""

    at_ms: int
    moved: list[TasksMoved]
    noted: list[Noted]


class EventsHeadRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """META ``events``: what is kept of them, in stretches, oldest first; the last one is still added to.

    Written whenever one is begun, or taken away.
    """

    stretches: list[tuple[int, int, int]]
    """Of each the number of its first record, when that was written (UTC ms), and what it weighs; of the last: 0."""
