"""What a program's own log says of its tasks: by the logger ``taskd.client``, each with its id and its trace id.

At level debug submits and results, at level warning what was refused or has failed. Silent in a program that has not
set up logging: it is told the same by what it calls.
"""

import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from taskd.client.outcome import error_of
from taskd_protocol.errors import TaskdError
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Outcome, TaskSpec

if TYPE_CHECKING:
    from logging import Logger

NAME: Final = "taskd.client"

DEBUG: Final = 10
WARNING: Final = 30
"""As in ``logging``, which small programs do not import."""


def submitted(specs: Sequence[TaskSpec]) -> None:
    """Tell of tasks that the server has accepted."""
    log = _log_at(DEBUG)
    if log is not None:
        for spec in specs:
            _say(log, DEBUG, f"({spec.name}) submitted", spec.id, spec.trace_id)


def refused(specs: Sequence[TaskSpec], why: TaskdError) -> None:
    """Tell of tasks that were not accepted, or of which that is not known."""
    log = _log_at(WARNING)
    if log is not None and specs:
        more = f", and {len(specs) - 1:,} more with it," if len(specs) > 1 else ""
        _say(log, WARNING, f"({specs[0].name}){more} not submitted: {why.message}", specs[0].id, specs[0].trace_id)


def ended(outcome: Outcome, traceparent: str) -> None:
    """Tell of a task's end, which its program takes note of now.

    Args:
        outcome: The end.
        traceparent: Of its submit; empty: not known here.
    """
    level = DEBUG if outcome.state == "succeeded" else WARNING
    log = _log_at(level)
    if log is not None:
        said = outcome.state if level == DEBUG else f"{outcome.state}: {error_of(outcome).message}"
        _say(log, level, said, outcome.id, traceparent[3:35])


def _say(log: "Logger", level: int, said: str, task_id: bytes, trace_id: str) -> None:
    task, trace = format_task_id(task_id), f"; trace {trace_id}" if trace_id else ""
    log.log(level, "task %s %s%s", task, said, trace, extra={"task_id": task, "trace_id": trace_id})


def _log_at(level: int) -> "Logger | None":
    """Return the log if it takes such lines."""
    if "logging" not in sys.modules:
        return None
    log = _logger()
    return log if log.isEnabledFor(level) else None


@cache
def _logger() -> "Logger":
    import logging  # noqa: PLC0415 - it is imported already

    log = logging.getLogger(NAME)
    log.addHandler(logging.NullHandler())  # else Python prints warnings of a program that has set up nothing
    return log
