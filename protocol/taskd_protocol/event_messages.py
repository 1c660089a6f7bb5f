"""Messages about what happens, as it happens, and what has happened; they belong to the unions of ``messages``.

Type numbers: 160-169. They follow the rules of change that ``messages`` tells.
"""

import msgspec

from taskd_protocol.point import Point


class EventView(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The same has happened to some tasks of one queue and name; or something has changed that is no task."""

    number: int
    """Of the turn that told it; they rise, and several events may have the same."""
    at_ms: int
    what: str
    """``task.`` and where the tasks stand now, or ``task.submitted``; ``attempt.`` and how attempts ended without
    success; ``workflow.`` and where it stands; ``agent.``, ``queue.``, ``schedule.`` or ``limit.`` and what has become
    of it."""
    name: str
    """Of the tasks, or of what has changed."""
    queue: str = ""
    agent: str = ""
    """Who has, or had, the tasks."""
    attempt: int = 0
    ids: list[bytes] = []
    """Of the tasks, or of the workflow."""
    spans_ms: list[int] = []
    """Of attempts that begin: how long each has waited in line; of attempts that have ended: how long each has run."""
    code: str = ""
    """Of the failure."""
    trace_id: str = ""
    """Of a task that it happened to by itself, 32 hexadecimal digits."""


class EventsFollow(msgspec.Struct, array_like=True, frozen=True, tag=160):
    """Send me what happens, from a place on; answered by EVENT_PAGE, again after each EVENTS_MORE."""

    request_id: int
    after: int = -1
    """``number`` of the last event that was seen; -1: from now on; 0: from the oldest that is kept."""
    topics: list[str] = []
    """What events begin with: ``task.dead``, ``agent.``; empty: all."""
    queue: str = ""
    """Those of this queue; empty: of all."""
    name: str = ""
    """Those of tasks of this name, or of all that begin so, if it ends with ``*``; empty: of all."""
    ids: list[bytes] = []
    """Those of these tasks; empty: of all."""
    workflow: bytes = b""
    """Those of this workflow and its tasks; empty: of all."""


class EventsMore(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=161):
    """The last EVENT_PAGE was taken: credit for the next one."""

    request_id: int


class EventPage(msgspec.Struct, array_like=True, frozen=True, tag=162):
    """What has happened; pushed under EVENTS_FOLLOW's request id."""

    request_id: int
    after: int
    """Where to go on, after a lost connection."""
    events: list[EventView]
    missed: bool = False
    """Some before these are not kept any more, or ``after`` is beyond what a restored server knows: ask how things
    stand."""


class OverviewQuery(msgspec.Struct, array_like=True, frozen=True, tag=163):
    """Show me how the server stood and what it did, over the last while."""

    request_id: int
    range: str = "15m"
    """``15m``, ``1h``, ``6h`` or ``24h``."""


class OverviewPage(msgspec.Struct, array_like=True, frozen=True, tag=164):
    """Points, oldest first; where the server was not running there are none."""

    request_id: int
    points: list[Point]


class WebhookSet(msgspec.Struct, array_like=True, frozen=True, tag=165):
    """Post these events to this address from now on; another webhook of the name is replaced, its secret kept."""

    request_id: int
    name: str
    url: str
    topics: list[str] = []
    """As in EVENTS_FOLLOW; the same below."""
    queue: str = ""
    task_name: str = ""


class WebhookMade(msgspec.Struct, array_like=True, frozen=True, tag=166):
    """It is kept."""

    request_id: int
    secret: str
    """What its posts are signed with; empty: it had one."""


class WebhookView(msgspec.Struct, array_like=True, frozen=True):
    """A webhook."""

    name: str
    url: str
    topics: list[str]
    queue: str
    task_name: str
    created_at_ms: int
    paused: bool
    after: int
    """The number of the last event that was delivered, or is a dead letter."""
    failures: int
    """In a row."""
    error: str
    """Of the last of them."""
    letters: int
    """Dead letters."""
    lost: int = 0
    """How often events were lost to it: they were kept no longer when their turn came, or died when there was no room
    for another dead letter."""


class WebhookList(msgspec.Struct, array_like=True, frozen=True, tag=167):
    """Show me the webhooks."""

    request_id: int


class WebhookPage(msgspec.Struct, array_like=True, frozen=True, tag=168):
    """All of them, by name; without their secrets."""

    request_id: int
    webhooks: list[WebhookView]


class WebhookOrder(msgspec.Struct, array_like=True, frozen=True, tag=169):
    """Do something to a webhook."""

    request_id: int
    name: str
    order: str
    """``pause``, ``resume``, ``remove``, ``redrive`` (send its dead letters once more) or ``drop`` (these)."""
