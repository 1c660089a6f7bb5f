"""A storm: actors that insist, over a server in memory that dies and a disk that dawdles; and what must hold.

A crash takes back whatever was not durable; nothing that stands in the ledger may
be among it.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from harness.actors import Agent, Client, Ledger, Standing
from harness.peer import Peer, hello
from harness.server import Server
from harness.waiting import until
from taskd.core.invariants import check_invariants
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.records import RESULT, SPEC, STATE, SpecRecord, StateRecord
from taskd.server.certificates import Certificates
from taskd.store import codec
from taskd.store.keys import make_key, split_key
from taskd_protocol.messages import Welcome
from taskd_protocol.task import TaskSpec

STORM_SECONDS = 8.0
CALM_SECONDS = 60.0
CRASH_EVERY_SECONDS = 0.8


@dataclass(kw_only=True)
class World:
    """The server of the moment; a ``Ground`` for actors."""

    server: Server
    rng: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    calm: bool = False
    crashes: int = 0

    @asynccontextmanager
    async def connected(self, role: str, name: str) -> AsyncIterator[Peer]:
        """See ``Ground``."""
        async with trio.open_nursery() as nursery:
            peer = Peer(self.server.open_stream(), nursery)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await peer.send(hello(role, self.server.tokens[role], name, name.encode().ljust(16)))
            await peer.wait(Welcome)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                yield peer
            nursery.cancel_scope.cancel()

    def specs(self, count: int = 1, **fields: object) -> list[TaskSpec]:
        """See ``Ground``."""
        return self.server.specs(count, **fields)

    async def trouble_the_disk(self) -> None:
        """Make it slow and busy, in turns, until it is calm."""
        while not self.calm:
            disk = self.server.disk
            await trio.sleep(self.rng.expovariate(10))
            match self.rng.randrange(4):
                case 0 | 1:
                    with disk.held():
                        await trio.sleep(self.rng.expovariate(10))
                case 2:
                    with disk.reads_held():
                        await trio.sleep(self.rng.expovariate(10))
                case _:
                    disk.stalls = self.rng.randint(1, 20)

    async def crash(self) -> None:
        """Cut the server's power; what comes back has lost what was not durable, or some of it."""
        self.server = await self.server.crash(self.rng)
        self.crashes += 1
        self.check()

    def check(self) -> None:
        """Compare what was told with what is stored."""
        self.ledger.check(self.find)
        values, prefix = self.server.disk._values, make_key(SPEC, b"")
        stored = [split_key(key)[1] for key in values if key.startswith(prefix)]
        specs = [codec.decode_as(SpecRecord, SPEC, i, values[make_key(SPEC, i)]).spec for i in stored]
        stand = {spec.id: self.find(spec.id) for spec in specs}
        self.ledger.sameness.check(spec for spec in specs if (at := stand[spec.id]) and at.state not in TERMINAL)

    def find(self, task_id: bytes) -> Standing | None:
        """Return how a task stands in the store."""
        values = self.server.disk._values
        if make_key(SPEC, task_id) not in values:
            return None
        value = values.get(make_key(STATE, task_id))
        if value is None:
            return Standing(State.READY, 0, None)  # or running
        state = codec.decode_as(StateRecord, STATE, task_id, value)
        result = values[make_key(RESULT, task_id)] if state.result_apart else state.result
        return Standing(state.state, state.attempt, result)


async def storm(seed: int, certificates: Certificates) -> World:
    """Let it rage, then calm; return what is left, where everything that was accepted has ended."""
    async with trio.open_nursery() as nursery:
        rng = random.Random(seed)
        world = World(server=await Server(nursery, certificates, seed=seed).start(), rng=rng)
        clients = [Client(ground=world, rng=random.Random(rng.random()), name=f"c{n}") for n in range(3)]
        agents = [Agent(ground=world, rng=random.Random(rng.random()), name=f"a{n}") for n in range(2)]
        for run in [*[client.run for client in clients], *[agent.run for agent in agents]]:
            nursery.start_soon(run)
        nursery.start_soon(world.trouble_the_disk)
        end = trio.current_time() + STORM_SECONDS
        while trio.current_time() < end:
            await trio.sleep(rng.expovariate(1 / CRASH_EVERY_SECONDS))
            await world.crash()
        world.calm = True
        await until(lambda: not any(client.unanswered or client.waiting for client in clients), CALM_SECONDS)
        await until(lambda: not world.ledger.left(world.find), CALM_SECONDS)
        world.check()
        check_invariants(world.server.working)
        assert world.server.faults.failed == []
        nursery.cancel_scope.cancel()
    return world
