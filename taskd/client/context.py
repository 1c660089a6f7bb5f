"""What a running task may know of itself.

The worker sets it around each call; user code reads it with ``current``. A context variable, so that
tasks that share a thread or an event loop each see their own.
"""

import datetime as dt
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import ClassVar, Protocol

from taskd_protocol.errors import BadRequest, PayloadTooLarge
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import DETAILS_BYTES_MAX
from taskd_protocol.payload import pack, unpack
from taskd_protocol.schedule import NOMINAL_HEADER, SCHEDULE_HEADER
from taskd_protocol.task import Grant

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class AttemptCancelled(BaseException):
    """Raised by ``raise_if_cancelled``. No ``Exception``, so that code that catches all of these lets it pass."""


class Port(Protocol):
    """A worker's way to its agent."""

    def is_cancelled(self, token: int) -> bool:
        """Tell whether the attempt of that token is to end."""
        ...

    def beat(self, token: int, details: bytes) -> None:
        """Tell that the attempt goes on, and how far it has come; empty: it does not say."""
        ...


class TaskContext:
    """The attempt that runs here.

    Attributes:
        port: Of this process, if it is a worker; an attempt may have one of its own.
    """

    __slots__ = ("_grant", "_port")

    port: ClassVar[Port | None] = None

    def __init__(self, grant: Grant, port: Port | None = None) -> None:
        self._grant = grant  # looked into only when asked: workers make one of these per task
        self._port = port

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
        """Number of this attempt, from 1; those that an agent gave back or was lost with are counted, too."""
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
        return self._grant.spec.rules.headers or _NO_HEADERS

    @property
    def schedule(self) -> str:
        """The name of the schedule that submitted the task; empty: somebody did."""
        return self.headers.get(SCHEDULE_HEADER, "")

    @property
    def scheduled_for(self) -> dt.datetime | None:
        """The time of the schedule that the task is for, in UTC, however late it runs; None: of no schedule."""
        text = self.headers.get(NOMINAL_HEADER)
        return None if text is None else dt.datetime.fromisoformat(text)

    @property
    def id(self) -> str:
        """The task's id as text."""
        return format_task_id(self._grant.spec.id)

    @property
    def cancelled(self) -> bool:
        """The attempt is to end: it was cancelled, or is over its soft timeout. Look here in long loops.

        A coroutine is cancelled by its event loop as well.
        """
        port = self._port or self.port
        return port is not None and port.is_cancelled(self._grant.token)

    def raise_if_cancelled(self) -> None:
        """End the attempt here if it is to end.

        Raises:
            AttemptCancelled: It is. Let it pass.
        """
        if self.cancelled:
            raise AttemptCancelled("the attempt is to end")

    def heartbeat(self, details: object = None) -> None:
        """Tell that the attempt goes on, as its ``heartbeat=`` limit wants it. From any thread, as often as you like.

        Args:
            details: How far it has come, as data that can travel; kept, and given to the next attempt if this one does
                not end well. None: what was told before stays.

        Raises:
            PayloadUnpackable: They are no data that can travel.
            PayloadTooLarge: They are over 64 KiB.
        """
        packed = b"" if details is None else pack(details)
        if len(packed) > DETAILS_BYTES_MAX:
            raise PayloadTooLarge(
                f"details of a heartbeat are {len(packed)} bytes, the limit {DETAILS_BYTES_MAX}: store them elsewhere"
            )
        port = self._port or self.port
        if port is not None:
            port.beat(self._grant.token, packed)

    @property
    def heartbeat_details(self) -> object:
        """What an attempt before told last, unpacked afresh; None: nothing."""
        return unpack(self._grant.details) if self._grant.details else None

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
