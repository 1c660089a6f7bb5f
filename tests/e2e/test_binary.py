"""The one-file program, in an empty folder, with an environment that holds a home and nothing else.

`make binary` builds it and runs these.
"""

import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from e2e.house import House, house, wait_until, words_of
from taskd_dashboard.assets import load_assets

pytestmark = pytest.mark.binary

BINARY = Path(__file__).parents[2] / "dist" / "taskd"
SIZE_MAX_BYTES = 40_000_000

MODULE = """
import os, subprocess, time
from taskd import App

app = App()

@app.task
def greet(name):
    return f"Grüße, {name}"

@app.task
def environment():
    return dict(os.environ)

@app.task
def hide(seconds):
    # A child in a session of its own, that nobody waits for.
    subprocess.Popen(["sleep", str(seconds)], start_new_session=True)
    time.sleep(seconds)
"""


FLOW = """
name = "night"

[nodes.fetch]
command = ["sh", "-c", "test -e ready && echo 7"]
retry = { max_attempts = 1 }

[nodes.approve]
signal = "approve"
after = ["fetch"]

[nodes.greet]
task = "shop.greet"
args = [{ node = "approve" }]
"""
LOOP = """
name = "loop"

[nodes.a]
task = "shop.greet"
after = ["b"]

[nodes.b]
task = "shop.greet"
after = ["a"]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """As `env -i HOME=… taskd` in an empty folder: nothing was ever unpacked for this user."""
    with alone(tmp_path) as made:
        yield made


@contextlib.contextmanager
def alone(tmp_path: Path) -> Iterator[House]:
    home = tmp_path / "home"
    with house(home, [str(BINARY)], {"HOME": str(home)}) as made:
        yield made
        for process in made.processes():
            process.kill()


def cached(home: House) -> list[Path]:
    """Return the programs that were unpacked for this user, and are being."""
    return list(home.home.glob(f".cache/taskd-{os.getuid()}/*"))


def wait_for_agent(home: House, name: str) -> None:
    wait_until(lambda: home.agents().get(name, {}).get("state") == "live")


def test_it_is_one_file_and_not_a_large_one() -> None:
    assert BINARY.stat().st_size <= SIZE_MAX_BYTES
    assert os.access(BINARY, os.X_OK)


def test_server_agent_and_a_command_need_nothing_else(home: House) -> None:
    """No Python, no PATH, no locale; all of it is one program, unpacked once."""
    home.serve("--data-dir", "data")
    home.start("agent", "--name", "ash")
    wait_for_agent(home, "ash")
    ended = home.run("run", "--", "echo", "hi")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hi\n", "")
    assert home.run("run", "--", "sh", "-c", "exit 7").returncode == 7
    (program,) = cached(home)
    assert {process.exe() for process in home.processes()} == {str(program / "taskd")}
    assert sorted(path.name for path in home.work.iterdir()) == ["data"]


def test_the_dashboard_is_in_it(home: House) -> None:
    """Its document and every file that a page asks for, as they lie in the checkout."""
    home.serve("--data-dir", "data")
    link = home.ask("dashboard")
    at = home.profile()["http"]
    assert link.startswith(f"{at}/login#")
    assets = load_assets()
    files = {f"static/{assets.digest}/{path}": asset for path, asset in assets.by_path.items()}
    for path, asset in {"": assets.document_at(""), **files}.items():
        with urllib.request.urlopen(f"{at}/{path}") as answer:  # noqa: S310 - our own server
            assert answer.read() == asset.content, path


def test_tasks_in_python_run_in_the_users_own(home: House) -> None:
    """Nothing of the program's own environment reaches it; what is said in any language comes back."""
    (home.work / "shop.py").write_text(MODULE)
    home.serve("--data-dir", "data")
    home.start("agent", "shop", "--name", "ash", "--processes", "1", "--python", sys.executable)
    wait_for_agent(home, "ash")
    assert home.ask("submit", "shop.greet", '["Łódź"]', "--wait") == '"Grüße, Łódź"'
    environment = json.loads(home.ask("submit", "shop.environment", "[]", "--wait"))
    assert not [name for name in environment if name.startswith(("LD_", "PYTHON", "_PYI", "_MEI"))]
    assert environment["HOME"] == str(home.home)


