"""Carries a context variable's value from who submits a task to the task: whose request it is, of which tenant."""

from contextvars import ContextVar

from taskd.client.context import TaskContext
from taskd.client.middleware import Around, Submission


class Carry:
    """One context variable; it is set in the task, and in what that submits, as it was where the task was submitted.

    Where it has no value, or None, nothing is sent, and the task finds it unset.
    """

    def __init__(self, variable: ContextVar[str] | ContextVar[str | None], header: str | None = None) -> None:
        """Carry a variable.

        Args:
            variable: Of a text.
            header: What travels is called so; None: by the variable's name.
        """
        self._variable: ContextVar[str] | ContextVar[str | None] = variable
        self._header = variable.name if header is None else header

    def submitting(self, submission: Submission, /) -> None:
        """Send the value along."""
        value = self._variable.get(None)
        if value is not None:
            submission.headers[self._header] = value

    def attempting(self, context: TaskContext, /) -> Around:
        """Set the variable for the length of the attempt."""
        value = context.headers.get(self._header)
        if value is None:
            yield
            return
        before = self._variable.set(value)
        try:
            yield
        finally:
            self._variable.reset(before)  # type: ignore[arg-type]  # it is this variable's
