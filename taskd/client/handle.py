"""Handles: what one holds of a task that was submitted, to ask how it goes and what it returned."""

from collections.abc import Iterable, Sequence
from typing import Generic, Self, TypeVar, cast

from taskd.client import diary, operations
from taskd.client.attempts import Attempt, attempt_of
from taskd.client.client import TIMEOUT_S
from taskd.client.ends import Awaited, Watch
from taskd.client.explanation import Explanation, explanation_of
from taskd.client.line import Line
from taskd.client.lines import TEXTS, EmittedValues, OutputLines, Since
from taskd.client.outcome import value_of
from taskd.client.waiting import Steps, arun, deadline, run
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.ids import format_task_id
from taskd_protocol.messages import (
    Cancel,
    Cancelled,
    TaskExplain,
    TaskExplained,
    TaskQuery,
    TaskRetried,
    TaskRetry,
    TaskView,
    TaskViews,
)
from taskd_protocol.streams import VALUES

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
HandleT = TypeVar("HandleT", bound="TaskHandle[object]")


class Batch:
    """Tasks that were submitted together: who asks for the end of one asks for all of them.

    Attributes:
        link: To their server.
        tasks: Not asked for yet; emptied by the first who asks, so that no handle keeps all others alive.
        warnings: Of their submit.
    """

    __slots__ = ("link", "tasks", "warnings")

    def __init__(self, link: Line, tasks: Sequence[Awaited] = ()) -> None:
        self.link = link
        self.tasks = tasks
        self.warnings: list[str] = []


