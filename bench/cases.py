"""taskd under measurement: the real server, two real agents, this process the client.

    python bench/cases.py throughput|roundtrip|restart|mixed [--function noop|anoop] [--tasks N] [--no-tls] [--json]

Everything is as shipped: TLS, token, profile, fsync before each acknowledgement. Each agent is
given one worker process for functions, as the floor's have.
"""

import argparse
import heapq
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns

import measure
import programs
import psutil

from taskd.client import Client
from taskd_protocol.house_messages import AgentList, AgentPage, Stats, StatsQuery

START_WITHIN_S = 30.0
SECONDS_MAX = 300
PROBE_EVERY = 50
"""Round trips between two looks at the disk's own speed."""
REST_POLLS = 10
"""So many looks in a row, ``programs.POLL_S`` apart, at which all had used no more than ``REST_SHARE`` of a core."""
REST_SHARE = 0.02
"""The server looks at its own lateness some times a second."""
QUEUED_MORE = 2_000
"""So that the restart's queue still holds the full number when the server is killed."""
MIXED_SLOTS = (4, 2, 1)
MIXED_SEED = 5
MIXED_WARM_UP = 50


@dataclass
class Cluster:
    """A server and its agents, in a directory of their own."""

    directory: Path
    stack: ExitStack
    tls: bool
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """The last one is the one that runs."""
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)
    listen: str = "127.0.0.1:0"
    serving_s: float = 0.0
    """From the last server's exec until it said that it serves."""

    def start_server(self, within_s: float = START_WITHIN_S) -> None:
        """Start the server, where it was before if it was; come back when it serves."""
        argv = [_taskd(), "server", "--data-dir", str(self.directory / "data")]
        argv += ["--listen", self.listen, "--http", "127.0.0.1:0"] + ([] if self.tls else ["--no-tls"])
        exec_ns = time.monotonic_ns()
        server = self.stack.enter_context(programs.program(argv, self.directory / "server.log", heard=True))
        self.servers.append(server)
        serving, url, _ = programs.line(server, within_s).split()
        self.serving_s = (time.monotonic_ns() - exec_ns) / 1e9
        assert serving == "serving"
        self.listen = url.rpartition("/")[2]

    def start_agent(self, name: str, *more: str) -> None:
        """Start an agent with one worker process, and these arguments; ``wait_for_agents`` tells when it is there."""
        argv = [_taskd(), "agent", "bench_tasks", "--name", name, "--processes", "1", *more]
        self.agents.append(self.stack.enter_context(programs.program(argv, self.directory / f"{name}.log")))

    def pids(self) -> measure.Pids:
        """Return the process ids of all, by role; this process is the client."""
        return {
            "server": [self.servers[-1].pid],
            "agents": [agent.pid for agent in self.agents],
            "workers": programs.descendants(self.agents),
            "client": [os.getpid()],
        }


@contextmanager
def cluster(directory: Path, *, tls: bool, agents: Sequence[Sequence[str]] = ((), ())) -> Iterator[Cluster]:
    """Start a server and agents, each with these arguments of its own, and end them all on the way out.

    This process and its children find the server by the profile that it writes.
    """
    os.environ["XDG_CONFIG_HOME"] = str(directory / "config")
    os.environ.pop("TASKD_URL", None)
    with ExitStack() as stack:
        made = Cluster(directory, stack, tls)
        made.start_server()
        for number, more in enumerate(agents, 1):
            made.start_agent(f"agent-{number}", *more)
        wait_for_agents(len(agents))
        _wait_for_rest(made)
        yield made


def _taskd() -> str:
    return str(Path(sys.executable).with_name("taskd"))


def wait_for_agents(count: int) -> None:
    """Wait until so many are live."""
    with closing(Client()) as client:
        for _ in programs.until(f"{count} agents are live", START_WITHIN_S):
            if sum(agent.state == "live" for agent in client.call(AgentList(0), AgentPage).agents) == count:
                return


