"""The parameter sweep of the examples: all 10,000 settings, on a real server and a real agent of two processes."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import cast

from e2e.house import House, house, wait_until
from taskd.client.clock import mono_s

SCRIPT = Path(__file__).parents[2] / "examples" / "parameter_sweep.py"
WITHIN_S = 60
"""On two cores; it takes four seconds where nothing else runs."""


IN_FLIGHT = 500
"""As the map says."""


def ready(home: House) -> int:
    return sum(queue["ready"] for queue in cast("list[dict[str, int]]", json.loads(home.ask("queue", "ls", "--json"))))


def follow(home: House, *words: str) -> subprocess.Popen[str]:
    script = [sys.executable, SCRIPT.name, *words]
    return subprocess.Popen(script, env=home.env, cwd=home.work, stdout=subprocess.PIPE, text=True)


def test_ten_thousand_settings_come_to_the_best_one(tmp_path: Path) -> None:
    """Within a minute; how far it is can be read meanwhile, and no more run at once than was said."""
    with house(tmp_path / "home") as home:
        shutil.copy(SCRIPT, home.work)
        home.serve()
        began_s = mono_s()
        with follow(home) as first:
            assert first.stdout is not None
            workflow = first.stdout.readline().strip()
            wait_until(lambda: ready(home) >= IN_FLIGHT)
            assert ready(home) == IN_FLIGHT
            home.start("agent", "parameter_sweep", "--name", "ash", "--processes", "2")
            told = first.stdout.read().splitlines()
        took_s = mono_s() - began_s
        assert first.returncode == 0
        assert took_s < WITHIN_S
        *partial, last = told
        assert partial, f"it ended before anything could be read of it: {took_s:.1f} s"
        for line in partial:
            words = line.split()
            assert words[1:4] == ["of", "10000", "tried,"]
            assert 0 < int(words[0]) <= 10_000
        assert ast.literal_eval(last.removeprefix("best of all ")) == {"decay": 0.73, "frequency": 1.7, "loss": 0.0}
        with follow(home, workflow) as again:  # its results are kept
            assert again.communicate()[0].splitlines() == [workflow, last]
        shown = json.loads(home.ask("workflow", "show", workflow, "--json"))
        nodes = {node["name"]: node for node in cast("list[dict[str, object]]", shown["nodes"])}
        assert nodes["attempts"]["children"] == {"total": 10_000, "succeeded": 10_000, "failed": 0}
