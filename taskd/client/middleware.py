"""Middleware: what a program does around every submit and every attempt of its tasks.

At a submit, each hook sees the call and may send headers along. Around an attempt, each is a generator with one
``yield``, at which the attempt runs, be it a plain function or an ``async def``: what the task returned comes back from
the ``yield``, what it raised is raised there.

Invariants:
- Hooks run in the order in which they were given; around an attempt the first is the outermost.
- No hook swallows an error: a generator that ends on one all the same does not turn it into a success.
- What a hook raises is the submit's error, or the attempt's.
- Without hooks a call is the function's own.
- Around a call for many tasks each hook is run once for each of them, the tasks one within the other.
"""

from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, cast, runtime_checkable

import msgspec

from taskd.client.batching import results_of
from taskd.client.context import TaskContext, current, current_batch
from taskd_protocol.errors import BadRequest
from taskd_protocol.task import check_headers

if TYPE_CHECKING:
    from taskd.client.options import Options

Headers: TypeAlias = dict[str, str] | None
"""What travels with one task; None: nothing."""

Around: TypeAlias = Generator[None, object, None]
"""What is done around one attempt: yields once."""


class TaskFunction(Protocol):
    """A user's function, as a worker calls it: with arguments that were checked when they were submitted."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Return the result, or a coroutine that does."""
        ...


class Submission:
    """A call that is about to be submitted.

    Attributes:
        name: Of the task.
        args: Of the call, before they are packed.
        kwargs: Of the call.
        options: Under which it is submitted.
        headers: To travel with it; ``current().headers`` of the attempt.
    """

    __slots__ = ("args", "headers", "kwargs", "name", "options")

    def __init__(self, *, name: str, args: Sequence[object], kwargs: Mapping[str, object], options: "Options") -> None:
        self.name = name
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.headers: dict[str, str] = {}


@runtime_checkable
class SubmitMiddleware(Protocol):
    """Has a say before each submit, in the program that submits."""

    def submitting(self, submission: Submission, /) -> None:
        """See the call, and add headers; raise to refuse it."""
        ...


@runtime_checkable
class AttemptMiddleware(Protocol):
    """Has a say around each attempt, in the worker that runs it."""

    def attempting(self, context: TaskContext, /) -> Around:
        """Prepare, yield once, clean up; the result comes out of the ``yield``, or the error is raised there."""
        ...


Middleware: TypeAlias = SubmitMiddleware | AttemptMiddleware
"""Any object that has one of the two, or both."""


class Chain:
    """An App's middleware, in order; grows while tasks exist already."""

    def __init__(self) -> None:
        self.submit: list[SubmitMiddleware] = []
        self.attempt: list[AttemptMiddleware] = []

    def add(self, middleware: object) -> None:
        """Append one.

        Raises:
            BadRequest: It has neither ``submitting`` nor ``attempting``, or is a class.
        """
        on_submit, on_attempt = isinstance(middleware, SubmitMiddleware), isinstance(middleware, AttemptMiddleware)
        if isinstance(middleware, type) or not (on_submit or on_attempt):
            raise BadRequest(
                f"{middleware!r} is no middleware: give an object with a method submitting(submission), or"
                " attempting(context) that yields once, or both"
            )
        if isinstance(middleware, SubmitMiddleware):
            self.submit.append(middleware)
        if isinstance(middleware, AttemptMiddleware):
            self.attempt.append(middleware)

    def headers(self, submission: Submission) -> Headers:
        """Ask the submit side; return the headers, None when there are none.

        Raises:
            BadRequest: They are no strings, or too many or too long.
        """
        for middleware in self.submit:
            middleware.submitting(submission)
        headers = submission.headers
        if not headers:
            return None
        try:
            msgspec.convert(headers, dict[str, str])
        except msgspec.ValidationError as error:
            raise BadRequest(f"headers of task {submission.name} are no strings: {error}") from None
        check_headers(headers)
        return headers

    def around(self, function: TaskFunction, *, is_async: bool) -> TaskFunction:
        """Return what a worker is to call in place of a function: itself, if there is nothing to do around it."""
        if not self.attempt:
            return function

        def attempt(*args: object, **kwargs: object) -> object:
            with _Attempt(self.attempt, current()) as around:
                around.result = function(*args, **kwargs)
            return around.result

        async def async_attempt(*args: object, **kwargs: object) -> object:
            with _Attempt(self.attempt, current()) as around:
                around.result = await cast("Coroutine[object, object, object]", function(*args, **kwargs))
            return around.result

        return async_attempt if is_async else attempt

    def around_batch(self, function: TaskFunction, *, is_async: bool) -> TaskFunction:
        """Return what a worker is to call in place of a function that is given many tasks."""
        if not self.attempt:
            return function

        def batch(items: object) -> object:
            with _batch(self.attempt) as note:
                return note(function(items))

        async def async_batch(items: object) -> object:
            with _batch(self.attempt) as note:
                return note(await cast("Coroutine[object, object, object]", function(items)))

        return cast("TaskFunction", async_batch if is_async else batch)


