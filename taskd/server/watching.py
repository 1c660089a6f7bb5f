"""Watching: what a session is told of what happens, a page at a time, and of how the server stood.

The peer's EVENTS_MORE is the credit for the next page.
"""

from functools import partial

import trio

from taskd.server.bus import Page, Reader, Wanted
from taskd.server.onlooker import Watch
from taskd.server.session import Talk, error_message
from taskd_protocol.errors import BadRequest, TaskdError
from taskd_protocol.event_messages import EventPage, EventsFollow, EventsMore, OverviewPage, OverviewQuery
from taskd_protocol.ids import TASK_ID_BYTES
from taskd_protocol.limits import NAME_CHARS_MAX, WAIT_IDS_MAX
from taskd_protocol.point import RANGES

FOLLOWS_MAX = 64
"""Of one connection."""

TOPICS_MAX = 32

WatchRequest = EventsFollow | EventsMore | OverviewQuery


class Watching:
    """The part of one session that is about what happens."""

    def __init__(self, session: Talk) -> None:
        self._session = session
        self._services = session.services
        self._credit: dict[int, trio.Event] = {}

    def receive(self, message: WatchRequest) -> None:
        """Take a message.

        Raises:
            BadRequest: Something in it is out of range, or nothing is kept here.
        """
        watch = self._services.watch
        if watch is None:
            raise BadRequest("this server keeps no events and no history")
        match message:
            case EventsFollow():
                self._follow(watch, message)
            case EventsMore():
                credit = self._credit.get(message.request_id)
                if credit is not None:
                    credit.set()
            case OverviewQuery():
                if message.range not in RANGES:
                    raise BadRequest(f"range {message.range[:16]!r} is unknown; use one of {', '.join(RANGES)}")
                page = OverviewPage(message.request_id, list(watch.history.points(message.range)))
                self._services.loop.after_durable(partial(self._session.send, page))

    def _follow(self, watch: Watch, message: EventsFollow) -> None:
        wanted = check_wanted(message)
        if len(self._credit) >= FOLLOWS_MAX or message.request_id in self._credit:
            raise BadRequest(f"a connection follows at most {FOLLOWS_MAX} streams, each under its own request id")
        assert self._session.nursery is not None
        self._credit[message.request_id] = trio.Event()
        self._session.nursery.start_soon(self._send, watch, wanted, message)

    async def _send(self, watch: Watch, wanted: Wanted, message: EventsFollow) -> None:
        with watch.bus.read(wanted, message.after) as reader:
            try:
                await self._send_pages(reader, message.request_id)
            except TaskdError as why:
                self._session.send(error_message(message.request_id, why))
            finally:
                del self._credit[message.request_id]

    async def _send_pages(self, reader: Reader, request_id: int) -> None:
        page = Page(reader.after, [], missed=False)  # who begins at the newest learns which that is
        while True:
            credit = self._credit[request_id] = trio.Event()
            self._session.send(EventPage(request_id, page.after, page.events, page.missed))
            await credit.wait()
            page = await reader.page()


def check_wanted(message: EventsFollow) -> Wanted:
    """Return what a reader wants.

    Raises:
        BadRequest: It is out of range.
    """
    words = (*message.topics, message.queue, message.name)
    if len(message.topics) > TOPICS_MAX or any(not topic for topic in message.topics):
        raise BadRequest(
            f"at most {TOPICS_MAX} topics, each the beginning of an event's word, such as task. or agent.lost"
        )
    if max(map(len, words)) > NAME_CHARS_MAX:
        raise BadRequest(f"a topic, queue or name has at most {NAME_CHARS_MAX} characters")
    ids = [*message.ids, message.workflow or bytes(TASK_ID_BYTES)]
    if len(ids) > WAIT_IDS_MAX or any(len(each) != TASK_ID_BYTES for each in ids):
        raise BadRequest(f"at most {WAIT_IDS_MAX} ids of 16 bytes in one request")
    return Wanted(tuple(message.topics), message.queue, message.name, frozenset(message.ids), message.workflow)