def _wait_for_rest(running: Cluster) -> None:
    """Wait until nobody works any more: an agent is live before all of its workers have been started."""
    at_rest, before = 0, 0
    for _ in programs.until("server, agents and workers are at rest", START_WITHIN_S):
        pids = running.pids()
        with suppress(OSError):  # a thread that ended while it was looked at: not at rest
            now = sum(spent for role, spent in measure.cpu_ns(pids).items() if role != "client")
            at_rest, before = at_rest + 1 if now - before <= REST_SHARE * programs.POLL_S * 1e9 else 0, now
        if at_rest == REST_POLLS:
            return


def stats() -> Stats:
    """Return what the server has counted."""
    with closing(Client()) as client:
        return client.call(StatsQuery(0), Stats)


def throughput(directory: Path, function: str, count: int, *, tls: bool) -> measure.Facts:
    """Measure from the first submit to the last result held."""
    with cluster(directory, tls=tls) as running:
        import bench_tasks  # noqa: PLC0415 - looks for the profile

        task = getattr(bench_tasks, function)
        pids, stats_before = running.pids(), stats()
        cpu_before, began = measure.cpu_ns(pids), perf_counter_ns()
        handles = task.map(range(count))
        accepted = perf_counter_ns()
        results = [handle.result(timeout=SECONDS_MAX) for handle in handles]
        ended, cpu_after = perf_counter_ns(), measure.cpu_ns(pids)
        stats_after = stats()
        assert results == list(range(count))
        bench_tasks.app.close()
    stages = {
        stage: (spent - stats_before.stages_ns.get(stage, 0)) / count / 1e3
        for stage, spent in stats_after.stages_ns.items()
    }
    counts = {name: number - stats_before.counts.get(name, 0) for name, number in stats_after.counts.items()}
    return {
        "function": function,
        "tls": tls,
        "tasks": count,
        "seconds": (ended - began) / 1e9,
        "accepted_seconds": (accepted - began) / 1e9,
        "tasks_per_s": count * 1e9 / (ended - began),
        "cpu_us": measure.cpu_us(cpu_before, cpu_after, count),
        "loop_us": sum(stages.values()),
        "stages_us": stages,
        "counts": counts,
    }


def roundtrip(directory: Path, function: str, count: int, *, tls: bool) -> measure.Facts:
    """Measure one task after another: submit, wait for its result; and between them the disk's own fsync."""
    with cluster(directory, tls=tls) as running, _probe(directory) as probe:
        import bench_tasks  # noqa: PLC0415 - looks for the profile

        task = getattr(bench_tasks, function)
        trips: list[float] = []
        fsyncs: list[float] = []
        for number in range(-PROBE_EVERY, count):  # the first few warm up
            if number == 0:
                pids = running.pids()
                cpu_before = measure.cpu_ns(pids)
            began = perf_counter_ns()
            assert task.submit(number).result(timeout=SECONDS_MAX) == number
            if number >= 0:
                trips.append((perf_counter_ns() - began) / 1e6)
            if number % PROBE_EVERY == 0:
                fsyncs += [_fsync_ms(probe) for _ in range(5)]
        cpu_after = measure.cpu_ns(pids)
        bench_tasks.app.close()
    fsync = measure.quantile(fsyncs, 0.5)
    return {
        "function": function,
        "trips": count,
        "p50_ms": measure.quantile(trips, 0.5),
        "p99_ms": measure.quantile(trips, 0.99),
        "fsync_p50_ms": fsync,
        "allowed_p50_ms": 1.5 + 6 * fsync,
        "cpu_us": measure.cpu_us(cpu_before, cpu_after, count),
    }


