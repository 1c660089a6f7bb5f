"""`taskd task explain` at the command line, with a server and agents as they are: what keeps each task waiting."""

import json
import re
from collections.abc import Iterator
from typing import cast

import pytest

from e2e.house import House, house, wait_until

MODULE = """
import time
from taskd import App

app = App()

@app.task
def sleep(seconds):
    time.sleep(seconds)

@app.task
def add(a, b):
    return a + b
"""

FLOW = """
name = "report"

[nodes.first]
task = "work.sleep"
args = [300]

[nodes.last]
task = "work.add"
args = [1, 2]
after = ["first"]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server, and an agent with two slots, a resource, and memory."""
    with house(tmp_path_factory.mktemp("explain")) as made:
        (made.work / "work.py").write_text(MODULE)
        made.serve()
        words = ("--name", "ash", "--processes", "2", "--resource", "license=4", "--label", "zone=a")
        made.start("agent", "work", *words, "--queues", "default,slow")
        wait_until(lambda: made.agents().get("ash", {}).get("state") == "live")
        yield made


def explain(home: House, task_id: str) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(home.ask("task", "explain", task_id, "--json")))


def reason(home: House, task_id: str) -> dict[str, object]:
    found = explain(home, task_id)["waits_for"]
    assert isinstance(found, dict), "it waits"
    return found


def hold(home: House, *words: str) -> str:
    """Have a task run that holds something; return its id."""
    task_id = home.ask("submit", "work.sleep", "[300]", *words, "--cpu", "0")
    try:
        wait_until(lambda: home.task(task_id)["state"] == "running")
    except AssertionError:
        pytest.fail(home.ask("task", "explain", task_id))
    return task_id


@pytest.fixture
def holder(home: House) -> Iterator[str]:
    """A task that runs, and holds most of the resource."""
    task_id = hold(home, "--resource", "license=3")
    yield task_id
    home.ask("task", "cancel", task_id)
    wait_until(lambda: home.task(task_id)["state"] == "cancelled")


def test_a_resource_that_another_task_holds(home: House, holder: str) -> None:
    waiting = home.ask("submit", "work.add", "[1, 2]", "--resource", "license=2", "--cpu", "0")
    wait_until(lambda: reason(home, waiting)["code"] == "agent.resource")
    told = reason(home, waiting)
    assert (told["subject"], told["wants"], told["free"], told["total"]) == ("license", 2_000, 1_000, 4_000)
    shown = home.ask("task", "explain", waiting)
    assert "waits for  license: needs 2, 1 free of 4\n" in shown
    assert "ash    license: needs 2, 1 free of 4" in shown
    assert f"(more: taskd task explain {waiting})" in home.ask("task", "show", waiting)
    assert "holds      license 3\n" in home.ask("task", "explain", holder)
    home.ask("task", "cancel", waiting)


def test_memory_and_how_long_was_waited_for_it(home: House) -> None:
    """While the task waits, and after it has ended."""
    total = home.agents()["ash"]["memory_total"]
    assert isinstance(total, int)
    half, more = f"{total // 2**21}MiB", f"{total * 11 // 20 // 2**20}MiB"  # each fits; others use of it, too
    holder = hold(home, "--memory", half)
    waiting = home.ask("submit", "work.add", "[1, 2]", "--memory", more, "--cpu", "0")
    wait_until(lambda: reason(home, waiting)["subject"] == "memory")
    wait_until(lambda: explain(home, waiting)["waited"])
    assert "waits for  memory: needs " in home.ask("task", "explain", waiting)
    assert "holds      memory " in home.ask("task", "explain", holder)
    home.ask("task", "cancel", holder)
    home.ask("task", "wait", waiting)
    [attempt] = cast("list[dict[str, object]]", explain(home, waiting)["waited"])
    assert attempt["attempt"] == 1
    [first, *_] = cast("list[dict[str, object]]", attempt["for"])
    assert (first["code"], first["subject"]) == ("agent.resource", "memory")
    assert re.search(r"^attempt 1  waited .* for memory", home.ask("task", "explain", waiting), re.MULTILINE)


def test_a_label_that_no_agent_has(home: House) -> None:
    ended = home.run("submit", "work.add", "[1, 2]", "--label", "zone=b")
    assert "taskd: no agent that is connected could ever run work.add: " in ended.stderr
    task_id = ended.stdout.strip()
    told = explain(home, task_id)
    assert told["impossible"] is True
    assert reason(home, task_id)["code"] == "agent.label"
    shown = home.ask("task", "explain", task_id)
    assert "waits for  an agent with the label zone = b\n" in shown
    assert "warning    no agent that is connected could ever run it\n" in shown
    home.ask("task", "cancel", task_id)


def test_a_queue_that_no_agent_serves(home: House) -> None:
    task_id = home.ask("submit", "work.add", "[1, 2]", "--queue", "night")
    assert "waits for  an agent that serves queue night\n" in home.ask("task", "explain", task_id)
    home.ask("task", "cancel", task_id)


def test_a_delay(home: House) -> None:
    task_id = home.ask("submit", "work.add", "[1, 2]", "--delay", "1h")
    told = reason(home, task_id)
    assert told["code"] == "time.delay"
    assert str(told["until"]).endswith("Z")
    home.ask("task", "cancel", task_id)


def test_a_node_that_comes_after_another(home: House) -> None:
    (home.work / "report.toml").write_text(FLOW)
    workflow = home.ask("workflow", "submit", "report.toml")
    nodes = json.loads(home.ask("workflow", "show", workflow, "--json"))["nodes"]
    last = next(node["id"] for node in nodes if node["name"] == "last")
    assert "waits for  the node before it: first" in home.ask("task", "explain", last)
    home.ask("workflow", "cancel", workflow)


def test_what_has_ended(home: House) -> None:
    task_id = home.ask("submit", "work.add", "[1, 2]")
    home.ask("task", "wait", task_id)
    told = explain(home, task_id)
    assert (told["state"], told["agent"], told["waits_for"]) == ("succeeded", "ash", None)
    assert told["finished_at"] is not None
