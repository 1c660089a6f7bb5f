"""One run of one peer: its broker, workers and client, each a program of this run's own, ended by its id.

Nothing here waits without a bound: who is silent for too long has failed, and the run goes on without him.
"""

import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import measure
import msgspec
import programs
import psutil

from peers.interface import Broker, Place

ENVIRONMENTS = programs.BENCH.parent / "build" / "peers"
PORTS = (15_000, 30_000)
"""Below those that Linux gives to clients."""
START_S = 30.0
SETTLE_S = 0.5
RESTART_S = 0.5
"""Between the kill of a broker and its new start."""
QUIET_S = 5.0
"""So long without a task that runs: what has not run by then is taken for lost."""
RECOVER_S = 30.0

SYNCS = re.compile(rb"\b(?:fsync|fdatasync|sync_file_range|msync)\(")
VERSION = re.compile(r"\d+\.\d[\w.]*")
STRACE = [
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-e",
    "trace=fsync,fdatasync,sync_file_range,msync",
    "-e",
    "signal=none",
]


class Failed(Exception):
    """A peer could not be measured, and why."""


def interpreter(peer: str) -> str:
    """Return the Python of a peer's environment; ours for taskd, and for a peer that needs nothing."""
    own = ENVIRONMENTS / peer / "bin" / "python"
    return sys.executable if peer == "taskd" or not own.exists() else str(own)


def tell(peer: str, place: Place) -> measure.Facts:
    """Return what a peer's adapter tells of itself.

    Raises:
        Failed: It cannot be loaded.
    """
    done = subprocess.run(
        [interpreter(peer), "-m", "peers.client", peer, "--tell"],
        cwd=programs.BENCH,
        env=_environment(place),
        capture_output=True,
        timeout=START_S,
        check=False,
    )
    if done.returncode:
        raise Failed(done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "its adapter does not load")
    told: measure.Facts = json.loads(done.stdout)
    return told


def _environment(place: Place) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKD_", "PYTHON"))}
    own = {"PYTHONPATH": str(programs.BENCH), "XDG_CONFIG_HOME": f"{place.directory}/config", "HOME": place.directory}
    return {**kept, **own, **place.in_environment()}


