"""What a peer must do to be measured. One adapter a peer: its broker, its workers, and its client."""

import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

VARIABLE = "BENCH_PLACE"

Argv = list[str]


@dataclass(frozen=True)
class Place:
    """Where and how a peer runs, this time."""

    port: int = 0
    """Free, on loopback: the broker's."""
    directory: str = "."
    """Of this run alone."""
    mode: str = "fast"
    workers: int = 2
    """Processes; 0: this run has none."""

    @classmethod
    def here(cls) -> "Place":
        """Return what the runner said to this process."""
        return cls(**json.loads(os.environ.get(VARIABLE, "{}")))

    def in_environment(self) -> dict[str, str]:
        """Return what says so to a child."""
        return {VARIABLE: json.dumps(asdict(self))}


@dataclass(frozen=True)
class Broker:
    """What keeps the tasks: a program of this run's own, on loopback."""

    argv: Argv
    version: Argv
    """Prints its version."""
    before: list[Argv] = field(default_factory=list)
    """Run once, before its first start."""
    after: list[Argv] = field(default_factory=list)
    """Run once, when it serves."""
    marker: str = ""
    """A file that it writes when it serves; empty: that its port answers is enough."""
    port_of_its_own: bool = False
    """It takes another than it is told, and its clients find it: its marker is all there is to see."""


class Adapter(ABC):
    """One peer. Methods of the client run in a process that did ``open``; the others only tell."""

    packages: ClassVar[Sequence[str]] = ()
    """Whose versions are told."""
    modes: ClassVar[dict[str, str]] = {"fast": "", "durable": ""}
    """How it can be run, and what that means, in words."""
    durable: ClassVar[Sequence[str]] = ("durable",)
    """Modes in which a submit that was acknowledged is on disk."""
    without: ClassVar[Sequence[str]] = ()
    """Works that it cannot do."""
    differs: ClassVar[str] = ""
    """What a reader must know to compare it fairly."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def broker(self) -> Broker:
        """Return the broker's program."""

    @abstractmethod
    def workers(self) -> list[Argv]:
        """Return the programs that do the work."""

    def open(self) -> None:  # noqa: B027 - who needs no connection does nothing
        """Connect."""

    @abstractmethod
    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        """Submit one task for each value, in the fastest way that is recommended; return when all are acknowledged."""

    def submit(self, body: str, value: int) -> object:
        """Submit one task; return when it is acknowledged."""
        return self.submit_many(body, [value])[0]

    def submitter(self) -> "Adapter":
        """Return what one of many threads submits by; this one, where they may share it."""
        return self

    def submit_at_once(self, body: str, count: int, submitters: int) -> None:
        """Have so many submitters at a time submit one task after the other, so many in all, as its users would."""
        left = iter(range(count))  # its next() is atomic

        def one() -> None:
            mine = self.submitter()
            for value in left:
                mine.submit(body, value)

        with ThreadPoolExecutor(submitters) as threads:
            for done in [threads.submit(one) for _ in range(submitters)]:
                done.result()

    @abstractmethod
    def results(self, handles: Sequence[object], within_s: float) -> list[int] | None:
        """Wait until all have ended; return what they returned, None where results are not kept."""

    def close(self) -> None:  # noqa: B027 - who has nothing to hang up does nothing
        """Hang up."""


class GraphAdapter(Adapter):
    """A peer whose tasks can come after others."""

    layers_at_most: ClassVar[int] = sys.maxsize
    """Of a graph that ends in time: what a layer costs grows with their number."""

    @abstractmethod
    def run_graph(self, layers: int, width: int, within_s: float) -> None:
        """Run a graph in layers: each no-op comes after two of the layer before. Return when all have ended."""


def tool(name: str) -> str:
    """Return a program of this environment."""
    return str(Path(sys.executable).with_name(name))


def python(module: str, *words: str) -> Argv:
    """Return how a module is run in this environment."""
    return [sys.executable, "-m", module, *words]


def redis(place: Place) -> Broker:
    """Return Redis: with its built-in defaults, or with an fsync before each answer."""
    argv = ["redis-server", "--port", str(place.port), "--bind", "127.0.0.1", "--dir", place.directory]
    if place.mode == "durable":
        argv += ["--appendonly", "yes", "--appendfsync", "always"]
    return Broker(argv, ["redis-server", "--version"])


REDIS_MODES = {
    "fast": "Redis with its built-in defaults: a snapshot now and then",
    "durable": "Redis with appendonly yes and appendfsync always",
}


def postgres(place: Place, database: str, after: list[Argv]) -> Broker:
    """Return PostgreSQL: as it comes, which is durable, or with ``synchronous_commit=off``."""
    folder = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), Path("/usr/bin"))
    data = f"{place.directory}/postgres"
    # It refuses to run as root; who is another user already runs it as himself.
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    before = [["install", "-d", *(["-o", "postgres"] if become else []), data]]
    before += [[*become, str(folder / "initdb"), "-D", data, "-A", "trust", "-U", "bench", "--no-sync"]]
    settings = {"port": place.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": data}
    settings["synchronous_commit"] = "off" if place.mode == "fast" else "on"
    argv = [*become, str(folder / "postgres"), "-D", data]
    argv += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    make = ["createdb", "-h", "127.0.0.1", "-p", str(place.port), "-U", "bench", database]
    return Broker(argv, [str(folder / "postgres"), "--version"], before, [make, *after])


def missing(argv: Argv) -> str:
    """Return why a program cannot be started here; empty when it can."""
    program = argv[0]
    return "" if shutil.which(program) else f"{program} is not installed"
