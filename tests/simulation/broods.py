"""Broods: what a task spawns, drawn from a number of its arguments, so that every attempt of it spawns the same."""

import random
from functools import cache
from typing import NamedTuple

from simulation.bodies import ASYNC, BLOCKING, Body
from taskd_protocol.task import Retry, TaskSpec

LEAVES = 1_000
"""From this number on, what is spawned spawns nothing itself."""


class Brood(NamedTuple):
    """What one task spawns."""

    stages: list[list[TaskSpec]]
    """One after the other."""
    waits: bool
    """It waits after each stage; else it goes on, and has spawned all the same."""
    pause_s: float
    """Between what it spawns and its waiting."""

    @property
    def all(self) -> list[TaskSpec]:
        """The children by number."""
        return [spec for stage in self.stages for spec in stage]


def new_brood(rng: random.Random) -> int:
    """Choose one."""
    return rng.randrange(1, LEAVES)


@cache
def brood_of(number: int) -> Brood:
    """Draw what that number stands for; 0: nothing."""
    if not number:
        return Brood([], waits=False, pause_s=0.0)
    rng = random.Random(f"brood {number}")
    stages = [[_child(rng, number) for _ in range(rng.randint(1, 4))] for _ in range(rng.choice([1, 1, 2]))]
    return Brood(stages, rng.random() < 0.8, rng.choice([0.0, 0.3, 2.0]))


def _child(rng: random.Random, parent: int) -> TaskSpec:
    end, good_from = "return", 1
    if rng.random() < 0.25:
        end, good_from = rng.choice(["raise", "final", "exit"]), rng.choice([2, 1_000])
    brood = rng.randrange(LEAVES, 2 * LEAVES) if parent < LEAVES and rng.random() < 0.15 else 0
    body = Body(
        rng.choice([0, 1, 10, 200, 2_000]), end, good_from, rng.choice([0, 40, 3_000]), rng.random() < 0.7, brood=brood
    )
    retry = Retry(rng.randint(1, 2), base_ms=rng.choice([0, 300]), max_ms=1_000)
    return TaskSpec(b"", rng.choice([BLOCKING, ASYNC]), body.pack(), retry=retry)
