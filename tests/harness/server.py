"""The server without a machine: real loop, core, hub and sessions over a store in memory and streams in memory.

No thread, no socket, no clock but trio's: under ``MockClock`` a run is the same each time.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import trio
from trio.testing import memory_stream_pair

from harness.peer import PATIENCE_SECONDS, Agent, Peer, hello
from harness.specs import changed
from taskd.core import records
from taskd.core.commands import StoreToken
from taskd.core.coordinator import Coordinator
from taskd.core.records import Key, TokenRecord
from taskd.core.restore import restore
from taskd.core.working import Settings, Working
from taskd.http.converting import convert
from taskd.program import CONVERTER
from taskd.server import tokens
from taskd.server.certificates import Certificates
from taskd.server.hub import Hub
from taskd.server.loop import CommitLoop
from taskd.server.main import _make_role
from taskd.server.notices import Notices
from taskd.server.onlooker import Watch
from taskd.server.platform import Platform
from taskd.server.services import Services
from taskd.server.session import Session
from taskd.server.starting import read_stored
from taskd.store.interface import Write
from taskd.store.memory import MemoryStore
from taskd_protocol.agent_messages import Lease, LeaseCredit, Offer, Offered
from taskd_protocol.connection_messages import PeerLimits, Welcome
from taskd_protocol.errors import StoreFailed, StoreStalled, TaskdError
from taskd_protocol.handshake import TOKEN_ROLES
from taskd_protocol.ids import make_task_ids
from taskd_protocol.limits import PROTOCOL_VERSION_MAX
from taskd_protocol.messages import Accepted, Submit, TaskQuery, TaskView, TaskViews
from taskd_protocol.task import Grant, Held, Pool, Report, TaskSpec

T = TypeVar("T")

WALL_MS = 1_763_760_000_000
DAY_MS = 24 * 3600 * 1000
MARK_KEY = bytes(range(32))
LINEAGE = bytes(range(16))
StreamPair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


class VirtualClock:
    """Trio's clock; the one on the wall can be stepped."""

    def __init__(self) -> None:
        self.wall_step_ms = 0

    def mono_ns(self) -> int:
        return round(trio.current_time() * 1e9)

    def wall_ms(self) -> int:
        return WALL_MS + self.wall_step_ms + self.mono_ns() // 1_000_000

    def cpu_ns(self) -> int:
        return 0

    def thread_cpu_ns(self) -> int:
        return 0


