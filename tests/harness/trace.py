"""Print the trace of a random run, to be compared with another process: ``python -m harness.trace SEED STEPS``."""

import random
import sys

import pytest

from harness.world import World, random_step, shrink


def trace(seed: int, steps: int) -> str:
    """Run a world; return the digest of all that it decided."""
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        world = World(seed)
        for _ in range(steps):
            random_step(world, rng)
        world.finish()
    return world.trace.hexdigest()


if __name__ == "__main__":
    sys.stdout.write(trace(int(sys.argv[1]), int(sys.argv[2])))
