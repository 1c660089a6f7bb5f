"""Workflows on a real server and a real agent: the nightly ETL of the examples, steered from the command line."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from e2e.house import House, house, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
DAY = "2026-11-29"
TABLE = f"orders-{DAY}"
TOTAL = 3 * (150 + 250 + 350 + 450)

LARGE = """
from taskd import App

app = App()

@app.task
def large(n):
    return bytes([n]) * 3_000_000

@app.task
def sizes(parts, one):
    return [len(part) for part in parts] + [one[:1] == parts[1][:1]]

@app.task
async def asize(one):
    return len(one)
"""

LARGE_FLOW = """
name = "large"

[nodes.parts]
task = "large.large"
over = [1, 2, 3]

[nodes.one]
task = "large.large"
args = [2]

[nodes.sizes]
task = "large.sizes"
args = [{node = "parts"}, {node = "one"}]

[nodes.asize]
task = "large.asize"
args = [{node = "one"}]

[nodes.word]
command = ["sh", "-c", "test \\"$1\\" = 3000000", "sh", {node = "asize"}]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("home")) as made:
        for file in EXAMPLES.glob("nightly_etl.*"):
            shutil.copy(file, made.work)
        (made.work / "large.py").write_text(LARGE)
        made.serve()
        made.start("agent", "nightly_etl", "large", "--name", "ash", "--processes", "2")
        wait_until(lambda: "ash" in made.agents())
        yield made


def shown(home: House, workflow: str) -> dict[str, dict[str, object]]:
    """Its nodes, by name."""
    document = json.loads(home.ask("workflow", "show", workflow, "--json"))
    return {node["name"]: node for node in cast("list[dict[str, dict[str, object]]]", document["nodes"])}  # type: ignore[misc]  # names are text


