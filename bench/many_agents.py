"""Thousands of agents that are connected and do nothing but say so: what their heartbeats cost the server.

    python bench/many_agents.py [--agents N] [--beat S] [--held N] [--seconds N] [--no-tls] [--json]

The server is as shipped. The agents are simulated ones of ``crowd.py``, in two programs, and say what they hold of
leases that never end. Each beats in its own time; a client's round trips beside them, through an agent of the usual
kind, tell of the latency.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter_ns

import cases
import crowd
import measure
import psutil

from taskd.client import Client
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.task import TaskSpec

SETTLE_S = 10.0
TRIPS = 500


def run(directory: Path, options: argparse.Namespace) -> measure.Facts:
    """Measure the server with no agent but one, then with all of them."""
    with ExitStack() as stack:
        running = stack.enter_context(cases.cluster(directory, tls=not options.no_tls, agents=[()]))
        server = psutil.Process(running.servers[-1].pid)
        alone = watch(server, options.seconds)
        memory_alone = server.memory_info().rss
        if options.held:
            submit_held(options.agents * options.held + 1_000)
        began = time.monotonic()
        connect_all(stack, directory, options)
        connected_s = time.monotonic() - began
        cases.wait_for_agents(1 + options.agents)
        time.sleep(SETTLE_S)
        with_all = watch(server, options.seconds)
        cases.wait_for_agents(1 + options.agents)  # none was lost
        return {
            "agents": options.agents,
            "beat_s": options.beat,
            "held_each": options.held,
            "connected_s": connected_s,
            "alone": alone,
            "with_all": with_all,
            "memory_kib_each": (server.memory_info().rss - memory_alone) / 1024 / options.agents,
        }


def connect_all(stack: ExitStack, directory: Path, options: argparse.Namespace) -> None:
    """Start the programs, and wait until their agents are connected."""
    arguments = ["--beat", str(options.beat), "--held", str(options.held)]
    crowd.start(stack, directory, "agents", options.agents, *arguments)


def submit_held(count: int) -> None:
    """Submit tasks that never end."""
    with closing(Client()) as client:
        for start in range(0, count, 10_000):
            many = min(10_000, count - start)
            ids = make_task_ids(many, time.time_ns() // 1_000_000, os.urandom(many * RANDOM_BYTES_PER_TASK_ID))
            client.submit([TaskSpec(task_id, crowd.HELD) for task_id in ids])


def watch(server: psutil.Process, seconds: int) -> measure.Facts:
    """Return what the server uses of a core while nothing is asked of it, and then how quick it is."""
    import bench_tasks  # noqa: PLC0415 - looks for the profile

    before, began = measure.cpu_ns({"server": [server.pid]}), perf_counter_ns()
    time.sleep(seconds)
    used = measure.cpu_ns({"server": [server.pid]})["server"] - before["server"]
    percent = 100 * used / (perf_counter_ns() - began)
    trips: list[float] = []
    for number in range(TRIPS):
        began = perf_counter_ns()
        assert bench_tasks.noop.submit(number).result(timeout=60) == number
        trips.append((perf_counter_ns() - began) / 1e6)
    return {
        "percent_of_a_core": percent,
        "trip_p50_ms": measure.quantile(trips, 0.5),
        "trip_p99_ms": measure.quantile(trips, 0.99),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Many agents, measured.")
    parser.add_argument("--agents", type=int, default=2_000)
    parser.add_argument("--beat", type=float, default=3.0, help="seconds between heartbeats")
    parser.add_argument("--held", type=int, default=4, help="leases of each")
    parser.add_argument("--seconds", type=int, default=15, help="to look at the server's CPU")
    parser.add_argument("--no-tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="agents-", dir=options.data_dir)).resolve()
    facts = run(directory, options)
    shutil.rmtree(directory)  # kept when something went wrong: the logs are in it
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