@contextmanager
def _batch(hooks: Sequence[AttemptMiddleware]) -> Iterator[Callable[[object], list[object]]]:
    """Run hooks around one call for many tasks; what is yielded takes what it returned.

    A task whose result is an exception is one that raised it, to its hooks.
    """
    attempts: list[_Attempt] = []
    results: list[object] = []

    def note(returned: object) -> list[object]:
        results.extend(results_of(returned, len(attempts)))
        return results

    try:
        for context in current_batch():
            attempt = _Attempt(hooks, context)
            attempt.__enter__()
            attempts.append(attempt)
        yield note
    except BaseException as error:
        for attempt in reversed(attempts):
            with suppress(BaseException):  # the call has one error, for all
                attempt.__exit__(type(error), error, error.__traceback__)
        raise
    for index in reversed(range(len(attempts))):
        attempts[index].result = result = results[index]
        its_own = result if isinstance(result, BaseException) else None
        try:
            attempts[index].__exit__(type(its_own), its_own, None)
        except BaseException as raised:  # noqa: BLE001 - this task's, and no other's
            results[index] = raised


class _Attempt:
    """One attempt, and the generators that wait around it at their ``yield``.

    Attributes:
        result: What the function returned.
    """

    __slots__ = ("_context", "_hooks", "_waiting", "result")

    def __init__(self, hooks: Iterable[AttemptMiddleware], context: TaskContext) -> None:
        self.result: object = None
        self._context = context
        self._hooks = hooks
        self._waiting: list[tuple[AttemptMiddleware, Around]] = []

    def __enter__(self) -> Self:
        """Run each generator up to its ``yield``, the first one first; on an error, end those that have begun."""
        try:
            for hook in self._hooks:
                self._waiting.append((hook, _begin(hook, self._context)))
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Let the generators end."""
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        """Let the generators end, the last one first, each with what those inside it have left.

        Raises:
            BaseException: What a generator raised in place of the error; the error itself is not raised here.
        """
        given, trace = error, None if error is None else error.__traceback__
        while self._waiting:
            hook, generator = self._waiting.pop()
            try:
                if error is None:
                    generator.send(self.result)
                else:
                    generator.throw(error)
            except StopIteration:
                continue  # if there is an error, it was seen, and goes on
            except BaseException as raised:  # noqa: BLE001 - the attempt's error from here on, for those outside too
                error = raised
                continue
            generator.close()
            error = RuntimeError(f"{hook!r}: attempting() yielded twice")
        if given is not None:
            given.__traceback__ = trace  # it tells where the task failed, not who has looked at it since
        if error is not given and error is not None:
            raise error


def _begin(hook: AttemptMiddleware, context: TaskContext) -> Around:
    generator = hook.attempting(context)
    for _ in generator:
        return generator
    raise RuntimeError(f"{hook!r}: attempting() ended before its yield")
