"""Two agents, each on a CPU of its own, and three programs of somebody else on one of these.

    python bench/pressure.py [--tasks N]

The tasks hold a CPU each and use it. Told is which share of them the idle agent ran, from the third heartbeat after the
others began, how often the other agent was taken for calm again, and the makespan beside that of an even split that
asks nobody how busy a machine is.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import perf_counter, sleep

import cases

from taskd import Resources
from taskd.client import Client
from taskd_protocol.house_messages import AgentList, AgentPage

BURNERS = 3
BURN_S = 0.2
"""CPU time of one task: forty seconds in all, eight heartbeats."""
HEARTBEATS_S = 15.0
LOOK_S = 0.5


@contextmanager
def on_cpu(number: int) -> Iterator[None]:
    """Have what is started meanwhile run on one CPU alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def burners(stack: ExitStack, cpu: int) -> None:
    """Keep a CPU busy until the stack unwinds."""
    with on_cpu(cpu):
        for _ in range(BURNERS):
            # each in a session of its own, as of different users: else Linux gives all of them one share of the CPU
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.kill)


def watch(flips: list[bool], stop: threading.Event) -> None:
    """Note whenever the server takes the busy agent's machine for busy, or for calm again."""
    with closing(Client()) as client:
        while not stop.wait(LOOK_S):
            [view] = [view for view in client.call(AgentList(0), AgentPage).agents if view.name == "busy"]
            if not flips or flips[-1] != view.pressed:
                flips.append(view.pressed)


def measure(directory: Path, count: int) -> dict[str, object]:
    """Measure both ways."""
    busy, idle = sorted(os.sched_getaffinity(0))[:2]
    with cases.cluster(directory, tls=True, agents=()) as running:
        for name, cpu in (("busy", busy), ("idle", idle)):
            with on_cpu(cpu):
                running.start_agent(name, "--cpus", "1")
        cases.wait_for_agents(2)
        import bench_tasks as t  # noqa: PLC0415 - looks for the profile

        heavy = t.burn.options(resources=Resources(cpu=1))
        with ExitStack() as stack:
            burners(stack, busy)
            sleep(HEARTBEATS_S)
            flips: list[bool] = []
            stop = threading.Event()
            watcher = threading.Thread(target=watch, args=(flips, stop))
            watcher.start()
            start = perf_counter()
            handles = heavy.map([BURN_S] * count)
            ran = Counter(handle.result(timeout=cases.SECONDS_MAX) for handle in handles)
            seeing_s = perf_counter() - start
            stop.set()
            watcher.join()
            start = perf_counter()
            halves = [
                t.burn.options(labels={"taskd.agent": name}).map([BURN_S] * (count // 2)) for name in ("busy", "idle")
            ]
            for handle in [handle for half in halves for handle in half]:
                handle.result(timeout=cases.SECONDS_MAX)
            blind_s = perf_counter() - start
        t.app.close()
    return {
        "tasks": count,
        "idle_share": round(ran[idle] / count, 3),
        "flips": len(flips) - 1,
        "makespan_s": round(seeing_s, 1),
        "even_split_s": round(blind_s, 1),
        "ratio": round(seeing_s / blind_s, 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tasks", type=int, default=200)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(measure(Path(directory), options.tasks)))


if __name__ == "__main__":
    main()