def free_port() -> int:
    """Return a port of loopback that nobody has, and that no client is given before the broker listens."""
    while True:
        port = random.randrange(*PORTS)  # noqa: S311 - any will do
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Session:
    """A peer that runs."""

    def __init__(self, peer: str, place: Place, stack: ExitStack, *, traced: bool) -> None:
        """Prepare.

        Args:
            peer: Whose adapter.
            place: Where, and how.
            stack: Ends what is started.
            traced: The broker's fsyncs are counted.
        """
        self.peer, self.place = peer, place
        self._stack = stack
        self._directory = Path(place.directory)
        self._environment = _environment(place)
        told = tell(peer, place)
        self._broker = msgspec.convert(told["broker"], Broker)
        self._worker_argvs = cast("list[list[str]]", told["workers"])
        self._trace = self._directory / "trace" if traced else None
        self.broker: subprocess.Popen[bytes]
        self.workers: list[subprocess.Popen[bytes]] = []
        self.client: subprocess.Popen[bytes] | None = None
        self._answers = b""

    def start(self) -> None:
        """Start the broker, then the workers, then the client, and wait until a task has gone all the way."""
        for argv in self._broker.before:
            self._once(argv)
        self.start_broker()
        for argv in self._broker.after:
            self._once(argv)
        self.start_workers()
        self.client = self._start([interpreter(self.peer), "-m", "peers.client", self.peer], "client", spoken=True)
        if self.place.workers:
            self.ask("ready", START_S + 5)
            time.sleep(SETTLE_S)

    def start_broker(self) -> None:
        """Start the broker where it is to be; come back when it serves."""
        argv = self._broker.argv
        if self._trace is not None:
            argv = [*STRACE, "-o", str(self._trace), *argv]
        self.broker = self._start(argv, "broker")
        until = time.monotonic() + START_S
        while not self._serves():
            if self.broker.poll() is not None or time.monotonic() > until:
                raise Failed(f"the broker does not serve: {self._last_words('broker')}")
            time.sleep(programs.POLL_S)

    def _serves(self) -> bool:
        if self._broker.marker and not Path(self._broker.marker).exists():
            return False
        if self._broker.port_of_its_own:
            return True
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.place.port)) == 0

    def start_workers(self) -> None:
        """Start the workers that do not run, as whoever watches over them would."""
        running = [worker for worker in self.workers if worker.poll() is None]
        missing = self._worker_argvs[len(running) :]
        self.workers = running + [self._start(argv, "workers") for argv in missing]

    def _start(self, argv: Sequence[str], name: str, *, spoken: bool = False) -> subprocess.Popen[bytes]:
        log = self._directory / f"{name}.log"
        started = programs.program(argv, log, heard=spoken, spoken=spoken, environment=self._environment)
        process = self._stack.enter_context(started)
        # A broker may have something to tidy up; strace lives on as long as what it traces.
        if name != "broker" or self._trace is not None:
            self._stack.callback(programs.end, process, signal.SIGKILL)
        return process

    def _once(self, argv: Sequence[str]) -> None:
        done = subprocess.run(
            argv, cwd=programs.BENCH, env=self._environment, capture_output=True, timeout=START_S, check=False
        )
        if done.returncode:
            raise Failed(f"{Path(argv[0]).name}: {done.stderr.decode(errors='replace').strip()[-200:]}")

    def ask(self, work: str, within_s: float, **arguments: object) -> measure.Facts:
        """Have the client do a work; return what it measured.

        Raises:
            Failed: It could not, or not in time.
        """
        self.say(work, **arguments)
        answer = self.hear(within_s)
        if "failed" in answer:
            raise Failed(str(answer["failed"]))
        return answer

    def say(self, work: str, **arguments: object) -> None:
        """Ask the client for a work; if it has ended, whoever listens for its answer is told."""
        assert self.client is not None
        assert self.client.stdin is not None
        with suppress(BrokenPipeError):
            self.client.stdin.write(json.dumps({"work": work, **arguments}).encode() + b"\n")
            self.client.stdin.flush()

    def hear(self, within_s: float) -> measure.Facts:
        """Return the client's next line.

        Raises:
            Failed: There is none in time.
        """
        assert self.client is not None
        assert self.client.stdout is not None
        until = time.monotonic() + within_s
        while b"\n" not in self._answers:
            readable, _, _ = select.select([self.client.stdout], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self.client.stdout.fileno(), 1 << 16) if readable else b""
            if not readable:
                raise Failed(f"not done within {within_s:.0f} s")
            if not piece:
                raise Failed(f"its client ended: {self._last_words('client')}")
            self._answers += piece
        line, _, self._answers = self._answers.partition(b"\n")
        facts: measure.Facts = json.loads(line)
        return facts

    def _last_words(self, name: str) -> str:
        log = self._directory / f"{name}.log"
        return log.read_text(errors="replace").strip().rpartition("\n")[2][-200:] if log.exists() else ""

    def memory(self) -> int:
        """Return the bytes of memory that the broker's processes have, shared ones shared out."""
        total = 0
        for process in [psutil.Process(self.broker.pid), *psutil.Process(self.broker.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total

    def disk(self) -> int:
        """Return the bytes that the run's directory takes, logs left out."""
        files = [path.stat() for path in self._directory.rglob("*") if path.is_file() and path.suffix != ".log"]
        return sum(
            min(file.st_blocks * 512, file.st_size) for file in files
        )  # of what is there, not of what is set aside

    def pids(self) -> measure.Pids:
        """Return who is there, by role."""
        assert self.client is not None
        return {
            "server": [self.broker.pid, *programs.descendants([self.broker])],
            "agents": [worker.pid for worker in self.workers],
            "workers": programs.descendants(self.workers),
            "client": [self.client.pid],
        }

    def syncs(self) -> int:
        """Return how many fsyncs the broker has done."""
        assert self._trace is not None
        return len(SYNCS.findall(self._trace.read_bytes())) if self._trace.exists() else 0

    def kill_broker(self) -> None:
        """Kill -9 the broker, with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.broker.pid, signal.SIGKILL)
        self.broker.wait(START_S)

    def crash(self, count: int) -> measure.Facts:
        """Kill the broker when so many submits were acknowledged, start it again; tell what ran, and how often."""
        ledger = self._directory / "ledger"
        self.say("crash", count=count, seconds=20.0)
        answer = self.hear(START_S)
        while cast("int", answer.get("acked_so_far", count)) < count:
            answer = self.hear(START_S)
        ran_before = len(ran(ledger))
        self.kill_broker()
        time.sleep(RESTART_S)
        began = time.monotonic()
        self.start_broker()
        started = time.monotonic()
        acked: int | None = None
        last, runs = started, ran(ledger)
        while time.monotonic() < started + RECOVER_S and time.monotonic() < last + QUIET_S:
            self.start_workers()
            if acked is None:
                with suppress(Failed):
                    while "acked" not in answer:
                        answer = self.hear(0.1)
                    acked = cast("int", answer["acked"])
            now = ran(ledger)
            if len(now) > len(runs):
                last, runs = time.monotonic(), now
            if acked is not None and set(range(acked)) <= set(now):
                break
            time.sleep(0.1)
        if acked is None:
            acked = cast("int", answer.get("acked", answer.get("acked_so_far", count)))
        return {**ledger_of(ran(ledger), acked), "ran_before": ran_before, "restart_s": started - began,
                "recovered_s": max(0.0, last - began), "error": answer.get("error", "")}  # fmt: skip


def ran(ledger: Path) -> list[int]:
    """Return the numbers of the tasks that have left word, as often as they did."""
    return [int(line) for path in ledger.iterdir() for line in path.read_text().split("\n")[:-1]]


def ledger_of(runs: Sequence[int], acked: int) -> measure.Facts:
    """Hold what ran against what was acknowledged: the numbers below ``acked``."""
    known = [number for number in runs if number < acked]
    return {"acked": acked, "not_run": acked - len(set(known)), "repeated": len(known) - len(set(known))}


@contextmanager
def session(peer: str, mode: str, directory: Path, *, workers: int = 2, traced: bool = False) -> Iterator[Session]:
    """Start a peer in a directory of its own; end all of it on the way out. It is kept when something went wrong."""
    directory.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=f"{peer}-", dir=directory)).resolve()
    own.chmod(0o755)  # PostgreSQL runs as another user
    (own / "ledger").mkdir()
    place = Place(port=free_port(), directory=str(own), mode=mode, workers=workers)
    with ExitStack() as stack:
        made = Session(peer, place, stack, traced=traced)
        made.start()
        yield made
    shutil.rmtree(own, ignore_errors=True)


def version(argv: Sequence[str]) -> str:
    """Return the version that a program tells; empty: it is not there, or tells none."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=START_S, check=False)
    except OSError:
        return ""
    found = VERSION.search((done.stdout or done.stderr).decode(errors="replace"))
    return found[0] if found else ""
