"""A server, or an agent, that is stopped for a while and goes on as if nothing had been (SIGSTOP and SIGCONT).

A server that stood still loses nobody: all that ran goes on as the attempt it was. The tasks of an agent that stood
still run again elsewhere, in time; what it says of them later changes nothing, and what it still ran of them ends.
"""

import random
import signal
import threading
import time
from pathlib import Path

import psutil

from campaigns.report import Found
from e2e.house import House, Running, house, wait_until

HEARTBEAT_SECONDS = 0.5
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
SLACK_SECONDS = 5.0
"""For processes to start and files to be seen, on a machine that has other things to do."""

STOPPED_SECONDS = (2.0, 6.0)
GRACE_SECONDS = 15.0
"""For what must not run any more to be gone."""

MODULE = """
import os, time
from pathlib import Path
from taskd import App, current

app = App()

@app.task
def hold(name):
    Path(f"{name}-{current().attempt}").write_text(str(os.getpid()))
    while not Path(f"{name}-go").exists():
        time.sleep(0.02)
    return current().attempt
"""


def play(case: int, home: Path, found: Found) -> None:
    """Stop one or the other, each in its turn."""
    rng = random.Random(case)
    with house(home / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        server = made.serve("--data-dir", "data", "--heartbeat", f"{HEARTBEAT_SECONDS * 1000:.0f}ms")
        agent = made.start("agent", "shop", "--name", "ash", "--processes", "2")
        task_id = made.ask("submit", "shop.hold", '["one"]')
        wait_until((made.work / "one-1").exists)
        if case % 2:
            _stop_agent(made, agent, task_id, rng, found)
        else:
            _stop_server(made, server, task_id, rng, found)
        assert server.end() == 0
        made.ask("fsck", "--data-dir", "data")


def _stop_server(home: House, server: Running, task_id: str, rng: random.Random, found: Found) -> None:
    """Longer than an agent may be silent: its leases are given that time, too, and who asked meanwhile is answered."""
    found.fault("server stopped")
    asked: list[str] = []
    server.process.send_signal(signal.SIGSTOP)
    client = threading.Thread(target=lambda: asked.append(home.ask("submit", "shop.hold", '["two"]')))
    client.start()
    time.sleep(rng.uniform(*STOPPED_SECONDS))
    server.process.send_signal(signal.SIGCONT)
    client.join()
    wait_until((home.work / "two-1").exists)
    _wait_for_heartbeats(home)
    for name, each in (("one", task_id), ("two", asked[0])):
        assert home.task(each)["state"] == "running"
        (home.work / f"{name}-go").touch()
        assert home.ask("task", "wait", each) == "1", "a stall of the server cost an attempt"
        found.ops += 1


def _stop_agent(home: House, agent: Running, task_id: str, rng: random.Random, found: Found) -> None:
    """Its task is another's in time. One completion counts, and it is not that of the agent that stood still."""
    found.fault("agent stopped")
    home.start("agent", "shop", "--name", "oak", "--processes", "2")
    wait_until(lambda: home.agents().get("oak", {}).get("state") == "live")
    pid = int((home.work / "one-1").read_text())
    agent.process.send_signal(signal.SIGSTOP)
    stopped_s = time.perf_counter()
    wait_until((home.work / "one-2").exists)
    took_s = time.perf_counter() - stopped_s
    assert took_s < SILENCE_SECONDS + 2 * HEARTBEAT_SECONDS + SLACK_SECONDS, f"regranted after {took_s:.1f} s"
    found.reach("regranted in time", int(took_s < SILENCE_SECONDS + 2 * HEARTBEAT_SECONDS))
    ends_first = rng.random() < 0.5
    if ends_first:
        found.reach("finished while the other stood still")
        _finish(home, task_id)
    agent.process.send_signal(signal.SIGCONT)
    wait_until(lambda: home.agents().get("ash", {}).get("state") == "live")
    if not ends_first:
        found.reach("back while another runs it")
        wait_until(lambda: not psutil.pid_exists(pid), GRACE_SECONDS)
        _finish(home, task_id)
    _wait_for_heartbeats(home)
    shown = home.task(task_id)
    assert (shown["state"], shown["attempt"], shown["agent"]) == ("succeeded", 2, "oak")
    found.ops += 1


def _finish(home: House, task_id: str) -> None:
    (home.work / "one-go").touch()
    assert home.ask("task", "wait", task_id) == "2"


def _wait_for_heartbeats(home: House) -> None:
    """Give whoever would be lost the time to be: as many beats as may be missed, and one."""
    end_s = time.perf_counter() + SILENCE_SECONDS + HEARTBEAT_SECONDS
    wait_until(lambda: time.perf_counter() > end_s and home.agents()["ash"]["state"] == "live")
