"""Agents' machines: the real agent over played workers."""

import random
from functools import partial

import trio

from simulation.lives import Life
from simulation.machines import Machine
from simulation.net import HOST, PORT, Net
from simulation.server import ServerMachine
from simulation.sites import GIB, Neighbours, Site
from simulation.spawner import PlayedSpawner, Watch
from simulation.trace import Trace
from taskd.agent.agent import Agent
from taskd.agent.config import AgentConfig
from taskd.agent.platform import Platform
from taskd.agent.supplies import Machine as Found
from taskd.client.profile import Profile
from taskd_protocol.errors import AgentDuplicate, TaskdError
from taskd_protocol.resources import ONE


class AgentMachine(Machine):
    """One agent, life after life.

    Attributes:
        spawner: Of the life of now.
        boot_ids: Of its lives.
        site: What its machine has.
        neighbours: Who uses that beside it.
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
        watch: Watch,
        slots: int,
        queues: tuple[str, ...],
        site: Site | None = None,
        neighbours: bool = False,
    ) -> None:
        super().__init__(name, nursery, net, rng, trace)
        self.spawner: PlayedSpawner | None = None
        self.slots = slots
        self.site = site or Site(ONE * slots, GIB)
        self.neighbours = Neighbours(self.site, random.Random(f"neighbours of {name}"))
        self.neighbours.are_gone = not neighbours
        self._server = server
        self._watch = watch
        self._queues = queues
        self._agent: Agent | None = None

    async def main(self) -> None:
        """See ``Machine``."""
        life = self.life
        assert life is not None
        rng = random.Random(self.rng.random())
        site = self.site
        spawner = self.spawner = PlayedSpawner(self.nursery, rng, self.clock, self._watch)
        platform = Platform(
            clock=self.clock,
            rng=rng,
            boot_id=rng.randbytes(16),
            connect=partial(self.net.connect, life),
            spawner=spawner,
            machine=Found(
                cpus=site.cpus, memory_bytes=site.memory, gpus=site.found_gpus(), host=self.name, cpu_numbers=()
            ),
            host_stats=self.neighbours.stats,
            memory_of=spawner.memory_of,
            oom_kills=lambda: 0,
        )
        await self._server.ready.wait()
        config = AgentConfig(
            server=Profile(address=f"{HOST}:{PORT}", token=self._server.tokens["agent"], tls=False),
            modules=("m",),
            name=self.name,
            processes=self.slots,
            concurrency=10 * self.slots,
            queues=self._queues,
            labels=site.labels,
            resources={"license": site.licenses} if site.licenses else {},
            drain_s=10.0,
        )
        config.check()
        self._agent = Agent(config, platform)
        try:
            await self._agent.run()
        except TaskdError as refusal:
            if refusal.code != AgentDuplicate.code:
                raise
            self.trace.add("refused", self.name, refusal.code)

    def drain(self) -> None:
        """Ask the agent to go, in good order."""
        if self._agent is not None and self.life is not None:
            self._agent.drain()

    def buried(self, life: Life, *, power_cut: bool) -> None:
        """See ``Machine``: its processes go with it."""
        self._agent = None
        if self.spawner is not None:
            self.spawner.kill_all()
            self.spawner = None
