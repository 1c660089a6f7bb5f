"""Tasks of milliseconds and of seconds, on agents of different size, are done about as soon as can be."""

import heapq
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import pytest
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

SLOTS = (4, 2, 1)
TASKS = 1_000
WARM_UP = 50
"""Tasks before, of a millisecond, so that workers are there and agents know a pace: the wrong one."""
AT_MOST = 1.10
"""Times what it takes who hands out the same tasks in the same order, and loses no time over it."""


class Onlooker(Checker):
    """Watches, and says nothing."""

    def kept(self, spec: SpecRecord) -> None:
        """A task is stored."""


@pytest.mark.parametrize("seed", range(3))
def test_mixed_tasks_are_done_about_as_soon_as_can_be(seed: int) -> None:
    """No short task waits for long behind a long one while a slot elsewhere is free."""
    tasks_ms = draw(random.Random(seed))
    took_s = play(seed, tasks_ms)
    assert took_s <= AT_MOST * listed_s(tasks_ms)


def draw(rng: random.Random) -> list[int]:
    """Draw run times, in ms, with a heavy tail: of a hundred two take most of the time."""
    tasks_ms = []
    for _ in range(TASKS):
        kind = rng.random()
        least, most = (1, 10) if kind < 0.9 else (20, 500) if kind < 0.98 else (1_000, 5_000)
        tasks_ms.append(rng.randint(least, most))
    return tasks_ms


def listed_s(tasks_ms: Sequence[int]) -> float:
    """Return how long a list schedule takes: whichever slot is free first runs the next."""
    free = [0] * sum(SLOTS)
    for task_ms in tasks_ms:
        heapq.heapreplace(free, free[0] + task_ms)
    return max(free) / 1_000


def play(seed: int, tasks_ms: Sequence[int]) -> float:
    """Return how long the real server and agents take, on a network and a disk of a millisecond or two."""
    took_s: list[float] = []
    alarms = Alarms()

    async def program(machine: ClientMachine) -> None:
        await _run(machine, [1] * WARM_UP)
        took_s.append(await _run(machine, tasks_ms))
        over.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            rng, trace, onlooker = random.Random(seed), Trace(), Onlooker(cast("World", None))
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
                AgentMachine(
                    f"agent{slots}", nursery, net, rng, trace, server=server, watch=_Watch(), slots=slots, queues=()
                )
                for slots in SLOTS
            ]
            client = ClientMachine("client", nursery, net, rng, trace, server=server, role="client", program=program)
            for machine in (server, *agents, client):
                nursery.start_soon(machine.run)
            await over.wait()
            nursery.cancel_scope.cancel()

    over = trio.Event()
    with determined(seed, alarms), uncollected():
        trio.run(main, clock=jumping_clock(alarms), instruments=[Stepping()])
    return took_s.pop()


async def _run(machine: ClientMachine, tasks_ms: Sequence[int]) -> float:
    """Submit these and wait for the last; return the seconds."""
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
