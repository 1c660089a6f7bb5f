"""A server and an agent on machines whose wire fails: pulled out, swallowing packets, deaf one way, in and out again.

Neither side hears a connection end. A client beside the server submits all the time; when the wire is whole again,
everything that was acknowledged ends, each task once.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from campaigns.report import Found
from e2e.house import wait_until
from e2e.machines import Machine, two_machines

SERVER, OTHER = "10.199.72.1", "10.199.72.2"
HEARTBEAT = "500ms"
CUT_SECONDS = (1.0, 6.0)
LONG_CUT_SECONDS = 20.0
"""Now and then."""

LONG_CUTS = 0.1
FLAPS = 4
FLAP_SECONDS = 0.7

MODULE = """
import time
from taskd import App, current

app = App()

@app.task
def work(number):
    time.sleep(0.01)
    return [number, current().attempt]
"""

LOAD = """
import json, time
from pathlib import Path
import shop

handles = []
while not Path("stop").exists():
    handles += shop.work.map(range(len(handles), len(handles) + 10))
    time.sleep(0.1)
print(json.dumps([handle.result(timeout=90) for handle in handles]))
"""


def play(case: int, home: Path, found: Found) -> None:
    """Let the wire fail in one of the ways, each in its turn."""
    rng = random.Random(case)
    kind = list(KINDS)[case % len(KINDS)]
    with (
        two_machines(SERVER, OTHER) as machines,
        machines[0].house(home / "here", MODULE) as here,
        machines[1].house(home / "there", MODULE) as there,
    ):
        server = here.serve("--data-dir", "data", "--heartbeat", HEARTBEAT, host=SERVER)
        code = here.ask("agents", "invite")
        there.start("agent", "shop", "--join", code, "--name", "guest", "--processes", "2")
        wait_until(lambda: here.agents().get("guest", {}).get("state") == "live")
        words = ["ip", "netns", "exec", machines[0].name, sys.executable, "-c", LOAD]
        load = subprocess.Popen(words, env=here.env, cwd=here.work, stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(rng.uniform(0.5, 1.5))
            found.fault(kind)
            KINDS[kind](*machines, LONG_CUT_SECONDS if rng.random() < LONG_CUTS else rng.uniform(*CUT_SECONDS))
            (here.work / "stop").touch()
            results, _ = load.communicate(timeout=120)
        finally:
            load.kill()
            load.wait()
        assert load.returncode == 0
        ended = json.loads(results)
        assert [number for number, _ in ended] == list(range(len(ended)))
        found.ops += len(ended)
        found.reach("run again", sum([attempt > 1 for _, attempt in ended]))
        (queue,) = json.loads(here.ask("queue", "ls", "--json")) or [{}]
        assert not any(queue.get(state) for state in ("ready", "running", "scheduled", "cancelling")), queue
        assert server.end() == 0
        here.ask("fsck", "--data-dir", "data")


def pull(_here: Machine, there: Machine, seconds: float) -> None:
    """Pull the wire out."""
    there.up(wire=False)
    time.sleep(seconds)
    there.up()


def swallow(here: Machine, there: Machine, seconds: float) -> None:
    """Nothing arrives, either way."""
    here.deafen(there)
    there.deafen(here)
    time.sleep(seconds)
    here.deafen(there, deaf=False)
    there.deafen(here, deaf=False)


def deafen_agent(here: Machine, there: Machine, seconds: float) -> None:
    """What the agent says arrives; what the server says does not."""
    here.deafen(there)
    time.sleep(seconds)
    here.deafen(there, deaf=False)


def deafen_server(here: Machine, there: Machine, seconds: float) -> None:
    """What the server says arrives; what the agent says does not."""
    there.deafen(here)
    time.sleep(seconds)
    there.deafen(here, deaf=False)


def flap(here: Machine, there: Machine, _seconds: float) -> None:
    """Out and in again, faster than anybody can be sure."""
    for _ in range(FLAPS):
        pull(here, there, FLAP_SECONDS)
        time.sleep(FLAP_SECONDS)


KINDS: dict[str, Callable[[Machine, Machine, float], None]] = {
    "link down": pull,
    "black hole": swallow,
    "agent hears nothing": deafen_agent,
    "server hears nothing": deafen_server,
    "flapping": flap,
}