def test_a_user_without_home_in_the_environment(tmp_path: Path) -> None:
    """Not a single variable: who the user is tells the system's list of users."""
    users, home = tmp_path / "passwd", tmp_path / "home"
    users.write_text(f"root:x:0:0:root:{home}:/bin/sh\n")
    # The list is replaced in a mount namespace of its own, so that the real user's home is not written to.
    apart = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    through = ["sh", "-c", 'mount --bind "$1" /etc/passwd && shift && exec "$@"', "sh", str(users)]
    with house(home, [*apart, *through, str(BINARY)], {}) as made:
        made.serve()
        made.start("agent", "--name", "ash")
        wait_for_agent(made, "ash")
        assert made.run("run", "--", "echo", "hi").stdout == "hi\n"
        assert (home / ".config/taskd/profiles/default.json").is_file()
        assert (home / ".local/state/taskd/server/store").is_dir()
        assert len(list((home / ".cache/taskd-0").iterdir())) == 1
        assert list(made.work.iterdir()) == []


def test_workflows_from_a_file_to_their_end(home: House) -> None:
    """Looked over without a server, drawn in each form, resumed after a failure, signalled, and cancelled."""
    (home.work / "shop.py").write_text(MODULE)
    (home.work / "flow.toml").write_text(FLOW)
    (home.work / "loop.toml").write_text(LOOP)
    assert home.ask("lint", "flow.toml") == "flow.toml: 3 nodes, nothing is wrong"
    looped = home.run("lint", "loop.toml")
    assert looped.returncode == 2
    assert "it waits for itself: a waits for b waits for a" in looped.stdout
    assert "greet" in home.ask("plan", "flow.toml").splitlines()[-1]

    home.serve("--data-dir", "data")
    home.start("agent", "shop", "--name", "ash", "--processes", "1", "--python", sys.executable)
    wait_for_agent(home, "ash")
    workflow = home.ask("workflow", "submit", "flow.toml")
    assert home.run("workflow", "wait", workflow, "--timeout", "30s").stdout == "failed\n"
    assert "failed     fetch" in home.ask("workflow", "show", workflow)
    for form, head in (("dot", "digraph"), ("mermaid", "---"), ("svg", "<svg")):
        drawn = home.ask("workflow", "graph", workflow, "--format", form)
        assert drawn.startswith(head)
        assert "approve" in drawn
    (home.work / "ready").touch()
    home.ask("workflow", "resume", workflow)
    home.ask("workflow", "signal", workflow, "approve", '"Łódź"')
    assert home.ask("workflow", "wait", workflow, "--timeout", "30s") == "succeeded"
    nodes = {node["name"]: node for node in json.loads(home.ask("workflow", "show", workflow, "--json"))["nodes"]}
    assert home.task(nodes["greet"]["id"])["result"] == "Grüße, Łódź"

    other = home.ask("workflow", "submit", "flow.toml")
    home.ask("workflow", "cancel", other)
    assert home.run("workflow", "wait", other, "--timeout", "30s").stdout == "cancelled\n"
    assert [row["state"] for row in json.loads(home.ask("workflow", "ls", "--json"))] == ["cancelled", "succeeded"]


def test_schedules_by_the_zones_that_it_carries(home: House) -> None:
    """No zone data of the machine's are needed; what is triggered runs."""
    home.env["PYTHONTZPATH"] = ""
    preview = home.ask("schedule", "preview", "--cron", "30 2 * * *", "--tz", "Europe/Oslo", "--from", "2026-03-28")
    assert "2026-03-29T01:00:00" in preview  # 02:30 is in the gap
    (home.work / "shop.py").write_text(MODULE)
    home.serve("--data-dir", "data")
    home.start("agent", "shop", "--name", "ash", "--processes", "1", "--python", sys.executable)
    wait_for_agent(home, "ash")
    words = ["--cron", "0 3 * * *", "--tz", "Europe/Oslo"]
    home.ask("schedule", "add", "nightly", "shop.greet", '["moon"]', *words)
    assert [row["name"] for row in json.loads(home.ask("schedule", "ls", "--json"))] == ["nightly"]
    assert " 03:00:00 +0" in home.ask("schedule", "preview", "nightly", "--count", "3")
    task = home.ask("schedule", "trigger", "nightly")
    assert home.ask("task", "wait", task, "--timeout", "30s") == '"Grüße, moon"'


