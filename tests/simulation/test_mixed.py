"""Tasks of milliseconds and of seconds, on agents of different size, are done about as soon as can be."""

import heapq
import random
from collections.abc import Sequence

import pytest

from simulation.clients import ClientMachine
from simulation.net import Net
from simulation.quiet import Onlooker, play, run_tasks
from simulation.server import ServerMachine

SLOTS = (4, 2, 1)
TASKS = 1_000
WARM_UP = 50
"""Tasks before, of a millisecond, so that workers are there and agents know a pace: the wrong one."""
AT_MOST = 1.10
"""Times what it takes who hands out the same tasks in the same order, and loses no time over it."""


@pytest.mark.parametrize("seed", range(3))
def test_mixed_tasks_are_done_about_as_soon_as_can_be(seed: int) -> None:
    """No short task waits for long behind a long one while a slot elsewhere is free."""
    tasks_ms = draw(random.Random(seed))
    took_s: list[float] = []

    async def program(machine: ClientMachine, _net: Net, _server: ServerMachine) -> None:
        await run_tasks(machine, [1] * WARM_UP)
        took_s.append(await run_tasks(machine, tasks_ms))

    play(seed, {f"agent{slots}": slots for slots in SLOTS}, program, Onlooker())
    assert took_s.pop() <= AT_MOST * listed_s(tasks_ms)


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
