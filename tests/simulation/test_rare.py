"""C16: what is counted as rare is what the goal demands."""

import tomllib

from campaigns.report import ROOT, Found
from simulation.campaign import run_seed

SEEDS = (3, 5, 17)


def test_every_rare_state_that_is_counted_is_part_of_the_goal() -> None:
    """Under one name: a name that nobody counts any more would fail each night."""
    goal = tomllib.loads((ROOT / "scripts" / "goal.toml").read_text(encoding="utf-8"))["c1"]
    found = Found()
    for seed in SEEDS:
        run_seed(seed, found)
    assert found.reached.keys() <= set(goal["reached"])
    assert len(found.reached) >= len(goal["reached"]) // 3
