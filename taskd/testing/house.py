"""The server in this process: real core, commit loop, hub and sessions, over a store in memory and streams in memory.

Runs on trio, in whatever loop it is started in; its time is that loop's, on a virtual clock or a real one.
"""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import trio
from trio.testing import memory_stream_pair

from taskd import __version__
from taskd.core import records
from taskd.core.commands import StoreToken
from taskd.core.coordinator import Coordinator
from taskd.core.records import TokenRecord
from taskd.core.restore import restore
from taskd.core.working import Settings
from taskd.server import tokens
from taskd.server.client_role import ClientRole
from taskd.server.clock import Clock
from taskd.server.hub import Hub
from taskd.server.loop import CommitLoop
from taskd.server.notices import Notices
from taskd.server.platform import Offload, Platform
from taskd.server.services import Services
from taskd.server.session import Session
from taskd.server.starting import read_stored
from taskd.server.views import WaitTexts, task_keys, task_view
from taskd.server.workflow_role import read_input
from taskd.store.memory import MemoryStore
from taskd_protocol.connection_messages import PeerLimits
from taskd_protocol.errors import BadRequest, TaskdError
from taskd_protocol.messages import TaskView
from taskd_protocol.workflow_messages import InputPage, InputQuery

if TYPE_CHECKING:
    from taskd.server.certificates import CertificateFacts

T = TypeVar("T")

YEAR_MS = 365 * 24 * 3600 * 1000
ADDRESS = "taskd.testing:0"


class House:
    """One server.

    Attributes:
        clock: Of the server.
        loop: Owns the state.
        hub: Knows who is connected.
        token: Good for a client.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.hub = Hub()
        self.hub.paces = False
        self.token = ""
        rng = random.Random(0)  # noqa: S311 - the same in each run: jitter, and secrets that no stranger can try
        # Nobody falls silent in one process: however far the clock is moved, the agent is not given up.
        settings = Settings(heartbeat_ms=10 * YEAR_MS)
        self.loop = CommitLoop(
            coordinator=Coordinator(settings, rng),
            store=MemoryStore(),
            clock=clock,
            deliver=self.hub.deliver,
            fail=_fail,
        )
        platform = Platform(
            clock=clock, rng=rng, token_bytes=rng.randbytes, offload=_here, flush=_here, listen=_no_sockets
        )
        self._services = Services(
            platform=platform,
            loop=self.loop,
            hub=self.hub,
            certificates=NoCertificates(),
            notices=Notices(clock),
            mark_key=bytes(32),
            limits=PeerLimits(payload_bytes_max=settings.payload_bytes_max),
            software=f"taskd {__version__}, within a test",
            addresses=[ADDRESS],
            room_on_disk=lambda: None,
            stop=_fail,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        restore(self.loop.coordinator.working, await read_stored(self.loop.store), self.loop.now())
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.loop.run)
            minted = tokens.mint("client", self._services.platform.token_bytes(tokens.ENTROPY_BYTES))
            now_ms = self.clock.wall_ms()
            record = TokenRecord("client", minted.secret_sha256, "the test", now_ms, now_ms + 10 * YEAR_MS)
            self.loop.ask(StoreToken(minted.key_id, record))
            await self.loop.until_settled()
            self.token = minted.text
            task_status.started()

    def connect(self) -> trio.abc.Stream:
        """Return a client's end of a new connection."""
        theirs, ours = memory_stream_pair()
        self._nursery.start_soon(self._serve, ours)
        return theirs

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            await Session(self._services, stream, "the test").run(lambda: None, lambda session, _: ClientRole(session))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has hung up
        finally:
            await trio.aclose_forcefully(stream)

    async def next_due_ms(self) -> int | None:
        """Return when the next timer is due, by the clock on the wall; None: there is none."""
        found = await self.loop.store.scan(records.TIMER, limit=1)
        return int.from_bytes(found[0][0][:8], "big") if found else None

    async def input(self, agent: str, query: InputQuery) -> InputPage:
        """Return what an agent asks for of a lease's inputs.

        Raises:
            TaskdError: It is not to be had.
        """
        return await read_input(self._services, agent, query)

    def next_firing_ms(self) -> int | None:
        """Return when the next schedule fires, by the clock on the wall; None: none does."""
        return min(self._services.working.schedules.armed.values(), default=None)

    async def view(self, task_id: bytes) -> TaskView | None:
        """Return a task as it stands."""
        texts = WaitTexts(self._services.loop.now())
        found = await self._services.reader.read_now(task_keys(task_id))
        return task_view(self._services.working, task_id, found, texts, whole=False)


class NoCertificates:
    """In place of the server's certificates: streams in memory need none."""

    ca_pem = ""
    ca_sha256 = bytes(32)

    def facts(self) -> "CertificateFacts":
        """Refuse.

        Raises:
            BadRequest: Always.
        """
        raise BadRequest("a server within a test has no certificate")

    async def renew(self, host_names: Sequence[str], now_ms: int, offload: Offload) -> None:
        """Refuse; see ``facts``."""
        del host_names, now_ms, offload
        self.facts()


def _fail(why: TaskdError) -> None:
    raise why


async def _here(work: Callable[[], T], /) -> T:
    return work()


async def _no_sockets(*_: object) -> Sequence[trio.SocketListener]:
    return []
