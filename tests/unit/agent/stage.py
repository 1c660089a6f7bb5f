"""A stage for one agent: a scripted server over memory streams, and workers that are played by the test."""

import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import msgspec
import trio
from trio.testing import MockClock, memory_stream_pair

from taskd.agent import wire
from taskd.agent.agent import Agent
from taskd.agent.config import AgentConfig
from taskd.agent.platform import CommandPlan, Exit, Platform
from taskd.agent.supplies import Machine
from taskd.client.profile import Profile
from taskd_protocol.agent_messages import (
    Ack,
    Drain,
    Heartbeat,
    HeartbeatSeen,
    HostStats,
    Lease,
    LeaseCredit,
    Nack,
    Offer,
    Offered,
    Recorded,
)
from taskd_protocol.connection import Connection, UnknownMessage, server_side
from taskd_protocol.connection_messages import Hello, Welcome
from taskd_protocol.errors import CannotConnect, TaskdError
from taskd_protocol.framing import FrameDecoder
from taskd_protocol.messages import Message, ToServer
from taskd_protocol.task import Failure, FailureReport, Grant, Report
from unit.agent.making import welcome

M = TypeVar("M")

PATIENCE_S = 3_600.0
"""Virtual: only a test that would hang ever gets there."""

WALL_MS = 1_700_000_000_000
SERVER_AHEAD_MS = 60_000


MACHINE = Machine(cpus=2_000, memory_bytes=4 << 30, cpu_numbers=range(4), host="h1", arch="riscv64", python="3.13")


class VirtualClock:
    """The agent's clock on trio's mock clock, which moves both."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock

    def mono_ns(self) -> int:
        return int(self._clock.current_time() * 1e9)

    def wall_ms(self) -> int:
        return WALL_MS + int(self._clock.current_time() * 1e3)


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.heartbeats: list[Heartbeat] = []
        self.answers_heartbeats = True
        self.leases = 0
        self._wire: Connection[ToServer] = server_side()
        self._wire.trust()
        self._inbox: list[ToServer | UnknownMessage] = []

    async def send(self, *messages: Message) -> None:
        for message in messages:
            self._wire.send(message)
        while data := self._wire.data_to_send():
            await self.stream.send_all(data)

    async def next(self) -> ToServer:
        """The next message; heartbeats are noted and answered aside."""
        with trio.fail_after(PATIENCE_S):
            while True:
                while not self._inbox:
                    data = await self.stream.receive_some()
                    if not data:
                        raise EOFError
                    self._inbox.extend(self._wire.receive(bytes(data)))
                message = self._inbox.pop(0)
                assert not isinstance(message, UnknownMessage)
                if not isinstance(message, Heartbeat):
                    return message
                self.heartbeats.append(message)
                if self.answers_heartbeats:
                    now_ms = WALL_MS + SERVER_AHEAD_MS + int(trio.current_time() * 1e3)
                    await self.send(HeartbeatSeen(message.number, now_ms))

    async def expect(self, kind: type[M]) -> M:
        """The next message of a kind; credit that comes before is passed over."""
        while True:
            message = await self.next()
            if isinstance(message, kind):
                return message
            assert isinstance(message, LeaseCredit), f"{message} instead of {kind.__name__}"

    async def greet(self, answer: Welcome | None = None) -> tuple[Hello, Offer]:
        """Welcome the agent and take its offer."""
        hello = await self.expect(Hello)
        await self.send(answer or welcome(server_time_ms=WALL_MS + SERVER_AHEAD_MS))
        return hello, await self.expect(Offer)

    async def lease(self, *grants: Grant, pool: int = 0) -> None:
        self.leases += 1
        await self.send(Lease(self.leases, pool, list(grants)))

    async def reports(self, count: int) -> list[Report | FailureReport]:
        """Wait for so many reports, and record them."""
        found: list[Report | FailureReport] = []
        while len(found) < count:
            message = await self.next()
            if isinstance(message, Ack):
                found += message.reports
            elif isinstance(message, Nack):
                found += message.failures
            else:
                assert isinstance(message, LeaseCredit | Drain), message
        await self.send(Recorded([report.token for report in found]))
        return found

    async def cut(self) -> None:
        await self.stream.aclose()


class PlayedProcess:
    """A process that does what the test says."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.signals: list[str] = []
        self.ends_on: set[str] = {"TERM", "KILL"}
        self.closed = False
        self.lives_until_ms: list[int] = []
        self.limits_bytes: list[int] = []
        self._exit: Exit | None = None
        self._ended = trio.Event()

    def exit(self, code: int, *, ordered: bool = False) -> None:
        self._exit = self._exit or Exit(code, ordered)
        self._ended.set()

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    def terminate(self) -> None:
        self._signal("TERM", -signal.SIGTERM, ordered=False)

    def kill(self) -> None:
        self._signal("KILL", -signal.SIGKILL, ordered=True)

    def live_until(self, mono_ms: int) -> None:
        if mono_ms != (self.lives_until_ms or [0])[-1]:
            self.lives_until_ms.append(mono_ms)

    def limit_memory(self, memory_bytes: int) -> None:
        if memory_bytes != (self.limits_bytes or [0])[-1]:
            self.limits_bytes.append(memory_bytes)

    def close(self) -> None:
        self.closed = True

    def _signal(self, name: str, code: int, *, ordered: bool) -> None:
        self.signals.append(name)
        if name in self.ends_on:
            self.exit(code, ordered=ordered)


