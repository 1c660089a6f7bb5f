"""Backups and restores as an operator does them: with the program, of servers at work and of stopped ones."""

import json
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
