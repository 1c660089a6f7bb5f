"""Sending: what there is to say goes out at once where it can, in order where it cannot; who tells is spared errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from taskd.agent import sending
from taskd.agent.core import AgentCore
from taskd.agent.diary import Diary
from taskd.agent.sending import BUSY_BYTES, Sender
from taskd.net.tls_stream import TlsStream
from taskd_protocol.agent_messages import Ack, LeaseCredit, Offered
from taskd_protocol.connection import Connection, peer_side, server_side
from taskd_protocol.connection_messages import Pong
from taskd_protocol.errors import FrameTooLarge, TaskdError
from taskd_protocol.limits import MESSAGE_BYTES_MAX
from taskd_protocol.messages import Message, ToServer
from taskd_protocol.task import Pool, Report
from unit.agent.making import task_id, welcome
from unit.net.test_tls_stream import socket_pair


@pytest.fixture(autouse=True)
def _silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what was sent just before for long ago."""
    monkeypatch.setattr(sending, "SILENCE_S", 0)


class Scene:
    """A core, its sender, and the server's end."""

    def __init__(self, ours: TlsStream, theirs: TlsStream) -> None:
        self.ours = ours
        self.theirs = theirs
        self.core = AgentCore([Pool("process", 1, ["f"])])
        self.core.welcome(welcome(), 0)
        self.core.receive(Offered())
        self.sender = Sender(ours, peer_side(), self.core, Diary(self.core.reports))
        self.broken = trio.Event()
        self.why: Exception | None = None
        self._wire: Connection[ToServer] = server_side()
        self._wire.trust()

    async def run(self) -> None:
        try:
            await self.sender.run()
        except (TaskdError, trio.BrokenResourceError) as error:
            self.why = error
            self.broken.set()

    def report(self, token: int, result: bytes = b"r") -> None:
        self.core.reports.add([Report(token, task_id(token), 1, result)])

    async def hears(self) -> list[Message]:
        """Return what comes with one read."""
        with trio.fail_after(5):
            return [m for m in self._wire.receive(await self.theirs.receive_some()) if isinstance(m, Message)]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Begin with a sender that rests, having asked for a lease."""
    ours, theirs = await socket_pair()
    made = Scene(ours, theirs)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            assert await made.hears() == [LeaseCredit(0, 1)]
            await trio.testing.wait_all_tasks_blocked()
            yield made
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(ours)
        await trio.aclose_forcefully(theirs)


async def test_what_is_told_is_with_the_kernel_when_tell_returns() -> None:
    async with scene() as made:
        made.report(1)
        made.sender.tell()
        await trio.aclose_forcefully(made.ours.transport)  # nobody sends any more
        assert await made.hears() == [Ack([Report(1, task_id(1), 1, b"r")])]


async def test_much_is_left_to_the_task_and_nothing_passes_it() -> None:
    async with scene() as made:
        made.report(1, bytes(BUSY_BYTES))
        made.sender.tell()
        made.report(2)
        made.sender.tell()
        await trio.testing.wait_all_tasks_blocked()
        made.report(3)
        made.sender.tell()
        told: list[int] = []
        while len(told) < 3:
            for message in await made.hears():
                assert isinstance(message, Ack)
                told += [report.token for report in message.reports]
        assert told == [1, 2, 3]


async def test_what_is_told_soon_after_something_was_sent_comes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SILENCE_S", 3_600)
    async with scene() as made:
        for token in (1, 2, 3):
            made.report(token)
            made.sender.tell()
        assert await made.hears() == [Ack([Report(token, task_id(token), 1, b"r") for token in (1, 2, 3)])]


async def test_what_others_say_goes_with_it() -> None:
    async with scene() as made:
        made.sender.say(Pong(7))
        made.report(1)
        made.sender.tell()
        assert await made.hears() == [Pong(7), Ack([Report(1, task_id(1), 1, b"r")])]


async def test_whoever_tells_is_spared_that_the_connection_is_broken() -> None:
    async with scene() as made:
        await trio.aclose_forcefully(made.theirs.transport)
        made.report(1)
        made.sender.tell()
        with trio.fail_after(5):
            await made.broken.wait()
        assert isinstance(made.why, trio.BrokenResourceError)


async def test_whoever_tells_is_spared_that_a_message_is_too_large() -> None:
    async with scene() as made:
        made.report(1, bytes(MESSAGE_BYTES_MAX + 1))
        made.sender.tell()
        with trio.fail_after(5):
            await made.broken.wait()
        assert isinstance(made.why, FrameTooLarge)
