"""Backups and restores as an operator does them: with the program, of servers at work and of stopped ones."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.house import House, house, wait_until
from e2e.test_server_life import MODULE, free_port, serve
from taskd.store.anew import ATTEMPTS_JUMP


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """A user who has a module."""
    with house(tmp_path / "home") as made:
        (made.work / "shop.py").write_text(MODULE)
        yield made


def test_a_task_that_ran_at_the_backup_runs_again_after_the_restore(home: House) -> None:
    """Its agent is told to drop what it holds, and gets it anew under a number that was never given.

    Nobody is told of a new CA or token.
    """
    port = free_port()
    server = serve(home, port)
    home.start("agent", "shop", "--name", "ash", "--processes", "1")
    done = home.ask("submit", "shop.add", "[1, 2]")
    assert home.ask("task", "wait", done) == "3"
    held = home.ask("submit", "shop.wait_for", '["go"]')
    wait_until((home.work / "go.started").exists)
    made = json.loads(home.ask("backup", "saved", "--json"))
    assert (made["tasks"], made["keys"]) == ({"running": 1, "succeeded": 1}, True)
    after = home.ask("submit", "shop.add", "[3, 4]")
    assert home.run("backup", "saved").returncode == 2
    server.end(signal.SIGKILL)
    (home.work / "data").rename(home.work / "lost")

    told = json.loads(home.ask("restore", "saved", "--data-dir", "data", "--json"))
    assert (told["tasks"], told["sequence"]) == (made["tasks"], made["sequence"])
    (home.work / "go.started").unlink()
    serve(home, port)
    wait_until((home.work / "go.started").exists)
    (home.work / "go").touch()
    assert home.ask("task", "wait", held, "--timeout", "30") == f'["go", {ATTEMPTS_JUMP + 2}]'
    assert home.ask("task", "wait", done) == "3"
    assert "no task" in home.run("task", "show", after).stderr


def test_a_stopped_servers_backup(home: House) -> None:
    """Made and restored without a server; one that runs is backed up through its connection, or not at all."""
    server = serve(home, free_port())
    home.ask("submit", "shop.add", "[1]")
    refused = home.run("backup", "saved", "--data-dir", "data")
    assert (refused.returncode, refused.stdout) == (73, "")
    viewer = home.ask("token", "create", "--role", "client")
    profile = home.profile()
    (home.work / "ca.pem").write_text(profile["ca_pem"])
    as_client = home.run("backup", "saved", env={"TASKD_URL": f"taskd://{viewer}@{profile['address']}?ca=ca.pem"})
    assert (as_client.returncode, as_client.stdout) == (5, "")
    assert server.end() == 0
    assert home.ask("backup", "saved", "--data-dir", "data", "--no-keys").startswith("saved: 1 ready, as of commit ")
    restored = home.run("restore", "saved", "--data-dir", "again")
    assert restored.returncode == 0
    assert "makes a new one" in restored.stderr
    assert home.ask("fsck", "--data-dir", "again").startswith("1 ready, as of commit ")
    assert home.ask("fsck", "--store", "saved/store").startswith("1 ready, as of commit ")
    assert not (home.work / "saved.partial").exists()


@pytest.mark.parametrize("loss", ["an older copy", "a lost end"])
def test_a_server_that_was_rolled_back_is_found_by_the_next_command(home: House, loss: str) -> None:
    """The mark that an earlier command was given outlives it.

    The server ends with 65, does so again without being told, and goes on once the loss is accepted.
    """
    port = free_port()
    server = serve(home, port)
    home.ask("submit", "shop.add", "[1]")
    if loss == "an older copy":
        assert server.end() == 0
        shutil.copytree(home.work / "data" / "store", home.work / "older")
        server = serve(home, port)
    log = max((home.work / "data" / "store").glob("*.log"))
    before = log.stat().st_size
    lost = home.ask("submit", "shop.add", "[2]")
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    if loss == "an older copy":
        shutil.rmtree(home.work / "data" / "store")
        (home.work / "older").rename(home.work / "data" / "store")
    else:
        with log.open("r+b") as file:
            file.truncate(before)
        (home.work / "data" / "store" / "durable.mark").unlink()  # as a power cut leaves it: any time behind

    server = serve(home, port)
    told = home.run("task", "ls")
    assert (told.returncode, told.stdout) == (65, "")
    assert "rolled back; bring the newest one back, or accept the loss with taskd recover" in told.stderr
    assert server.process.wait(20) == 65
    again = home.start("server", "--data-dir", "data", "--listen", f"127.0.0.1:{port}")
    assert again.process.wait(20) == 65
    assert "was rolled back" in again.log.read_text()

    assert home.run("recover", "--data-dir", "data").returncode == 65
    assert "start the server again" in home.ask("recover", "--data-dir", "data", "--accept-loss")
    serve(home, port)
    assert "no task" in home.run("task", "show", lost).stderr
    assert [task["attempt"] for task in json.loads(home.ask("task", "ls", "--json"))] == [ATTEMPTS_JUMP]
