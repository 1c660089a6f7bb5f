"""An agent on another machine: in a network namespace of its own, with a home of its own, and one wire between them.

The namespaces are made here and removed again, which takes root and iproute2.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.house import House, wait_until
from e2e.machines import Machine, two_machines

SERVER, OTHER, ADDED = "10.199.71.1", "10.199.71.2", "10.199.71.3"

MODULE = """
import os, pathlib, time
from taskd import App

app = App()

@app.task
def where():
    return os.readlink("/proc/self/ns/net")

@app.task
def wait_for(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.01)
    return "seen"
"""


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    with two_machines(SERVER, OTHER) as both:
        yield both


@pytest.fixture
def here(machines: tuple[Machine, Machine], tmp_path: Path) -> Iterator[House]:
    """The home of whoever runs the server."""
    with machines[0].house(tmp_path / "here", MODULE) as made:
        yield made


def namespace(machine: Machine) -> str:
    """Return how the kernel calls its network."""
    return f"net:[{Path('/run/netns', machine.name).stat().st_ino}]"


def wait_until_live(here: House, name: str, *, live: bool = True) -> None:
    wait_until(lambda: (here.agents().get(name, {}).get("state") == "live") == live)


def test_it_joins_with_one_command_and_runs_tasks(
    here: House, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """A code, one command, TLS to an address that is not loopback; the code is good once."""
    here.serve("--data-dir", "data", "--host-name", "queue.example", host=SERVER)
    code = here.ask("agents", "invite")
    with machines[1].house(tmp_path / "there", MODULE) as there, machines[1].house(tmp_path / "third", MODULE) as third:
        there.start("agent", "shop", "--join", code, "--name", "guest")
        wait_until_live(here, "guest")
        assert json.loads(here.ask("submit", "shop.where", "--wait")) == namespace(machines[1])
        ended = here.run("run", "--", "readlink", "/proc/self/ns/net")
        assert (ended.returncode, ended.stdout) == (0, namespace(machines[1]) + "\n")
        (profile,) = [json.loads(path.read_text()) for path in there.home.glob(".config/taskd/profiles/*.json")]
        assert profile["address"].startswith(f"{SERVER}:")
        assert (profile["tls"], profile["ca_pem"][:27]) == (True, "-----BEGIN CERTIFICATE-----")
        ended = third.run("agent", "shop", "--join", code)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (5, "", 1)
        assert "taskd agents invite" in ended.stderr
        assert not (third.home / ".config").exists()


def test_a_code_that_is_too_old_is_refused(here: House, machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    here.serve("--data-dir", "data", host=SERVER)
    code = here.ask("agents", "invite", "--expires", "1ms")
    with machines[1].house(tmp_path / "there", MODULE) as there:
        ended = there.run("agent", "shop", "--join", code)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (5, "", 1)
    assert "taskd agents invite" in ended.stderr


@pytest.mark.parametrize("named", [True, False])
def test_an_address_of_which_the_server_was_told(
    named: bool,  # noqa: FBT001 - a parameter of the test
    here: House,
    machines: tuple[Machine, Machine],
    tmp_path: Path,
) -> None:
    """A certificate is good for what `--host-name` says; where others reach it by another name, they refuse it."""
    names = ["--host-name", ADDED] if named else []
    here.serve("--data-dir", "data", *names, host="0.0.0.0")  # noqa: S104 - of a machine that ends with the test
    machines[0].ip("address", "add", f"{ADDED}/24", "dev", machines[0].wire)
    address = here.profile()["address"].replace("127.0.0.1", ADDED)
    code = here.ask("agents", "invite", "--address", address)
    with machines[1].house(tmp_path / "there", MODULE) as there:
        if named:
            there.start("agent", "shop", "--join", code, "--name", "guest")
            wait_until_live(here, "guest")
        else:
            ended = there.run("agent", "shop", "--join", code)
            assert (ended.returncode, ended.stderr.count("\n")) == (3, 1)
            assert "--host-name" in ended.stderr


def test_an_agent_that_was_cut_off_comes_back(here: House, machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """What it ran meanwhile counts, once; neither side heard a connection end."""
    here.serve("--data-dir", "data", "--heartbeat", "500ms", host=SERVER)
    code = here.ask("agents", "invite")
    with machines[1].house(tmp_path / "there", MODULE) as there:
        there.start("agent", "shop", "--join", code, "--name", "guest")
        wait_until_live(here, "guest")
        task_id = here.ask("submit", "shop.wait_for", json.dumps([str(tmp_path / "go")]))
        wait_until(lambda: here.task(task_id)["state"] == "running")
        machines[1].up(wire=False)
        wait_until_live(here, "guest", live=False)
        (tmp_path / "go").touch()
        machines[1].up()
        assert json.loads(here.ask("task", "wait", task_id, "--timeout", "60")) == "seen"
        wait_until_live(here, "guest")
