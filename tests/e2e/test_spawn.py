"""Tasks that make tasks, on a real server and a real agent, both killed while they are at it.

What is checked: all tasks succeed; no completion that the server recorded is followed by another run of the same body;
and where a body ran to its end twice, because the first time's report was lost, a kill lies between the two ends.
`TASKD_SPAWN_KILLS=10` has so many kills, in turns of the agent and the server, and 3,001 tasks; unless it is set there
are two, and half as many tasks.
"""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from e2e.house import House, Running, house, wait_until
from taskd.client.clock import mono_s

SAID = os.environ.get("TASKD_SPAWN_KILLS", "")
KILLS = int(SAID or 2)
MIDDLES = 1_000 if SAID else 500
LEAVES = 2
TASKS = 1 + MIDDLES + MIDDLES * LEAVES

FAMILY = """
import os, time
from taskd import App, current

app = App()

def note():
    me = current()
    line = f"{me.id} {me.attempt} {time.monotonic()}".ljust(127)
    with open("ends", "ab", buffering=0) as ends:  # of 128 bytes none is on two pages: all of it is there, or none
        ends.write(f"{line}\\n".encode())

@app.task
def leaf(number):
    note()
    return number

@app.task
def middle(number):
    me = current()
    results = me.wait([me.spawn(leaf, number * 2), me.spawn(leaf, number * 2 + 1)])
    note()
    return sum(results)

@app.task
def top(count):
    me = current()
    results = me.wait([me.spawn(middle, number) for number in range(count)])
    note()
    return sum(results)
"""


class End(NamedTuple):
    """The last line of a body that was run."""

    task_id: str
    attempt: int
    at_s: float


class Machines:
    """The server and the agent, and when either was killed."""

    def __init__(self, home: House) -> None:
        self.kills_s: list[float] = []
        self._home = home
        self._server = home.serve()
        self._address = home.profile()["address"]
        self._agent = self._start_agent()

    def kill(self, *, server: bool) -> None:
        """Kill one, with all that came from it, and start it again."""
        dead = self._server if server else self._agent
        dead.end(signal.SIGKILL)
        dead.close()
        self.kills_s.append(mono_s())
        if server:
            self._server = self._home.start("server", "--listen", self._address, "--http", "127.0.0.1:0")
            assert self._server.read_line().startswith("serving")
        else:
            self._agent = self._start_agent()

    def _start_agent(self) -> Running:
        return self._home.start("agent", "family", "--name", "ash", "--processes", "1")


def ends(file: Path) -> list[End]:
    """The bodies that came to their ends, in order."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [End(task_id, int(attempt), float(at_s)) for task_id, attempt, at_s in map(str.split, lines)]


def test_a_family_of_three_generations_survives_kills(tmp_path: Path) -> None:
    """A parent that waits holds no slot: one is enough for all; and each body is run to its recorded end once."""
    with house(tmp_path / "home") as home:
        (home.work / "family.py").write_text(FAMILY)
        machines = Machines(home)
        code = f"import family; print(family.top.submit({MIDDLES}).id)"
        words = [sys.executable, "-c", code]
        submitted = subprocess.run(
            words, env=home.env, cwd=home.work, capture_output=True, text=True, timeout=60, check=True
        )
        top = submitted.stdout.strip()
        file = home.work / "ends"
        for kill in range(KILLS):
            due = 1 + kill * TASKS // (KILLS + 1)
            wait_until(lambda due=due: len(ends(file)) >= due, 120)  # type: ignore[misc]  # its type is the default's
            machines.kill(server=kill % 2 == 1)
        wait_until(lambda: len({end.task_id for end in ends(file)}) == TASKS, 120)
        wait_until(lambda: home.task(top)["state"] == "succeeded")
        assert home.task(top)["result"] == sum(range(MIDDLES * LEAVES))
        listed = json.loads(home.ask("task", "ls", "--limit", str(2 * TASKS), "--json"))
        recorded = {task["id"]: (task["state"], task["attempt"]) for task in listed}
        runs: defaultdict[str, list[End]] = defaultdict(list)
        for end in ends(file):
            runs[end.task_id].append(end)
        assert recorded.keys() == runs.keys()
        for task_id, run in runs.items():
            assert recorded[task_id] == ("succeeded", run[-1].attempt)
            assert len({end.attempt for end in run}) == len(run)
            for one, two in pairwise(run):
                assert any(one.at_s < at_s < two.at_s for at_s in machines.kills_s)
