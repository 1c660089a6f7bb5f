"""Many small tasks in one call, between real processes: each ends by itself, also beside one that takes all down."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.house import house, wait_until

MODULE = """
import os
from taskd import App, Retry, current_batch

app = App()


@app.task(batch=100, wait=0.3, retry=Retry(max_attempts=1))
def double(numbers: list[int]) -> list[list[int] | Exception]:
    if 13 in numbers:
        os._exit(7)
    with open("calls", "a") as calls:
        print(len(numbers), len({each.fencing_token for each in current_batch()}), file=calls)
    return [ValueError("no sevens") if n == 7 else [n * 2, len(numbers)] for n in numbers]


@app.task(batch=50, wait=0.3)
async def triple(numbers: list[int]) -> list[list[int]]:
    return [[n * 3, len(numbers)] for n in numbers]
"""

SUBMIT = """
import json
import work
from taskd import TaskFailed

doubled, tripled = work.double.map([n for n in range(402) if n != 13]), work.triple.map(range(200))
fine, failed = [], []
for handle in doubled:
    try:
        fine.append(handle.result(60))
    except TaskFailed as error:
        failed.append(error.type)
triples = [handle.result(60) for handle in tripled]
print(json.dumps({
    "failed": failed,
    "doubled": [value for value, _ in fine],
    "tripled": [value for value, _ in triples],
    "together": [max(size for _, size in fine), max(size for _, size in triples)],
}))
"""

POISON = """
import json
import work
from taskd import as_completed

beside = [work.double.submit(n) for n in (1, 13, 2)]
list(as_completed(beside, timeout=60))
print(json.dumps([str(handle.state()) for handle in beside]))
"""


EXAMPLE = Path(__file__).parents[2] / "examples" / "one_transaction.py"


def run(program: str, env: dict[str, str], cwd: Path) -> object:
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tasks_go_together_and_end_each_by_itself(tmp_path: Path) -> None:
    with house(tmp_path / "home") as home:
        (home.work / "work.py").write_text(MODULE)
        home.serve()
        home.start("agent", "work", "--processes", "1")
        wait_until(lambda: len(home.agents()) == 1)
        told = run(SUBMIT, home.env, home.work)
        assert told == {
            "failed": ["builtins.ValueError"],
            "doubled": [n * 2 for n in range(402) if n not in {7, 13}],
            "tripled": [n * 3 for n in range(200)],
            "together": [100, 50],
        }
        calls = [line.split() for line in (home.work / "calls").read_text().splitlines()]
        assert len(calls) <= 8, "401 tasks"
        assert all(tasks == tokens for tasks, tokens in calls)
        assert run(POISON, home.env, home.work) == ["succeeded", "dead", "succeeded"]


def test_the_example_stores_all_but_what_is_broken(tmp_path: Path) -> None:
    with house(tmp_path / "home") as home:
        shutil.copy(EXAMPLE, home.work)
        home.serve()
        home.start("agent", "one_transaction", "--processes", "1")
        wait_until(lambda: len(home.agents()) == 1)
        done = subprocess.run(
            [sys.executable, EXAMPLE.name], env=home.env, cwd=home.work, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "s500 is broken" in done.stdout
        assert done.stdout.splitlines()[-1] == "999 stored in readings.db, 1 refused"
