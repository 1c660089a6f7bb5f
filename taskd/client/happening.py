"""What happens, as programs read it: ``App.events``."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from taskd_protocol.errors import BadRequest
from taskd_protocol.event_messages import EventPage, EventsFollow, EventView
from taskd_protocol.ids import format_task_id, parse_task_id

MISSED = "missed"
"""Word of the event that says that some before the next are not kept any more: ask how things stand."""


@dataclass(frozen=True, slots=True)
class Event:
    """The same has happened to some tasks of one queue and name; or something has changed that is no task.

    Attributes:
        number: Its place: ``after=`` it, events go on that were not seen. Several may have the same.
        at: When, UTC; of ``missed``: None.
        what: ``task.submitted``; ``task.`` and the state of the tasks now; ``attempt.`` and how attempts ended without
            success; ``workflow.``, ``agent.``, ``queue.``, ``schedule.`` or ``limit.`` and what has become of it;
            ``missed``.
        name: Of the tasks, or of what has changed.
        queue: Of the tasks.
        agent: Who has, or had, the tasks.
        attempt: Of the tasks; 0: none has begun.
        ids: Of the tasks, or of the workflow.
        seconds: How long each has waited in line, if attempts begin; how long each has run, if they have ended.
        code: Of the failure.
        trace_id: Of a task that it happened to by itself; empty when several share the event.
    """

    number: int
    at: dt.datetime | None
    what: str
    name: str = ""
    queue: str = ""
    agent: str = ""
    attempt: int = 0
    ids: Sequence[str] = ()
    seconds: Sequence[float] = ()
    code: str = ""
    trace_id: str = ""


def wanted_events(
    *, topics: Iterable[str], queue: str, name: str, tasks: Iterable[str], workflow: str, after: int | None
) -> EventsFollow:
    """Return what asks for these events.

    Raises:
        BadRequest: An id is none, or a number is below 0.
    """
    if after is not None and after < 0:
        raise BadRequest(
            f"after={after}: give the number of an event, 0 for all that are kept, or nothing for new ones"
        )
    return EventsFollow(
        request_id=0,
        after=-1 if after is None else after,
        topics=[topics] if isinstance(topics, str) else list(topics),
        queue=queue,
        name=name,
        ids=[parse_task_id(task) for task in tasks],
        workflow=parse_task_id(workflow) if workflow else b"",
    )


def events_of(page: EventPage) -> Iterator[Event]:
    """Yield what a page tells."""
    if page.missed:
        yield Event(page.events[0].number - 1 if page.events else page.after, None, MISSED)
    for view in page.events:
        yield _event(view)


def _event(view: EventView) -> Event:
    return Event(
        number=view.number,
        at=dt.datetime.fromtimestamp(view.at_ms / 1000, dt.UTC),
        what=view.what,
        name=view.name,
        queue=view.queue,
        agent=view.agent,
        attempt=view.attempt,
        ids=tuple(format_task_id(each) for each in view.ids),
        seconds=tuple(span_ms / 1000 for span_ms in view.spans_ms),
        code=view.code,
        trace_id=view.trace_id,
    )
