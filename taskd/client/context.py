"""What a running task may know of itself.

The worker sets it around each call; user code reads it with ``current``. A context variable, so that
tasks that share a thread or an event loop each see their own.
"""

from contextvars import ContextVar

from taskd_protocol.errors import BadRequest
from taskd_protocol.ids import format_task_id


class TaskContext:
    """The attempt that runs here.

    Attributes:
        name: Of the task, as agents know it.
        queue: It was submitted to.
        attempt: From 1.
        fencing_token: Rises with every lease of the store: give it to what you write to, so that an
            older attempt's writes can be refused.
        traceparent: W3C trace context of the submit; empty: none.
    """

    __slots__ = ("attempt", "fencing_token", "name", "queue", "raw_id", "traceparent")

    def __init__(
        self, *, raw_id: bytes, name: str, queue: str, attempt: int, fencing_token: int, traceparent: str
    ) -> None:
        self.raw_id = raw_id  # 16 bytes, made text only when asked: workers make one of these per task
        self.name = name
        self.queue = queue
        self.attempt = attempt
        self.fencing_token = fencing_token
        self.traceparent = traceparent

    @property
    def id(self) -> str:
        """The task's id as text."""
        return format_task_id(self.raw_id)

    def __repr__(self) -> str:
        """Show what tells it from others."""
        return f"TaskContext(id={self.id!r}, name={self.name!r}, attempt={self.attempt})"


running: ContextVar[TaskContext | None] = ContextVar("taskd_running", default=None)
"""Set by the worker around each call."""


def current() -> TaskContext:
    """Return the context of the task that runs here.

    Raises:
        BadRequest: No task runs here.
    """
    context = running.get()
    if context is None:
        raise BadRequest("no task runs here: current() is for the code of a task, called by a worker")
    return context
