"""Running trio under a command: what went wrong comes out as the one error that is to be told."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from taskd_protocol.errors import TaskdError

T = TypeVar("T")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run an async function to its end.

    Raises:
        TaskdError: Also when it came in a group, as errors do that leave a nursery.
    """
    try:
        return trio.run(work)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that is to be told; all of them, when one is none of ours."""
    ours, others = group.split(TaskdError)
    if ours is None or others is not None:
        return group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
