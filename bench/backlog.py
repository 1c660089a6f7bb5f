"""A backlog of millions: what it takes of memory and disk, whether it slows anything, and how long a start takes.

    python bench/backlog.py [--tasks N] [--lines N] [--rounds N] [--no-tls] [--json]

Two servers as shipped, each with two agents of one worker process: one stays empty, the other is given a backlog, in
queues that its agents do not serve. The same work is done on both, in turns. Then both are killed and started,
and what waits is worked off for a while: the backlog on the one, on the other so little that a window holds it.
"""

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter_ns

import bench_tasks
import cases
import measure
import programs
import psutil

from taskd import App

CHUNK = 10_000
SMALL = 60_000
"""What waits on the server without a backlog when both are killed."""
DRAINED_FIRST = 10_000
DRAINED = 30_000
"""So many are worked off before it is measured, and while it is."""
WORK = 20_000
TRIPS = 500
START_WITHIN_S = 120.0
DRAIN_WITHIN_S = 300.0
QUIET_POLLS = 100
"""So many looks in a row at which a server used next to no CPU: its compactions are over."""


class Side:
    """One of the two servers, with its agents and a client."""

    def __init__(self, stack: ExitStack, directory: Path, *, tls: bool) -> None:
        directory.mkdir()
        self.stamps = directory / "stamps"
        self.stamps.mkdir()
        self.running = stack.enter_context(
            cases.cluster(directory, tls=tls, agents=[("--queues", "default")] * 2)
        )  # it leaves the way to the server in the environment
        self.app = App()
        stack.callback(self.app.close)
        self.noop = self.app.task(name="bench_tasks.noop")(bench_tasks.noop.function)
        self.backlog = self.app.task(name="bench_tasks.backlog")(bench_tasks.backlog.function)
        self.submit("default", 1)

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Have programs, and clients that are made meanwhile, find this server."""
        os.environ["XDG_CONFIG_HOME"] = str(self.running.directory / "config")
        yield

    def submit(self, queue: str, count: int) -> float:
        """Submit what only leaves word of its start; return the seconds."""
        began = perf_counter_ns()
        self.backlog.options(queue=queue).map([str(self.stamps)] * count, range(count))
        return (perf_counter_ns() - began) / 1e9

    def work(self) -> measure.Facts:
        """Do work: many tasks at once, then one after another."""
        before, began = self.cpu(), perf_counter_ns()
        assert [handle.result(timeout=60) for handle in self.noop.map(range(WORK))] == list(range(WORK))
        seconds = (perf_counter_ns() - began) / 1e9
        cpu = _by_thread(self.cpu() - before, WORK)
        trips: list[float] = []
        for number in range(TRIPS):
            began = perf_counter_ns()
            assert self.noop.submit(number).result(timeout=60) == number
            trips.append((perf_counter_ns() - began) / 1e6)
        return {
            "tasks_per_s": WORK / seconds,
            **cpu,
            "p50_ms": measure.quantile(trips, 0.5),
            "p99_ms": measure.quantile(trips, 0.99),
        }

    def drain(self, queue: str, count: int) -> measure.Facts:
        """Have two agents of its own work so many off, after the first few."""
        running = self.running
        before = len(running.agents)
        with self.chosen():
            for number in (1, 2):
                running.start_agent(f"{queue}-{number}", "--queues", queue)
            first = self._ended() + DRAINED_FIRST
            began, cpu_before = self._when_ended(first), self.cpu()
            ended, cpu_after = self._when_ended(first + count), self.cpu()
        for agent in running.agents[before:]:
            programs.end(agent)
        del running.agents[before:]
        return {"tasks_per_s": count * 1e9 / (ended - began)} | _by_thread(cpu_after - cpu_before, count)

    def _when_ended(self, count: int) -> int:
        for _ in programs.until(f"{count} tasks have ended", DRAIN_WITHIN_S):
            if self._ended() >= count:
                break
        return perf_counter_ns()

    @staticmethod
    def _ended() -> int:
        return cases.stats().tasks.get("succeeded", 0)

    def restart(self, queue: str) -> measure.Facts:
        """Kill the server while an agent is there that serves the queue; measure to the first body of the new one."""
        running = self.running
        with self.chosen():
            running.start_agent("first", "--queues", queue)
            for _ in programs.until("the agent works", START_WITHIN_S):
                if any(path.stat().st_size for path in self.stamps.iterdir()):
                    break
            before = set(self.stamps.iterdir())
            programs.end(running.servers[-1], signal.SIGKILL)
            began = time.monotonic_ns()
            running.start_server(START_WITHIN_S)
            serving = time.monotonic_ns()
            for _ in programs.until("a body leased by the new server runs", START_WITHIN_S):
                new = [path for path in self.stamps.iterdir() if path not in before and path.stat().st_size]
                if new:
                    break
            first_body = min(int(path.read_text()) for path in new)
        programs.end(running.agents.pop())
        return {"serving_s": (serving - began) / 1e9, "first_body_s": (first_body - began) / 1e9}

    def wait_for_quiet(self) -> float:
        """Wait until what the store does in the background is over; return the seconds."""
        began = time.monotonic()
        quiet, before = 0, 0.0
        for _ in programs.until("the server is at rest", DRAIN_WITHIN_S):
            spent = sum(self.cpu().values()) / 1e9
            quiet, before = quiet + 1 if spent - before < programs.POLL_S / 2 else 0, spent
            if quiet == QUIET_POLLS:
                break
        return time.monotonic() - began - QUIET_POLLS * programs.POLL_S

    def cpu(self) -> Counter[str]:
        """Return the CPU time of the server so far, in ns, by the names of its threads."""
        return measure.cpu_of_threads(self.pid)

    def rss_mib(self) -> float:
        """Return the server's memory."""
        return psutil.Process(self.pid).memory_info().rss / 2**20

    def disk_bytes(self) -> int:
        """Return what the data directory takes."""
        total = 0
        for path in (self.running.directory / "data").rglob("*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total

    @property
    def pid(self) -> int:
        """The server's."""
        return self.running.servers[-1].pid


def _by_thread(spent: Counter[str], count: int) -> dict[str, float]:
    """Return the CPU of the server for each task, in us: of its loop, of the store's background, of other threads."""
    store = sum(ns for name, ns in spent.items() if name.startswith("rocksdb"))
    loop = spent["taskd"]
    return {
        "loop_us": loop / count / 1e3,
        "store_us": store / count / 1e3,
        "threads_us": (spent.total() - store - loop) / count / 1e3,
    }


def run(empty: Side, full: Side, tasks: int, lines: int, rounds: int) -> measure.Facts:
    """Measure all of it."""
    facts: measure.Facts = {"tasks": tasks, "lines": lines, "rss_mib at first": full.rss_mib()}
    facts |= fill(full, tasks, lines)
    facts["rss_mib filled"] = full.rss_mib()
    compare(facts, "at once", empty, full, 1)
    facts["at_rest_after_s"] = full.wait_for_quiet()
    facts["disk_bytes_each"] = full.disk_bytes() / tasks
    compare(facts, "at rest", empty, full, rounds)
    facts["rss_mib worked"] = full.rss_mib()
    empty.submit("backlog-0", SMALL)
    facts["restart, empty"] = empty.restart("backlog-0")
    facts["restart"] = full.restart("backlog-0")
    facts["rss_mib restarted"] = full.rss_mib()
    facts["worked off, empty"] = empty.drain("backlog-0", DRAINED)
    facts["worked off"] = full.drain("backlog-0", DRAINED)
    compare(facts, "at last", empty, full, rounds)
    facts["much worked off"] = full.drain("backlog-0", tasks // 10)
    facts["rss_mib then"] = full.rss_mib()
    facts["restart then"] = full.restart("backlog-0")
    facts["rss_mib at last"] = full.rss_mib()
    facts["rss_mib, empty"] = empty.rss_mib()
    return facts


def fill(full: Side, tasks: int, lines: int) -> measure.Facts:
    """Submit the backlog, in chunks that each go to one of the lines, or to several if those are short."""
    each = max(min(CHUNK, tasks // lines), 1)
    spent: list[float] = []
    rss_max, disk_max = 0.0, 0
    for number in range(tasks // each):
        spent.append(full.submit(f"backlog-{number % lines}", each))
        rss_max = max(rss_max, full.rss_mib())
        if number % 10 == 0:
            disk_max = max(disk_max, full.disk_bytes())
    return {
        "submitted_per_s": tasks / sum(spent),
        "chunk_p50_s": measure.quantile(spent, 0.5),
        "chunk_p99_s": measure.quantile(spent, 0.99),
        "chunk_max_s": max(spent),
        "rss_mib most": rss_max,
        "disk_bytes_each most": disk_max / tasks,
    }


def compare(facts: measure.Facts, when: str, empty: Side, full: Side, rounds: int) -> None:
    """Have both do the same work in turns; tell the medians, and those of the full one beside the empty one's."""
    empty.work()  # what it did last is long ago
    pairs = [(empty.work(), full.work()) for _ in range(rounds)]
    facts[f"{when}, empty"], facts[f"{when}, full"] = (
        {name: measure.quantile([float(str(pair[side][name])) for pair in pairs], 0.5) for name in pairs[0][side]}
        for side in (0, 1)
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A backlog, measured.")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--lines", type=int, default=1, help="queues that the backlog lies in")
    parser.add_argument("--rounds", type=int, default=9, help="of work on each server at a time")
    parser.add_argument("--no-tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="backlog-", dir=options.data_dir)).resolve()
    try:
        with ExitStack() as stack:
            empty, full = (Side(stack, directory / name, tls=not options.no_tls) for name in ("empty", "full"))
            facts = run(empty, full, options.tasks, options.lines, options.rounds)
    finally:
        shutil.rmtree(directory / "full" / "data")  # the logs stay when something went wrong
    shutil.rmtree(directory)
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
