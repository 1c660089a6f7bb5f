"""Streams of server-sent events: alive while nothing comes, ended by whoever ends, with a word of why."""

from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing
from starlette.types import Message

from harness.server import Server
from taskd.http.errors import TooManyRequests
from taskd.http.rates import Rates
from taskd.http.sse import KEEPALIVE_SECONDS, Event, EventStream
from taskd.server.inner import open_inner, who_has
from taskd_protocol.access_messages import TokenRevoke
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import AuthRefused, ServerStopping
from taskd_protocol.messages import Follow, LogPage, Wait


class Reader:
    """Who reads a stream; goes away when told to, or stops reading."""

    def __init__(self) -> None:
        self.text = b""
        self.ended = False
        self.reads = trio.Event()
        self.reads.set()
        self.gone = trio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.body":
            self.text += message["body"]
            self.ended = not message["more_body"]

    async def read(self, events: AsyncGenerator[Event]) -> None:
        """Be sent a stream until it ends."""
        await EventStream(events)({"type": "http", "method": "GET"}, self.receive, self.send)


async def test_events_have_ids_and_names(nursery: trio.Nursery) -> None:
    """As readers of the format take them; the end is one of the answer."""
    del nursery

    async def source() -> AsyncGenerator[Event]:
        yield Event(b'{"n":1}', "task", "7")
        await trio.lowlevel.checkpoint()
        yield Event(b"{}")

    reader = Reader()
    await reader.read(source())
    assert reader.text == b'id: 7\nevent: task\ndata: {"n":1}\n\ndata: {}\n\n'
    assert reader.ended


async def test_a_silent_stream_gives_signs_of_life(nursery: trio.Nursery) -> None:
    """Else proxies cut it; its reader is missed at once when it goes."""
    closed: list[bool] = []

    async def source() -> AsyncGenerator[Event]:
        try:
            await trio.sleep(3_600)
            yield Event(b"{}")
        finally:
            closed.append(True)

    reader = Reader()
    nursery.start_soon(reader.read, source())
    await trio.sleep(3 * KEEPALIVE_SECONDS + 1)
    assert reader.text == b": keepalive\n\n" * 3
    reader.gone.set()
    await trio.testing.wait_all_tasks_blocked()
    assert closed == [True]


async def test_a_source_that_fails_says_why(nursery: trio.Nursery) -> None:
    """As its last event."""
    del nursery

    async def source() -> AsyncGenerator[Event]:
        yield Event(b"1")
        raise ServerStopping("the server is stopping")

    reader = Reader()
    await reader.read(source())
    last = b'event: error\ndata: {"code":"server.stopping","message":"the server is stopping"}\n\n'
    assert reader.text == b"data: 1\n\n" + last
    assert reader.ended


async def test_a_slow_reader_holds_up_its_source_alone(nursery: trio.Nursery) -> None:
    """Nothing is kept for it here."""
    made: list[int] = []

    async def source() -> AsyncGenerator[Event]:
        for number in range(100):
            made.append(number)
            yield Event(b"%d" % number)

    reader = Reader()
    reader.reads = trio.Event()
    nursery.start_soon(reader.read, source())
    await trio.sleep(60)
    assert len(made) <= 2
    reader.reads.set()
    await trio.testing.wait_all_tasks_blocked()
    assert (len(made), reader.text.count(b"data: ")) == (100, 100)


async def test_streams_of_a_token_are_counted() -> None:
    """Those that have ended make room."""
    rates = Rates(streams_max=2)
    with rates.stream_of("a"), rates.stream_of("b"):
        with rates.stream_of("a"), pytest.raises(TooManyRequests), rates.stream_of("a"):
            pass
        with rates.stream_of("a"):
            await trio.lowlevel.checkpoint()
    assert not rates._streams


async def test_an_inner_session_ends_with_its_token(server: Server) -> None:
    """Revoked or expired: whoever waits in it is told, and it is asked nothing more."""
    client = await server.client("admin")
    await server.mint("viewer", key="short", lasts_ms=60_000)
    [task] = await server.submit(client, 1)
    for key, end in (("short", None), ("viewer", TokenRevoke(client.number(), server.key_ids["viewer"]))):
        async with open_inner(server.services, who_has(server.services, server.key_ids[key])) as session:
            with session.open(Follow(0, task.id)) as answers:
                if end is not None:
                    await client.ask(end, Done)
                with pytest.raises(AuthRefused):
                    await answers.take(LogPage)
            with pytest.raises(AuthRefused):
                await session.ask(Wait(0, [task.id]), Done)
    assert not server.hub._followers


async def test_what_a_session_waited_for_is_forgotten_with_it(server: Server) -> None:
    """Also when it ends by a fault of whoever opened it, which is raised as it is."""
    client = await server.client()
    [task] = await server.submit(client, 1)
    who = who_has(server.services, server.key_ids["viewer"])
    before = set(server.hub._peers)

    async def waits_and_fails() -> None:
        async with open_inner(server.services, who) as session:
            await session.ask(Wait(0, [task.id]), Done)
            raise KeyError

    with pytest.raises(KeyError):
        await waits_and_fails()
    assert not server.hub._waiters
    assert set(server.hub._peers) == before
