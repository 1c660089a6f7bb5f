"""Inline: a submit runs the function here and now, in the thread that submits."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context

from msgspec.structs import replace

from taskd.agent.clock import SystemClock
from taskd.agent.wire import handed
from taskd.agent.worker import calls
from taskd.agent.worker.calls import Functions
from taskd.client.app import App
from taskd.client.client import Client
from taskd.client.family import Found
from taskd.core.attempts import maybe_ran
from taskd.testing.attempts import End, Signs, attempt, attempt_async, functions_of
from taskd.testing.instant import InstantLine
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import DEFAULT_RETRY, Failure, Grant, Outcome, Spawned, TaskSpec
from taskd_protocol.workflow import NIL, make_workflow_id, member_id, spawn_digest
from taskd_protocol.workflow_messages import Missed


class _Children:
    """What one task has spawned, all of which has run."""

    def __init__(self, number: int) -> None:
        self._family = make_workflow_id(0, number.to_bytes(5, "big"))
        self._found = Found([], [])
        self._digest = b""

    def grant(self, grant: Grant) -> Grant:
        """Return a lease with what it needs to know of them."""
        count = len(self._found.parts)
        if not count:
            return grant
        spawned = Spawned(member_id(self._family, 0), count, self._digest)
        return handed(replace(grant, spawned=spawned), self._found)

    def next_id(self) -> bytes:
        """Return the id of the one that comes next."""
        return member_id(self._family, 0, len(self._found.parts))

    def ended(self, spec: TaskSpec, outcome: Outcome) -> None:
        """Take in how the next one has ended."""
        self._digest = spawn_digest(self._digest, spec.name, spec.payload)
        if outcome.state != "succeeded":
            failure = outcome.failure or Failure(TaskCodes.CANCELLED, f"it is {outcome.state}")
            self._found.missed.append(Missed(len(self._found.parts), failure))
        self._found.parts.append(outcome.result or NIL)


class _Inline:
    def __init__(self, app: App) -> None:
        self._app = app
        self._token = 0

    def take(self, spec: TaskSpec) -> Outcome:
        """Run a task's attempts, one right after the other; return its end."""
        functions = functions_of(self._app)
        task = self._app.tasks.get(spec.name)
        run = _run_async if task is not None and task.is_async else _run
        number, failures, details = 0, 0, b""
        self._token += 1
        children = _Children(self._token)
        while True:
            number += 1
            self._token += 1
            signs = Signs(details)
            end = run(functions, children.grant(Grant(self._token, number, spec, details=details)), signs)
            details = signs.details
            for child in [task for _, tasks in signs.spawned for task in tasks]:
                children.ended(child, self.take(replace(child, id=children.next_id())))
            if isinstance(end, bytes):
                return Outcome(spec.id, "succeeded", number, end)
            bad = calls.bad_end(self._token, end, 0, 0.0)
            if bad.waits:
                continue
            failures += 1
            if spec.rules.at_most_once:
                return Outcome(spec.id, "dead", number, failure=maybe_ran(bad.failure))
            if bad.final or failures >= (spec.retry or DEFAULT_RETRY).max_attempts:
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
    blocking this one. What a task spawns runs when it waits, or has ended; one that waits begins
    anew then, as in earnest. An error in it is raised by ``result()``, as TaskFailed, and not by the submit.
    """
    line = InstantLine("inline", SystemClock().wall_ms, _Inline(app).take)
    with app.submitting_to(Client(line=line)):
        yield
