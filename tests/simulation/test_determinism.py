"""D1: a seed is one run, whatever else differs between two processes."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
SEEDS = (9, 30)


def test_a_seed_is_the_same_run_in_every_process() -> None:
    """Two fresh processes with different hash seeds have the same trace."""
    assert _played("1") == _played("2")


def _played(hash_seed: str) -> list[str]:
    return [
        subprocess.run(
            [sys.executable, "-m", "simulation", "--seed", str(seed)],
            env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in SEEDS
    ]
