"""Middleware: who runs when around a submit and an attempt, what travels, and whose error counts."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import pytest
import trio

from taskd import App, TaskContext, current
from taskd.client.context import running
from taskd.client.middleware import Around, Middleware, Submission, TaskFunction
from taskd.middleware import AttemptError, Carry, ReportErrors
from taskd_protocol import limits
from taskd_protocol.errors import BadRequest
from taskd_protocol.task import Grant, Rules, TaskSpec
from unit.client.fake_server import FakeServer


def context(headers: dict[str, str] | None = None) -> TaskContext:
    return TaskContext(Grant(7, 2, TaskSpec(bytes(16), "m.f", given=Rules(headers=headers))))


def double(number: int) -> int:
    return 2 * number


@contextmanager
def attempt(headers: dict[str, str] | None = None) -> Iterator[None]:
    """Be a worker at an attempt."""
    before = running.set(context(headers))
    try:
        yield
    finally:
        running.reset(before)


class Noting:
    """Notes what it sees."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def submitting(self, submission: Submission, /) -> None:
        self.notes.append(f"{self.name}: {submission.name}{tuple(submission.args)}")
        submission.headers[self.name] = str(len(submission.headers))

    def attempting(self, context: TaskContext, /) -> Around:
        self.notes.append(f"{self.name} begins attempt {context.attempt}")
        try:
            result = yield
        except BaseException as error:
            self.notes.append(f"{self.name} sees {error!r}")
            raise
        self.notes.append(f"{self.name} gets {result}")


def worker_function(app: App, *, fails: bool = False, is_async: bool = False) -> TaskFunction:
    """Return what a worker calls for a task that returns 5, or fails."""

    def body() -> int:
        if fails:
            raise ValueError("no")
        return 5

    async def async_body() -> int:
        await trio.lowlevel.checkpoint()
        return body()

    if is_async:
        app.task(name="m.f")(async_body)
    else:
        app.task(name="m.f")(body)
    return app.tasks["m.f"].for_worker()


def call(function: TaskFunction, *, is_async: bool = False, headers: dict[str, str] | None = None) -> object:
    """Run an attempt as a worker does."""
    with attempt(headers):
        if not is_async:
            return function()

        async def main() -> object:
            return await cast("Coroutine[object, object, object]", function())

        return trio.run(main)


both_kinds = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def test_headers_travel_with_the_submit(app: App, server: FakeServer) -> None:
    """Each submit asks the middleware in order, with its own arguments; what they add is in the spec."""
    notes: list[str] = []
    app.middleware(Noting("a", notes), Noting("b", notes))
    task = app.task(name="m.f")(double)
    task.submit(1)
    task.map([2, 3])
    asyncio.run(task.asubmit(4))
    specs = [spec for submit in server.submits() for spec in submit.tasks]
    assert [spec.rules.headers for spec in specs] == [{"a": "0", "b": "1"}] * 4
    assert notes == [f"{name}: m.f({number},)" for number in (1, 2, 3, 4) for name in "ab"]


def test_without_middleware_nothing_travels(app: App, server: FakeServer) -> None:
    """A plain submit carries no headers, and a worker calls the function itself."""
    task = app.task(name="m.f")(double)
    task.submit(1)
    task.map([2])
    assert [spec.rules.headers for submit in server.submits() for spec in submit.tasks] == [None, None]
    assert task.for_worker() is task.function


def test_middleware_may_refuse_a_submit(app: App, server: FakeServer) -> None:
    """What it raises is raised by the submit, and nothing is sent."""

    class Refusing:
        def submitting(self, submission: Submission, /) -> None:
            raise PermissionError(submission.options.queue)

    app.middleware(Refusing())
    with pytest.raises(PermissionError, match="default"):
        app.task(name="m.f")(lambda: 1).submit()
    assert server.submits() == []


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"user": 1}, "no strings"),
        ({"": "x"}, "header name"),
        ({"user": "x" * limits.HEADERS_CHARS_MAX}, "limit"),
        ({f"h{number}": "" for number in range(limits.HEADERS_MAX + 1)}, "at most"),
    ],
)
def test_headers_that_cannot_travel_are_refused(
    app: App, server: FakeServer, headers: dict[str, str], named: str
) -> None:
    """Where they are made, before anything is sent."""

    class Adding:
        def submitting(self, submission: Submission, /) -> None:
            submission.headers.update(headers)

    app.middleware(Adding())
    with pytest.raises(BadRequest, match=named):
        app.task(name="m.f")(lambda: 1).submit()
    assert server.submits() == []


