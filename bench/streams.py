"""Streams under load: attempts that print, followers that read, the server killed meanwhile.

    python bench/streams.py carry|followers [--attempts N] [--seconds S] [--kill] [--json]

``carry``: each of so many attempts prints 1 MiB a second in numbered lines of 128 bytes; every line is read back and
compared. ``followers``: the throughput of no-op tasks with nobody, and with a hundred who follow attempts that print.
"""

import argparse
import json
import os
import shutil
import signal
import tempfile
import threading
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from time import perf_counter_ns, sleep

import measure
from cases import SECONDS_MAX, Cluster, cluster, wait_for_agents

from taskd.client import Client
from taskd_protocol.messages import Follow, LogEntry
from taskd_protocol.streams import CUT, STDOUT

LINE_BYTES = 128
RATE_BYTES = 1024 * 1024
FOLLOWERS = 100
PRINTERS = 4
ROUNDS = 9
SETTLE_S = 5.0
FOLLOWED_BYTES = 20_000
"""What each of those who are followed prints in a second: more than a person reads."""


def carry(directory: Path, attempts: int, seconds: int, *, kill: bool) -> measure.Facts:
    """Have attempts print, and read all of it back."""
    agents = (("--processes", str(attempts)),)
    with cluster(directory, tls=True, agents=agents) as running, closing(Client()) as client:
        import bench_tasks  # noqa: PLC0415 - looks for the profile

        pids = running.pids()
        cpu_before, began = measure.cpu_ns(pids), perf_counter_ns()
        handles = [bench_tasks.talk.submit(seconds, RATE_BYTES, LINE_BYTES) for _ in range(attempts)]
        killed: dict[str, int] = {}
        if kill:
            sleep(seconds / 2)
            killed = {"server": measure.cpu_ns(pids)["server"]}
            running.servers[-1].send_signal(signal.SIGKILL)
            running.servers[-1].wait()
            running.start_server()
            wait_for_agents(1)
        said = [handle.result(timeout=SECONDS_MAX) for handle in handles]
        ended = perf_counter_ns()
        pids["server"] = [running.servers[-1].pid]
        cpu_after = measure.cpu_ns(pids)
        lines = cut = 0
        for handle, count in zip(handles, said, strict=True):
            entries = list(client.read(Follow(0, handle.raw_id)))
            cut += sum(entry.stream == CUT for entry in entries)
            lines += _compare(entries, count)
        read_seconds = (perf_counter_ns() - ended) / 1e9
        bench_tasks.app.close()
    spent = {role: cpu_after[role] - (0 if role == "server" and kill else cpu_before[role]) for role in cpu_after}
    if kill:
        spent["server"] += killed["server"] - cpu_before["server"]
    elapsed = (ended - began) / 1e9
    return {
        "attempts": attempts,
        "killed": kill,
        "seconds": elapsed,
        "mib_per_s": lines * LINE_BYTES / 2**20 / elapsed,
        "lines": lines,
        "lines_said": sum(said),
        "cuts": cut,
        "cores": {role: round(ns / 1e9 / elapsed, 3) for role, ns in spent.items()},
        "read_back_mib_per_s": lines * LINE_BYTES / 2**20 / read_seconds,
    }


def _compare(entries: list[LogEntry], count: int) -> int:
    """Count the lines that are there, in order, once each."""
    text = b"".join(entry.data for entry in entries if entry.stream == STDOUT)
    lines = text.split(b"\n")[:-1]
    found = [int(line[:12]) for line in lines]
    assert found == sorted(set(found)), "a line is there twice, or out of order"
    assert len(found) <= count
    return len(found)


def followers(directory: Path, tasks: int) -> measure.Facts:
    """Measure throughput beside attempts that print, with and without those who follow them, in a process of theirs."""
    agents = ((), (), ("--processes", str(PRINTERS), "--queues", "talk"))
    with cluster(directory, tls=True, agents=agents) as running:
        import bench_tasks  # noqa: PLC0415 - looks for the profile

        talk = bench_tasks.talk.options(queue="talk")
        printers = [talk.submit(SECONDS_MAX, FOLLOWED_BYTES, LINE_BYTES) for _ in range(PRINTERS)]
        before = _rates(running, tasks)
        stop = get_context("spawn").Event()
        ids = [each.raw_id for each in printers]
        following = get_context("spawn").Process(target=_follow_all, args=(ids, stop))
        following.start()
        sleep(SETTLE_S)
        cpu_before, began = measure.cpu_ns({"followers": [following.pid or 0]}), perf_counter_ns()
        watched = _rates(running, tasks)
        cpu_after, ended = measure.cpu_ns({"followers": [following.pid or 0]}), perf_counter_ns()
        stop.set()
        following.join(SECONDS_MAX)
        assert following.exitcode == 0
        after = _rates(running, tasks)  # a store that has more in it is slower: watched is set between the two
        for printer in printers:
            printer.cancel()
        bench_tasks.app.close()
    return {
        "followers": FOLLOWERS,
        "tasks": tasks,
        "tasks_per_s_before": before[0],
        "tasks_per_s_watched": watched[0],
        "tasks_per_s_after": after[0],
        "share_of_alone": 2 * watched[0] / (before[0] + after[0]),
        "server_us": [round(each[1], 2) for each in (before, watched, after)],
        "followers_cores": (cpu_after["followers"] - cpu_before["followers"]) / (ended - began),
    }


def _rates(running: Cluster, tasks: int) -> tuple[float, float]:
    """Measure tasks a second, and what the server takes, as the medians of some rounds."""
    import bench_tasks  # noqa: PLC0415 - looks for the profile

    pids = {"server": [running.servers[-1].pid]}
    rates, costs = [], []
    for _ in range(ROUNDS):
        cpu_before, began = measure.cpu_ns(pids), perf_counter_ns()
        for handle in bench_tasks.noop.map(range(tasks)):
            handle.result(timeout=SECONDS_MAX)
        rates.append(tasks * 1e9 / (perf_counter_ns() - began))
        costs.append((measure.cpu_ns(pids)["server"] - cpu_before["server"]) / tasks / 1e3)
    return measure.quantile(rates, 0.5), measure.quantile(costs, 0.5)


def _follow_all(ids: list[bytes], stop: Event) -> None:
    """Follow each of these with its share of the followers, until told to stop; all must have got lines."""
    got = [0] * FOLLOWERS

    def follow(number: int) -> None:
        with closing(Client()) as client:
            for entry in client.read(Follow(0, ids[number % len(ids)])):
                got[number] += entry.data.count(b"\n")
                if stop.is_set():
                    return

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(FOLLOWERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(got), "a follower has got nothing"


def main() -> None:
    """Run what was asked for in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=("carry", "followers"))
    parser.add_argument("--attempts", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--kill", action="store_true", help="kill -9 the server half way")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="taskd-bench-", dir=os.environ.get("TASKD_BENCH_DIR")))
    try:
        if options.case == "carry":
            facts = carry(directory, options.attempts, options.seconds, kill=options.kill)
        else:
            facts = followers(directory, options.tasks)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
