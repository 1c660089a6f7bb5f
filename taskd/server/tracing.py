"""Tracing: spans of sampled tasks, from submit to end, made of what turns tell.

A trace is sampled, or not, by its id, as every tracer decides that sees it. What is open is bounded; what cannot be
kept is not told. Knows nothing of who takes the spans.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from taskd.core.commands import Now
from taskd.core.events import ATTEMPT, RUNNING, TASK, Event, TasksMoved
from taskd.core.lifecycle import State
from taskd.core.lines import Task
from taskd.core.working import Working
from taskd_protocol.ids import TaskId, task_id_unix_ms
from taskd_protocol.tracing import Trace, read_traceparent, root_of, span_id_of

OPEN_MAX: Final = 20_000
"""Sampled attempts that run at a time."""

MS_NS: Final = 1_000_000


class Span(NamedTuple):
    """One span."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    """0: there is none above it."""
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int]
    error: str = ""
    """The failure's code; empty: it ended well."""


class _Open(NamedTuple):
    """An attempt that runs."""

    trace: Trace
    attempt: int
    agent: str
    queue: str
    name: str


class Tracer:
    """See the module's docstring."""

    def __init__(self, working: Working, ratio: float, tell: Callable[[Span], None]) -> None:
        """Prepare.

        Args:
            working: Where tasks are found that begin.
            ratio: The share of traces that is told, 0 to 1.
            tell: Takes a span.
        """
        self._working = working
        self._ratio = ratio
        self._tell = tell
        self._open: dict[bytes, _Open] = {}
        self._placed: list[tuple[int, bytes, _Open, int]] = []
        """Whose leases are not durable yet: the mark to wait for, the task, its attempt, when it was placed."""

    def look(self, events: Sequence[Event], now: Now, mark: int) -> None:
        """Take note of what a turn tells, which is durable when ``mark`` is."""
        for event in events:
            if not isinstance(event, TasksMoved):
                continue
            if event.what == RUNNING:
                for task_id, wait_ms in zip(event.ids, event.spans_ms, strict=True):
                    self._begin(task_id, event, wait_ms, now, mark)
            elif event.spans_ms and self._open:
                for task_id, span_ms in zip(event.ids, event.spans_ms, strict=True):
                    if task_id in self._open:
                        self._end(task_id, event, span_ms, now)

    def release(self, mark: int, now: Now) -> None:
        """Tell how long it took to make durable what was placed."""
        waiting = self._placed
        self._placed = [each for each in waiting if each[0] > mark]
        for its_mark, task_id, attempt, at_ms in waiting:
            if its_mark <= mark:
                self._say("commit", attempt, task_id, (at_ms, now.wall_ms))

    def _begin(self, task_id: bytes, event: TasksMoved, wait_ms: int, now: Now, mark: int) -> None:
        task = self._working.tasks.get(task_id)
        if task is None or len(self._open) >= OPEN_MAX:
            return
        trace = read_traceparent(task.spec.traceparent)
        if trace is None or not trace.is_sampled(self._ratio):
            return
        opened = self._open[task_id] = _Open(trace, event.attempt, event.agent, event.queue, event.name)
        if event.attempt == 1:
            self._tell(self._submit(task, trace, opened))
        begin_ms = now.wall_ms - max(wait_ms, 0)
        self._say("queue", opened, task_id, (begin_ms, now.wall_ms))
        self._say("place", opened, task_id, (now.wall_ms, now.wall_ms))
        self._placed.append((mark, task_id, opened, now.wall_ms))

    def _end(self, task_id: bytes, event: TasksMoved, span_ms: int, now: Now) -> None:
        opened = self._open.pop(task_id)
        outcome = event.what.removeprefix(ATTEMPT).removeprefix(TASK)
        error = "" if outcome == State.SUCCEEDED else event.code or outcome
        self._say("attempt", opened, task_id, (now.wall_ms - max(span_ms, 0), now.wall_ms), error)

    def _submit(self, task: Task, trace: Trace, opened: _Open) -> Span:
        task_id = task.spec.id
        made_ms = min(task_id_unix_ms(TaskId(task_id)), task.created_at_ms)
        return Span(
            "taskd.submit",
            trace.trace_id,
            span_id_of(task_id, "submit"),
            0 if trace.span_id == root_of(task_id) else trace.span_id,
            made_ms * MS_NS,
            task.created_at_ms * MS_NS,
            _attributes(task_id, opened),
        )

    def _say(self, what: str, opened: _Open, task_id: bytes, times_ms: tuple[int, int], error: str = "") -> None:
        """Tell a span below that of the submit."""
        self._tell(
            Span(
                f"taskd.{what}",
                opened.trace.trace_id,
                span_id_of(task_id, what, opened.attempt),
                span_id_of(task_id, "submit"),
                times_ms[0] * MS_NS,
                times_ms[1] * MS_NS,
                _attributes(task_id, opened),
                error,
            )
        )


def _attributes(task_id: bytes, opened: _Open) -> dict[str, str | int]:
    text = task_id.hex()
    dashed = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return {
        "taskd.task.id": dashed,
        "taskd.task.name": opened.name,
        "taskd.queue": opened.queue,
        "taskd.agent": opened.agent,
        "taskd.attempt": opened.attempt,
    }