class Disk(MemoryStore):
    """A store in memory whose disk can be slow, busy or broken.

    Attributes:
        stalls: So many batches more are refused as "too busy".
        failure: Raised by what is done next; it breaks in earnest.
        flush_count: Flushes begun.
        batches: Sizes of the batches staged, in order.
        thought_quick: Flushes are thought to end on the spot; those that are held do not.
    """

    def __init__(self, *, lineage: bytes = LINEAGE) -> None:
        super().__init__(lineage=lineage, sync=self._wait_for_disk)
        self.stalls = 0
        self.failure = ""
        self.flush_count = 0
        self.batches: list[int] = []
        self.thought_quick = False
        self.waits: Callable[[], None] = lambda: None
        self._flush_gate: trio.Event | None = None
        self._read_gate: trio.Event | None = None

    def is_quick(self) -> bool:
        return self.thought_quick

    @contextmanager
    def held(self) -> Iterator[trio.Event]:
        """Let no flush that begins meanwhile come back before the end, or before the event is set."""
        gate = self._flush_gate = trio.Event()
        try:
            yield gate
        finally:
            self._flush_gate = None
            gate.set()

    @contextmanager
    def reads_held(self) -> Iterator[None]:
        """Let no read come back meanwhile; they read at once, and tell late."""
        gate = self._read_gate = trio.Event()
        try:
            yield
        finally:
            self._read_gate = None
            gate.set()

    def pass_new_reads(self) -> None:
        """Hold only those reads any longer that have begun."""
        self._read_gate = None

    async def load(self, keys: Sequence[Key]) -> list[bytes | None]:
        found = await super().load(keys)
        await self._wait_to_tell()
        return found

    async def scan(
        self, kind: records.Kind, prefix: bytes = b"", *, after: bytes = b"", limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        found = await super().scan(kind, prefix, after=after, limit=limit, reverse=reverse)
        await self._wait_to_tell()
        return found

    def stage(self, writes: Sequence[Write]) -> int:
        if self.stalls:
            self.stalls -= 1
            raise StoreStalled("the disk of this test is busy")
        if self.failure:
            raise StoreFailed(self.failure)
        self.batches.append(len(writes))
        return super().stage(writes)

    def restart(self, rng: random.Random) -> "Disk":
        """Cut the power; return what is left."""
        left = self.crash(rng)
        disk = Disk(lineage=self.lineage)
        disk._values, disk._sorted = left._values, left._sorted
        disk.staged_sequence, disk.durable_sequence = left.staged_sequence, left.durable_sequence
        return disk

    async def _wait_for_disk(self) -> None:
        self.flush_count += 1
        if self._flush_gate is not None:
            self.waits()
            await self._flush_gate.wait()
        if self.failure:
            raise StoreFailed(self.failure)

    async def _wait_to_tell(self) -> None:
        if self._read_gate is not None:
            await self._read_gate.wait()


async def here(work: Callable[[], T], /) -> T:
    """Run it here and now: no thread."""
    return work()


async def convert_here(words: list[str], said: bytes) -> bytes:
    """Convert here and now: no process."""
    assert words[0] == CONVERTER
    return convert(words[1:], said)


async def no_sockets(*_: object) -> Sequence[trio.SocketListener]:
    """There is no network."""
    return []


def virtual_platform(seed: int = 0) -> Platform:
    """A machine of which nothing is real."""
    rng = random.Random(seed)
    return Platform(
        clock=VirtualClock(),
        rng=rng,
        token_bytes=rng.randbytes,
        offload=here,
        flush=here,
        listen=no_sockets,
        apart=convert_here,
    )


@dataclass(kw_only=True)
class Faults:
    """What ended the server, or would have."""

    failed: list[TaskdError] = field(default_factory=list)
    stopped: list[TaskdError] = field(default_factory=list)
    full: TaskdError | None = None
    """Why no task is to be taken."""


class Server:
    """One server, and the peers that a test connects to it.

    Attributes:
        faults: Filled by the server; ``full`` is the test's to set.
        watch: What it keeps for who looks on; None: nothing.
        tokens: A good one for each role, and their key ids.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        certificates: Certificates,
        *,
        disk: Disk | None = None,
        settings: Settings | None = None,
        seed: int = 0,
        watched: bool = False,
    ) -> None:
        self.nursery = nursery
        self._certificates = certificates
        self.platform = virtual_platform(seed)
        self.clock = self.platform.clock
        self.disk = disk or Disk()
        self.faults = Faults()
        self.hub = Hub()
        self.coordinator = Coordinator(settings or Settings(), self.platform.rng)
        self.loop = CommitLoop(
            coordinator=self.coordinator,
            store=self.disk,
            clock=self.clock,
            deliver=self.hub.deliver,
            fail=self.faults.failed.append,
            flusher=self.disk,
        )
        working, hosts = self.coordinator.working, self.hub.hosts
        self.watch = Watch(self.disk, working, self.loop.tally, self.platform.rng, hosts) if watched else None
        told = self.coordinator.working.settings
        self.services = Services(
            platform=self.platform,
            loop=self.loop,
            hub=self.hub,
            certificates=certificates,
            notices=Notices(self.clock),
            mark_key=MARK_KEY,
            limits=PeerLimits(
                payload_bytes_max=told.payload_bytes_max,
                heartbeat_ms=told.heartbeat_ms,
                heartbeats_missed=told.heartbeats_missed,
            ),
            software="taskd test",
            addresses=["127.0.0.1:7070"],
            room_on_disk=lambda: self.faults.full,
            stop=self.faults.stopped.append,
            watch=self.watch,
        )
        self.tokens: dict[str, str] = {}
        self.key_ids: dict[str, str] = {}
        self._running = trio.CancelScope()
        self._connections: list[trio.CancelScope] = []
        self._ids = random.Random(seed + 1)

    @property
    def working(self) -> Working:
        """The core's working set."""
        return self.coordinator.working

    async def start(self) -> "Server":
        """Restore, turn, and make a token for each role."""
        restore(self.coordinator.working, await read_stored(self.disk), self.loop.now())
        if self.watch is not None:
            await self.watch.open(self.loop.now())
            self.loop.onlooker = self.watch
        await self.nursery.start(self._run)
        await self.loop.until_durable()
        for role in TOKEN_ROLES:
            if role not in self.tokens:
                await self.mint(role)
        return self

    async def _run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._running:
            async with trio.open_nursery() as nursery:
                if self.watch is not None:
                    nursery.start_soon(self.watch.bus.run)
                await self.loop.run(task_status=task_status)

    async def crash(self, rng: random.Random | None = None) -> "Server":
        """Cut the power, and start what is left of it; every connection is gone."""
        self._running.cancel()
        for scope in self._connections:
            scope.cancel()
        disk = self.disk.restart(rng or random.Random(0))
        settings = self.working.settings
        again = Server(
            self.nursery,
            self._certificates,
            disk=disk,
            settings=settings,
            seed=self._ids.randrange(1 << 32),
            watched=self.watch is not None,
        )
        again.tokens, again.key_ids = self.tokens, self.key_ids
        return await again.start()

    async def mint(self, role: str, *, key: str = "", lasts_ms: int = DAY_MS) -> str:
        """Store a token; return its text."""
        minted = tokens.mint(role, self.platform.token_bytes(tokens.ENTROPY_BYTES))
        now_ms = self.clock.wall_ms()
        record = TokenRecord(role, minted.secret_sha256, f"for {role}", now_ms, now_ms + lasts_ms)
        done = trio.Event()
        self.loop.ask(StoreToken(minted.key_id, record), lambda _: done.set())
        await done.wait()
        self.tokens[key or role] = minted.text
        self.key_ids[key or role] = minted.key_id
        return minted.text

    # -- peers ------------------------------------------------------------------------------

    def connect(self, pair: StreamPair = memory_stream_pair, *, reads: bool = True) -> Peer:
        """Open a connection on which nothing was said yet."""
        return Peer(self.open_stream(pair), self.nursery, reads=reads)

    def open_stream(self, pair: StreamPair = memory_stream_pair) -> trio.abc.Stream:
        """Return the far end of a new connection."""
        theirs, ours = pair()
        self.nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, stream: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope:
            self._connections.append(scope)
            try:
                await Session(self.services, stream, "192.0.2.1:9").run(lambda: None, _make_role)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # as the listener does
            finally:
                await trio.aclose_forcefully(stream)

    async def client(self, role: str = "client", pair: StreamPair = memory_stream_pair) -> Peer:
        """Connect a client of a role."""
        peer = self.connect(pair)
        await peer.send(hello("client", self.tokens[role]))
        await peer.take(Welcome)
        return peer

    async def agent(
        self,
        name: str = "a1",
        *,
        names: Sequence[str] = ("m.f",),
        credit: int = 0,
        boot_id: bytes = bytes(16),
        holding: Sequence[Held] = (),
        beats: bool = True,
        version_max: int = PROTOCOL_VERSION_MAX,
    ) -> Peer:
        """Connect an agent that offers one pool; it lives while it beats."""
        peer = Agent(self.open_stream(), self.nursery, beats=beats)
        await peer.send(hello("agent", self.tokens["agent"], name, boot_id, version_max))
        await peer.take(Welcome)
        await peer.send(Offer([Pool("process", 8, list(names))], holding=list(holding)))
        await peer.take(Offered)
        if credit:
            await peer.send(LeaseCredit(0, credit))
        return peer

    # -- tasks ------------------------------------------------------------------------------

    def specs(self, count: int = 1, **fields: object) -> list[TaskSpec]:
        """Make so many new tasks."""
        entropy = self._ids.randbytes(10 * count)
        ids = make_task_ids(count, self.clock.wall_ms(), entropy)
        return [changed(TaskSpec(task_id, "m.f"), **fields) for task_id in ids]

    async def submit(self, peer: Peer, count: int = 1, **fields: object) -> list[TaskSpec]:
        """Have a client submit new tasks; return them when they are accepted."""
        specs = self.specs(count, **fields)
        await peer.ask(Submit(peer.number(), specs), Accepted)
        return specs

    async def view(self, peer: Peer, task_id: bytes) -> TaskView:
        """Return a task as a client is shown it."""
        views = await peer.ask(TaskQuery(peer.number(), [task_id]), TaskViews)
        assert views.views[0] is not None
        return views.views[0]

    async def state(self, peer: Peer, task_id: bytes) -> str:
        """Return a task's state as a client is shown it."""
        return (await self.view(peer, task_id)).state


async def leased(agent: Peer, count: int, within: float = PATIENCE_SECONDS) -> list[Grant]:
    """Return the next grants of an agent, exactly so many."""
    grants: list[Grant] = []
    while len(grants) < count:
        grants += (await agent.take(Lease, within)).grants
    assert len(grants) == count
    return grants


def report(grant: Grant, result: bytes = b"\xc0") -> Report:
    """An attempt's success."""
    return Report(grant.token, grant.spec.id, grant.attempt, result, 1)
