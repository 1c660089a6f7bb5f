"""Faults: what the plan has chosen goes wrong, again and again, and in the end is mended where the core is."""

import random
from typing import TYPE_CHECKING

import trio

from simulation.agents import AgentMachine
from simulation.disk import ROOMY, SHORT
from simulation.machines import Machine
from simulation.net import Weather
from simulation.plan import FAULTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from simulation.world import World

FREEZE_SECONDS = (0.5, 3.0, 12.0, 20.0, 45.0)
"""Shorter and longer than it takes for an agent to be given up."""


LATE_SECONDS = 3.0
"""Bytes are late by so much at most: somebody who speaks again does so within it."""

CORE_AGENTS = 2
"""So many of the agents are well in the end."""


class Faults:
    """All that goes wrong in one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = random.Random(world.rng.random())
        self._acts: dict[str, Callable[[], Awaitable[None]]] = {
            "cut": self._cut,
            "stall": self._stall,
            "partition": self._partition,
            "one-way": self._one_way,
            "late-bytes": self._late_bytes,
            "client-crash": self._client_crash,
            "agent-crash": self._agent_crash,
            "agent-lost": self._agent_lost,
            "agent-freeze": self._agent_freeze,
            "agent-drain": self._agent_drain,
            "worker-crash": self._worker_crash,
            "server-kill": self._server_kill,
            "server-crash-at-await": self._server_crash_at_await,
            "power-cut": self._power_cut,
            "server-freeze": self._server_freeze,
            "server-stop": self._server_stop,
            "fsync-error": self._fsync_error,
            "disk-error": self._disk_error,
            "disk-full": self._disk_full,
            "slow-disk": self._slow_disk,
            "slow-reads": self._slow_reads,
            "write-stall": self._write_stall,
            "wall-clock": self._wall_clock,
        }
        assert {*self._acts, "split", "delay"} == FAULTS.keys()

    def start(self, nursery: trio.Nursery) -> None:
        """Let go wrong what the plan has chosen, until the nursery is cancelled."""
        faults = self._world.plan.faults
        self._world.net.weather = Weather(
            delay_s=0.05 if "delay" in faults else 0.0005,
            jitter_s=0.4 if "delay" in faults else 0.001,
            split=0.3 if "split" in faults else 0.0,
        )
        for name in faults:
            if name in self._acts:
                nursery.start_soon(self._repeat, name)
            else:
                self._count(name)

    def settle(self) -> None:
        """Mend the core: the server, its disk and network, the first two agents and the first client.

        The others stay as they are, or are lost for good.
        """
        world = self._world
        world.net.weather = Weather()
        condition = world.server.condition
        condition.space, condition.flush_s, condition.read_s, condition.stalls = ROOMY, 0.001, 0.0, 0
        core: list[Machine] = [world.server, *world.agents[:CORE_AGENTS], *world.clients]
        for machine in world.machines:
            if machine in core:
                if isinstance(machine, AgentMachine):
                    machine.neighbours.are_gone = True
                machine.thaw()
                world.net.heal({machine.name})
            elif self._rng.random() < 0.5:
                self._count("lost for good")
                machine.is_lost = True
                machine.kill(silently=self._rng.random() < 0.5)
            elif self._rng.random() < 0.5:
                self._count("cut off for good")
                world.net.cut({machine.name})
            else:
                machine.thaw()
                world.net.heal({machine.name})

    async def _repeat(self, name: str) -> None:
        while True:
            await trio.sleep(self._rng.expovariate(1 / FAULTS[name]))
            self._world.trace.add("fault", name)
            self._count(name)
            await self._acts[name]()

    def _count(self, name: str) -> None:
        self._world.found.fault(name)

    def _seconds(self) -> float:
        return self._rng.choice(FREEZE_SECONDS) * (0.5 + self._rng.random())

    def _peer(self) -> Machine:
        return self._rng.choice([*self._world.agents, *self._world.clients])

    # -- the network ------------------------------------------------------------------------

    async def _cut(self) -> None:
        net = self._world.net
        net.tidy()
        if net.links:
            net.links[self._rng.choice(list(net.links))].reset(self._rng)

    async def _stall(self) -> None:
        net = self._world.net
        net.tidy()
        if net.links:
            link = net.links[self._rng.choice(list(net.links))]
            link.hold(up=True, down=True)
            if self._rng.random() < 0.7:
                await trio.sleep(self._seconds())
                link.release()

    async def _one_way(self) -> None:
        net = self._world.net
        net.tidy()
        if net.links:
            link = net.links[self._rng.choice(list(net.links))]
            up = self._rng.random() < 0.5
            link.hold(up=up, down=not up)
            await trio.sleep(self._seconds())
            link.release()

    async def _late_bytes(self) -> None:
        """Have what a peer has said on one connection arrive when it speaks on the next."""
        net = self._world.net
        net.tidy()
        if not net.links:
            return
        link = net.links[self._rng.choice(list(net.links))]
        link.hold(up=True, down=False)
        await trio.sleep(self._rng.choice([0.01, 0.5, 3.0]))
        link.forsake()
        until_s = trio.current_time() + LATE_SECONDS
        while not net.has_followed(link) and trio.current_time() < until_s:  # noqa: ASYNC110 - asked of the played net
            await trio.sleep(0.0005)
        await trio.sleep(self._rng.choice([0.0, 0.001, 0.3]))
        link.release()

    async def _partition(self) -> None:
        machines = {self._peer().name for _ in range(self._rng.randint(1, 4))}
        if self._rng.random() < 0.2:
            machines = {"server"}
        self._world.net.cut(machines)
        await trio.sleep(self._seconds())
        self._world.net.heal(machines)

    # -- clients and agents -----------------------------------------------------------------

    async def _client_crash(self) -> None:
        self._rng.choice(self._world.clients).kill()

    async def _agent_crash(self) -> None:
        agent = self._rng.choice(self._world.agents)
        if self._rng.random() < 0.5:
            agent.kill()
        else:
            agent.kill_at(self._rng.randrange(1, 200), power_cut=False)

    async def _agent_lost(self) -> None:
        self._rng.choice(self._world.agents).kill(silently=True)

    async def _agent_freeze(self) -> None:
        await self._rng.choice(self._world.agents).freeze(self._seconds())

    async def _agent_drain(self) -> None:
        self._rng.choice(self._world.agents).drain()

    async def _worker_crash(self) -> None:
        spawner = self._rng.choice(self._world.agents).spawner
        if spawner is not None:
            spawner.kill_one()

    # -- the server and its disk ------------------------------------------------------------

    async def _server_kill(self) -> None:
        self._world.server.kill()

    async def _power_cut(self) -> None:
        self._world.server.kill(power_cut=True, silently=self._rng.random() < 0.5)

    async def _server_crash_at_await(self) -> None:
        self._world.server.kill_at(self._rng.randrange(1, 400), power_cut=self._rng.random() < 0.7)

    async def _server_freeze(self) -> None:
        await self._world.server.freeze(self._seconds())

    async def _server_stop(self) -> None:
        self._world.server.stop()

    async def _fsync_error(self) -> None:
        self._world.server.condition.fail_flush = True

    async def _disk_error(self) -> None:
        self._world.server.condition.fail_stage = True

    async def _disk_full(self) -> None:
        self._world.server.condition.space = SHORT
        try:
            await trio.sleep(self._seconds())
        finally:
            self._world.server.condition.space = ROOMY

    async def _slow_disk(self) -> None:
        self._world.server.condition.flush_s = self._rng.choice([0.1, 1.0, 5.0])
        try:
            await trio.sleep(self._seconds())
        finally:
            self._world.server.condition.flush_s = 0.001

    async def _slow_reads(self) -> None:
        self._world.server.condition.read_s = self._rng.choice([0.02, 0.5])
        try:
            await trio.sleep(self._seconds())
        finally:
            self._world.server.condition.read_s = 0.0

    async def _write_stall(self) -> None:
        self._world.server.condition.stalls = self._rng.randint(1, 50)

    async def _wall_clock(self) -> None:
        machine = self._rng.choice(self._world.machines)
        machine.clock.step_ms += self._rng.choice([-3_600_000, -1_000, 1_000, 3_600_000, 86_400_000])
