"""What a running task may know of itself.

The worker sets it around each call; user code reads it with ``current``. A context variable, so that
tasks that share a thread or an event loop each see their own.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from taskd.client.family import Child, Family, Found
from taskd_protocol.errors import BadRequest, PayloadTooLarge
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import DETAILS_BYTES_MAX, EMITTED_BYTES_MAX, PAYLOAD_BYTES_MAX, PROGRESS_CHARS_MAX
from taskd_protocol.payload import pack, unpack
from taskd_protocol.schedule import NOMINAL_HEADER, SCHEDULE_HEADER
from taskd_protocol.streams import LOG, PROGRESS, VALUES, DataLine, LogLine, ProgressLine, ValueLine
from taskd_protocol.task import Grant, TaskSpec

if TYPE_CHECKING:
    from taskd.client.resources import Held
    from taskd.client.task import Submitter
    from taskd_protocol.errors import TaskdError

P = ParamSpec("P")
R = TypeVar("R")

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

    def say(self, token: int, stream: int, line: DataLine) -> None:
        """Tell a line of data of the attempt, with the time of now."""
        ...

    def spawn(self, token: int, first: int, tasks: list[TaskSpec]) -> None:
        """Have these made, the attempt's children from number ``first`` on."""
        ...

    def wait_for_room(self, token: int) -> None:
        """Return once more of them are taken on; raise ``ServerBusy`` if they are not, and nobody can wait here."""
        ...


