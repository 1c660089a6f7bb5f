"""Inline: a submit runs the function here and now, in the thread that submits."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context

from taskd.agent.clock import SystemClock
from taskd.agent.worker import calls
from taskd.agent.worker.calls import Functions
from taskd.client.app import App
from taskd.client.client import Client
from taskd.core.attempts import maybe_ran
from taskd.testing.attempts import End, Signs, attempt, attempt_async, functions_of
from taskd.testing.instant import InstantLine
from taskd_protocol.task import DEFAULT_RETRY, Grant, Outcome, TaskSpec


class _Inline:
    def __init__(self, app: App) -> None:
        self._app = app
        self._token = 0

    def take(self, spec: TaskSpec) -> Outcome:
        """Run a task's attempts, one right after the other; return its end."""
        functions = functions_of(self._app)
        task = self._app.tasks.get(spec.name)
        run = _run_async if task is not None and task.is_async else _run
        number, details = 0, b""
        while True:
            number += 1
            self._token += 1
            signs = Signs(details)
            end = run(functions, Grant(self._token, number, spec, details=details), signs)
            details = signs.details
            if isinstance(end, bytes):
                return Outcome(spec.id, "succeeded", number, end)
            bad = calls.bad_end(self._token, end, 0, 0.0)
            if spec.rules.at_most_once:
                return Outcome(spec.id, "dead", number, failure=maybe_ran(bad.failure))
            if bad.final or number >= (spec.retry or DEFAULT_RETRY).max_attempts:
                return Outcome(spec.id, "dead", number, failure=bad.failure)


def _run(functions: Functions, grant: Grant, signs: Signs) -> End:
    return Context().run(attempt, functions, grant, signs)


def _run_async(functions: Functions, grant: Grant, signs: Signs) -> End:
    """Run a coroutine on a loop of its own, in a thread of its own: a loop may be running in this one."""
    ends: list[End] = []

    def main() -> None:
        ends.append(asyncio.run(attempt_async(functions, grant, signs, ())))

    thread = threading.Thread(target=Context().run, args=(main,), name="taskd-inline")
    thread.start()
    thread.join()
    return ends[0]


@contextmanager
def inline(app: App) -> Iterator[None]:
    """Run each task that is submitted meanwhile before its submit returns.

    Arguments and results are packed as in earnest; the task sees none of the caller's context variables; failed
    attempts are repeated at once, as often as its retry policy says. Delays, priorities and queues mean nothing.
    A plain function runs in the thread that submits, an ``async def`` on an asyncio loop in another one, meanwhile
    blocking this one. An error in it is raised by ``result()``, as TaskFailed, and not by the submit.
    """
    line = InstantLine("inline", SystemClock().wall_ms, _Inline(app).take)
    with app.submitting_to(Client(line=line)):
        yield
