"""Where the demo plays: a real server and two agents, in a directory of their own that nothing else knows of."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from taskd.cli import children
from taskd.cli.asking import login_link
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd.client.profile import resolve
from taskd_protocol.errors import CannotConnect
from taskd_protocol.house_messages import AgentList, AgentPage

HEARTBEAT_S: Final = 1
"""How often the agents give a sign of life here. Five times as often as by default: people are watching."""
START_S: Final = 30.0
"""How long a server or an agent may take to be there, on a busy machine."""
_LOOK_AGAIN_S: Final = 0.05
_TAIL_LINES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The processes of the demo."""

    home: Path
    server: children.Child
    address: str
    """What the server printed: where it serves."""
    page: str
    """A link to the dashboard that logs in once."""
    agents: dict[str, children.Child] = field(default_factory=dict)

    def add_agents(self, names: Sequence[str], module: str, processes: int, python: str | None) -> None:
        """Start agents that run the tasks of a module, and wait until the server has them all.

        Raises:
            CannotConnect: One ended at once, or none came; its last words are told.
        """
        chosen = ["--python", python] if python else []
        for name in names:
            words = ["agent", module, "--name", name, "--processes", str(processes), *chosen]
            with self._log(name) as log:
                self.agents[name] = children.start(words, stderr=log, cwd=self.home)
        with contextlib.closing(Client(resolve(), name="taskd demo")) as client:
            until_s = mono_s() + START_S
            while mono_s() < until_s:
                live = {agent.name for agent in client.call(AgentList(0), AgentPage).agents if agent.state == "live"}
                if live >= set(names):
                    return
                gone = children.wait_any([self.agents[name] for name in names], _LOOK_AGAIN_S)
                if gone is not None:
                    break
        missing = next(name for name in names if name not in live)
        raise CannotConnect(f"the agent {missing!r} did not come: {self.last_words(missing)}")

    def last_words(self, name: str) -> str:
        """Return the end of what an agent or the server logged."""
        return _tail(self.home / f"{name}.log")

    def close(self) -> None:
        """Stop everything, agents first."""
        for child in self.agents.values():
            children.stop(child)
        children.stop(self.server)

    def _log(self, name: str) -> IO[bytes]:
        return (self.home / f"{name}.log").open("wb")


@contextlib.contextmanager
def set_up() -> Iterator[Stage]:
    """Start a server in a new directory; it and its profile are where this process and its children look.

    Raises:
        CannotConnect: The server did not come; its last words are told.
    """
    with tempfile.TemporaryDirectory(prefix="taskd-demo-", ignore_cleanup_errors=True) as home, _own_settings(home):
        words = ["server", "--data-dir", f"{home}/data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        words += ["--heartbeat", f"{HEARTBEAT_S}s"]
        with Path(home, "server.log").open("wb") as log:
            server = children.start(words, stdout=subprocess.PIPE, stderr=log, cwd=Path(home))
        try:
            line = children.first_line(server, START_S)
        except BaseException:
            children.stop(server)
            raise
        if line is None:
            children.stop(server)
            raise CannotConnect(f"the server did not come: {_tail(Path(home, 'server.log'))}")
        address = line.removeprefix("serving ").split(" ")[0]
        stage = Stage(home=Path(home), server=server, address=address, page=login_link(resolve()))
        with contextlib.closing(stage):
            yield stage


@contextlib.contextmanager
def _own_settings(home: str) -> Iterator[None]:
    """Have profiles kept in ``home``, and nothing of the user's own settings heard: both stay as they are."""
    before = {name: value for name, value in os.environ.items() if name.startswith(("TASKD_", "XDG_CONFIG_HOME"))}
    for name in before:
        del os.environ[name]
    os.environ["XDG_CONFIG_HOME"] = f"{home}/config"
    try:
        yield
    finally:
        del os.environ["XDG_CONFIG_HOME"]
        os.environ.update(before)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return " / ".join(lines) or "it said nothing"
