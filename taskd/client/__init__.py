"""What users program against: the App, its tasks, and handles to what was submitted.

One sans-IO session, which decides on correlation, retries and reconnects, under two thin faces:
sync and async. Imports the protocol alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskd.client.app import App
    from taskd.client.attempts import Attempt
    from taskd.client.client import Client
    from taskd.client.context import AttemptCancelled, TaskContext, current, current_batch
    from taskd.client.explanation import Explanation
    from taskd.client.family import AttemptWaiting, Child, SpawnChanged
    from taskd.client.handle import TaskHandle, as_completed
    from taskd.client.lines import Emitted, OutputLine
    from taskd.client.options import Limit, Retry
    from taskd.client.outcome import TaskCancelled, TaskExpired, TaskFailed
    from taskd.client.progress import WorkflowProgress
    from taskd.client.raising import NonRetryable, RetryAfter
    from taskd.client.resources import Resources
    from taskd.client.runs import MapItem, NodeStatus, WorkflowRun, WorkflowStatus
    from taskd.client.schedule import Schedule, ScheduleHandle
    from taskd.client.task import Task
    from taskd.client.timing import At, Cron, Every
    from taskd.client.workflow import NodeRef, Workflow
    from taskd_protocol.errors import (
        CannotConnect,
        PayloadTooLarge,
        PayloadUnpackable,
        ResultGone,
        SubmitConflict,
        TaskdError,
        TaskUnknown,
        TimedOut,
        WorkflowEnded,
        WorkflowInvalid,
        WorkflowUnknown,
    )
    from taskd_protocol.payload import register_type

_ROOMS = {
    "ScheduleHandle": "taskd.client.schedule",
    "Schedule": "taskd.client.schedule",
    "At": "taskd.client.timing",
    "Every": "taskd.client.timing",
    "Cron": "taskd.client.timing",
    "App": "taskd.client.app",
    "Attempt": "taskd.client.attempts",
    "AttemptCancelled": "taskd.client.context",
    "AttemptWaiting": "taskd.client.family",
    "CannotConnect": "taskd_protocol.errors",
    "Child": "taskd.client.family",
    "Client": "taskd.client.client",
    "Emitted": "taskd.client.lines",
    "OutputLine": "taskd.client.lines",
    "Explanation": "taskd.client.explanation",
    "MapItem": "taskd.client.runs",
    "NodeRef": "taskd.client.workflow",
    "NodeStatus": "taskd.client.runs",
    "Limit": "taskd.client.options",
    "NonRetryable": "taskd.client.raising",
    "PayloadTooLarge": "taskd_protocol.errors",
    "PayloadUnpackable": "taskd_protocol.errors",
    "Resources": "taskd.client.resources",
    "ResultGone": "taskd_protocol.errors",
    "Retry": "taskd.client.options",
    "RetryAfter": "taskd.client.raising",
    "SpawnChanged": "taskd.client.family",
    "SubmitConflict": "taskd_protocol.errors",
    "Task": "taskd.client.task",
    "TaskCancelled": "taskd.client.outcome",
    "TaskContext": "taskd.client.context",
    "TaskExpired": "taskd.client.outcome",
    "TaskFailed": "taskd.client.outcome",
    "TaskHandle": "taskd.client.handle",
    "TaskUnknown": "taskd_protocol.errors",
    "TaskdError": "taskd_protocol.errors",
    "TimedOut": "taskd_protocol.errors",
    "Workflow": "taskd.client.workflow",
    "WorkflowEnded": "taskd_protocol.errors",
    "WorkflowInvalid": "taskd_protocol.errors",
    "WorkflowProgress": "taskd.client.progress",
    "WorkflowRun": "taskd.client.runs",
    "WorkflowStatus": "taskd.client.runs",
    "WorkflowUnknown": "taskd_protocol.errors",
    "as_completed": "taskd.client.handle",
    "current": "taskd.client.context",
    "current_batch": "taskd.client.context",
    "register_type": "taskd_protocol.payload",
}
"""Loaded at their first use: a worker needs no connection, the command line often neither."""

__all__ = [
    "App",
    "At",
    "Attempt",
    "AttemptCancelled",
    "AttemptWaiting",
    "CannotConnect",
    "Child",
    "Client",
    "Cron",
    "Emitted",
    "Every",
    "Explanation",
    "Limit",
    "MapItem",
    "NodeRef",
    "NodeStatus",
    "NonRetryable",
    "OutputLine",
    "PayloadTooLarge",
    "PayloadUnpackable",
    "Resources",
    "ResultGone",
    "Retry",
    "RetryAfter",
    "Schedule",
    "ScheduleHandle",
    "SpawnChanged",
    "SubmitConflict",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskExpired",
    "TaskFailed",
    "TaskHandle",
    "TaskUnknown",
    "TaskdError",
    "TimedOut",
    "Workflow",
    "WorkflowEnded",
    "WorkflowInvalid",
    "WorkflowProgress",
    "WorkflowRun",
    "WorkflowStatus",
    "WorkflowUnknown",
    "as_completed",
    "current",
    "current_batch",
    "register_type",
]


def __getattr__(name: str) -> object:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(room), name)
