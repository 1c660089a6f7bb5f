"""An agent on another machine: in a network namespace of its own, with a home of its own, and one wire between them.

The namespaces are made here and removed again, which takes root and iproute2.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.house import PROGRAM, House, house, wait_until

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


class Machine:
    """A network namespace, and the far end of a wire in it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.wire = "wire0"

    def ip(self, *words: str) -> None:
        """Run `ip` in it."""
        ip("-n", self.name, *words)

    def up(self, *, wire: bool = True) -> None:
        """Plug in its wire, or pull it out."""
        self.ip("link", "set", self.wire, "up" if wire else "down")

    @contextlib.contextmanager
    def house(self, home: Path) -> Iterator[House]:
        """Give a user of this machine."""
        with house(home, ["ip", "netns", "exec", self.name, PROGRAM]) as made:
            (made.work / "shop.py").write_text(MODULE)
            yield made


def ip(*words: str) -> None:
    ended = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"ip {' '.join(words)}: {ended.stderr}"


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines that share a wire and nothing else."""
    here, there = Machine(f"taskd-a-{os.getpid()}", SERVER), Machine(f"taskd-b-{os.getpid()}", OTHER)
    with contextlib.ExitStack() as stack:
        for machine in (here, there):
            ip("netns", "add", machine.name)
            stack.callback(ip, "netns", "del", machine.name)
        here.ip("link", "add", here.wire, "type", "veth", "peer", "name", there.wire, "netns", there.name)
        for machine in (here, there):
            machine.ip("link", "set", "lo", "up")
            machine.ip("address", "add", f"{machine.address}/24", "dev", machine.wire)
            machine.up()
        yield here, there


@pytest.fixture
def here(machines: tuple[Machine, Machine], tmp_path: Path) -> Iterator[House]:
    """The home of whoever runs the server."""
    with machines[0].house(tmp_path / "here") as made:
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
    with machines[1].house(tmp_path / "there") as there, machines[1].house(tmp_path / "third") as third:
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
    with machines[1].house(tmp_path / "there") as there:
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
    with machines[1].house(tmp_path / "there") as there:
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
    with machines[1].house(tmp_path / "there") as there:
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
