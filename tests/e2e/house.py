"""A user's home, and the real `taskd` program run in it as a person would: nothing is replaced, nothing is shared."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import psutil

from taskd.client.clock import mono_s

T = TypeVar("T")

PROGRAM: Final = str(Path(sys.executable).with_name("taskd"))
PATIENCE_S: Final = 30.0
"""For what takes a second on a quiet machine."""

Json = dict[str, "object"]


def wait_until(condition: Callable[[], T], timeout_s: float = PATIENCE_S) -> T:
    """Return what the condition returns once that is true; fail when it never is."""
    until_s = mono_s() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert mono_s() < until_s, f"not within {timeout_s} s: {condition}"
        time.sleep(0.02)


class Running:
    """A `taskd` that runs; killed at the test's end with everything that came from it."""

    def __init__(self, program: Sequence[str], words: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.log = cwd.parent / f"{'-'.join(words[:1])}-{time.perf_counter_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *words], env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        self._seen: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_line(self, timeout_s: float = PATIENCE_S) -> str:
        """Return the next line of standard output."""
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
            piece = os.read(self.process.stdout.fileno(), 1) if ready else b""
            assert piece, f"no line of output; it logged: {self.log.read_text()}"
            line += piece
        return line.decode().rstrip("\n")

    def family(self) -> list[psutil.Process]:
        """Return every process that has come from it, and still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                self._seen.setdefault(process.pid, process)
        return [process for process in self._seen.values() if _runs(process)]

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> int:
        """Send it a signal; return its exit code, negative for a signal that ended it."""
        self.family()
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """Kill it, and what is left of its family, by their ids."""
        self.family()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


class House:
    """A user's home, with an empty folder to work in.

    Attributes:
        program: What `taskd` is here, and what it is started through.
        env: The environment of what is started: ours with another home, unless one is given.
    """

    def __init__(self, home: Path, program: Sequence[str] = (PROGRAM,), env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.work = home / "work"
        self.work.mkdir(parents=True)
        self.program = program
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKD_", "XDG_"))}
        self.env = {**kept, "HOME": str(home)} if env is None else dict(env)
        self._started: list[Running] = []

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Running:
        """Start `taskd WORDS…` and leave it running."""
        running = Running(self.program, words, {**self.env, **(env or {})}, self.work)
        self._started.append(running)
        return running

    def serve(self, *words: str, host: str = "127.0.0.1") -> Running:
        """Start a server on free ports; return when it serves."""
        running = self.start("server", "--listen", f"{host}:0", "--http", "127.0.0.1:0", *words)
        assert running.read_line().startswith(f"serving taskd://{host}:")
        return running

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `taskd WORDS…` to its end."""
        return subprocess.run(
            [*self.program, *words],
            env={**self.env, **(env or {})},
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, *words: str) -> str:
        """Run `taskd WORDS…`, which must succeed; return what it printed."""
        ended = self.run(*words)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.rstrip("\n")

    def task(self, task_id: str) -> Json:
        """Return a task as scripts see it."""
        return dict(json.loads(self.ask("task", "show", task_id, "--json")))

    def agents(self) -> dict[str, Json]:
        """Return the agents by name."""
        return {agent["name"]: agent for agent in json.loads(self.ask("agents", "ls", "--json"))}

    def profile(self, name: str = "default") -> dict[str, str]:
        """Return what is known here of a server."""
        return dict(json.loads((self.home / f".config/taskd/profiles/{name}.json").read_text()))

    def processes(self) -> list[psutil.Process]:
        """Return all that runs with this home in its environment: what was started here, however it hid."""
        return [process for process in psutil.process_iter() if _runs(process) and _home(process) == str(self.home)]

    def close(self) -> None:
        """Kill everything that was started here."""
        for running in reversed(self._started):
            running.close()


def words_of(process: psutil.Process) -> list[str]:
    """Return its command line; empty once it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@contextlib.contextmanager
def house(home: Path, program: Sequence[str] = (PROGRAM,), env: Mapping[str, str] | None = None) -> Iterator[House]:
    """Give a home; at the end nothing of it runs any more."""
    made = House(home, program, env)
    try:
        yield made
    finally:
        made.close()


def _home(process: psutil.Process) -> str:
    try:
        return process.environ().get("HOME", "")
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
