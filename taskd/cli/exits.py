"""Exit codes: what a script learns of how a command ended. They never change.

Every error code has its exit code in one table; a code that only a newer server knows is told by
its family, the word before the dot.
"""

from enum import IntEnum
from typing import Final

from taskd_protocol.errors import TaskdError


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    TASK_FAILED = 1
    USAGE = 2
    """Wrong words, wrong configuration, or something asked for that is not there."""
    UNREACHABLE = 3
    TIMED_OUT = 4
    REFUSED = 5
    """The token, or its role, does not allow it."""
    DATA_REFUSED = 65
    """Arguments that cannot be taken, or a store that does not hold what was written."""
    DATA_DIR_IN_USE = 73
    STORAGE = 74
    NOT_STARTED = 127
    """`taskd run`: the command could not be started, as a shell says it."""
    INTERRUPTED = 130
    """Ctrl-C, as a shell says it."""


_BY_CODE: Final = {
    "timeout": Exit.TIMED_OUT,
    "agent.duplicate": Exit.REFUSED,
    "result.gone": Exit.USAGE,
    "server.disk_full": Exit.STORAGE,
    "server.rolled_back": Exit.DATA_REFUSED,
    "server.too_old": Exit.USAGE,
    "store.corrupt": Exit.DATA_REFUSED,
    "store.in_use": Exit.DATA_DIR_IN_USE,
    "store.too_new": Exit.DATA_REFUSED,
    "store.too_old": Exit.DATA_REFUSED,
    "task.unknown": Exit.USAGE,
    "workflow.ended": Exit.USAGE,
    "workflow.invalid": Exit.USAGE,
    "workflow.unknown": Exit.USAGE,
}
_BY_FAMILY: Final = {
    "auth": Exit.REFUSED,
    "config": Exit.USAGE,
    "connection": Exit.UNREACHABLE,
    "payload": Exit.DATA_REFUSED,
    "protocol": Exit.UNREACHABLE,
    "server": Exit.UNREACHABLE,
    "store": Exit.STORAGE,
    "submit": Exit.DATA_REFUSED,
    # How an attempt ended, or a node: `task.raised`, `worker.killed`, `command.failed`, `workflow.upstream_failed`.
    "command": Exit.TASK_FAILED,
    "task": Exit.TASK_FAILED,
    "worker": Exit.TASK_FAILED,
    "workflow": Exit.TASK_FAILED,
}


def exit_code(error: TaskdError) -> Exit:
    """Return the exit code of an error; ``Exit.USAGE`` for one of which nothing is known."""
    family = error.code.partition(".")[0]
    return _BY_CODE.get(error.code) or _BY_FAMILY.get(family, Exit.USAGE)
