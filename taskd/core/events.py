"""Events: what a turn has changed, told once for those that it happened to together.

They are for who looks on: metrics, history, the event stream. Nothing is decided by them, and they say nothing that the
turn's records do not say as well.

Invariants:
- Of a task that stands elsewhere after a turn than before it, the turn's last event says where.
- They come in the order in which things happened.
"""

from typing import Final, NamedTuple

from taskd.core import records
from taskd.core.records import Kind, Mutation
from taskd.core.workflow_records import WorkflowRecord

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


class Noted(NamedTuple):
    """Something has changed that is no task."""

    what: str
    """What sort of thing, and what has become of it: ``agent.lost``."""
    name: str
    id: bytes = b""
    """Of a workflow."""


Event = TasksMoved | Noted

_NAMED: Final = {
    records.QUEUE: "queue.changed",
    records.LIMIT: "limit.changed",
    records.AGENT: "agent.changed",
    records.SCHEDULE: "schedule.changed",
    records.STANDING: "schedule.moved",
}
"""Kinds whose ids are names."""

TOLD: Final[frozenset[Kind]] = frozenset({*_NAMED, records.WORKFLOW})
"""Kinds of which each record that is written, or deleted, is an event."""


def noted(mutation: Mutation) -> Noted | None:
    """Return what the last write of a turn to a record of a ``TOLD`` kind says; None: it was one that is removed."""
    kind, record_id, record = mutation
    if isinstance(record, WorkflowRecord):
        return Noted(f"workflow.{record.state}", record.spec.name, record_id)
    if kind == records.WORKFLOW:
        return Noted("workflow.removed", "", record_id)
    what, name = _NAMED[kind], record_id.decode()
    if record is None:
        what = f"{what.partition('.')[0]}.removed"
        return None if kind == records.STANDING else Noted(what, name)
    return Noted(what, name)
