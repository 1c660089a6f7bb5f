"""The server's machine: the real server over a disk that is played."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from simulation.disk import Condition, Disk, Reach
from simulation.journal import Journal
from simulation.lives import Life
from simulation.machines import Machine
from simulation.net import HOST, PORT, Net
from simulation.trace import Trace
from taskd.core.working import Settings
from taskd.server.addresses import Address
from taskd.server.certificates import Certificates
from taskd.server.datadir import DataDir
from taskd.server.main import EXIT_STORE_FAILED, ServerPlan, Serving, serve_store
from taskd.server.platform import Platform
from taskd_protocol.errors import StoreFailed

T = TypeVar("T")

_ROOT = Path("/simulated")


class ServerMachine(Machine):
    """The server, life after life, over one disk.

    Attributes:
        condition: Of the disk.
        disk: The store of now.
        serving: Of the life of now; None: it does not serve.
        ready: Set when the server has served once, and the tokens are there.
        tokens: One for each role.
        recovered: Called when the disk is what the next life will find.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        net: Net,
        rng: random.Random,
        trace: Trace,
        *,
        journal: Journal,
        certificates: Certificates,
        settings: Settings,
        reach: Reach,
        watched: bool = False,
    ) -> None:
        super().__init__("server", nursery, net, rng, trace)
        self.condition = Condition()
        self.disk = Disk(self.condition, journal, rng, trace, reach)
        self.serving: Serving | None = None
        self.ready = trio.Event()
        self.tokens: dict[str, str] = {}
        self.recovered: Callable[[], None] = lambda: None
        self._reach = reach
        self._certificates = certificates
        self._plan = ServerPlan(
            data_dir=_ROOT, listen=Address(HOST, PORT), tls=False, settings=settings, watched=watched
        )

    async def main(self) -> None:
        """See ``Machine``."""
        life = self.life
        assert life is not None
        rng = random.Random(self.rng.random())
        platform = Platform(
            clock=self.clock,
            rng=rng,
            token_bytes=rng.randbytes,
            offload=_here,
            flush=_here,
            listen=self.net.listen,
            space=lambda _: self.condition.space,
            exit=life.exit,
        )
        data_dir = DataDir(root=_ROOT, mark_key=bytes(32), volatile=False, lock_fd=-1)
        self.net.server = life
        disk = self.disk
        try:
            async with trio.open_nursery() as nursery:
                serve = partial(serve_store, self._plan, platform, data_dir, self._certificates, disk)
                self.serving = await nursery.start(serve)
                self.trace.add("serving")
                for role in ("client", "operator", "agent"):
                    if role not in self.tokens:
                        self.tokens[role] = await self.serving.mint(role)
                self.ready.set()
        finally:
            if not life.dead:
                with trio.CancelScope(shield=True):
                    try:
                        await disk.close()
                    except StoreFailed:  # as any program that cannot do its last duty
                        life.exit(EXIT_STORE_FAILED)

    def stop(self) -> None:
        """Ask the server to end in good order."""
        if self.serving is not None:
            self.serving.stop()

    def buried(self, life: Life, *, power_cut: bool) -> None:
        """See ``Machine``."""
        if life.exit_code == EXIT_STORE_FAILED:
            self._reach("ended with 74 after an error of the disk")
        elif self.serving is None:
            self._reach("killed before it served")
        self.serving = None
        self.disk = self.disk.restart(power_cut=power_cut)
        self.recovered()


async def _here(work: Callable[[], T], /) -> T:
    """Run it here and now: there are no threads."""
    return work()
