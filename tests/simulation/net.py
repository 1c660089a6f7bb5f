"""The network: connections between machines, whose bytes come late, in pieces, or not at all.

As with TCP nothing is lost, doubled or reordered within a connection that lives; what goes
wrong is that bytes are late or cut up, that nothing passes any more and nobody is told, or that
the connection breaks with bytes under way.
"""

import errno
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from types import SimpleNamespace
from typing import cast

import trio

from simulation.clock import Alarms
from simulation.lives import Life
from simulation.tap import Tap
from simulation.trace import Trace
from taskd_protocol.errors import CannotConnect

WINDOW_BYTES = 256 * 1024
"""Sent and not read, in one direction; who sends more waits."""

CONNECT_SECONDS = 5.0
"""A machine that does not answer is waited for so long."""

HOST, PORT = "127.0.0.1", 7070
"""Where the server listens: it speaks in the clear, which it does on loopback alone."""


@dataclass(slots=True, kw_only=True)
class Weather:
    """How bytes travel today."""

    delay_s: float = 0.0005
    """One way, at least."""
    jitter_s: float = 0.001
    """Beyond that, at most; each segment has its own."""
    split: float = 0.0
    """So often what is sent at once arrives in pieces."""


class Pipe:
    """One direction of a connection.

    Attributes:
        arrivals: What is under way or was not read, with the time at which it is there.
        held: Nothing passes: what is sent arrives when that is over.
        ended: Whoever sends has closed; seen after all that was sent.
        broken: The connection was reset; seen likewise.
        forsaken: It is broken for who reads, and who writes is not told.
    """

    def __init__(self, net: "Net") -> None:
        self.arrivals: deque[tuple[float, bytes]] = deque()
        self.unread_bytes = 0
        self.held = self.ended = self.broken = self.forsaken = False
        self.changed = trio.Event()
        self.room = trio.Event()
        self._net = net
        self._last_s = 0.0
        self._alarm_s = 0.0

    def push(self, data: bytes) -> None:
        """Send."""
        self.unread_bytes += len(data)
        rng = self._net.rng
        if rng.random() < self._net.weather.split:
            cuts = [0, *sorted({rng.randrange(1, len(data) + 1) for _ in range(rng.randrange(1, 4))}), len(data)]
            for start, end in pairwise(cuts):
                if start < end:
                    self.arrivals.append((self._arrival_s(), data[start:end]))
        else:
            self.arrivals.append((self._arrival_s(), data))
        self._set_alarm()

    def release(self) -> None:
        """Let pass what was held."""
        self.held = False
        waiting, self.arrivals = self.arrivals, deque()
        self.arrivals.extend([(self._arrival_s() if at_s == inf else at_s, piece) for at_s, piece in waiting])
        self._set_alarm()
        self.changed.set()

    def end(self) -> None:
        """Send no more."""
        self.ended = True
        self.changed.set()
        self.room.set()

    def reset(self, rng: random.Random) -> None:
        """Break: of what is under way a beginning arrives, or nothing."""
        flight = b"".join([piece for _, piece in self.arrivals])
        kept = flight[: rng.randrange(len(flight) + 1)] if rng.random() < 0.5 else b""
        self.arrivals = deque([(trio.current_time(), kept)] if kept else [])
        self.unread_bytes = len(kept)
        self.broken, self.held = True, False
        self.changed.set()
        self.room.set()

    def take(self, bytes_max: int) -> bytes:
        """Return what has arrived; nothing at the end."""
        if (self.broken or self.forsaken) and not self.arrivals:
            raise trio.BrokenResourceError("connection reset by peer")
        now_s = trio.current_time()
        pieces: list[bytes] = []
        room = bytes_max
        while self.arrivals and self.arrivals[0][0] <= now_s and room > 0:
            at_s, piece = self.arrivals.popleft()
            if len(piece) > room:
                self.arrivals.appendleft((at_s, piece[room:]))
                piece = piece[:room]
            room -= len(piece)
            pieces.append(piece)
        self.unread_bytes -= bytes_max - room
        self.room.set()
        return b"".join(pieces)

    def is_ready(self) -> bool:
        """There is something to take, or nothing more will come."""
        if self.arrivals:
            return self.arrivals[0][0] <= trio.current_time()
        return self.forsaken or ((self.broken or self.ended) and not self.held)

    async def wait(self) -> None:
        """Return once it is ready."""
        while not self.is_ready():
            self._set_alarm()
            self.changed = trio.Event()
            await self.changed.wait()

    def _set_alarm(self) -> None:
        """See to it that whoever waits is told when the first of what is under way is there."""
        next_s = self.arrivals[0][0] if self.arrivals else inf
        if next_s < inf and next_s != self._alarm_s:
            self._alarm_s = next_s
            self._net.alarms.at(next_s, self._ring)

    def _ring(self) -> None:
        self.changed.set()

    def _arrival_s(self) -> float:
        if self.held:
            return inf
        weather = self._net.weather
        at_s = trio.current_time() + weather.delay_s + weather.jitter_s * self._net.rng.random()
        self._last_s = max(self._last_s, at_s)
        return self._last_s


