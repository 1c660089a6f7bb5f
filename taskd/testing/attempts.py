"""Attempts in this process: the same reading of arguments, packing of results and telling of errors as in a worker."""

from collections import deque
from typing import TYPE_CHECKING, cast

import trio

from taskd.agent.wire import found_of
from taskd.agent.worker import blocking, calls
from taskd.agent.worker.calls import Functions
from taskd.client.app import App
from taskd.client.batching import results_of
from taskd.client.context import TaskContext, current, running, running_together
from taskd.client.middleware import TaskFunction
from taskd_protocol.limits import PAYLOAD_BYTES_MAX
from taskd_protocol.streams import DataLine
from taskd_protocol.task import Checkpoint, Failure, Grant, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

End = bytes | Failure | calls.Thrown
"""How an attempt ended: its packed result, or why there is none."""


class Signs:
    """What an attempt here is told, and tells: see ``taskd.client.context.Port``.

    Attributes:
        told: It is to end.
        details: How far it has come, packed; empty: it has not said.
        beats: Signs that it goes on, so far.
        beat_s: When the last one came, by the server's loop; None: it came from a thread, or there was none.
        said: Lines of data that it said, each with its stream, and 0 for the time.
        pieces: Of that, taken so far.
        spoke: Called in whatever thread it said one.
        spawned: What it has spawned, in order, each time with the number of the first.
    """

    def __init__(self, details: bytes = b"") -> None:
        self.told = False
        self.details = details
        self.said: deque[tuple[int, DataLine]] = deque()
        self.pieces = 0
        self.spoke: Callable[[], None] = lambda: None
        self.beats = 0
        self.beat_s: float | None = None
        self.spawned: list[tuple[int, list[TaskSpec]]] = []

    def is_cancelled(self, token: int) -> bool:
        """See ``Port``: each attempt has its own."""
        del token
        return self.told

    def beat(self, token: int, details: bytes) -> None:
        """See ``Port``."""
        del token
        self.details = details or self.details
        try:
            self.beat_s = trio.current_time()
        except RuntimeError:  # not on the server's loop
            self.beat_s = None
        self.beats += 1

    def say(self, token: int, stream: int, line: DataLine) -> None:
        """See ``Port``."""
        del token
        self.said.append((stream, line))
        self.spoke()

    def spawn(self, token: int, first: int, tasks: list[TaskSpec]) -> None:
        """See ``Port``."""
        del token
        self.spawned.append((first, tasks))

    def wait_for_room(self, token: int) -> None:
        """See ``Port``: there always is."""

    def checkpoints(self, grant: Grant) -> list[Checkpoint]:
        """Return what is to be kept of the attempt for the next one."""
        return [Checkpoint(grant.token, grant.spec.id, self.details)] if self.details else []


def functions_of(app: App) -> Functions:
    """Return what workers would call, by task name, as the App stands now; what takes many, as if it took one."""
    return {
        name: task.for_worker() if task.batching is None else _one(task.for_worker(), is_async=task.is_async)
        for name, task in app.tasks.items()
    }


def _one(function: TaskFunction, *, is_async: bool) -> TaskFunction:
    """Return what calls a function with ``batch=`` with one task, and returns, or raises, what becomes of that."""

    def call(*args: object, **kwargs: object) -> object:
        [item] = [*args, *kwargs.values()]
        running_together.set([current()])
        running.set(None)
        return function([item])

    def end(returned: object) -> object:
        [result] = results_of(returned, 1)
        if isinstance(result, BaseException):
            raise result
        return result

    def one(*args: object, **kwargs: object) -> object:
        return end(call(*args, **kwargs))

    async def async_one(*args: object, **kwargs: object) -> object:
        return end(await cast("Awaitable[object]", call(*args, **kwargs)))

    return async_one if is_async else one


def attempt(functions: Functions, grant: Grant, signs: Signs) -> End:
    """Run an attempt of a plain function, in a context that is its own."""
    return blocking.attempt(functions, grant, PAYLOAD_BYTES_MAX, signs)


async def attempt_async(
    functions: Functions, grant: Grant, signs: Signs, cancelled: tuple[type[BaseException], ...]
) -> End:
    """Run an attempt of an ``async def``, in a context that is its own.

    Args:
        functions: By task name.
        grant: What to run.
        signs: Its own.
        cancelled: What is to be raised again: an event loop's own signals.
    """
    context = TaskContext(grant, signs, found_of(grant))
    running.set(context)
    function = functions.get(grant.spec.name)
    arguments = calls.read_arguments(grant.spec)
    if function is None:
        return calls.unknown(grant.spec.name)
    if isinstance(arguments, Failure):
        return arguments
    args, kwargs = arguments
    end: End
    try:
        result = await cast("Awaitable[object]", function(*args, **kwargs))
    except cancelled:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a task ends the task, not the test
        end = calls.raised(error, grant.spec.retry)
    else:
        end = calls.pack_result(result, PAYLOAD_BYTES_MAX)
    return end if context.family is None else calls.with_family(context.family, end)
