"""Reports errors of attempts to wherever a program reports its errors."""

from collections.abc import Callable
from dataclasses import dataclass

from taskd.client.context import TaskContext
from taskd.client.middleware import Around


@dataclass(frozen=True, slots=True)
class AttemptError:
    """An attempt raised."""

    error: Exception
    """With its traceback."""
    context: TaskContext
    """The attempt: task name and id, attempt number, queue, headers."""


class ReportErrors:
    """Calls a hook, in the worker, with each error that an attempt raises; that a task was cancelled is none.

    A hook that raises does not hide the task's own error: its own is noted on that, and shows in the traceback.
    """

    def __init__(self, report: Callable[[AttemptError], object]) -> None:
        """Report to ``report``, such as a function that hands the exception to an error tracker."""
        self._report = report

    def attempting(self, context: TaskContext, /) -> Around:
        """Run the attempt; report what it raises."""
        try:
            yield
        except Exception as error:
            try:
                self._report(AttemptError(error, context))
            except Exception as broken:  # noqa: BLE001 - whatever is wrong with the hook, the task's error counts
                error.add_note(f"and it could not be reported: {type(broken).__name__}: {broken}")
            raise