def test_what_was_started_is_the_program_itself(home: House) -> None:
    """One process: what is killed is the server, and nothing of it is left."""
    server = home.serve("--data-dir", "data")
    assert [process.pid for process in home.processes()] == [server.pid]
    assert server.end(signal.SIGKILL) == -9
    assert home.processes() == []


def test_an_agent_that_is_killed_leaves_no_process_behind(home: House) -> None:
    """Neither a worker, nor a command, nor what either has detached from itself."""
    (home.work / "shop.py").write_text(MODULE)
    server = home.serve("--data-dir", "data")
    agent = home.start("agent", "shop", "--name", "ash", "--processes", "1", "--python", sys.executable)
    wait_for_agent(home, "ash")
    home.ask("submit", "shop.hide", "[600]")
    command = home.start("run", "--", "sh", "-c", "setsid sleep 601 & echo started; sleep 602")
    assert command.read_line() == "started"
    sleeping = {str(seconds) for seconds in (600, 601, 602)}
    wait_until(lambda: {words[1] for p in home.processes() if (words := words_of(p))[:1] == ["sleep"]} == sleeping)
    assert agent.end(signal.SIGKILL) == -9
    wait_until(lambda: {process.pid for process in home.processes()} == {server.pid, command.pid})


def test_dev_that_is_killed_leaves_no_process_behind(home: House) -> None:
    dev = home.start("dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    wait_until(lambda: '"live"' in home.run("agents", "ls", "--json").stdout)
    assert len(home.processes()) >= 3
    assert dev.end(signal.SIGKILL) == -9
    wait_until(lambda: home.processes() == [])


def test_the_first_starts_may_all_come_at_once(home: House) -> None:
    """Each unpacks for itself, one copy stays."""
    starts = [home.start("--version") for _ in range(4)]
    assert [start.process.wait(60) for start in starts] == [0] * 4
    assert len(cached(home)) == 1


def test_a_cache_that_is_a_link_is_passed_over(home: House, tmp_path: Path) -> None:
    """Somebody else may have laid it there, to have a program of theirs run."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "cache" / f"taskd-{os.getuid()}").symlink_to(tmp_path / "theirs")
    home.env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    assert home.ask("--version").startswith("taskd ")
    assert list((tmp_path / "theirs").iterdir()) == []
    assert len(cached(home)) == 1


def test_a_copy_that_was_not_finished_is_not_used(home: House) -> None:
    """A start that is killed while it unpacks leaves what no later start takes for the program."""
    first = home.start("--version")
    wait_until(lambda: cached(home))
    first.end(signal.SIGKILL)
    assert home.ask("--version").startswith("taskd ")


def test_how_soon_it_serves(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    """For people to read: what else the machine does is in the figures, so they are no promise here."""
    lines = []
    for which in ("first", "second", "third"):
        before = time.perf_counter()
        server = home.serve("--data-dir", "data")
        wall = time.perf_counter() - before
        cpu = psutil.Process(server.pid).cpu_times()
        assert server.end() == 0
        lines.append(f"{which} start serves after {wall:.2f} s, {cpu.user + cpu.system:.2f} s of CPU of its own")
    help_before = time.perf_counter()
    home.ask("--help")
    lines.append(f"--help takes {time.perf_counter() - help_before:.2f} s")
    with capsys.disabled():
        print(f"\n{BINARY.name}: {BINARY.stat().st_size / 1e6:.1f} MB, " + "; ".join(lines))  # noqa: T201 - for people