class End(trio.abc.Stream):
    """One machine's end of a connection."""

    def __init__(
        self, incoming: Pipe, outgoing: Pipe, number: int, said: Callable[[bytes], None], heard: Callable[[bytes], None]
    ) -> None:
        self.socket = SimpleNamespace(getpeername=lambda: (HOST, number))
        self._in = incoming
        self._out = outgoing
        self._said = said
        self._heard = heard
        self._closed = False

    def setsockopt(self, *_: object) -> None:
        """Be asked for what a kernel does about dead peers: nothing is done here."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check()
        if data:
            self._said(bytes(data))
            self._out.push(bytes(data))
        await trio.lowlevel.checkpoint()
        while self._out.unread_bytes > WINDOW_BYTES:
            self._check()
            self._out.room = trio.Event()
            await self._out.room.wait()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._in.is_ready():
            await trio.lowlevel.checkpoint()
        else:
            await self._in.wait()
        if self._closed:
            raise trio.ClosedResourceError
        data = self._in.take(max_bytes or 64 * 1024)
        self._heard(data)
        return data

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close, as the system does when a process ends."""
        if not self._closed:
            self._closed = True
            self._in.end()
            self._out.end()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._out.broken or (self._in.ended and not self._in.held):
            raise trio.BrokenResourceError("broken pipe")


class Link:
    """One connection.

    Attributes:
        number: From 1.
        near: The life that connected.
        far: The server's.
        tap: Listens at the server's end.
    """

    def __init__(self, net: "Net", number: int, near: Life, far: Life, tap: Tap) -> None:
        self.number = number
        self.near = near
        self.far = far
        self.tap = tap
        self.up, self.down = Pipe(net), Pipe(net)
        self._trace = net.trace
        self.near_end = End(self.down, self.up, number, self._near_said, lambda _: None)
        self.far_end = End(self.up, self.down, number, self._far_said, self._far_heard)

    @property
    def is_over(self) -> bool:
        """Nobody is at either end."""
        return (self.up.ended or self.up.broken) and (self.down.ended or self.down.broken)

    def hold(self, *, up: bool, down: bool) -> None:
        """Let nothing pass, and tell nobody."""
        self.up.held = self.up.held or up
        self.down.held = self.down.held or down

    def release(self) -> None:
        """Let pass what was held."""
        for pipe in (self.up, self.down):
            if pipe.held:
                pipe.release()

    def forsake(self) -> None:
        """Break for who connected; the server is not told, and what is on its way to it stays there until released."""
        self.up.held = True
        self.down.arrivals.clear()
        self.down.forsaken = True
        self.down.changed.set()

    def reset(self, rng: random.Random) -> None:
        """Break."""
        self.up.reset(rng)
        self.down.reset(rng)

    def close(self, life: Life) -> None:
        """Close one side's end, whose process is gone."""
        (self.near_end if life is self.near else self.far_end).close()

    def _near_said(self, data: bytes) -> None:
        if not self.near.dead:
            self._trace.add_bytes("up", self.number, data)

    def _far_said(self, data: bytes) -> None:
        if not self.far.dead:
            self._trace.add_bytes("down", self.number, data)
            self.tap.said(data)

    def _far_heard(self, data: bytes) -> None:
        if not self.far.dead:
            self.tap.heard(data)