@contextmanager
def _probe(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fsync_ms(descriptor: int) -> float:
    os.write(descriptor, b"x" * 256)  # about what a small commit appends
    began = perf_counter_ns()
    os.fdatasync(descriptor)
    return (perf_counter_ns() - began) / 1e6


def restart(directory: Path, count: int, *, tls: bool) -> measure.Facts:
    """Kill the server with so many tasks queued; measure from its new start to the first body that it leased."""
    with cluster(directory, tls=tls) as running:
        import bench_tasks  # noqa: PLC0415 - looks for the profile

        stamps = directory / "stamps"
        stamps.mkdir()
        start_s = running.serving_s
        server = psutil.Process(running.servers[-1].pid)
        memory_idle = server.memory_info().rss
        began = perf_counter_ns()
        bench_tasks.stamp.map([str(stamps)] * (count + QUEUED_MORE))
        accepted = perf_counter_ns()
        queued = stats().tasks.get("ready", 0)
        memory_queued = server.memory_info().rss
        before = {path.name for path in stamps.iterdir()}
        programs.end(running.servers[-1], signal.SIGKILL)
        exec_ns = time.monotonic_ns()
        running.start_server()
        for _ in programs.until("a body leased by the new server runs", START_WITHIN_S):
            new = [path for path in stamps.iterdir() if path.name not in before and path.stat().st_size]
            if new:
                break
        first_body_ns = min(int(path.read_text()) for path in new)
        memory_restarted = psutil.Process(running.servers[-1].pid).memory_info().rss
        bench_tasks.app.close()
    return {
        "queued": queued,
        "submit_tasks_per_s": (count + QUEUED_MORE) * 1e9 / (accepted - began),
        "start_s": start_s,
        "serving_s": running.serving_s,
        "first_body_s": (first_body_ns - exec_ns) / 1e9,
        "memory_idle_mib": memory_idle / 2**20,
        "memory_queued_mib": memory_queued / 2**20,
        "memory_restarted_mib": memory_restarted / 2**20,
    }


def mixed(directory: Path, count: int, *, tls: bool) -> measure.Facts:
    """Measure tasks of 1 ms to 5 s on agents of 4, 2 and 1 slots, against a list schedule in the same order."""
    with cluster(directory, tls=tls, agents=[("--processes", str(slots)) for slots in MIXED_SLOTS]):
        import bench_tasks  # noqa: PLC0415 - looks for the profile

        naps = _naps(random.Random(MIXED_SEED), count)  # noqa: S311 - the same work each time
        for handle in bench_tasks.nap.map([0.001] * MIXED_WARM_UP):
            handle.result(timeout=SECONDS_MAX)
        began = perf_counter_ns()
        for handle in bench_tasks.nap.map(naps):
            handle.result(timeout=SECONDS_MAX)
        seconds = (perf_counter_ns() - began) / 1e9
        bench_tasks.app.close()
    free = [0.0] * sum(MIXED_SLOTS)
    for nap in naps:
        heapq.heapreplace(free, free[0] + nap)
    return {"tasks": count, "seconds": seconds, "ideal_seconds": max(free), "times_ideal": seconds / max(free)}


def _naps(rng: random.Random, count: int) -> list[float]:
    """Draw run times with a heavy tail: of a hundred two take most of the time."""
    naps = []
    for _ in range(count):
        kind = rng.random()
        least, most = (0.001, 0.01) if kind < 0.9 else (0.02, 0.5) if kind < 0.98 else (1, 5)  # noqa: PLR2004
        naps.append(round(rng.uniform(least, most), 4))
    return naps


def main() -> None:
    """Run one case and print."""
    parser = argparse.ArgumentParser(description="taskd, measured.")
    parser.add_argument("case", choices=("throughput", "roundtrip", "restart", "mixed"))
    parser.add_argument("--function", choices=("noop", "anoop"), default="noop")
    parser.add_argument("--tasks", type=int, help="default: 20,000; 2,000 round trips; 100,000 queued; 1,000 mixed")
    parser.add_argument("--no-tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done within {SECONDS_MAX} s"))
    signal.alarm(SECONDS_MAX)
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="taskd-", dir=options.data_dir)).resolve()
    tls = not options.no_tls
    match options.case:
        case "throughput":
            facts = throughput(directory, options.function, options.tasks or 20_000, tls=tls)
        case "roundtrip":
            facts = roundtrip(directory, options.function, options.tasks or 2_000, tls=tls)
        case "mixed":
            facts = mixed(directory, options.tasks or 1_000, tls=tls)
        case _:
            facts = restart(directory, options.tasks or 100_000, tls=tls)
    shutil.rmtree(directory)  # kept when something went wrong: the logs are in it
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