class TaskContext:
    """The attempt that runs here.

    Attributes:
        port: Of this process, if it is a worker; an attempt may have one of its own.
        family: What the attempt has spawned; None: nothing.
    """

    __slots__ = ("_found", "_grant", "_port", "family")

    port: ClassVar[Port | None] = None

    def __init__(self, grant: Grant, port: Port | None = None, found: Found | None = None) -> None:
        """Give an attempt its context.

        Args:
            grant: Of the attempt.
            port: Of its own; None: the process's.
            found: What has become of what earlier attempts spawned.
        """
        self._grant = grant  # looked into only when asked: workers make one of these per task
        self._port = port
        self._found = found
        self.family: Family | None = None

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
    def resources(self) -> Mapping[str, "Held"]:
        """What this attempt holds of its machine, by name: CPUs, GPUs, memory in bytes, and which items.

        ``current().resources["gpu"].items`` is ``("0",)``. Empty: a slot of the agent, and nothing else.
        """
        from taskd.client.resources import held  # noqa: PLC0415 - not for the many attempts that ask nothing of it

        return held(self._grant.granted)

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

    def log(self, message: str, level: str = "info", **fields: object) -> None:
        """Keep a log record of the attempt, as ``logging`` does, which is kept as well; see ``TaskHandle.logs``.

        Args:
            message: For people; over 16,000 characters it loses its end.
            level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
            fields: Said beside it; each is kept as ``str`` shows it, 8,000 characters together.
        """
        told = {name: str(value) for name, value in fields.items()}
        self._say(LOG, LogLine(0, level.upper(), self.name, message, self.traceparent, told))

    def emit(self, value: object) -> None:
        """Give a value out while the attempt goes on: ``TaskHandle.stream`` reads it, live or later.

        Args:
            value: Data that can travel.

        Raises:
            PayloadUnpackable: It cannot.
            PayloadTooLarge: It is over 32 KiB, packed.
        """
        packed = pack(value)
        if len(packed) > EMITTED_BYTES_MAX:
            raise PayloadTooLarge(
                f"an emitted value is {len(packed)} bytes, the limit {EMITTED_BYTES_MAX}: store it elsewhere, and emit"
                " a reference"
            )
        self._say(VALUES, ValueLine(0, packed))

    def progress(self, done: float, total: float | str = 1.0, message: str = "") -> None:
        """Tell how far the attempt is: ``progress(3, 10)``, ``progress(0.3)``, with a word about it at the end.

        As often as you like; ten a second are told, and the last.

        Args:
            done: Of the total.
            total: What is to be done; or the message, of a share of 1.
            message: For people, up to 1,000 characters.
        """
        of, said = (1.0, total) if isinstance(total, str) else (float(total), message)
        self._say(PROGRESS, ProgressLine(0, float(done), of, said[:PROGRESS_CHARS_MAX]))

    def _say(self, stream: int, line: DataLine) -> None:
        port = self._port or self.port
        if port is not None:
            port.say(self._grant.token, stream, line)

    def spawn(self, task: "Submitter[P, R]", /, *args: P.args, **kwargs: P.kwargs) -> Child[R]:
        """Have a task run that belongs to this one, under the options that were said of it.

        The server is told at the latest when the attempt waits or ends, however it ends. What a task spawns is numbered
        over all its attempts: one that comes to it again finds the task that is there, and makes no second. So what is
        spawned, and in which order, must follow from the task's arguments and checkpoints.

        Args:
            task: A task, or ``task.options(…)``.
            args: Of its function.
            kwargs: Of its function.

        Raises:
            TypeError: The function does not take these arguments.
            PayloadUnpackable: An argument is no data that can travel; it is named.
            PayloadTooLarge: All arguments together are.
            BadRequest: That is no task, has a ``key`` or ``unique``, or is one too many.
            ServerBusy: The agent holds as much as it may of what the server has not made. Only in a coroutine, or when
                the attempt is cancelled; else it waits for room.
            SpawnChanged: An attempt before spawned something else; this one has failed, whatever else it does.
        """
        from taskd.client.task import Submitter  # noqa: PLC0415 - which knows this module

        if not isinstance(task, Submitter):
            raise BadRequest(f"spawn() takes a task, or task.options(…), not {task!r}")
        task.binder.check(args, kwargs)
        spec = task.node_task(args, kwargs)
        task.binder.check_size(spec.payload, PAYLOAD_BYTES_MAX)
        if spec.key or spec.rules.unique is not None:
            raise BadRequest(f"{task.name} has a key or unique, which what is spawned has not: it is there once anyway")
        family = self._family()
        return Child(family, family.spawn(spec))

    @overload
    def wait(self, *, return_errors: Literal[False] = ...) -> list[object]: ...
    @overload
    def wait(self, children: Iterable[Child[R]], *, return_errors: Literal[False] = ...) -> list[R]: ...
    @overload
    def wait(self, *, return_errors: Literal[True]) -> list[object]: ...
    @overload
    def wait(self, children: Iterable[Child[R]], *, return_errors: Literal[True]) -> "list[R | TaskdError]": ...

    def wait(self, children: Iterable[Child[R]] | None = None, *, return_errors: bool = False) -> object:
        """Return the results of what was spawned, once all of it has ended.

        Until then the attempt ends here, and costs the task nothing; it holds no slot. The function begins anew when
        all that the task has spawned has ended, spawns the same again and gets the results here. Never blocks: a
        coroutine calls it without ``await``.

        Args:
            children: Which, in the order of the results; None: all that this attempt has spawned.
            return_errors: Where one did not succeed, its error stands in place of its result.

        Raises:
            AttemptWaiting: Not all have ended. Let it pass.
            TaskFailed: The first of them that did not succeed, unless ``return_errors``; of one that was cancelled or
                has expired, TaskCancelled or TaskExpired.
            BadRequest: The task is ``at_most_once``, so that its function cannot begin anew.
        """
        return self._family().wait(cast("Iterable[Child[object]] | None", children), return_errors=return_errors)

    def _family(self) -> Family:
        if running_together.get() is not None:
            raise BadRequest(
                "what runs in a batch spawns nothing: its function would begin anew for all tasks of the call"
            )
        family = self.family
        if family is None:
            port, token = self._port or self.port, self._grant.token
            if port is None:
                raise BadRequest("nobody is here to run what this task spawns: it is for attempts that a worker runs")
            spawn, wait = port.spawn, port.wait_for_room
            family = self.family = Family(
                self._grant, self._found, lambda first, tasks: spawn(token, first, tasks), lambda: wait(token)
            )
        return family

    def __repr__(self) -> str:
        """Show what tells it from others."""
        return f"TaskContext(id={self.id!r}, name={self.name!r}, attempt={self.attempt})"


running: ContextVar[TaskContext | None] = ContextVar("taskd_running", default=None)
"""Set by the worker around each call."""


running_together: ContextVar[Sequence[TaskContext] | None] = ContextVar("taskd_running_together", default=None)
"""Set in place of it around the call of a function that is given many tasks."""


def current_batch() -> Sequence[TaskContext]:
    """Return the contexts of the tasks that this call is for, in the order of the list that the function was given.

    Raises:
        BadRequest: No task with ``batch=`` runs here.
    """
    contexts = running_together.get()
    if contexts is None:
        raise BadRequest("no tasks run here in one call: current_batch() is for the code of a task with batch=")
    return contexts


def current() -> TaskContext:
    """Return the context of the task that runs here.

    Raises:
        BadRequest: No task runs here, or many do in one call.
    """
    context = running.get()
    if context is None:
        if running_together.get() is not None:
            raise BadRequest("many tasks run here in one call: current_batch() has the context of each")
        raise BadRequest("no task runs here: current() is for the code of a task, called by a worker")
    return context