class Listening:
    """The server's listening socket."""

    def __init__(self, net: "Net") -> None:
        self.socket = SimpleNamespace(getsockname=lambda: (HOST, PORT), close=self._close)
        self._net = net
        self._send, self._receive = trio.open_memory_channel[End](inf)

    async def accept(self) -> End:
        """Wait for the next connection."""
        return await self._receive.receive()

    def connected(self, end: End) -> None:
        """Put a connection in line, as the system does whether the server is awake or not."""
        self._send.send_nowait(end)

    def _close(self) -> None:
        if self._net.listening is self:
            self._net.listening = None


class Net:
    """All connections.

    Attributes:
        links: Those that may still carry something, by number.
        cut_off: Machines whom nobody reaches.
        server: The life whose socket listens.
    """

    def __init__(self, rng: random.Random, trace: Trace, alarms: Alarms, tap: Callable[[Life, Life], Tap]) -> None:
        self.rng = rng
        self.alarms = alarms
        self.trace = trace
        self.weather = Weather()
        self.links: dict[int, Link] = {}
        self.cut_off: set[str] = set()
        self.listening: Listening | None = None
        self.server: Life | None = None
        self._tap = tap
        self._numbers = 0

    async def listen(self, *_: object) -> Sequence[trio.SocketListener]:
        """See ``Listen``: the server's life is the one that was put into ``server``."""
        self.listening = Listening(self)
        return [cast("trio.SocketListener", self.listening)]

    async def connect(self, life: Life) -> End:
        """Connect to the server.

        Raises:
            CannotConnect: It does not listen, or cannot be reached.
        """
        if self.cut_off and not self.cut_off.isdisjoint((life.name, "server")):
            await trio.sleep(CONNECT_SECONDS)
            raise CannotConnect("no answer in time")
        await trio.sleep(self.weather.delay_s + self.weather.jitter_s * self.rng.random())
        if self.listening is None or self.server is None:
            raise CannotConnect(f"connection refused ({errno.ECONNREFUSED})")
        self._numbers += 1
        link = self.links[self._numbers] = Link(self, self._numbers, life, self.server, self._tap(life, self.server))
        self.trace.add("connect", life.name, link.number)
        self.listening.connected(link.far_end)
        return link.near_end

    def has_followed(self, link: Link) -> bool:
        """Tell whether the server has heard who connected there on another connection since."""
        others = [other for other in self.links.values() if other.near is link.near and other.number > link.number]
        return any(other.tap.conversation.hello is not None for other in others)

    def of(self, life: Life) -> list[Link]:
        """Return the connections of a life."""
        return [link for link in self.links.values() if life in (link.near, link.far)]

    def bury(self, life: Life, *, silently: bool = False) -> None:
        """Close what a process that is gone had open; silently: with the machine, so that nobody is told."""
        if life is self.server:
            self.listening = self.server = None
        for link in self.of(life):
            if silently:
                link.hold(up=True, down=True)
            elif self.rng.random() < 0.5:
                link.reset(self.rng)
            link.close(life)
        self.tidy()

    def tidy(self) -> None:
        """Forget connections that are over."""
        self.links = {number: link for number, link in self.links.items() if not link.is_over}

    def cut(self, machines: set[str]) -> None:
        """Let nothing pass to and from these machines, and tell nobody."""
        self.cut_off |= machines
        for link in self.links.values():
            if not machines.isdisjoint((link.near.name, "server")):
                link.hold(up=True, down=True)

    def heal(self, machines: set[str]) -> None:
        """Let pass again."""
        self.cut_off -= machines
        for link in self.links.values():
            if self.cut_off.isdisjoint((link.near.name, "server")):
                link.release()
