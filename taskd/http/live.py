"""Live topics: what an open page shows, told again when it has changed, a few times a second at most.

One stream a tab carries all topics that it shows. What a topic says is made once for all tabs that show it; a tab that
reads slowly is told the newest, and nothing is kept for it.

Invariants:
- What is told is durable.
- A tab is told nothing twice within ``EVERY_SECONDS``.
- When no tab is open, nothing is done.
"""

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from heapq import nlargest
from typing import Final, TypeVar

import msgspec
import trio

from taskd.http.errors import FieldRefused
from taskd.http.routes import AnyRoute, Call, Nothing, get
from taskd.http.sse import Event, EventStream
from taskd.server.journal import Numbered
from taskd.server.services import Services
from taskd.server.views import agent_views, queue_views, task_counts
from taskd.text.documents import AgentDocument, QueueDocument, agent_document, queue_document
from taskd.text.happenings import Overview, overview_document
from taskd.text.values import iso
from taskd_protocol.errors import BadRequest
from taskd_protocol.event_messages import EventsFollow, OverviewQuery
from taskd_protocol.house_messages import AgentList, QueueList
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.workflow import STEM_BYTES

EVERY_SECONDS: Final = 0.3
"""Between two tellings to one tab."""

AGAIN_SECONDS: Final = 0.1
"""What was made for another tab just now, and is not the newest any more, is looked at again after so long."""

TICK_SECONDS: Final = 1.0
"""What changes without an event, such as CPU and the end of a stretch of time, is told so often."""

TOPICS_MAX: Final = 50
"""Of one tab."""

ROWS_MAX: Final = 200
"""Queues, or agents, told in one go; a page asks for more by itself."""

RowT = TypeVar("RowT")

TICKING: Final = frozenset({"overview", "agents"})

_KINDS: Final = {
    "queues": "queue.",
    "agents": "agent.",
    "schedules": "schedule.",
    "limits": "limit.",
    "workflows": "workflow.",
}
"""Topics that are news when something of a kind has changed."""

_TASKS: Final = frozenset({"overview", "queues", "tasks", "dead"})
"""Topics that are news when something has happened to tasks."""

_ONE: Final = re.compile(r"(task|workflow):(.+)")


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What a tab shows."""

    topics: str
    """With commas between, 50 at most: ``overview``, ``queues``, ``agents``, ``tasks``, ``dead``, ``workflows``,
    ``schedules``, ``limits``, ``task:ID`` and ``workflow:ID``."""


class OverviewNow(msgspec.Struct, tag_field="kind", tag="overview"):
    """How the server stands."""

    at: str
    tasks: dict[str, int]
    """Stored tasks by state."""
    happened: dict[str, int]
    """Since its start, how often what has happened to tasks."""
    started_at: str
    """Its start: what has happened is counted from here."""
    newest: Overview
    """The last point of the range 15m; none yet: no rows."""


class Queues(msgspec.Struct, tag_field="kind", tag="queues"):
    """Queues by name; if there are many, those in which there is most."""

    queues: list[QueueDocument]
    count: int
    """All that there are."""


class Agents(msgspec.Struct, tag_field="kind", tag="agents"):
    """Agents by name; if there are many, those that run most."""

    agents: list[AgentDocument]
    count: int
    """All that there are."""
    live: int
    """Of all."""
    slots: int
    """Of all."""


class News(msgspec.Struct, tag_field="kind", tag="news"):
    """Something has changed: ask again for what is shown."""

    number: int
    """Of the newest event about it; 0: none since the server's start."""
    what: str
    at: str | None


class Told(msgspec.Struct):
    """What one event of the stream holds: topics that have changed."""

    topics: dict[str, OverviewNow | Queues | Agents | News]


class _Topic:
    """One topic that some tab shows.

    Attributes:
        tabs: How many.
        version: Rises with each change.
        news: The last of them.
        made: What was told last, as of ``made_version``.
    """

    def __init__(self) -> None:
        self.tabs = 0
        self.version = 1
        self.news = News(0, "", None)
        self.made_version = 0
        self.made_at_s = 0.0
        self.made = b""