@both_kinds
def test_the_first_is_the_outermost(*, is_async: bool) -> None:
    """Around an attempt the one given first begins first and ends last; each gets the result."""
    notes: list[str] = []
    app = App(middleware=[Noting("a", notes)])
    app.middleware(Noting("b", notes))
    assert call(worker_function(app, is_async=is_async), is_async=is_async) == 5
    assert notes == ["a begins attempt 2", "b begins attempt 2", "b gets 5", "a gets 5"]


@both_kinds
def test_errors_are_seen_and_go_on(*, is_async: bool) -> None:
    """The attempt's error is raised at each yield, and is the attempt's error in the end."""
    notes: list[str] = []
    app = App(middleware=[Noting("a", notes), Noting("b", notes)])
    with pytest.raises(ValueError, match="no"):
        call(worker_function(app, fails=True, is_async=is_async), is_async=is_async)
    assert notes[2:] == ["b sees ValueError('no')", "a sees ValueError('no')"]


class Swallowing:
    def attempting(self, _context: TaskContext, /) -> Around:
        try:
            yield
        except ValueError:
            return


class Raising:
    def __init__(self, when: str) -> None:
        self.when = when

    def attempting(self, _context: TaskContext, /) -> Around:
        if self.when == "before":
            raise KeyError("mine")
        yield
        raise KeyError("mine")


class Empty:
    def attempting(self, _context: TaskContext, /) -> Around:
        yield from ()


class Twice:
    def attempting(self, _context: TaskContext, /) -> Around:
        yield
        yield


@both_kinds
def test_an_error_cannot_be_swallowed(*, is_async: bool) -> None:
    """A generator that ends on an error leaves it the attempt's error."""
    with pytest.raises(ValueError, match="no"):
        call(worker_function(App(middleware=[Swallowing()]), fails=True, is_async=is_async), is_async=is_async)


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (Raising("before"), "KeyError('mine')"),
        (Raising("after"), "KeyError('mine')"),
        (Empty(), "ended before its yield"),
        (Twice(), "yielded twice"),
    ],
)
def test_what_middleware_raises_is_the_attempts_error(broken: Middleware, error: str) -> None:
    """Those outside see it, and the task does not succeed."""
    notes: list[str] = []
    app = App(middleware=[Noting("a", notes), broken])
    with pytest.raises((KeyError, RuntimeError)):
        call(worker_function(app))
    assert notes[0] == "a begins attempt 2"
    assert error in notes[1]


@pytest.mark.parametrize("wrong", [object(), Noting, Carry])
def test_what_is_no_middleware_is_refused(wrong: Middleware) -> None:
    """The error tells what one looks like."""
    with pytest.raises(BadRequest, match="submitting"):
        App().middleware(wrong)


USER: ContextVar[str] = ContextVar("user")


def test_carry_sets_the_variable_in_the_attempt(app: App, server: FakeServer) -> None:
    """The task finds the value of where it was submitted; where there was none, none."""
    carry = Carry(USER)
    app.middleware(carry)
    task = app.task(name="m.f")(lambda: USER.get("nobody"))
    before = USER.set("u-1")
    task.submit()
    USER.reset(before)
    task.submit()
    specs = [spec for submit in server.submits() for spec in submit.tasks]
    assert [spec.rules.headers for spec in specs] == [{"user": "u-1"}, None]
    assert [call(task.for_worker(), headers=spec.rules.headers) for spec in specs] == ["u-1", "nobody"]
    assert USER.get("nobody") == "nobody"


@both_kinds
def test_errors_are_reported_with_their_attempt(*, is_async: bool) -> None:
    """The hook gets the exception and the context; the exception goes on."""
    seen: list[AttemptError] = []
    app = App(middleware=[ReportErrors(seen.append)])
    with pytest.raises(ValueError, match="no") as caught:
        call(worker_function(app, fails=True, is_async=is_async), is_async=is_async)
    assert [(report.error, report.context.name, report.context.attempt) for report in seen] == [
        (caught.value, "m.f", 2)
    ]


def test_a_hook_that_raises_hides_no_error() -> None:
    """The task's own error counts; that it could not be reported is noted on it."""

    def broken(_report: AttemptError) -> None:
        raise ConnectionError("tracker away")

    with pytest.raises(ValueError, match="no") as caught:
        call(worker_function(App(middleware=[ReportErrors(broken)]), fails=True))
    assert caught.value.__notes__ == ["and it could not be reported: ConnectionError: tracker away"]


def test_headers_of_an_attempt_without_any_are_empty() -> None:
    """Code may look for a header without asking whether there are any."""
    with attempt():
        assert dict(current().headers) == {}
    with attempt({"user": "u-1"}):
        assert current().headers["user"] == "u-1"
