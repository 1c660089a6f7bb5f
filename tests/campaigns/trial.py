"""A campaign for the tests of how campaigns are played: case 3 breaks a promise, 5 hangs, and 6 takes its process."""

import os
import subprocess
from pathlib import Path

from campaigns.report import Found


def play(case: int, home: Path, found: Found) -> None:
    """Do what the number says."""
    (home / "left").touch()
    found.ops += 2
    found.fault("cut")
    found.reach("rare", int(case == 2))
    assert case != 3, "it is\nlost"
    if case == 5:
        subprocess.run(["sleep", "987654"], check=False)
    if case == 6:
        os._exit(9)
