"""What a task may raise to say what is to follow its failure, and how an exception's type is told to others."""

import math
from collections.abc import Sequence

from taskd.client.naming import exception_name
from taskd_protocol.errors import BadRequest


class NonRetryable(Exception):
    """Raise it, or a class of your own that derives from it, in a task: this failure is final, no attempt follows."""


class RetryAfter(Exception):
    """Raise it in a task: this attempt has failed, and the next, if there is one left, starts so much later.

    Attributes:
        seconds: In place of the wait that the task's ``Retry`` would give.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        """Say when to try again.

        Args:
            seconds: 0 to ten years.
            message: Why, for people.

        Raises:
            BadRequest: That is no such number of seconds.
        """
        if not (math.isfinite(seconds) and 0 <= seconds <= SECONDS_MAX):
            raise BadRequest(f"RetryAfter({seconds!r}) is out of range; it takes 0 to {SECONDS_MAX:,.0f} seconds")
        super().__init__(seconds, message)
        self.seconds = seconds

    def __str__(self) -> str:
        """Say why, or else when."""
        return str(self.args[1]) or f"try again after {self.seconds:g} s"


SECONDS_MAX = 10 * 366 * 24 * 3600.0


def type_names(what: str, types: Sequence[type[BaseException] | str]) -> tuple[str, ...]:
    """Return exception types by name, ``module.Class``; a name without a module is a built-in's.

    Raises:
        BadRequest: Something is neither an exception's class nor a name; ``what`` is named.
    """
    if isinstance(types, str | type):
        raise BadRequest(f"{what} takes a sequence of exception types: write it as {what}=(ValueError,)")
    return tuple([_name(what, item) for item in types])


def _name(what: str, item: object) -> str:
    if isinstance(item, str):
        return item if "." in item else f"builtins.{item}"
    if isinstance(item, type) and issubclass(item, BaseException):
        return exception_name(item)
    raise BadRequest(f"{what} takes exception types or their names, not {item!r}")
