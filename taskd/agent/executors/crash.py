"""What is told of an attempt whose process died."""

import signal

from taskd.agent.platform import Exit
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure


def crash(how: Exit, *, out_of_memory: bool) -> Failure:
    """Return the failure of the attempt that took its worker down.

    Args:
        how: The worker's end, which nobody of us ordered.
        out_of_memory: The kernel has killed for memory while the worker lived.
    """
    code = how.code
    if code >= 0:
        message = f"the worker process exited with code {code} while it ran the task"
        return Failure(TaskCodes.WORKER_EXITED, message, exit_code=code)
    if code == -signal.SIGKILL and out_of_memory:
        message = "the kernel killed the worker process because memory ran out"
        return Failure(TaskCodes.WORKER_OUT_OF_MEMORY, message, exit_code=code)
    message = f"{signal_name(-code)} ended the worker process while it ran the task"
    return Failure(TaskCodes.WORKER_KILLED, message, exit_code=code)


def signal_name(number: int) -> str:
    """Return ``SIGSEGV`` for 11; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
