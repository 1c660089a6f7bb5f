"""One minor version apart: server, agent and client of this taskd and of the release before it work together.

The release is built from its commit, which ``tests/previous_release`` names, into an environment of its own that
borrows the dependencies installed here: nothing is downloaded.
"""

import copy
import json
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from e2e.house import House, Running, house, wait_until
from taskd import __version__

TESTS = Path(__file__).parents[1]
VERSION, COMMIT = (TESTS / "previous_release").read_text().split()

MODULE = """
import os
import time
from pathlib import Path
from taskd import App, Retry, current

app = App()

@app.task
def add(a, b=0):
    return a + b

@app.task
def wait_for(name):
    Path(f"{name}.started").touch()
    while not Path(name).exists():
        time.sleep(0.02)
    return [name, current().attempt]

@app.task
def go_on_after_a_crash():
    context = current()
    if hasattr(context, "heartbeat"):
        context.heartbeat(["half", "done"])
        time.sleep(0.5)
    if context.attempt == 1:
        os._exit(7)
    return context.attempt

@app.task(retry=Retry(max_attempts=1))
def fail():
    raise ValueError("no")

@app.task(retry=Retry(max_attempts=9, base=3600))
def fail_for_now():
    raise ValueError("not yet")
"""

CLIENT = """
import shop
handles = shop.add.map(range(300))
assert [handle.result(timeout=60) for handle in handles] == list(range(300))
assert shop.add.options(key="once").submit(1).id == shop.add.options(key="once").submit(1).id
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of the release before this one."""
    folder = tmp_path_factory.mktemp("previous")
    archive = folder / "taskd.tar"
    archived = subprocess.run(
        ["git", "-C", str(TESTS.parent), "archive", "--output", str(archive), COMMIT],
        capture_output=True,
        text=True,
        check=False,
    )
    if archived.returncode:
        pytest.fail(
            f"taskd {VERSION} is commit {COMMIT}, which is not in this checkout: clone it whole, or fetch that commit"
            f" ({archived.stderr.strip()})",
            pytrace=False,
        )
    source, environment = folder / "source", folder / "venv"
    source.mkdir()
    run("tar", "-xf", archive, "-C", source)
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    borrowed = next(environment.glob("lib/python*/site-packages")) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    python = environment / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    run(*pip, "--python", python, "install", "--no-index", "--no-deps", wheel)
    assert run(environment / "bin" / "taskd", "--version") == f"taskd {VERSION}\n"
    return environment / "bin"


def run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Pair:
    """One home, with both programs in it.

    Attributes:
        new: Where `taskd` is this one.
        old: Where it is the release before.
    """

    def __init__(self, new: House, previous: Path) -> None:
        self.new = new
        self.old = copy.copy(new)
        self.old.program = (str(previous / "taskd"),)
        self._pythons = {"new": sys.executable, "old": str(previous / "python")}
        (new.work / "shop.py").write_text(MODULE)

    def which(self, name: str) -> House:
        """Return the home as that one sees it."""
        return {"new": self.new, "old": self.old}[name]

    def run_client(self, name: str, code: str) -> str:
        """Run a program that uses the library of that one; return what it printed."""
        done = subprocess.run(
            [self._pythons[name], "-c", code],
            cwd=self.new.work,
            env=self.new.env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def pair(previous: Path, tmp_path: Path) -> Iterator[Pair]:
    with house(tmp_path / "home") as made:
        yield Pair(made, previous)


def serve(home: House, port: int = 0) -> tuple[Running, int]:
    """Start a server on a port that a later one takes again."""
    running = home.start("server", "--data-dir", "data", "--listen", f"127.0.0.1:{port}", "--http", "127.0.0.1:0")
    line = running.read_line()
    assert line.startswith("serving taskd://127.0.0.1:"), line
    return running, int(line.split()[1].rpartition(":")[2])


def has_state(home: House, task_id: str, state: str) -> bool:
    return home.task(task_id)["state"] == state


def test_the_two_differ() -> None:
    """Else nothing below shows anything."""
    assert __version__ != VERSION


@pytest.mark.parametrize(("server", "peers"), [("old", "new"), ("new", "old")])
def test_neighbours_work_together(pair: Pair, server: str, peers: str) -> None:
    """Tasks run, results come, and what runs while the server is killed is handed in to the next one."""
    at_server, at_peers = pair.which(server), pair.which(peers)
    serving, port = serve(at_server)
    at_peers.start("agent", "shop", "--name", "ash", "--processes", "1")
    pair.run_client(peers, CLIENT)
    held = at_peers.ask("submit", "shop.wait_for", '["go"]')
    wait_until((at_peers.work / "go.started").exists)
    assert serving.end(signal.SIGKILL) == -signal.SIGKILL
    (at_peers.work / "go").touch()
    serve(at_server, port)
    assert at_peers.ask("task", "wait", held, "--timeout", "60") == '["go", 1]'
    assert at_peers.ask("run", "--", "echo", "hello") == "hello"
    assert at_peers.ask("submit", "--wait", "shop.go_on_after_a_crash", "[]") == "2"
    assert at_peers.run("submit", "--wait", "shop.fail", "[]").returncode == 1
    shown = at_peers.task(held)
    assert (shown["state"], shown["attempt"], shown["agent"]) == ("succeeded", 1, "ash")
    assert "ash" in at_peers.agents()


def test_a_data_directory_of_the_release_before(pair: Pair) -> None:
    """Tasks in every state it knows are served on, by a server that the older one's agent comes back to."""
    serving, port = serve(pair.old)
    pair.old.start("agent", "shop", "--name", "ash", "--processes", "1")
    states = {pair.run_client("old", "import shop; print(shop.fail.submit().id)"): "dead"}
    states[pair.run_client("old", "import shop; print(shop.fail_for_now.submit().id)")] = "scheduled"
    once = pair.old.ask("submit", "shop.add", "[1, 2]", "--key", "once")
    states[once] = "succeeded"
    states[pair.old.ask("submit", "shop.add", "[3]", "--delay", "1h")] = "scheduled"
    states[pair.old.ask("submit", "nobody.has_it", "[]")] = "ready"
    for task_id, state in states.items():
        wait_until(partial(has_state, pair.old, task_id, state))
    held = pair.old.ask("submit", "shop.wait_for", '["go"]')
    states[held] = "running"
    wait_until((pair.old.work / "go.started").exists)
    assert serving.end(signal.SIGKILL) == -signal.SIGKILL

    serving, _ = serve(pair.new, port)
    assert {task: pair.new.task(task)["state"] for task in states} == states
    assert pair.new.ask("submit", "shop.add", "[1, 2]", "--key", "once") == once
    (pair.new.work / "go").touch()
    assert pair.new.ask("task", "wait", held, "--timeout", "60") == '["go", 1]'
    assert serving.end() == 0
    assert json.loads(pair.new.ask("fsck", "--data-dir", "data", "--json"))["clean"]
    refused = pair.old.run("server", "--data-dir", "data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert (refused.returncode, refused.stdout) == (65, "")
    assert "use the newer taskd" in refused.stderr
