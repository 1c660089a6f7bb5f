"""Looking on from a terminal and from a program: what happens is told, also over a `kill -9` of the server."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.house import House, house, wait_until

MODULE = """
from taskd import App

app = App()

@app.task(queue="images")
def add(a, b=0):
    return a + b
"""

READER = """
import shop

for event in shop.app.events(["task."], queue="images", after=0):
    print(event.number, event.what, *event.ids, flush=True)
"""

FLOW = """
name = "two"

[nodes.first]
command = ["true"]

[nodes.second]
command = ["true"]
after = ["first"]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """A user who has a module."""
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        (made.work / "reader.py").write_text(READER)
        yield made


def agent(home: House) -> None:
    home.start("agent", "shop", "--name", "a1", "--processes", "1")
    wait_until(lambda: home.agents().get("a1", {}).get("state") == "live")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_watch_prints_what_happens(home: House) -> None:
    home.serve()
    agent(home)
    task_id = home.ask("submit", "--queue", "images", "shop.add", "[1]")
    home.ask("task", "wait", task_id)
    lines = home.ask("watch", "--after", "0", "--count", "3", "--json", f"task:{task_id}").splitlines()
    told = [json.loads(line) for line in lines]
    assert [(event["what"], event["ids"]) for event in told] == [
        (what, [task_id]) for what in ("task.submitted", "task.running", "task.succeeded")
    ]
    assert told[2]["agent"] == "a1"
    text = home.ask("watch", "--after", "0", "--count", "1", "what:agent.")
    assert text.split()[1:] == ["agent.connected", "a1"]
    refused = home.run("watch", "colour:red")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_top_prints_once_where_there_is_no_terminal(home: House) -> None:
    home.serve()
    agent(home)
    home.ask("submit", "--queue", "images", "shop.add", "[1]", "--wait")
    shown = wait_until(lambda: text if "up to" in (text := home.ask("top")) else "")
    assert "a1" in shown
    assert "live" in shown


def test_a_program_reads_on_over_a_killed_server(home: House) -> None:
    """Nothing is told twice, and nothing is left out: what was submitted before, between and after."""
    listen = f"127.0.0.1:{free_port()}"
    words = ("server", "--listen", listen, "--http", "127.0.0.1:0")
    server = home.start(*words)
    server.read_line()
    reader = subprocess.Popen(
        [sys.executable, "reader.py"], cwd=home.work, env=home.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert reader.stdout is not None
    try:
        submitted: list[str] = []
        for number in range(3):
            submitted.append(home.ask("submit", "--queue", "images", "shop.add", f"[{number}]"))
            server.end(signal.SIGKILL)
            server = home.start(*words)
            server.read_line()
            submitted.append(home.ask("submit", "--queue", "images", "shop.add", f"[{number}]"))
        told = [reader.stdout.readline().decode().split() for _ in submitted]
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()
    numbers = [int(number) for number, *_ in told]
    assert numbers == sorted(set(numbers))
    assert [(what, task_id) for _, what, task_id in told] == [("task.submitted", task_id) for task_id in submitted]


def test_workflow_watch_goes_with_it_to_its_end(home: House) -> None:
    home.serve()
    (home.work / "flow.toml").write_text(FLOW)
    workflow_id = home.ask("workflow", "submit", "flow.toml")
    watching = home.start("workflow", "watch", workflow_id)
    first = watching.read_line()
    assert "0 of 2 nodes have ended" in first
    agent(home)
    lines = [first]
    while "succeeded" not in lines[-1].rpartition(";")[2]:
        lines.append(watching.read_line())
    assert "2 of 2 nodes have ended: 2 succeeded; succeeded" in lines[-1]
    assert watching.process.wait(20) == 0
