"""A scripted peer: says what a test has it say, and keeps what it is told until somebody looks."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from taskd_protocol.agent_messages import Heartbeat, HeartbeatSeen, Lease, Offered, Recorded
from taskd_protocol.connection import Connection, UnknownMessage, peer_side
from taskd_protocol.connection_messages import Error, Hello
from taskd_protocol.errors import TaskdError
from taskd_protocol.limits import HEARTBEAT_MS, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN
from taskd_protocol.messages import Message, ToPeer
from taskd_protocol.task import Held

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""Of the test's clock, which is a virtual one in most tests."""


def hello(
    role: str, token: str, name: str = "", boot_id: bytes = b"", version_max: int = PROTOCOL_VERSION_MAX
) -> Hello:
    """A HELLO of this release."""
    return Hello(PROTOCOL_VERSION_MIN, version_max, role, token, name=name, boot_id=boot_id, software="test")


class Peer:
    """One end of a connection.

    Attributes:
        inbox: What came in and was not taken, in order.
        over: Set when the other side has closed.
        read: Cleared by ``stop_reading``, for a peer that does not read.
    """

    def __init__(self, stream: trio.abc.Stream, nursery: trio.Nursery, *, reads: bool = True) -> None:
        self.stream = stream
        self.wire: Connection[ToPeer] = peer_side()
        self.inbox: list[ToPeer | UnknownMessage] = []
        self.over = trio.Event()
        self._news = trio.Event()
        self._numbers = 0
        if reads:
            nursery.start_soon(self.read)

    # -- saying -------------------------------------------------------------------------

    def number(self) -> int:
        """Return a request id that was not used yet."""
        self._numbers += 1
        return self._numbers

    async def send(self, *messages: Message) -> None:
        """Say these, at once."""
        for message in messages:
            self.wire.send(message)
        while data := self.wire.data_to_send():
            await self.stream.send_all(data)

    async def send_bytes(self, data: bytes) -> None:
        """Say anything."""
        await self.stream.send_all(data)

    async def close(self) -> None:
        """Hang up."""
        await self.stream.aclose()

    # -- hearing ------------------------------------------------------------------------

    async def read(self) -> None:
        """Take in what comes until the end."""
        try:
            while data := await self.stream.receive_some():
                self.hear(self.wire.receive(bytes(data)))
                self._tell()
        except (trio.BrokenResourceError, trio.ClosedResourceError, TaskdError):
            pass
        finally:
            await trio.aclose_forcefully(self.stream)
        self.over.set()
        self._tell()

    def hear(self, messages: Sequence[ToPeer | UnknownMessage]) -> None:
        """Keep what came."""
        self.inbox += messages

    async def take(self, kind: type[T], within: float = PATIENCE_SECONDS) -> T:
        """Return the first message of that kind, waiting for it if need be."""
        return await self._first(lambda message: isinstance(message, kind), kind, within)

    async def wait(self, kind: type[T]) -> T | None:
        """Return the first message of that kind, or None if the connection ends before it comes."""
        while True:
            for message in self.inbox:
                if isinstance(message, kind):
                    self.inbox.remove(message)
                    return message
            if self.over.is_set():
                return None
            self._news = trio.Event()
            await self._news.wait()

    async def ask(self, message: Message, kind: type[T]) -> T:
        """Send a request; return its answer, which is of that kind."""
        await self.send(message)
        return await self.answer(message, kind)

    async def answer(self, message: Message, kind: type[T]) -> T:
        """Return the answer to a request, which is of that kind."""
        number = getattr(message, "request_id", 0)
        assert number
        return await self._first(lambda told: getattr(told, "request_id", 0) == number, kind)

    def told(self, kind: type[T]) -> list[T]:
        """Take what has come of that kind, without waiting."""
        found: list[T] = [message for message in self.inbox if isinstance(message, kind)]
        self.inbox = [message for message in self.inbox if not isinstance(message, kind)]
        return found

    async def settle(self) -> None:
        """Let everybody do all that can be done at this instant."""
        await wait_all_tasks_blocked()

    async def end(self) -> Error:
        """Return why the other side has closed; it must have said so."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self.over.wait()
        whys = [message for message in self.inbox if isinstance(message, Error) and not message.request_id]
        assert len(whys) == 1, f"closed with {self.inbox}"
        return whys[0]

    async def _first(self, fits: Callable[[object], bool], kind: type[T], within: float = PATIENCE_SECONDS) -> T:
        with trio.move_on_after(within):
            while True:
                for index, message in enumerate(self.inbox):
                    if fits(message):
                        del self.inbox[index]
                        assert isinstance(message, kind), f"wanted {kind.__name__}, got {message}"
                        return message
                if self.over.is_set():
                    break
                self._news = trio.Event()
                await self._news.wait()
        raise AssertionError(f"no {kind.__name__}; the inbox holds {self.inbox}, closed: {self.over.is_set()}")

    def _tell(self) -> None:
        self._news.set()


OWN_BEATS = 1_000_000
"""Heartbeats from this number on are the agent's own, and their answers no news to the test."""


class Agent(Peer):
    """A peer that says that it is alive.

    Attributes:
        held: The leases that it was given and that are not recorded, by token.
    """

    def __init__(self, stream: trio.abc.Stream, nursery: trio.Nursery, *, beats: bool = True) -> None:
        super().__init__(stream, nursery)
        self.held: dict[int, Held] = {}
        self._lease_number = 0
        if beats:
            nursery.start_soon(self._beat)

    def hear(self, messages: Sequence[ToPeer | UnknownMessage]) -> None:
        for message in messages:
            match message:
                case Lease():
                    self._lease_number = message.number
                    self.held.update({g.token: Held(g.token, g.spec.id, g.attempt) for g in message.grants})
                case Recorded():
                    for token in [*message.tokens, *message.stale]:
                        self.held.pop(token, None)
                case Offered():
                    for token in message.stale:
                        self.held.pop(token, None)
                case _:
                    pass
            if not isinstance(message, HeartbeatSeen) or message.number < OWN_BEATS:
                self.inbox.append(message)

    async def _beat(self) -> None:
        number = OWN_BEATS
        try:
            while not self.over.is_set():
                await trio.sleep(HEARTBEAT_MS / 1_000)
                await self.send(Heartbeat(number, self._lease_number, list(self.held)))
                number += 1
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
