"""Preemption, between real processes: a long task is stopped for an urgent one, and goes on where it was."""

import json
import subprocess
import sys
from pathlib import Path

from e2e.house import house, wait_until

MODULE = """
import os, time
from taskd import App, current

app = App()


@app.task(preemptible=True)
def long(pages: int) -> list[int]:
    first = current().heartbeat_details or 0
    for page in range(first, pages):
        current().heartbeat(page + 1)
        if page == 3 and first == 0:
            open("begun", "w").close()
            while not current().cancelled:
                time.sleep(0.01)
            current().raise_if_cancelled()
    return [first, pages]


@app.task
def urgent() -> str:
    return "done"
"""

SUBMIT = """
import json, os, time
import work

long = work.long.submit(10)
while not os.path.exists("begun"):
    time.sleep(0.05)
urgent = work.urgent.options(priority=5).submit().result(30)
result = long.result(30)
print(json.dumps([urgent, result, [attempt.outcome for attempt in long.attempts()]]))
"""


def test_a_long_task_yields_to_an_urgent_one_and_goes_on(tmp_path: Path) -> None:
    with house(tmp_path / "home") as home:
        (home.work / "work.py").write_text(MODULE)
        home.serve()
        home.start("agent", "work", "--processes", "1")
        wait_until(lambda: len(home.agents()) == 1)
        done = subprocess.run(
            [sys.executable, "-c", SUBMIT], env=home.env, cwd=home.work, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == ["done", [4, 10], ["preempted", "succeeded"]]
