"""Batching: tasks that a function is given many of in one call, as a list, and whose results it returns as one."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec

from taskd_protocol.errors import BadRequest

if TYPE_CHECKING:
    from taskd.client.options import Options

P = ParamSpec("P")

BATCH_MAX: Final = 500
"""Tasks in one call: each has a word of its own in the page that a worker shares with its agent."""

WAIT_S: Final = 0.05
"""So long the first task waits for others, if nothing else is said."""

WAIT_MAX_S: Final = 60.0

_ALONE: Final = ("resources", "exclusive_host", "apart", "exclusive", "at_most_once")
"""Options for which an attempt has a worker to itself."""


class Batching(NamedTuple):
    """How many tasks are given to a function in one call."""

    size: int
    wait_ms: int


class BatchMismatch(Exception):
    """A function that is given many tasks returned no list, or one of another length."""


def read_batching(name: str, batch: int, wait: float | None, options: "Options") -> Batching | None:
    """Return what ``batch=`` and ``wait=`` of a task say; None: each is called by itself.

    Args:
        name: Of the task, for a refusal; empty: not known yet.
        batch: As it was said; 0: not at all.
        wait: As it was said, in seconds; None: not at all.
        options: Of the task.

    Raises:
        BadRequest: One is out of its range, there is a wait and no batch, or an option has each attempt run alone.
    """
    whose = f" of task {name!r}" if name else ""  # a decorator's task has its name later
    if batch == 0:
        if wait is not None:
            raise BadRequest(f"wait{whose} is {wait!r}, and there is no batch that waits: say batch= too, or no wait=")
        return None
    wait = WAIT_S if wait is None else wait
    if not 1 <= batch <= BATCH_MAX:
        raise BadRequest(f"batch{whose} is {batch!r}; it goes from 1 to {BATCH_MAX}")
    if not math.isfinite(wait) or not 0 <= wait <= WAIT_MAX_S:
        raise BadRequest(f"wait{whose} is {wait!r}; it goes from 0 to {WAIT_MAX_S:g} seconds")
    refuse_alone(whose, options)
    return Batching(batch, round(wait * 1_000))


def refuse_alone(whose: str, options: "Options") -> None:
    """Refuse what cannot be asked of tasks that run many in one call.

    Raises:
        BadRequest: An option has each attempt run alone.
    """
    alone = next((option for option in _ALONE if getattr(options, option)), None)
    if alone is not None:
        raise BadRequest(
            f"batch{whose} does not go with {alone}, for which each attempt runs alone:"
            " bind its agents by queue= instead"
        )


def check_takes_list(name: str, function: Callable[P, object]) -> None:
    """Refuse a function that does not take one list.

    Raises:
        BadRequest: It takes something else.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != 1 or needed[0].kind not in kinds:
        raise BadRequest(
            f"task {name!r} has batch=, so its function takes one argument: the list of what was submitted"
        )


def results_of(returned: object, count: int) -> Sequence[object]:
    """Return what a function that was given so many tasks returned for each.

    Raises:
        BatchMismatch: That cannot be told.
    """
    if not isinstance(returned, list | tuple):
        raise BatchMismatch(
            f"a function with batch= returns a list, an item for each task; not {type(returned).__name__}"
        )
    if len(returned) != count:
        raise BatchMismatch(f"the function was given {count} tasks, and returned {len(returned)} results")
    return returned
