"""What happens, as a stream that can be resumed; and how the server stood over the last while."""

from collections.abc import AsyncGenerator, Sequence
from itertools import zip_longest
from typing import Annotated, Final, Literal

import msgspec

from taskd.http.errors import FieldRefused, placed
from taskd.http.routes import AnyRoute, Call, Nothing, get
from taskd.http.sse import Event, EventStream
from taskd.server.watching import check_wanted
from taskd.text.happenings import EventDocument, Overview, event_document, overview_document
from taskd_protocol.errors import BadRequest
from taskd_protocol.event_messages import EventPage, EventsFollow, EventsMore, EventView, OverviewPage, OverviewQuery
from taskd_protocol.house_messages import AgentList
from taskd_protocol.ids import parse_task_id

BEGIN: Final = "begin"
"""Kind of the first event, which tells the place from which on events follow."""

MISSED: Final = "missed"
"""Kind of the event that says that some before the next are not kept any more."""


PLACE_MAX: Final = (1 << 63) - 1
"""Numbers of events have 63 bits."""


class Range(msgspec.Struct, forbid_unknown_fields=True):
    """How far back."""

    range: Literal["15m", "1h", "6h", "24h"] = "15m"
    """In points of 2 s, 10 s, 1 min or 4 min."""


class LoadsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Of which agents, and how often."""

    agent: str = ""
    """Its name; empty: all."""
    every: Annotated[int, msgspec.Meta(ge=1, le=90)] = 1
    """One of so many points, which are 10 s apart."""


class AgentLately(msgspec.Struct):
    """One agent; null: it was not there."""

    cpu_percent: list[int | None]
    memory_used: list[int | None]
    """Bytes, in MiB."""
    running: list[int | None]


class AgentsLately(msgspec.Struct):
    """Agents by name, each with one entry for each instant."""

    at_ms: list[int]
    agents: dict[str, AgentLately]


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Which events, and from where on."""

    after: Annotated[int, msgspec.Meta(ge=-1, le=PLACE_MAX)] = -1
    """``number`` of the last one that was seen; -1: from now on; 0: from the oldest that is kept. What
    ``Last-Event-ID`` says goes before it."""
    topics: str = ""
    """How what is wanted begins, with commas between: ``task.dead,agent.``; empty: all."""
    queue: str = ""
    name: str = ""
    """Of the tasks; ``thumb*`` are all that begin so."""
    tasks: str = ""
    """Ids, with commas between."""
    workflow: str = ""
    """Its id: of it, and of its tasks."""


async def overview(call: Call[Range, Nothing]) -> Overview:
    """Show how the server stood and what it did, from its own memory; where it was not running there is nothing."""
    return overview_document((await call.ask(OverviewQuery(0, call.asked.range), OverviewPage)).points)


async def agents_lately(call: Call[LoadsAsked, Nothing]) -> AgentsLately:
    """Show what agents' machines did over the last 15 minutes, from the server's own memory; 500 agents at most."""
    watch = call.session.services.watch
    if watch is None:
        raise BadRequest("this server keeps no history")
    await call.session.services.loop.until_durable()
    kept = watch.history.loads()[:: -call.asked.every][::-1]
    names = {call.asked.agent} if call.asked.agent else {name for loads in kept for name in loads.agents}
    agents = {name: AgentLately([], [], []) for name in sorted(names)}
    for loads in kept:
        places = {name: place for place, name in enumerate(loads.agents)}
        for name, lately in agents.items():
            place = places.get(name)
            lately.cpu_percent.append(None if place is None else loads.cpu_percent[place])
            lately.memory_used.append(None if place is None else loads.memory_mib[place] << 20)
            lately.running.append(None if place is None else loads.running[place])
    return AgentsLately([loads.at_ms for loads in kept], agents)


async def follow_events(call: Call[Wanted, Nothing]) -> EventStream:
    """Tell what happens, as it happens, from any place on that is kept."""
    asked = call.asked
    message = EventsFollow(
        request_id=0,
        after=_place(call.request.headers.get("last-event-id"), asked.after),
        topics=_words(asked.topics),
        queue=asked.queue,
        name=asked.name,
        ids=[parse_task_id(each) for each in _words(asked.tasks)],
        workflow=parse_task_id(asked.workflow) if asked.workflow else b"",
    )
    with placed("$.topics"):
        check_wanted(message)  # at once: what a stream says in its course, a browser asks for again and again

    async def events() -> AsyncGenerator[Event]:
        with call.session.open(message) as answers:
            while True:
                page = await answers.take(EventPage)
                if not page.events and not page.missed:
                    yield Event(b"{}", BEGIN, str(page.after))
                if page.missed:
                    yield Event(b"{}", MISSED, str(page.events[0].number - 1 if page.events else page.after))
                for view, following in zip_longest(page.events, page.events[1:]):
                    yield _event(view, following, page.after)
                call.session.tell(EventsMore(page.request_id))

    return EventStream(events())


def _event(view: EventView, following: EventView | None, after: int) -> Event:
    """Return an event; the place is told with the last one of its number, so that none is left out behind it."""
    is_last = following is None or following.number > view.number
    place = str(after if following is None else view.number)
    return Event(msgspec.json.encode(event_document(view)), id=place if is_last else "")


def _place(last_event_id: str | None, after: int) -> int:
    if not last_event_id:
        return after
    is_number = last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) <= len(str(PLACE_MAX))
    if not is_number or int(last_event_id) > PLACE_MAX:
        raise FieldRefused("Last-Event-ID is no place in this stream", "$.Last-Event-ID")
    return int(last_event_id)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/overview", overview, Range, Overview, OverviewQuery),
    get("/overview/agents", agents_lately, LoadsAsked, AgentsLately, AgentList),
    get("/events", follow_events, Wanted, EventDocument, EventsFollow, EventsMore, streams=True),
)
