"""The plan: what a seed chooses for its run, before anything happens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from taskd.core.working import DAY_MS

GONE_MS = 30_000

Mode = Literal["safety", "liveness"]

FAULTS: dict[str, float] = {
    "cut": 12.0,
    "stall": 25.0,
    "partition": 40.0,
    "one-way": 40.0,
    "late-bytes": 20.0,
    "split": 0.0,
    "delay": 0.0,
    "client-crash": 40.0,
    "agent-crash": 30.0,
    "agent-lost": 60.0,
    "agent-freeze": 30.0,
    "agent-drain": 60.0,
    "worker-crash": 15.0,
    "server-kill": 40.0,
    "server-crash-at-await": 30.0,
    "power-cut": 40.0,
    "server-freeze": 40.0,
    "server-stop": 60.0,
    "fsync-error": 60.0,
    "disk-error": 90.0,
    "disk-full": 60.0,
    "slow-disk": 30.0,
    "slow-reads": 30.0,
    "write-stall": 20.0,
    "wall-clock": 40.0,
}
"""What can go wrong, and how many seconds lie between two times in a run that has it; 0: it is there all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run."""

    seed: int
    mode: Mode
    seconds: float
    """Of simulated time with faults; in liveness mode what follows comes on top."""
    agents: int
    clients: int
    faults: Sequence[str]
    rate: float
    """Submits a second, of all clients together."""
    gone_ms: int
    """After so long nobody waits any more for what an agent that is lost was to cancel."""
    retention_age_ms: int
    """What has ended is kept for so long."""
    small: bool
    """Every bound of the core is small, so that few tasks reach all of them."""
    features: Sequence[str]
    """What the load is made of, beside plain tasks."""


FEATURES = (
    *("keys", "delays", "priorities", "queues", "long", "crashes", "commands", "cancels", "resends", "bulk"),
    *("limits", "endless", "unique", "exclusive", "once", "finals", "beats", "retries", "jobs", "orders", "logs"),
)


LATER = {"schedules": 0.4, "workflows": 0.5, "families": 0.28, "placement": 0.4, "neighbours": 0.3, "audience": 0.3}
"""Features that came later, and how many seeds have them."""


def make_plan(seed: int, mode: Mode | None = None) -> Plan:
    """Choose; the mode is the seed's own choice if none is asked for."""
    rng = random.Random(f"plan of {seed}")
    chosen: Mode = "liveness" if seed % 2 else "safety"
    share = rng.choice([0.15, 0.3, 0.5])
    return Plan(
        seed=seed,
        mode=mode or chosen,
        seconds=rng.choice([60.0, 120.0, 240.0]),
        agents=rng.randint(2, 8),
        clients=rng.randint(1, 4),
        faults=[name for name in FAULTS if rng.random() < share],
        rate=rng.choice([0.5, 1.5, 4.0]),
        small=rng.random() < 0.5,
        features=[*(name for name in FEATURES if rng.random() < 0.6), *_later(seed)],
        gone_ms=rng.choice([GONE_MS, DAY_MS]),
        retention_age_ms=rng.choice([20_000, 7 * DAY_MS, 7 * DAY_MS]),
    )


def _later(seed: int) -> list[str]:
    """Choose features that came later by a chance of their own: the rest of a seed's plan stays as it was."""
    return [name for name, share in LATER.items() if random.Random(f"{name} of {seed}").random() < share]
