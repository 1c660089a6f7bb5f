"""The agent's link to its server: connects, speaks for the core, and connects again, for ever.

A pump: bytes become messages for the core, its messages become bytes. Work goes
on while there is no connection. What ends the agent is only that the server
knows it and does not want it.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import structlog
import trio

from taskd import __version__
from taskd.agent.core import AgentCore, Kill
from taskd.agent.diary import Diary
from taskd.agent.exchange import Incoming, exchange, told
from taskd.agent.executors import Executor
from taskd.agent.platform import Platform
from taskd.agent.sending import Sender
from taskd.agent.streams import GATHER_S
from taskd_protocol import limits
from taskd_protocol.agent_messages import (
    Drain,
    HeartbeatSeen,
    Lease,
    LogsRecorded,
    Offered,
    Recorded,
    Revoke,
    StartRecorded,
)
from taskd_protocol.connection import Connection, UnknownMessage, peer_side
from taskd_protocol.connection_messages import Done, Error, Hello, Ping, Pong, Welcome
from taskd_protocol.errors import (
    AgentDuplicate,
    AuthRefused,
    BadRequest,
    CertificateRefused,
    ConnectionLost,
    RoleRefused,
    TaskdError,
    UnexpectedMessage,
    VersionUnsupported,
)
from taskd_protocol.handshake import HELLO_AGENT
from taskd_protocol.messages import ToPeer
from taskd_protocol.workflow_messages import InputPage

log = structlog.get_logger("taskd.agent")

FINAL = (AgentDuplicate, AuthRefused, BadRequest, CertificateRefused, RoleRefused, VersionUnsupported)
"""The server is there and will say the same tomorrow: a person must act."""

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 15.0
TRIES_AT_ONCE = 10
"""So many tries come within ``BACKOFF_FIRST_S`` of each other: a server that restarts is back in seconds. Then the
waits double."""

HANDSHAKE_S = 10.0
"""For WELCOME."""

LOOK_S = 0.2
"""How exactly limits are kept, and how often an attempt's progress is told."""

SHED_S = 1.0
"""What waits for longer than this, and is more than the agent should hold, goes back."""

MEASURE_MS = 500
"""Between two looks at how much memory attempts hold that were granted some."""

_STILL_AWAY_S = 30.0
"""Between two lines of log that say so."""