class Live:
    """The tabs of one server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._topics: dict[str, _Topic] = {}
        self._tasks: dict[bytes, str] = {}
        self._stems: dict[bytes, str] = {}
        self._changed = trio.Event()
        self._seen = 0
        self._started_at = iso(services.platform.clock.wall_ms()) or ""
        self._makers: Mapping[str, Callable[[], msgspec.Struct]] = {
            "overview": self._overview,
            "queues": self._queues,
            "agents": self._agents,
        }

    @property
    def route(self) -> AnyRoute:
        """The row of the stream."""
        return get("/live", self.follow, Asked, Told, EventsFollow, OverviewQuery, QueueList, AgentList, streams=True)

    async def follow(self, call: Call[Asked, Nothing]) -> EventStream:
        """Tell a page what it shows, at once and whenever it has changed: one stream for all of it."""
        topics = [_checked(topic) for topic in dict.fromkeys(call.asked.topics.split(",")) if topic]
        if not 0 < len(topics) <= TOPICS_MAX:
            raise FieldRefused(f"name 1 to {TOPICS_MAX} topics", "$.topics")
        watch = self._services.watch
        if watch is None:
            raise BadRequest("this server keeps no events")

        async def events() -> AsyncGenerator[Event]:
            with watch.bus.look(partial(self._look)):
                self._open(topics)
                try:
                    async with aclosing(self._tell(topics)) as told:
                        async for data in told:
                            yield Event(data)
                finally:
                    self._close(topics)

        return EventStream(events())

    async def _tell(self, topics: Sequence[str]) -> AsyncGenerator[bytes]:
        seen = dict.fromkeys(topics, 0)
        ticks = not TICKING.isdisjoint(topics)
        told_at_s = -EVERY_SECONDS
        while True:
            changed, parts, is_old = self._changed, [], False
            for name in topics:
                topic = self._make(name)
                is_old = is_old or topic.version != topic.made_version  # it was made for another tab just now
                if topic.made_version != seen[name]:
                    seen[name] = topic.made_version
                    parts.append(b'"%b":%b' % (name.encode(), topic.made))
            if parts:
                await self._services.loop.until_durable()
                yield b'{"topics":{%b}}' % b",".join(parts)
                told_at_s = trio.current_time()
            with trio.move_on_after(AGAIN_SECONDS if is_old else TICK_SECONDS if ticks else float("inf")):
                await changed.wait()
            await trio.sleep(max(told_at_s + EVERY_SECONDS - trio.current_time(), AGAIN_SECONDS if is_old else 0))

    # -- what tabs show ---------------------------------------------------------------------

    def _open(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._topics.setdefault(topic, _Topic()).tabs += 1
            kind, _, text = topic.partition(":")
            if kind == "task":
                self._tasks[parse_task_id(text)] = topic
            elif kind == "workflow":
                self._stems[parse_task_id(text)[:STEM_BYTES]] = topic

    def _close(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._topics[topic].tabs -= 1
            if not self._topics[topic].tabs:
                del self._topics[topic]
                kind, _, text = topic.partition(":")
                if kind == "task":
                    del self._tasks[parse_task_id(text)]
                elif kind == "workflow":
                    del self._stems[parse_task_id(text)[:STEM_BYTES]]

    # -- what has changed -------------------------------------------------------------------

    def _look(self, new: Sequence[Numbered]) -> None:
        """Note which topics are news."""
        if self._topics and new[-1].number > self._seen:
            for one in new:
                if one.number > self._seen:
                    self._note(one)
            self._seen = new[-1].number
            self._changed.set()
            self._changed = trio.Event()

    def _note(self, one: Numbered) -> None:
        number, record = one
        for event in record.moved:
            for topic in _TASKS:
                if topic != "dead" or event.what == "task.dead":
                    self._touch(topic, number, event.what, record.at_ms)
            for task_id in self._tasks.keys() & event.ids if self._tasks else ():
                self._touch(self._tasks[task_id], number, event.what, record.at_ms)
            for stem in self._stems.keys() & {each[:STEM_BYTES] for each in event.ids} if self._stems else ():
                self._touch(self._stems[stem], number, event.what, record.at_ms)
        for noted in record.noted:
            for topic, prefix in _KINDS.items():
                if noted.what.startswith(prefix):
                    self._touch(topic, number, noted.what, record.at_ms)
            if noted.id[:STEM_BYTES] in self._stems:
                self._touch(self._stems[noted.id[:STEM_BYTES]], number, noted.what, record.at_ms)

    def _touch(self, name: str, number: int, what: str, at_ms: int) -> None:
        topic = self._topics.get(name)
        if topic is not None:
            topic.version += 1
            topic.news = News(number, what, iso(at_ms))

    # -- what is told -----------------------------------------------------------------------

    def _make(self, name: str) -> _Topic:
        """Return a topic with what it says: made once for all tabs that ask within a while."""
        topic, now_s = self._topics[name], trio.current_time()
        age_s = now_s - topic.made_at_s
        ticks = name in TICKING and age_s >= TICK_SECONDS
        if not topic.made or ticks or (topic.version != topic.made_version and age_s >= EVERY_SECONDS):
            maker = self._makers.get(name)
            made = msgspec.json.encode(topic.news if maker is None else maker())
            if ticks and made != topic.made:
                topic.version += 1
            topic.made, topic.made_version, topic.made_at_s = made, topic.version, now_s
        return topic

    def _overview(self) -> OverviewNow:
        watch, loop = self._services.watch, self._services.loop
        assert watch is not None
        return OverviewNow(
            at=iso(loop.now().wall_ms) or "",
            tasks=task_counts(self._services.working),
            happened=dict(loop.tally.all.moved),
            started_at=self._started_at,
            newest=overview_document(watch.history.points("15m")[-1:]),
        )

    def _queues(self) -> Queues:
        views = queue_views(self._services.working)
        told = _most(views, lambda view: view.ready + view.running)
        return Queues([queue_document(view) for view in told], len(views))

    def _agents(self) -> Agents:
        services = self._services
        views = agent_views(services.working, services.hub.hosts, services.loop.now())
        live = sum(view.state == "live" for view in views)
        told = [agent_document(view) for view in _most(views, lambda view: view.running)]
        return Agents(told, len(views), live, sum(view.slots for view in views))


def _most(views: list[RowT], size: Callable[[RowT], int]) -> list[RowT]:
    """Return all, or if there are too many the largest, which come first."""
    return views if len(views) <= ROWS_MAX else nlargest(ROWS_MAX, views, key=size)


def _checked(topic: str) -> str:
    if topic in {*_TASKS, *_KINDS}:
        return topic
    one = _ONE.fullmatch(topic)
    if one is None:
        known = ", ".join(sorted({*_TASKS, *_KINDS}))
        raise FieldRefused(f"topic {topic[:64]!r} is unknown; use {known}, task:ID or workflow:ID", "$.topics")
    return f"{one[1]}:{format_task_id(parse_task_id(one[2]))}"
