"""How a task's end shows to who asked for it: its value, or an error that tells what happened there."""

from taskd_protocol.errors import TaskCodes, TaskdError, error_from_code
from taskd_protocol.ids import format_task_id
from taskd_protocol.payload import unpack
from taskd_protocol.task import Failure, Outcome


class TaskFailed(TaskdError):
    """The task's attempts are spent, and the last one failed.

    Attributes:
        code: Why, as a stable word such as ``task.raised`` or ``worker.killed``.
        task_id: As text.
        attempt: The last one's number; 0: not said.
        type: Of the remote exception, ``module.Class``; empty when nothing was raised.
        reason: What the remote exception said, or what happened to the worker.
        traceback: Of the remote exception, as text; empty when nothing was raised.
        exit_code: Of the worker or command; negative: the signal that ended it; None: none ended.
    """

    code = "task.failed"

    def __init__(self, task_id: str, attempt: int, failure: Failure) -> None:
        kind = failure.type.removeprefix("builtins.")  # as Python itself shows it
        said = f"{kind}: {failure.message}" if kind else failure.message
        where = f" on attempt {attempt}" if attempt else ""
        super().__init__(f"task {task_id} failed{where}: {said}")
        self.code = failure.code
        self.task_id = task_id
        self.attempt = attempt
        self.type = failure.type
        self.reason = failure.message
        self.traceback = failure.traceback
        self.exit_code = failure.exit_code

    def __str__(self) -> str:
        """Show the message, and under it where it was raised."""
        return f"{self.message}\n\n{self.traceback.rstrip()}\n" if self.traceback else self.message

    def __reduce__(self) -> tuple[type["TaskFailed"], tuple[str, int, Failure]]:
        """Let it pass between processes: a task may raise what another task's result raised."""
        failure = Failure(self.code, self.reason, self.type, self.traceback, self.exit_code)
        return TaskFailed, (self.task_id, self.attempt, failure)


class TaskCancelled(TaskdError):
    """The task was cancelled before it succeeded.

    Attributes:
        task_id: As text.
    """

    code = TaskCodes.CANCELLED

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} was cancelled")
        self.task_id = task_id

    def __reduce__(self) -> tuple[type["TaskCancelled"], tuple[str]]:
        """Let it pass between processes."""
        return TaskCancelled, (self.task_id,)


class TaskExpired(TaskdError):
    """The task's time to live, or its deadline, passed before it started: it never ran.

    Attributes:
        code: ``task.expired`` or ``task.deadline``.
        task_id: As text.
    """

    code = TaskCodes.EXPIRED

    def __init__(self, task_id: str, failure: Failure) -> None:
        super().__init__(f"task {task_id} expired: {failure.message}")
        self.code = failure.code
        self.task_id = task_id
        self._failure = failure

    def __reduce__(self) -> tuple[type["TaskExpired"], tuple[str, Failure]]:
        """Let it pass between processes."""
        return TaskExpired, (self.task_id, self._failure)


def value_of(outcome: Outcome) -> object:
    """Return the task's result, unpacked afresh.

    Raises:
        TaskFailed: It is dead.
        TaskCancelled: It was cancelled.
        TaskExpired: It did not start in time.
        TaskUnknown: No such task is stored.
        ResultGone: It ended, and what it returned is kept no longer.
        PayloadUnpackable: The result holds a type that is not registered here.
    """
    if outcome.state == "succeeded":
        return unpack(outcome.result)
    raise error_of(outcome)


def error_of(outcome: Outcome) -> TaskdError:
    """Make the error that an outcome other than success stands for."""
    task_id = format_task_id(outcome.id)
    failure = outcome.failure
    if outcome.state == "cancelled":
        return TaskCancelled(task_id)
    if outcome.state == "expired" and failure is not None:
        return TaskExpired(task_id, failure)
    if outcome.state == "unknown" and failure is not None:
        return error_from_code(failure.code, failure.message or f"task {task_id} is not stored")
    return TaskFailed(task_id, outcome.attempt, failure or Failure(f"task.{outcome.state}", f"it is {outcome.state}"))
