"""The chronicle: what the server's log says of tasks, each with its id and the trace id that all of its story has.

Ends that a person may have to look into are told always, of a sort one a second, with how many more there were; where
all is wanted, everything that happens to each task. Nothing is told before it is durable.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import structlog

from taskd.core.commands import Now
from taskd.core.events import CANCELLING, RUNNING, Event, TasksMoved
from taskd.core.lines import Task
from taskd.core.working import Working
from taskd_protocol.ids import format_task_id

log = structlog.get_logger("taskd.server")

Level = Literal["debug", "info", "warning"]

LEVELS: Final[dict[str, Level]] = {
    "task.dead": "warning",
    "task.expired": "info",
    "attempt.crashed": "warning",
    "attempt.lost": "warning",
}

SAY_MS: Final = 1_000
"""Between two lines of a sort: an agent that is lost may have had thousands of tasks."""

KNOWN_MAX: Final = 20_000
"""Traces of tasks that run, where all is told: those that end together have none in their event."""


class _Line(NamedTuple):
    """What is to be told when it is durable."""

    mark: int
    event: TasksMoved
    traces: list[str]


class _Said:
    """When a sort was last told of, and how many there were since."""

    def __init__(self) -> None:
        self.at_ms = -SAY_MS
        self.untold = 0


class Chronicle:
    """See the module's docstring.

    Attributes:
        tells_all: Everything that happens is told.
    """

    def __init__(self, working: Working) -> None:
        """Prepare.

        Args:
            working: Where the traces of tasks are found that go on.
        """
        self.tells_all = False
        self._working = working
        self._pending: deque[_Line] = deque()
        self._said = {what: _Said() for what in LEVELS}
        self._known: dict[bytes, str] = {}

    def look(self, events: Sequence[Event], mark: int) -> None:
        """Take note of what a turn tells, which is durable when ``mark`` is."""
        for event in events:
            if isinstance(event, TasksMoved) and (self.tells_all or event.what in LEVELS):
                self._pending.append(_Line(mark, event, self._traces_of(event)))

    def release(self, mark: int, now: Now) -> None:
        """Tell what was noted up to this mark."""
        while self._pending and self._pending[0].mark <= mark:
            _, event, traces = self._pending.popleft()
            if self.tells_all:
                for task_id, trace_id in zip(event.ids, traces, strict=True):
                    _tell(event, task_id, trace_id)
            else:
                self._tell_one(event, traces[0], now)

    def _tell_one(self, event: TasksMoved, trace_id: str, now: Now) -> None:
        said = self._said[event.what]
        said.untold += len(event.ids)
        if now.mono_ms - said.at_ms >= SAY_MS:
            _tell(event, event.ids[0], trace_id, others=said.untold - 1)
            said.at_ms, said.untold = now.mono_ms, 0

    def _traces_of(self, event: TasksMoved) -> list[str]:
        """Return the traces of an event's tasks; keep those of attempts that begin, for their ends."""
        if event.trace_id and not self.tells_all:
            return [event.trace_id]
        known, tasks = self._known, self._working.tasks
        traces = [event.trace_id or known.get(each) or _trace_id(tasks.get(each)) for each in event.ids]
        if event.what == RUNNING:
            if len(known) < KNOWN_MAX:
                known.update(zip(event.ids, traces, strict=True))
        elif event.what != CANCELLING:
            for each in event.ids:
                known.pop(each, None)
        return traces


def _trace_id(task: Task | None) -> str:
    return "" if task is None else task.spec.trace_id


def _tell(event: TasksMoved, task_id: bytes, trace_id: str, **more: int) -> None:
    facts: dict[str, str | int] = {
        "task": format_task_id(task_id),
        "trace_id": trace_id,
        "name": event.name,
        "queue": event.queue,
        "agent": event.agent,
        "attempt": event.attempt,
        "code": event.code,
    }
    tell = getattr(log, LEVELS.get(event.what, "debug"))
    tell(event.what.replace(".", "_"), **{name: fact for name, fact in facts.items() if fact}, **more)