class TaskHandle(Awaited, Generic[R_co]):
    """A task that was submitted. The names with an ``a`` are for asyncio and trio."""

    __slots__ = ("_batch", "_traceparent")

    def __init__(self, raw_id: bytes, batch: Batch, traceparent: str = "") -> None:
        self.raw_id = raw_id
        self.outcome = None
        self._batch = batch
        self._traceparent = traceparent

    @property
    def id(self) -> str:
        """The task's id, a UUID as text; ``App.handle`` finds the task again by it."""
        return format_task_id(self.raw_id)

    @property
    def trace_id(self) -> str:
        """What all logs, records and spans of the task have in common, 32 hexadecimal digits.

        Empty: the task was found by its id, or by its key, and not submitted here; ``taskd task show`` tells it.
        """
        return self._traceparent[3:35]

    @property
    def warnings(self) -> list[str]:
        """What the server said when it accepted the task, and those of the same ``map``: that no agent could run it.

        No agent that was connected then; one may come that can. The same is logged, once, by the logger ``taskd``.
        """
        return list(self._batch.warnings)

    def result(self, timeout: float | None = None) -> R_co:
        """Wait until the task has ended, and return what it returned.

        Args:
            timeout: Seconds; None: as long as it takes.

        Raises:
            TaskFailed: Its attempts are spent; tells the remote type, message and traceback.
            TaskCancelled: It was cancelled.
            TaskExpired: It did not start in time.
            TimedOut: It has not ended yet. It goes on; ask again.
            ResultGone: It ended so long ago that its result is not kept any more.
            TaskUnknown: No such task is stored.
        """
        outcome = self.outcome
        if outcome is None:
            outcome = run(operations.end_of(self._batch.link, self, self._siblings(), timeout))
        diary.ended(outcome, self._traceparent)
        return cast("R_co", value_of(outcome))

    async def aresult(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109 - one name in both faces
        """Wait until the task has ended; see ``result``."""
        outcome = self.outcome
        if outcome is None:
            outcome = await arun(operations.end_of(self._batch.link, self, self._siblings(), timeout))
        diary.ended(outcome, self._traceparent)
        return cast("R_co", value_of(outcome))

    def state(self) -> str:
        """Ask for the task's state, such as ``ready``, ``running`` or ``succeeded``.

        Raises:
            TaskUnknown: No such task is stored.
        """
        return run(self._state())

    async def astate(self) -> str:
        """Ask for the task's state; see ``state``."""
        return await arun(self._state())

    def attempts(self) -> list[Attempt]:
        """Ask how the task's attempts have ended so far, oldest first: the newest hundred.

        Raises:
            TaskUnknown: No such task is stored.
        """
        return run(self._attempts())

    async def aattempts(self) -> list[Attempt]:
        """Ask how the task's attempts have ended so far; see ``attempts``."""
        return await arun(self._attempts())

    def explain(self) -> Explanation:
        """Ask why the task is where it is: what it waits for, and what rules out each agent; or who runs it.

        Raises:
            TaskUnknown: No such task is stored.
        """
        return run(self._explain())

    async def aexplain(self) -> Explanation:
        """Ask why the task is where it is; see ``explain``."""
        return await arun(self._explain())

    def cancel(self) -> str:
        """Cancel the task; return its state then.

        ``cancelled`` when it had not started; ``cancelling`` while it is being killed, until every process
        of it is gone; any other when it had ended already.

        Raises:
            TaskUnknown: No such task is stored.
        """
        return run(self._cancel())

    async def acancel(self) -> str:
        """Cancel the task; see ``cancel``."""
        return await arun(self._cancel())

    def retry(self) -> str:
        """Give the task another chance if it ended without success; return its state then.

        ``ready`` when it is back in line: its attempts are numbered on, its budget begins anew, and ``result``
        waits for its next end. Any other state is the one that it has, and keeps.

        Raises:
            TaskUnknown: No such task is stored.
        """
        return run(self._retry())

    async def aretry(self) -> str:
        """Give the task another chance; see ``retry``."""
        return await arun(self._retry())

    def logs(
        self,
        *,
        follow: bool = False,
        since: Since | None = None,
        attempt: int | None = None,
        timeout: float | None = None,
    ) -> OutputLines:
        """Read what the task's attempts printed and logged, line by line; for ``for``, and ``async for``.

        What an attempt says is there within a tenth of a second or two, also while it runs.

        Args:
            follow: Go on, live, until the task has ended; else what is stored now.
            since: Only what came behind this ``OutputLine.cursor``, from this instant on, or so long ago.
            attempt: Only of this one.
            timeout: Seconds that may pass without a line, when following; None: any.

        Raises:
            BadRequest: ``since`` is no cursor.
            TaskUnknown: No such task is stored; when the first line is asked for.
            TimedOut: No line came in time; then.
        """
        return OutputLines(
            self._batch.link,
            self.raw_id,
            TEXTS,
            follow=follow,
            since=since,
            attempt=attempt,
            timeout_s=timeout if follow else timeout or TIMEOUT_S,
        )

    def stream(
        self,
        *,
        follow: bool = True,
        since: Since | None = None,
        attempt: int | None = None,
        timeout: float | None = None,
    ) -> EmittedValues:
        """Read the values that the task's attempts emitted with ``current().emit``; live, if not told otherwise.

        An attempt that is tried again emits again: ``Emitted.attempt`` tells them apart.
        """
        return EmittedValues(
            self._batch.link,
            self.raw_id,
            (VALUES,),
            follow=follow,
            since=since,
            attempt=attempt,
            timeout_s=timeout if follow else timeout or TIMEOUT_S,
        )

    def __repr__(self) -> str:
        """Show the id, and the end if it is known."""
        return f"<TaskHandle {self.id}{f' {self.outcome.state}' if self.outcome else ''}>"

    def _siblings(self) -> Sequence[Awaited]:
        siblings, self._batch.tasks = self._batch.tasks, ()
        return siblings

    def _state(self) -> Steps[str]:
        return (yield from self._view()).state

    def _attempts(self) -> Steps[list[Attempt]]:
        return [attempt_of(view) for view in (yield from self._view()).attempts]

    def _explain(self) -> Steps[Explanation]:
        query = TaskExplain(0, self.raw_id)
        told = (yield from operations.call(self._batch.link, query, TaskExplained, TIMEOUT_S)).explanation
        if told is None:
            raise TaskUnknown(f"task {self.id} is not stored; it was never accepted here, or ended long ago")
        return explanation_of(told)

    def _view(self) -> Steps[TaskView]:
        query = TaskQuery(0, [self.raw_id])
        view = (yield from operations.call(self._batch.link, query, TaskViews, TIMEOUT_S)).views[0]
        if view is None:
            raise TaskUnknown(f"task {self.id} is not stored; it was never accepted here, or ended long ago")
        return view

    def _cancel(self) -> Steps[str]:
        cancel = Cancel(0, [self.raw_id])
        state = (yield from operations.call(self._batch.link, cancel, Cancelled, TIMEOUT_S)).states[0]
        if state == "unknown":
            raise TaskUnknown(f"task {self.id} is not stored; it was never accepted here, or ended long ago")
        return state

    def _retry(self) -> Steps[str]:
        retry = TaskRetry(0, [self.raw_id])
        state = (yield from operations.call(self._batch.link, retry, TaskRetried, TIMEOUT_S)).states[0]
        if state == "unknown":
            raise TaskUnknown(f"task {self.id} is not stored; it was never accepted here, or ended long ago")
        if state == "ready":
            self.outcome = None
        return state


class Completions(Generic[HandleT]):
    """Handles in the order in which their tasks end; an iterator for ``for``, and one for ``async for``."""

    def __init__(self, handles: Iterable[HandleT], timeout_s: float | None) -> None:
        self._all = list(handles)
        left: dict[int, tuple[Line, list[HandleT]]] = {}
        for handle in self._all:
            link = handle._batch.link  # noqa: SLF001 - same room
            left.setdefault(id(link), (link, []))[1].append(handle)
        self._by_link = list(left.values())
        self._left = len(self._all)
        self._timeout_s = timeout_s
        self._until_s = deadline(timeout_s)
        self._watch = Watch()
        for link, group in self._by_link:
            link.watch((), group, self._watch)

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> HandleT:
        """Block until the next task has ended."""
        if not self._left:
            raise StopIteration
        return self._taken(run(self._next()))

    async def __anext__(self) -> HandleT:
        """Wait until the next task has ended."""
        if not self._left:
            raise StopAsyncIteration
        return self._taken(await arun(self._next()))

    def __del__(self) -> None:
        """Have the link forget a loop that was left early."""
        if self._left:
            for link, group in self._by_link:
                link.unwatch([handle for handle in group if handle.outcome is None], self._watch)

    def _next(self) -> Steps[Awaited]:
        return operations.next_end(self._by_link[0][0], self._watch, self._all, self._timeout_s, self._until_s)

    def _taken(self, ended: Awaited) -> HandleT:
        self._left -= 1
        return cast("HandleT", ended)  # what the watch was given


def as_completed(handles: Iterable[HandleT], timeout: float | None = None) -> Completions[HandleT]:
    """Give back handles as their tasks end, each once; use it with ``for``, or ``async for`` on asyncio and trio.

    Args:
        handles: Of any number of submits; the end of a task may have been good or bad, ``result`` tells.
        timeout: Seconds for all of them; then TimedOut is raised.
    """
    return Completions(handles, timeout)
