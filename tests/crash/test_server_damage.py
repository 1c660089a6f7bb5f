"""The real server on a disk that fills up, or does not hold what was written: told in one line, and nothing is lost."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.disks import small_disk
from e2e.house import House, house, wait_until

TASKS = 10
RESULT_BYTES = 12_000_000
DISK_MIB = 200
"""Room for a server at rest, and not for that many results."""

MODULE = f"""
import time
from pathlib import Path
from taskd import App

app = App()

@app.task
def large(seed):
    while not Path("go").exists():
        time.sleep(0.05)
    return bytes([seed]) * {RESULT_BYTES}

@app.task
def first(blob):
    return blob[0]
"""
SUBMIT = f"""
from shop import large
large.map(range({TASKS}))
"""
FILL = """
from shop import first
print(len(first.map([bytes([index % 251]) * 200 for index in range(3000)])))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of this test alone."""
    with small_disk(tmp_path / "disk", DISK_MIB) as point:
        yield point


def eat(disk: Path) -> Path:
    """Take all the room that is left."""
    file = disk / "eaten"
    ended = subprocess.run(["dd", "if=/dev/zero", f"of={file}", "bs=64k"], capture_output=True, text=True, check=False)
    assert "No space left" in ended.stderr
    return file


def standings(home: House, *fields: str) -> set[tuple[object, ...]]:
    """Tell how the tasks stand, all of them at once."""
    tasks = json.loads(home.ask("task", "ls", "--json"))
    assert len(tasks) == TASKS
    return {tuple([task[field] for field in fields]) for task in tasks}


def test_a_disk_that_fills_up_while_committing_ends_the_server_and_loses_nothing(home: House, disk: Path) -> None:
    """It stops with 74 before it acknowledges what it cannot keep; with room again, the agent hands its results in."""
    words = ("--data-dir", str(disk / "data"))
    server = home.start("server", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *words)
    found = re.match(r"serving taskd://(\S+) ", server.read_line())
    assert found is not None
    home.start("agent", "shop", "--processes", str(TASKS), "--name", "ash")
    program(home, SUBMIT)
    wait_until(lambda: standings(home, "state") == {("running",)})
    eaten = eat(disk)
    (home.work / "go").touch()
    assert server.process.wait(60) == 74
    told = server.log.read_text().splitlines()[-1]
    assert "No space left" in told
    assert "free space, then start again" in told

    eaten.unlink()
    home.serve(*words, "--listen", found[1])
    wait_until(lambda: {state for state, _ in standings(home, "state", "attempt")} == {"succeeded"})
    assert standings(home, "state", "attempt") == {("succeeded", 1)}


def program(home: House, script: str) -> None:
    """Run a program of the user's."""
    subprocess.run([sys.executable, "-c", script], env=home.env, cwd=home.work, check=True, timeout=60)


def flip(file: Path, share: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * share)] ^= 0x10
    file.write_bytes(content)


def largest(folder: Path, kind: str) -> Path:
    return max(folder.glob(f"store/*.{kind}"), key=lambda file: file.stat().st_size)


def test_a_log_that_was_changed_is_refused(home: House) -> None:
    """Not served shorter: 65, and one line that names what to do."""
    server = home.serve("--data-dir", "one")
    program(home, FILL)
    server.end(signal.SIGKILL)
    flip(largest(home.work / "one", "log"), 0.5)
    ended = home.run("server", "--data-dir", "one", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (65, "", 1)
    assert "taskd recover" in ended.stderr


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_table_that_was_changed_is_refused(share: float, home: House) -> None:
    """At the start, or when what was changed is read: 65. Fsck and recover tell the same, and change nothing."""
    home.serve("--data-dir", "one").end(signal.SIGTERM)
    server = home.serve("--data-dir", "one")
    program(home, FILL)
    server.end(signal.SIGTERM)
    flip(largest(home.work / "one", "sst"), share)
    shutil.copytree(home.work / "one", home.work / "two")
    running = home.start("server", "--data-dir", "one", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    home.start("agent", "shop")
    assert running.process.wait(60) == 65
    assert "restore a backup" in running.log.read_text().splitlines()[-1]
    for words in (["fsck"], ["recover", "--accept-loss"]):
        ended = home.run(*words, "--data-dir", "two")
        assert (ended.returncode, ended.stderr.count("\n")) == (65, 1)
        assert "restore a backup" in ended.stderr