def start_by_program(home: House) -> str:
    words = [sys.executable, "nightly_etl.py", DAY]
    ended = subprocess.run(words, env=home.env, cwd=home.work, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def start_by_schedule_of_code(home: House) -> str:
    wait_until(lambda: "nightly-etl " in home.ask("schedule", "ls"))
    view = cast("dict[str, object]", json.loads(home.ask("schedule", "show", "nightly-etl", "--json")))
    assert (view["workflow"], view["node_count"], view["source"]) == ("nightly-etl", 10, "nightly_etl")
    timing = cast("dict[str, object]", view["timing"])
    assert (timing["cron"], timing["tz"]) == (["0 3 * * *"], "Europe/Oslo")
    return home.ask("schedule", "trigger", "nightly-etl")


def start_by_schedule_of_file(home: House) -> str:
    assert home.ask("lint", "nightly_etl.toml").endswith("scheduled 0 3 * * * Europe/Oslo, nothing is wrong")
    assert "schedule nightly-etl-file: 0 3 * * * Europe/Oslo, overlap queue_one" in home.ask("plan", "nightly_etl.toml")
    for told in ("is made", "is as it was"):
        kept = home.ask("workflow", "submit", "nightly_etl.toml")
        assert f"schedule nightly-etl-file {told}; it fires next at " in kept
    return home.ask("schedule", "trigger", "nightly-etl-file")


@pytest.mark.parametrize("start", [start_by_program, start_by_schedule_of_code, start_by_schedule_of_file])
def test_a_night_that_is_approved(home: House, start: Callable[[House], str]) -> None:
    workflow = start(home)
    wait_until(lambda: shown(home, workflow)["approve"]["state"] == "waiting")
    assert f"taskd workflow signal {workflow} approve" in home.ask("workflow", "show", workflow)
    table = str(home.task(str(shown(home, workflow)["load"]["id"]))["result"])
    assert table == TABLE or start is not start_by_program
    assert (home.work / "warehouse" / f"{table}.json").exists()
    home.ask("workflow", "signal", workflow, "approve", '{"by": "ann"}')
    assert home.ask("workflow", "wait", workflow, "--timeout", "30s") == "succeeded"
    published = (home.work / "warehouse" / "published.txt").read_text()
    assert published == f"{table}: {TOTAL} cents, approved by ann"
    states = {name: node["state"] for name, node in shown(home, workflow).items()}
    assert (states["publish"], states["unload"], states["tell"]) == ("succeeded", "skipped", "skipped")
    assert workflow in home.ask("workflow", "ls", "--state", "succeeded", "--name", "nightly-*")


def test_a_night_of_a_schedule_is_for_the_day_before_its_time(home: House) -> None:
    """A backfill of a night of spring, in which the clock was set; it knows its time, and its history the workflow."""
    wait_until(lambda: "nightly-etl " in home.ask("schedule", "ls"))
    night = ("--from", "2026-03-29T00:00", "--to", "2026-03-29T12:00")
    assert home.ask("schedule", "backfill", "nightly-etl", *night) == "submitted 1 workflow"
    [fired, *_] = cast("list[dict[str, object]]", json.loads(home.ask("schedule", "history", "nightly-etl", "--json")))
    workflow = str(fired["workflow"])
    assert (fired["outcome"], fired["at"], fired["task"]) == ("backfilled", "2026-03-29T01:00:00.000Z", None)
    assert "nightly-etl, for 2026-03-29T01:00:00.000Z" in home.ask("workflow", "show", workflow)
    wait_until(lambda: shown(home, workflow)["approve"]["state"] == "waiting")
    assert home.task(str(shown(home, workflow)["day"]["id"]))["result"] == "2026-03-28"
    home.ask("workflow", "cancel", workflow)


def test_a_night_that_fails_is_taken_back(home: House) -> None:
    workflow = start_by_program(home)
    home.ask("workflow", "signal", workflow, "approve", '{"by": "nobody"}')
    ended = home.run("workflow", "wait", workflow, "--timeout", "30s")
    assert (ended.returncode, ended.stdout) == (1, "failed\n")
    assert "node publish failed" in ended.stderr
    assert not (home.work / "warehouse" / f"{TABLE}.json").exists()
    trouble = (home.work / "warehouse" / "trouble.txt").read_text()
    assert trouble == f"the night of {DAY} failed, with a total of {TOTAL}"
    told = home.ask("workflow", "show", workflow)
    assert "failed     publish: builtins.PermissionError: somebody must have approved it (task.raised)" in told
    assert "submit it anew" in home.run("workflow", "resume", workflow).stderr


def test_large_results_go_from_agent_to_agent(home: House) -> None:
    """By reference: to processes, coroutines and commands."""
    (home.work / "large.toml").write_text(LARGE_FLOW)
    workflow = home.ask("workflow", "submit", "large.toml", "--json")
    workflow_id = str(json.loads(workflow)["id"])
    assert home.ask("workflow", "wait", workflow_id, "--timeout", "30s") == "succeeded"
    nodes = shown(home, workflow_id)
    assert nodes["parts"]["children"] == {"total": 3, "succeeded": 3, "failed": 0}
    result = home.task(str(nodes["sizes"]["id"]))["result"]
    assert result == [3_000_000] * 3 + [True]


def test_a_workflow_goes_on_after_its_server_was_killed(tmp_path: Path) -> None:
    with house(tmp_path / "home") as home:
        shutil.copy(EXAMPLES / "nightly_etl.py", home.work)
        shutil.copy(EXAMPLES / "nightly_etl.toml", home.work)
        server = home.serve()
        address = home.profile()["address"]
        home.ask("workflow", "submit", "nightly_etl.toml")
        workflow = home.ask("schedule", "trigger", "nightly-etl-file")
        home.start("agent", "nightly_etl", "--name", "ash", "--processes", "2")
        wait_until(lambda: shown(home, workflow)["approve"]["state"] == "waiting")
        server.end(signal.SIGKILL)
        again = home.start("server", "--listen", address, "--http", "127.0.0.1:0")
        assert again.read_line().startswith("serving")
        home.ask("workflow", "signal", workflow, "approve", '{"by": "ann"}')
        assert home.ask("workflow", "wait", workflow, "--timeout", "30s") == "succeeded"
