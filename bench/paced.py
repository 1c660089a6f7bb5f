"""Latency at a share of what is possible: tasks arrive by a schedule, whatever the answers do.

    python bench/paced.py [--share 0.7] [--seconds 5] [--function noop|anoop] [--no-tls] [--json]

The most is measured first, as ``cases.py throughput`` does it, the median of some runs. Then tasks are due at even
distances, at that share of the most. One thread submits what is due with one ``map`` after the other, so that what
becomes due while one is under way waits for the next; others take the results as they come. A task's latency counts
from the instant at which it was due, not from that of its submit: who is late is not forgiven for what was late before.
"""

import argparse
import json
import queue
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import cases
import measure

from taskd import as_completed

if TYPE_CHECKING:
    from taskd.client.handle import Completions
    from taskd.client.task import AnyTask

MOST_TASKS = 20_000
MOST_RUNS = 5
"""The first is no measurement: agents and workers find out how much they should fetch at a time."""
REST_S = 0.5
PAUSE_S = 0.0005
"""Of the thread that submits, at least, when nothing is due: a clock that ticks more often takes a core."""
TAKERS = 8
"""Threads that take results, each those of one submit. One alone waits for the last task of it while later ones end."""
SETTLE_S = 1.0
"""At the start of the load, which does not count: queues find their length."""


def most(task: "AnyTask") -> float:
    """Return how many tasks a second go through when all are submitted at once."""
    rates = []
    for _ in range(MOST_RUNS):
        began = perf_counter()
        for handle in task.map(range(MOST_TASKS)):
            handle.result(timeout=cases.SECONDS_MAX)
        rates.append(MOST_TASKS / (perf_counter() - began))
        time.sleep(REST_S)
    return statistics.median(rates[1:])


def paced(task: "AnyTask", rate: float, seconds: float) -> tuple[list[float], list[int]]:
    """Return how late each result came, ms after its task was due; and how many tasks each submit held."""
    count = int(rate * seconds)
    late: list[tuple[float, float]] = []
    sizes: list[int] = []
    submitted: queue.SimpleQueue[tuple[dict[bytes, float], Completions[object]] | None] = queue.SimpleQueue()
    start = perf_counter() + REST_S

    def submit() -> None:
        sent = 0
        while sent < count:
            due = min(int((perf_counter() - start) * rate), count)
            if due <= sent:
                time.sleep(max(PAUSE_S, start + (sent + 1) / rate - perf_counter()))
                continue
            handles = task.map(range(sent, due))
            dues = {handle.raw_id: start + place / rate for place, handle in enumerate(handles, sent)}
            submitted.put((dues, as_completed(handles, timeout=cases.SECONDS_MAX)))  # asks for them, here and now
            sizes.append(due - sent)
            sent = due
        for _ in range(TAKERS):
            submitted.put(None)

    def take() -> None:
        while (some := submitted.get(timeout=cases.SECONDS_MAX)) is not None:
            dues, completions = some
            for handle in completions:
                came = perf_counter()
                late.append((dues[handle.raw_id], (came - dues[handle.raw_id]) * 1e3))

    threads = [threading.Thread(target=act, daemon=True) for act in (submit, *[take] * TAKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(late) == count, "a taker gave up; it has told why"
    return [late_ms for due, late_ms in late if due >= start + SETTLE_S], sizes


def measured(directory: Path, function: str, share: float, seconds: float, *, tls: bool) -> measure.Facts:
    """Find the most, then load the same server with a share of it."""
    with cases.cluster(directory, tls=tls) as running:
        import bench_tasks  # noqa: PLC0415 - looks for the profile

        task = getattr(bench_tasks, function)
        rate = most(task)
        pids, before = running.pids(), cases.stats()
        cpu_before, began = measure.cpu_ns(pids), perf_counter()
        late_ms, sizes = paced(task, rate * share, seconds + SETTLE_S)
        took, cpu_after, after = perf_counter() - began, measure.cpu_ns(pids), cases.stats()
        bench_tasks.app.close()
    done = sum(sizes)
    return {
        "function": function,
        "tls": tls,
        "most_per_s": rate,
        "paced_per_s": rate * share,
        "share": share,
        "tasks": done,
        **{f"p{q * 100:g}_ms": measure.quantile(late_ms, q) for q in (0.5, 0.9, 0.99, 0.999)},
        "max_ms": max(late_ms),
        "tasks_a_submit": done / len(sizes),
        "cpu_us": measure.cpu_us(cpu_before, cpu_after, done),
        "cores": sum(cpu_after[role] - cpu_before[role] for role in cpu_after) / took / 1e9,
        "stages_us": {
            stage: (spent - before.stages_ns.get(stage, 0)) / done / 1e3 for stage, spent in after.stages_ns.items()
        },
        "counts": {name: number - before.counts.get(name, 0) for name, number in after.counts.items()},
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="taskd's latency at a share of its most.")
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--function", choices=("noop", "anoop"), default="noop")
    parser.add_argument("--no-tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done within {cases.SECONDS_MAX} s"))
    signal.alarm(cases.SECONDS_MAX)
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="taskd-", dir=options.data_dir)).resolve()
    facts = measured(directory, options.function, options.share, options.seconds, tls=not options.no_tls)
    shutil.rmtree(directory)  # kept when something went wrong: the logs are in it
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
