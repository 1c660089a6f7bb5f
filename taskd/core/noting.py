"""Noting: which records are events of their own when they are written, and what they say."""

from typing import Final

from taskd.core import records
from taskd.core.events import Noted
from taskd.core.records import Kind, Mutation
from taskd.core.workflow_records import WorkflowRecord

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
