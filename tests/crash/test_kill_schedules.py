"""``kill -9`` of the server around the firings of a schedule: of each decision there is its workflow, and no other."""

import json
import random
import signal
import socket
import time
from itertools import pairwise
from pathlib import Path
from typing import cast

from e2e.house import Json, house, wait_until

KILLS = 5
LIFE_SECONDS = 1.6
"""The longest that the server lives after it has said that it serves: one firing or two."""

FLOW = """
name = "night"

[schedule]
every = 1
overlap = "allow"
missed = "all"
missed_max = 100

[nodes.first]
value = 1

[nodes.second]
task = "nobody.has_this"
args = [{ node = "first" }]
"""


def test_a_killed_server_leaves_each_decision_with_its_workflow(tmp_path: Path) -> None:
    """At moments by chance; then the history and the workflows are compared, each by the time that it is for."""
    rng = random.Random(20261129)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with house(tmp_path) as home:
        (home.work / "night.toml").write_text(FLOW)
        words = ("--data-dir", str(home.home / "data"), "--listen", f"127.0.0.1:{port}")
        server = home.serve(*words)
        assert "is made" in home.ask("workflow", "submit", "night.toml")
        for _ in range(KILLS):
            time.sleep(rng.uniform(0, LIFE_SECONDS))
            server.end(signal.SIGKILL)
            server = home.serve(*words)
        wait_until(lambda: len(read(home.ask("schedule", "history", "night", "--limit", "500", "--json"))) > KILLS)
        home.ask("schedule", "pause", "night")
        decided = read(home.ask("schedule", "history", "night", "--limit", "500", "--json"))
        kept = read(home.ask("workflow", "ls", "--limit", "500", "--json"))
        fired = {str(each["workflow"]): each["at"] for each in decided if each["outcome"] == "fired"}
        assert {str(each["id"]): each["scheduled_for"] for each in kept} == fired
        assert len(fired) == len(decided), "none was missed: each life is shorter than the grace"
        times = sorted(str(at) for at in fired.values())
        seconds = [round(float(at[17:23]) + 60 * int(at[14:16]) + 3_600 * int(at[11:13]), 3) for at in times]
        steps = {round((later - earlier) % 86_400, 3) for earlier, later in pairwise(seconds)}
        assert steps == {1.0}, "each second once, over every kill"
        assert server.end() == 0
        checked = home.run("fsck", "--data-dir", str(home.home / "data"))
        assert checked.returncode == 0, checked.stdout + checked.stderr


def read(text: str) -> list[Json]:
    return cast("list[Json]", json.loads(text))
