"""A quiet day: the real server, agents and a client on played machines, with nothing that goes wrong."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import trio

from simulation.agents import AgentMachine
from simulation.bodies import BLOCKING, Body
from simulation.campaign import determined, make_certificates, uncollected
from simulation.checkers.checker import Checker
from simulation.clients import ClientMachine, perform
from simulation.clock import Alarms, jumping_clock
from simulation.journal import Journal
from simulation.lives import Stepping
from simulation.net import Net
from simulation.server import ServerMachine
from simulation.tap import Tap
from simulation.trace import Trace
from taskd.client import operations
from taskd.client.ends import Awaited
from taskd.client.family import Found
from taskd.core.records import SpecRecord
from taskd.core.working import Settings
from taskd_protocol.task import TaskSpec

if TYPE_CHECKING:
    from simulation.world import World


class Onlooker(Checker):
    """Watches, and says nothing."""

    def __init__(self) -> None:
        super().__init__(cast("World", None))

    def kept(self, spec: SpecRecord) -> None:
        """A task is stored."""


Program = Callable[[ClientMachine, Net, ServerMachine], Awaitable[None]]


def play(seed: int, slots: Mapping[str, int], program: Program, onlooker: Onlooker) -> None:
    """Run the program as the client's, beside agents with so many slots each, until it returns."""
    alarms = Alarms()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            rng, trace = random.Random(seed), Trace()
            net = Net(rng, trace, alarms, lambda near, far: Tap(near, far, onlooker))
            server = ServerMachine(
                nursery,
                net,
                rng,
                trace,
                journal=Journal(onlooker),
                certificates=make_certificates(),
                settings=Settings(),
                reach=lambda _: None,
            )
            agents = [
                AgentMachine(name, nursery, net, rng, trace, server=server, watch=_Watch(), slots=count, queues=())
                for name, count in slots.items()
            ]

            async def client_program(machine: ClientMachine) -> None:
                await program(machine, net, server)
                over.set()

            client = ClientMachine(
                "client", nursery, net, rng, trace, server=server, role="client", program=client_program
            )
            for machine in (server, *agents, client):
                nursery.start_soon(machine.run)
            await over.wait()
            nursery.cancel_scope.cancel()

    over = trio.Event()
    with determined(seed, alarms), uncollected():
        trio.run(main, clock=jumping_clock(alarms), instruments=[Stepping()])


async def run_tasks(machine: ClientMachine, tasks_ms: Sequence[int]) -> float:
    """Submit tasks that take so long each, and wait for the last; return the seconds."""
    link = machine.link
    assert link is not None
    await perform(operations.connect(link, None))
    began_s = trio.current_time()
    ids = machine.make_ids(len(tasks_ms))
    specs = [TaskSpec(i, BLOCKING, Body(run_ms=ms).pack()) for i, ms in zip(ids, tasks_ms, strict=True)]
    await perform(operations.submit(link, [specs], None))
    await perform(operations.ends_of(link, [Awaited(i) for i in ids], None))
    return trio.current_time() - began_s


class _Watch:
    """Stands beside an agent's machine, and looks away."""

    def began(self, task_id: bytes, attempt: int, token: int) -> None: ...

    def given(self, task_id: bytes, inputs: list[bytes]) -> None: ...

    def found(self, task_id: bytes, node: bytes, found: Found) -> None: ...

    def gone(self, token: int) -> None: ...
