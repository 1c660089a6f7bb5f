"""What a running task may know of itself.

The worker sets it around each call; user code reads it with ``current``. A context variable, so that
tasks that share a thread or an event loop each see their own.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

from taskd_protocol.errors import BadRequest
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Grant

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class TaskContext:
    """The attempt that runs here."""

    __slots__ = ("_grant",)

    def __init__(self, grant: Grant) -> None:
        self._grant = grant  # looked into only when asked: workers make one of these per task

    @property
    def name(self) -> str:
        """The task's name, as agents know it."""
        return self._grant.spec.name

    @property
    def queue(self) -> str:
        """The queue that it was submitted to."""
        return self._grant.spec.queue

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return self._grant.attempt

    @property
    def fencing_token(self) -> int:
        """Rises with every lease of the store.

        Give it to what you write to, so that an older attempt's writes can be refused.
        """
        return self._grant.token

    @property
    def traceparent(self) -> str:
        """W3C trace context of the submit; empty: none."""
        return self._grant.spec.traceparent

    @property
    def headers(self) -> Mapping[str, str]:
        """What middleware of the submitting program sent along."""
        return self._grant.spec.headers or _NO_HEADERS

    @property
    def id(self) -> str:
        """The task's id as text."""
        return format_task_id(self._grant.spec.id)

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
