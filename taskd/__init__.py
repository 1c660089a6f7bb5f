"""taskd: a durable task server, its agents and its clients in one program.

What users import (`App`, `Retry`, `current`, …) comes from `taskd.client` and is loaded on first
use, so that `import taskd` costs nothing in a process that needs only the version.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskd.client import (
        App,
        At,
        Attempt,
        AttemptCancelled,
        AttemptWaiting,
        CannotConnect,
        Child,
        Client,
        Cron,
        Emitted,
        Every,
        Explanation,
        Limit,
        MapItem,
        NodeRef,
        NodeStatus,
        NonRetryable,
        OutputLine,
        PayloadTooLarge,
        PayloadUnpackable,
        Resources,
        ResultGone,
        Retry,
        RetryAfter,
        Schedule,
        ScheduleHandle,
        SpawnChanged,
        SubmitConflict,
        Task,
        TaskCancelled,
        TaskContext,
        TaskdError,
        TaskExpired,
        TaskFailed,
        TaskHandle,
        TaskUnknown,
        TimedOut,
        Workflow,
        WorkflowEnded,
        WorkflowInvalid,
        WorkflowProgress,
        WorkflowRun,
        WorkflowStatus,
        WorkflowUnknown,
        as_completed,
        current,
        current_batch,
        register_type,
    )

__version__ = "0.2.0.dev0"

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
    "__version__",
    "as_completed",
    "current",
    "current_batch",
    "register_type",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from taskd import client  # noqa: PLC0415 - at the first use, not with every `import taskd`

    return getattr(client, name)