class ServerLink:
    """One agent's way to its server.

    Attributes:
        connected: WELCOME has come on the connection of now.
    """

    def __init__(
        self,
        platform: Platform,
        core: AgentCore,
        executors: Sequence[Executor],
        *,
        name: str,
        token: str,
        drain: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            platform: Connects.
            core: Whom the link speaks for.
            executors: In the order of the core's pools.
            name: Of the agent.
            token: Of the role agent.
            drain: To be called when the server asks the agent to go.
        """
        self.connected = False
        self._platform = platform
        self._core = core
        self._executors = executors
        self._name = name
        self._token = token
        self._drain = drain
        self._sender: Sender | None = None  # of the connection of now
        self._changed = trio.Event()
        self._watched = trio.Event()
        self._freed = trio.Event()
        self._spoken = trio.Event()
        self._offered_ms = 0  # when the last OFFER was sent
        self._beats_ms: dict[int, int] = {}  # and heartbeats that were not answered yet
        self._measured_ms = 0
        self._diary = Diary(core.reports)
        self._tries = 0
        self._heard_s = 0.0
        self._heartbeat_s = limits.HEARTBEAT_MS / 1_000
        self._heartbeats_missed = limits.HEARTBEATS_MISSED

    def ring(self) -> None:
        """Take note that something has changed: have the core's messages sent, if there are any."""
        self._changed.set()
        if self._core.share.news:
            self._freed.set()
        if self._core.watches:
            self._watched.set()
        if self._core.streams.is_gathering:
            self._spoken.set()
        if self._sender is not None:
            self._sender.tell()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until something holds of the core. One task may wait."""
        while not done():
            self._changed = trio.Event()
            await self._changed.wait()

    async def run(self) -> None:
        """Be connected whenever that is possible.

        Raises:
            TaskdError: One of ``FINAL``.
        """
        said_s = -_STILL_AWAY_S
        while True:
            try:
                stream = await self._platform.connect()
                async with _closing(stream):
                    await self._converse(stream)
            except FINAL:
                raise
            except TaskdError as why:
                if self.connected or trio.current_time() - said_s >= _STILL_AWAY_S:
                    log.warning("server_away", reason=why.message, code=why.code)
                    said_s = trio.current_time()
            self.connected = False
            await trio.sleep(self._backoff_s())

    def _backoff_s(self) -> float:
        """Return the next wait: anywhere up to a limit, so that a thousand agents do not come back as one."""
        self._tries += 1
        doublings = max(0, min(self._tries - TRIES_AT_ONCE, 8))
        return self._platform.rng.uniform(0, min(BACKOFF_FIRST_S * 2**doublings, BACKOFF_MAX_S))

    async def _converse(self, stream: trio.abc.Stream) -> None:
        """Speak on one connection until it ends, which it does with a ``TaskdError``."""
        wire = peer_side()
        try:
            welcome, rest = await self._meet(stream, wire)
            self._heartbeat_s = welcome.limits.heartbeat_ms / 1_000
            self._heartbeats_missed = welcome.limits.heartbeats_missed
            self.connected, self._tries = True, 0
            self._beats_ms.clear()
            self._offered_ms = self._now_ms()
            wire.send(self._core.welcome(welcome, self._platform.clock.wall_ms(), self._offered_ms))
            log.info("connected", server=welcome.software, agent=self._name)
            sender = self._sender = Sender(stream, wire, self._core, self._diary)
            self._take(sender, rest)
            broken: list[Exception] = []
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                nursery.start_soon(_until_broken, partial(self._read, stream, wire, sender), broken, scope)
                nursery.start_soon(_until_broken, sender.run, broken, scope)
                nursery.start_soon(_until_broken, partial(self._beat, sender), broken, scope)
                nursery.start_soon(self._shed)
            raise broken[0]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionLost("the connection to the server broke") from None

    async def _meet(self, stream: trio.abc.Stream, wire: Connection[ToPeer]) -> tuple[Welcome, list[Incoming]]:
        core = self._core
        hello = Hello(
            version_min=limits.PROTOCOL_VERSION_MIN,
            version_max=limits.PROTOCOL_VERSION_MAX,
            role=HELLO_AGENT,
            token=self._token,
            name=self._name,
            boot_id=self._platform.boot_id,
            session=core.session,
            mark=core.mark,
            software=f"taskd {__version__}",
        )
        with trio.move_on_after(HANDSHAKE_S):
            first, *rest = await exchange(stream, wire, hello)
            if isinstance(first, Welcome):
                return first, rest
            if isinstance(first, Error):
                raise told(first)
            raise UnexpectedMessage("the server answered HELLO with something else than WELCOME")
        raise ConnectionLost("the server did not answer in time")

    async def _read(self, stream: trio.abc.Stream, wire: Connection[ToPeer], sender: Sender) -> None:
        self._heard_s = trio.current_time()
        while True:
            data = await stream.receive_some()
            if not data:
                raise ConnectionLost("the server closed the connection")
            self._heard_s = trio.current_time()
            self._take(sender, wire.receive(bytes(data)))

    async def _beat(self, sender: Sender) -> None:
        while True:
            heartbeat = self._core.heartbeat(self._platform.host_stats())
            self._beats_ms[heartbeat.number] = self._now_ms()
            sender.say(heartbeat)
            wakes_s = trio.current_time() + self._heartbeat_s
            await trio.sleep(self._heartbeat_s)
            # For as long as this process was stopped itself, it heard nobody.
            if wakes_s - self._heard_s > self._heartbeat_s * self._heartbeats_missed:
                raise ConnectionLost("the server has fallen silent")

    async def _shed(self) -> None:
        while True:
            await trio.sleep(SHED_S)
            self._core.shed()
            self.ring()

    def _take(self, sender: Sender, messages: Sequence[Incoming]) -> None:
        """Have the core take in what came, then let the executors see what that gave them.

        A lease concerns its pool alone, and RECORDED none: of a lone task nothing else comes here.
        """
        core = self._core
        if core.limits.exclusive:
            self.look()  # before all else: this process may have been stopped for a while
        pools: dict[int, None] = {}
        was_full = core.reports.are_full
        for message in messages:
            self._take_one(sender, message)
            if isinstance(message, Lease):
                pools[message.pool] = None
            elif not isinstance(message, Recorded):
                pools.update(dict.fromkeys(range(len(self._executors))))
        if core.limits.exclusive:
            self.look()  # what came may be as old
        for pool in pools:
            self._executors[pool].wake()
        if pools or was_full:
            self.ring()
        else:
            self._changed.set()

    def _take_one(self, sender: Sender, message: Incoming) -> None:
        core = self._core
        match message:
            case Lease() | Recorded() | LogsRecorded() | Revoke() | StartRecorded() | InputPage() | Done():
                self._diary.received(message)
                self._end(core.receive(message))
            case Offered():
                core.answered(self._offered_ms)
                self._end(core.receive(message))
            case HeartbeatSeen(number, server_time_ms):
                core.answered(self._beats_ms.pop(number, 0))
                core.clock_ahead_ms = server_time_ms - self._platform.clock.wall_ms()
            case Ping(nonce):
                sender.say(Pong(nonce))
            case Drain(_, stay):
                (core.yield_waiting if stay else self._drain)()
            case Error(request_id=0):
                raise told(message)
            case Error():
                core.receive(message)
            case UnknownMessage():
                log.debug("unknown_message", kind=message.kind)
            case _:
                raise UnexpectedMessage(f"{type(message).__name__} is not for an agent")

    def look(self) -> None:
        """Have that ended which is over its time, what attempts told sent, and runners told how long they may wait."""
        exclusive = self._core.limits.exclusive  # also those that have ended since: their processes are let go
        self._end(self._core.look(self._now_ms()))
        if self._core.footprints and self._now_ms() - self._measured_ms >= MEASURE_MS:
            self._measured_ms = self._now_ms()
            self._measure()
        if exclusive:
            for executor in self._executors:
                executor.keep()
        if self._sender is not None:
            self._sender.tell()

    def _measure(self) -> None:
        """See how much memory attempts hold that were granted some, and have those ended that hold more."""
        for pool, executor in enumerate(self._executors):
            for token, pid in executor.alone():
                limit = self._core.footprints.limit_of(token)
                if limit is not None:
                    self._end(self._core.measured(pool, token, self._platform.memory_of(pid, limit)))

    async def hand_on(self) -> None:
        """Have executors look again when something was let go of that leases of another pool may wait for, for ever.

        Not at once: who rings may be in the middle of handing over.
        """
        while True:
            await self._freed.wait()
            self._freed = trio.Event()
            self._core.share.news = False
            for executor in self._executors:
                executor.wake()

    async def gather(self) -> None:
        """Have sent what attempts say, a while of it at a time, for ever."""
        while True:
            await self._spoken.wait()
            self._spoken = trio.Event()
            while self._core.streams.is_gathering:
                await trio.sleep(GATHER_S)
                self._core.gather()
                self.ring()

    async def watch(self) -> None:
        """Look, several times a second as long as there is something to look at, for ever."""
        while True:
            await self._watched.wait()
            self._watched = trio.Event()
            while self._core.watches:
                self.look()
                await trio.sleep(LOOK_S)

    def _end(self, kills: Sequence[Kill]) -> None:
        for kill in kills:
            self._executors[kill.pool].end(kill)

    def _now_ms(self) -> int:
        return self._platform.clock.mono_ns() // 1_000_000


async def _until_broken(work: Callable[[], Awaitable[None]], broken: list[Exception], scope: trio.CancelScope) -> None:
    """Do one part of a connection's work; at its end note why, and end the others."""
    try:
        await work()
    except (TaskdError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        broken.append(error)
        scope.cancel()


@contextlib.asynccontextmanager
async def _closing(stream: trio.abc.Stream) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await stream.aclose()
