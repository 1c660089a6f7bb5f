"""A task that takes its agent down, every time, and one whose agent is taken down: only the first is blamed."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import cast

import psutil

from e2e.house import House, house, wait_until

MODULE = """
import os, signal, time
from taskd import App, Retry

app = App()

@app.task(retry=Retry(max_attempts=9, base=0.01, crash_limit=2))
def poison(path):
    with open(path, "a") as file:
        file.write("x")
    with open("agent.pid") as file:
        os.kill(int(file.read()), signal.SIGKILL)
    time.sleep(600)

@app.task(retry=Retry(max_attempts=1))
def neighbour(path):
    with open(path, "a") as file:
        file.write("x")
    while not os.path.exists("calm"):
        time.sleep(0.02)
    return "done"
"""


def start_agent(home: House) -> psutil.Process:
    running = home.start("agent", "bad", "--name", "ash", "--processes", "2")
    (home.work / "agent.pid").write_text(str(running.pid))
    return psutil.Process(running.pid)


def length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def outcomes(home: House, task_id: str) -> list[str]:
    attempts = cast("list[dict[str, str]]", home.task(task_id)["attempts"])
    return [attempt["outcome"] for attempt in attempts]


def test_a_poison_task_ends_dead(tmp_path: Path) -> None:
    """A first loss costs nothing; then each start is marked, and each loss after it is a crash."""
    with house(tmp_path / "home") as home:
        (home.work / "bad.py").write_text(MODULE)
        home.serve()
        ran = home.work / "ran"
        code = f"import bad; print(bad.poison.submit({str(ran)!r}).id)"
        submit = [sys.executable, "-c", code]
        out = subprocess.run(submit, env=home.env, cwd=home.work, capture_output=True, text=True, check=True).stdout
        task_id = out.strip()
        for _ in range(3):
            agent = start_agent(home)
            wait_until(partial(_is_dead, agent))
        start_agent(home)  # its offer tells what became of the one before
        wait_until(lambda: home.task(task_id)["state"] == "dead")
        assert outcomes(home, task_id) == ["lost", "crashed", "crashed"]
        assert length(ran) == 3
        error = cast("dict[str, str]", home.task(task_id)["error"])
        assert error["code"] == "worker.lost"


def test_what_was_lost_with_its_agent_runs_again_at_no_charge(tmp_path: Path) -> None:
    """Even a task that may be tried once: it was not its fault."""
    with house(tmp_path / "home") as home:
        (home.work / "bad.py").write_text(MODULE)
        home.serve()
        ran = home.work / "ran"
        task_id = home.ask("submit", "bad.neighbour", json.dumps([str(ran)]), "--max-attempts", "1")
        agent = start_agent(home)
        wait_until(lambda: length(ran) == 1)
        os.kill(agent.pid, signal.SIGKILL)
        start_agent(home)
        wait_until(lambda: length(ran) == 2)
        (home.work / "calm").touch()
        assert home.ask("task", "wait", task_id, "--timeout", "20") == '"done"'
        assert outcomes(home, task_id) == ["lost", "succeeded"]


def _is_dead(agent: psutil.Process) -> bool:
    try:
        return agent.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
