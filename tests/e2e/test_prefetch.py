"""Short tasks and a long one on two agents: nothing waits behind the long one while there is a free slot."""

import json
import subprocess
import sys
from pathlib import Path

from e2e.house import house, wait_until

MODULE = """
import os, time
from taskd import App

app = App()

@app.task
def short(number):
    return number

@app.task
def long():
    open("begun", "w").close()
    while not os.path.exists("calm"):
        time.sleep(0.02)
"""

SUBMIT = """
import json
import work

for _ in range(10):  # both agents learn that a task takes no time
    [handle.result(20) for handle in work.short.map(range(300))]
long = work.long.submit()
shorts = work.short.map(range(2000))
results = [handle.result(20) for handle in shorts]
attempts = [handle.attempts() for handle in shorts[::50]]
told = {
    "long": str(long.state()),
    "results": results,
    "outcomes": sorted({attempt.outcome for some in attempts for attempt in some}),
    "attempt": max(attempt.number for some in attempts for attempt in some),
}
print(json.dumps(told))
"""


def test_short_tasks_do_not_wait_behind_a_long_one(tmp_path: Path) -> None:
    """What was fetched ahead of the long task goes to the other agent, once, and leaves no attempt behind."""
    with house(tmp_path / "home") as home:
        (home.work / "work.py").write_text(MODULE)
        home.serve()
        for name in ("ash", "oak"):
            home.start("agent", "work", "--name", name, "--processes", "1")
        wait_until(lambda: len(home.agents()) == 2)
        done = subprocess.run(
            [sys.executable, "-c", SUBMIT], env=home.env, cwd=home.work, capture_output=True, text=True, check=False
        )
        begun = (home.work / "begun").exists()
        (home.work / "calm").touch()
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert begun
        assert told["long"] == "running"
        assert told["results"] == list(range(2000))
        assert told["outcomes"] == ["succeeded"]
        assert told["attempt"] <= 3