_TO_WORKER: msgspec.msgpack.Decoder[wire.ToWorker] = msgspec.msgpack.Decoder(wire.ToWorker)


class PlayedWorker(PlayedProcess):
    """A worker that keeps its batches and returns what the test says; at once, where ``quick_us`` is its run time."""

    def __init__(self, pid: int, ready: wire.Ready | None) -> None:
        super().__init__(pid)
        self.holds_spawns = self.holds_output = False
        self.setup: wire.Setup | None = None
        self.grants: list[Grant] = []
        self.batches: list[wire.Batch] = []
        self.stopped: list[int] = []
        self.runs = 0
        self.recalled = 0
        self.cancelled = 0
        self.shows = b"Thread 1\n"
        self.quick_us: float | None = None
        self.got = trio.Event()
        self._frames = FrameDecoder(wire.FRAME_BYTES)
        self._out = bytearray()
        self._said = trio.Event()
        self._printed = {1: bytearray(), 2: bytearray()}
        if ready is not None:
            self.say(ready)

    # -- the test's side ----------------------------------------------------------------

    def say(self, *messages: wire.FromWorker) -> None:
        for message in messages:
            self._out += wire.encode(message)
        self._said.set()

    def prints(self, data: bytes, stream: int = 1) -> None:
        self._printed[stream] += data
        self._said.set()

    async def has(self, count: int) -> list[int]:
        """Wait until it was given so many in all; return their tokens."""
        with trio.fail_after(PATIENCE_S):
            while len(self.grants) < count:
                self.got = trio.Event()
                await self.got.wait()
        return [grant.token for grant in self.grants]

    def returns(self, *tokens: int, run_us: float = 1_000.0) -> None:
        self.say(*(wire.Returned(token, b"r%d" % token, WALL_MS, run_us) for token in tokens))

    def raises(self, token: int, code: str) -> None:
        self.say(wire.Raised(token, Failure(code, code), WALL_MS, 1_000.0))

    def ends(self, token: int, *, peak_bytes: int, raises: bool = False) -> None:
        if raises:
            self.say(wire.Raised(token, Failure("x", "x"), WALL_MS, 1_000.0, peak_bytes=peak_bytes))
        else:
            self.say(wire.Returned(token, b"r", WALL_MS, 1_000.0, peak_bytes))

    def dies(self, code: int, *, running: int = 0) -> None:
        self.runs = running
        self.exit(code)

    # -- the agent's side ---------------------------------------------------------------

    def send(self, frames: bytes) -> None:
        for body in self._frames.feed(frames):
            match _TO_WORKER.decode(body):
                case wire.Setup() as setup:
                    self.setup = setup
                case wire.Batch() as batch:
                    self.batches.append(batch)
                    self.grants += batch.grants
                    self.got.set()
                    if self.quick_us is not None:
                        self.returns(*[grant.token for grant in batch.grants], run_us=self.quick_us)
                case wire.Stop(tokens):
                    self.stopped += tokens
                    self.got.set()

    async def pump(self) -> None:
        await trio.sleep_forever()

    def exit(self, code: int, *, ordered: bool = False) -> None:
        super().exit(code, ordered=ordered)
        self._said.set()

    async def receive(self) -> bytes:
        while not self._out and self._exit is None:
            if self._said.is_set():
                self._said = trio.Event()
            await self._said.wait()
        return self.receive_nowait()

    def receive_nowait(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def running(self) -> int:
        return self.runs

    def recall(self, batch: int) -> None:
        self.recalled = batch

    def cancel(self, token: int, place: int = 0) -> None:
        del place
        self.cancelled = token
        self.got.set()

    def hold_spawns(self, *, full: bool) -> None:
        self.holds_spawns = full

    def hold_output(self, *, full: bool) -> None:
        self.holds_output = full

    async def wait_printed(self, stream: int) -> None:
        while not self._printed[stream] and self._exit is None:
            if self._said.is_set():
                self._said = trio.Event()
            await self._said.wait()

    def read_printed(self, stream: int) -> bytes | None:
        data = bytes(self._printed[stream])
        self._printed[stream].clear()
        return None if not data and self._exit is not None else data

    async def stacks(self) -> bytes:
        await trio.sleep(0.05)
        return self.shows

    def hang_up(self) -> None:
        self.signals.append("HUP")
        self.exit(0)


class PlayedCommand(PlayedProcess):
    """A command whose output the test writes."""

    def __init__(self, pid: int, plan: CommandPlan) -> None:
        super().__init__(pid)
        self.plan = plan
        self.outputs = {1: trio.open_memory_channel[bytes](1_000), 2: trio.open_memory_channel[bytes](1_000)}

    def prints(self, data: bytes, stream: int = 1) -> None:
        self.outputs[stream][0].send_nowait(data)

    def exit(self, code: int, *, ordered: bool = False) -> None:
        super().exit(code, ordered=ordered)
        for send, _ in self.outputs.values():
            send.close()

    async def read(self, stream: int) -> bytes:
        with suppress(trio.EndOfChannel):
            return await self.outputs[stream][1].receive()
        return b""


class Stage:
    """Everything around one agent."""

    def __init__(self, clock: MockClock, tasks: dict[str, bool]) -> None:
        self.clock = VirtualClock(clock)
        self.tasks = tasks
        self.together: dict[str, tuple[int, int]] = {}
        """How many of a task are run in one call, and for how many milliseconds the first waits for others."""
        self.error = ""
        self.version = wire.VERSION
        self.versions: list[str] = []
        self.memory: dict[int, int] = {}
        self.workers: list[PlayedWorker] = []
        self.commands: list[PlayedCommand] = []
        self.refusals: list[TaskdError] = []
        self.dials: list[float] = []
        self.kills_for_memory = 0
        self.killed = 0
        """So many workers are killed before they are ready."""
        self.cannot_start: OSError | None = None
        self._peers_in, self._peers_out = trio.open_memory_channel[Peer](1_000)
        self._grown = trio.Event()

    async def connect(self) -> trio.abc.Stream:
        self.dials.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.refusals:
            raise self.refusals[0] if len(self.refusals) == 1 else self.refusals.pop(0)
        ours, theirs = memory_stream_pair()
        self._peers_in.send_nowait(Peer(theirs))
        return ours

    def unreachable(self, reason: str = "nobody there") -> None:
        self.refusals.append(CannotConnect(reason))

    async def peer(self) -> Peer:
        """The next connection that the agent opens."""
        with trio.fail_after(PATIENCE_S):
            return await self._peers_out.receive()

    async def greeted(self) -> Peer:
        """The next connection, with the offer standing."""
        peer = await self.peer()
        await peer.greet()
        await peer.send(Offered())
        return peer

    async def worker(self) -> PlayedWorker:
        """See ``Spawner``."""
        await trio.lowlevel.checkpoint()
        known = [wire.Known(name, is_async, *self.together.get(name, (0, 0))) for name, is_async in self.tasks.items()]
        ready = wire.Ready(self.version, known, self.error, {}, self.versions, "3.12")
        is_killed = len(self.workers) < self.killed
        self.workers.append(PlayedWorker(100 + len(self.workers), None if is_killed else ready))
        if is_killed:
            self.workers[-1].exit(-signal.SIGKILL)
        self._grown.set()
        return self.workers[-1]

    async def command(self, plan: CommandPlan) -> PlayedCommand:
        """See ``Spawner``."""
        await trio.lowlevel.checkpoint()
        if self.cannot_start is not None:
            raise self.cannot_start
        self.commands.append(PlayedCommand(500 + len(self.commands), plan))
        self._grown.set()
        return self.commands[-1]

    async def who_has(self, token: int) -> PlayedWorker:
        """Wait until a worker was given the lease; return it."""
        with trio.fail_after(PATIENCE_S):
            while True:
                for worker in self.workers:
                    if any(grant.token == token for grant in worker.grants):
                        return worker
                await trio.sleep(0.01)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until processes were started so that something holds."""
        with trio.fail_after(PATIENCE_S):
            while not condition():
                self._grown = trio.Event()
                await self._grown.wait()

    def platform(self) -> Platform:
        return Platform(
            clock=self.clock,
            rng=random.Random(7),
            boot_id=b"B" * 16,
            connect=self.connect,
            spawner=self,
            machine=MACHINE,
            host_stats=lambda: HostStats(12.5, 0.5, 10, 20),
            memory_of=lambda pid, _enough: self.memory.get(pid, 0),
            oom_kills=lambda: self.kills_for_memory,
        )

    def agent(
        self,
        modules: Sequence[str] = ("m",),
        *,
        processes: int = 2,
        drain_s: float = 30.0,
        code_version: str = "",
        pin_cpus: bool = False,
    ) -> Agent:
        server = Profile(address="127.0.0.1:7070", token="taskd_agent_x")
        config = AgentConfig(
            server=server,
            modules=tuple(modules),
            name="a1",
            processes=processes,
            concurrency=100,
            queues=("q",),
            labels={"zone": "north"},
            drain_s=drain_s,
            code_version=code_version,
            pin_cpus=pin_cpus,
        )
        return Agent(config, self.platform())


SYNC = {"m.f": False}
ASYNC = {"m.a": True}


@asynccontextmanager
async def playing(stage: Stage, agent: Agent) -> AsyncIterator[trio.Nursery]:
    """Run the agent beside the test; stop it at the end, which takes bounded time."""
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def run() -> None:
            await agent.run()
            ended.set()

        nursery.start_soon(run)
        yield nursery
        agent.stop()
        with trio.fail_after(60):
            await ended.wait()
        assert all(worker.closed for worker in stage.workers)
        assert all(command.closed for command in stage.commands)
