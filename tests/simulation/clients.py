"""Clients' machines: the real session and operations, over a pump that is a trio task instead of a thread."""

import random
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from simulation.clock import Alarms
from simulation.lives import Life
from simulation.machines import Machine
from simulation.net import HOST, PORT, End, Net
from simulation.server import ServerMachine
from simulation.trace import Trace
from taskd.client.ends import Ends
from taskd.client.link import Link
from taskd.client.profile import Profile
from taskd.client.promise import Signal
from taskd.client.pump import Pump
from taskd.client.session import Session
from taskd.client.waiting import Steps
from taskd_protocol.errors import ConnectionLost, TaskdError
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids

R = TypeVar("R")

Connect = Callable[[], Awaitable[End]]


class TrioPump(Pump):
    """Moves bytes between a session and its server, as the thread does, in a task of its owner's nursery."""

    def __init__(
        self, profile: Profile, session: Session, connect: Connect, alarms: Alarms, nursery: trio.Nursery
    ) -> None:
        self.session = session
        self.ends = Ends()
        self.ended = False
        self._profile = profile
        self._inbox = deque()
        self._caller = None
        self._flushes = []
        self._bell = trio.Event()
        self._connect_to = connect
        self._alarms = alarms
        self._stream: End | None = None
        self._nursery = nursery
        nursery.start_soon(self.run)

    def stop(self, within_s: float) -> None:
        """End with the nursery, not before."""

    def drop(self) -> None:
        """Likewise."""

    def _idle(self) -> bool:
        return False  # a write takes time here, which a caller cannot wait for

    def _wake(self) -> None:
        self._bell.set()

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            self._bell = trio.Event()
            self._work_off()
            self.session.tick(trio.current_time())
            self._tell()
            if self.session.wants_connection(trio.current_time()):
                await self._open()
            await self._send()
            self._tell()
            due_s = self.session.deadline_s()
            calls = [] if due_s is None else self._alarms.at(due_s, self._bell.set)
            await self._bell.wait()
            calls.clear()

    async def _open(self) -> None:
        try:
            stream = await self._connect_to()
        except TaskdError as error:
            self.session.lose(error, trio.current_time())
            return
        self._stream = stream
        self.session.connected(trio.current_time())
        self._nursery.start_soon(self._listen, stream)

    async def _listen(self, stream: End) -> None:
        try:
            while data := await stream.receive_some():
                if stream is self._stream:
                    self.session.receive(data, trio.current_time())
                    self._bell.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._lost(stream)

    async def _send(self) -> None:
        stream = self._stream
        try:
            while stream is not None and stream is self._stream and (data := self.session.data_to_send()):
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            assert stream is not None
            self._lost(stream)
        if self.session.live:
            self._fire_flushes()

    def _lost(self, stream: End) -> None:
        if stream is self._stream:
            self.session.lose(ConnectionLost("the connection broke"), trio.current_time())
            self._bell.set()

    def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class TrioLink(Link):
    """A link whose pump is a task."""

    def __init__(
        self, profile: Profile, session: Session, connect: Connect, alarms: Alarms, nursery: trio.Nursery
    ) -> None:
        super().__init__(profile, name="", software="simulated", start=_start_no_other)
        self._pump = TrioPump(profile, session, connect, alarms, nursery)


def _start_no_other(_: Session) -> Pump:
    raise AssertionError("the pump never ends before its process")


class ClientMachine(Machine):
    """One program that submits and waits, life after life.

    Attributes:
        link: Of the life of now.
    """

    def __init__(
        self,
        name: str,
        nursery: trio.Nursery,
        net: Net,
        rng: random.Random,
        trace: Trace,
        *,
        server: ServerMachine,
        role: str,
        program: Callable[["ClientMachine"], Awaitable[None]],
    ) -> None:
        super().__init__(name, nursery, net, rng, trace)
        self.link: TrioLink | None = None
        self._server = server
        self._role = role
        self._program = program

    async def main(self) -> None:
        """See ``Machine``."""
        life = self.life
        assert life is not None
        rng = random.Random(self.rng.random())
        await self._server.ready.wait()
        token = self._server.tokens[self._role]
        session = Session(token=token, name=self.name, boot_id=rng.randbytes(16), chance=rng.random)
        profile = Profile(address=f"{HOST}:{PORT}", token=token, tls=False)
        async with trio.open_nursery() as nursery:
            self.link = TrioLink(profile, session, partial(self.net.connect, life), self.net.alarms, nursery)
            await self._program(self)
            nursery.cancel_scope.cancel()

    def buried(self, life: Life, *, power_cut: bool) -> None:
        """See ``Machine``."""
        self.link = None

    def make_ids(self, count: int) -> list[bytes]:
        """Make ids for new tasks, from the server's time."""
        return list(make_task_ids(count, self.unix_ms(), self.rng.randbytes(count * RANDOM_BYTES_PER_TASK_ID)))

    def unix_ms(self) -> int:
        """Return the server's time."""
        assert self.link is not None
        assert self.link.session is not None
        offset_ms = self.link.session.clock_offset_ms
        assert offset_ms is not None, "connect first"
        return round(trio.current_time() * 1000 + offset_ms)


async def perform(steps: Steps[R]) -> R:
    """Run an operation to its end."""
    try:
        pause = next(steps)
        while True:
            pause = steps.send(await _fired(pause.signal))
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        steps.close()


async def _fired(signal: Signal) -> bool:
    event = trio.Event()
    signal.add(event.set)
    try:
        if signal.fired:
            await trio.lowlevel.checkpoint()
        else:
            await event.wait()
    finally:
        signal.remove(event.set)
    return True
