"""Documents of what happens, and of how the server stood; see ``documents``."""

from collections.abc import Sequence

import msgspec

from taskd.text.values import iso
from taskd_protocol.event_messages import EventView
from taskd_protocol.ids import format_task_id
from taskd_protocol.point import Depth, Point


class EventDocument(msgspec.Struct):
    """The same has happened to some tasks of one queue and name; or something has changed that is no task."""

    number: int
    """They rise; several events may have the same."""
    at: str
    what: str
    name: str
    queue: str | None
    agent: str | None
    attempt: int | None
    ids: list[str]
    """Of the tasks, or of the workflow."""
    spans_ms: list[int]
    """How long each has waited in line, if attempts begin; how long each has run, if they have ended."""
    code: str | None
    """Of the failure."""
    trace_id: str | None
    """Of a task that it happened to by itself; of those that share an event, each task tells its own."""


class DepthDocument(msgspec.Struct):
    """How much there is in a queue."""

    queue: str
    ready: int
    running: int


class Overview(msgspec.Struct):
    """How the server stood and what it did: a column for each figure, oldest first; null where nothing was measured."""

    at_ms: list[int]
    """When each stretch ended, UTC."""
    span_ms: list[int]
    submitted: list[int]
    started: list[int]
    succeeded: list[int]
    failed: list[int]
    """Tasks that died, or whose time was up."""
    cancelled: list[int]
    retried: list[int]
    ready: list[int]
    scheduled: list[int]
    blocked: list[int]
    running: list[int]
    agents: list[int]
    wait_p50_ms: list[int | None]
    wait_p95_ms: list[int | None]
    wait_p99_ms: list[int | None]
    run_p50_ms: list[int | None]
    run_p95_ms: list[int | None]
    run_p99_ms: list[int | None]
    queues: list[list[DepthDocument]]
    """The ten in which there was most."""


def event_document(view: EventView) -> EventDocument:
    """Return an event."""
    return EventDocument(
        number=view.number,
        at=iso(view.at_ms) or "",
        what=view.what,
        name=view.name,
        queue=view.queue or None,
        agent=view.agent or None,
        attempt=view.attempt or None,
        ids=[format_task_id(each) for each in view.ids],
        spans_ms=view.spans_ms,
        code=view.code or None,
        trace_id=view.trace_id or None,
    )


def overview_document(points: Sequence[Point]) -> Overview:
    """Return points as columns."""
    return Overview(
        at_ms=[point.at_ms for point in points],
        span_ms=[point.span_ms for point in points],
        submitted=[point.submitted for point in points],
        started=[point.started for point in points],
        succeeded=[point.succeeded for point in points],
        failed=[point.failed for point in points],
        cancelled=[point.cancelled for point in points],
        retried=[point.retried for point in points],
        ready=[point.ready for point in points],
        scheduled=[point.scheduled for point in points],
        blocked=[point.blocked for point in points],
        running=[point.running for point in points],
        agents=[point.agents for point in points],
        wait_p50_ms=[_known(point.waits_ms.p50) for point in points],
        wait_p95_ms=[_known(point.waits_ms.p95) for point in points],
        wait_p99_ms=[_known(point.waits_ms.p99) for point in points],
        run_p50_ms=[_known(point.runs_ms.p50) for point in points],
        run_p95_ms=[_known(point.runs_ms.p95) for point in points],
        run_p99_ms=[_known(point.runs_ms.p99) for point in points],
        queues=[[_depth(depth) for depth in point.queues] for point in points],
    )


def _known(ms: int) -> int | None:
    return ms if ms >= 0 else None


def _depth(depth: Depth) -> DepthDocument:
    return DepthDocument(depth.queue, depth.ready, depth.running)


class WebhookBody(msgspec.Struct):
    """What a webhook posts."""

    webhook: str
    events: list[EventDocument]
    lost: int
    """How often some were lost before these: who sees it rise asks how things stand."""


def webhook_body(name: str, events: Sequence[EventView], lost: int) -> bytes:
    """Return what a webhook posts of these events."""
    return msgspec.json.encode(WebhookBody(name, [event_document(view) for view in events], lost))
