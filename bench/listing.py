"""A million tasks, listed over HTTP by filters that fit many, few or none: how long a page takes, and what it holds up.

    python bench/listing.py [--tasks N] [--pages N] [--json]

The server is as shipped. Most tasks wait in two queues that no agent serves; those that few filters find, dead ones,
ended ones and those of another name, are the oldest: a walk from the newest on meets them last. While pages are asked
for without a break, tasks are submitted one after another: how late they are acknowledged shows what a page holds up.
"""

import argparse
import http.client
import json
import shutil
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path
from time import perf_counter_ns
from urllib.parse import quote, urlsplit

import cases
import measure

from taskd import App, Retry, TaskFailed
from taskd.client.profile import resolve

DEAD, ENDED, OLD, RUNNING = 1_000, 2_000, 10, 4
CHUNK = 10_000
ROWS = 100
EVERY = 100
"""One of so many tasks is of the small queue."""

FILTERS = (
    "",
    "queue:bulk",
    "queue:images",
    "queue:images state:ready name:bench*",
    "name:bench*",
    "state:dead",
    'state:dead error:"no such row"',
    "state:running",
    "state:succeeded",
    "since:1h",
    "name:bench_tasks.first",
    "queue:none",
    "error:nothing",
    "priority:9",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Listings of many tasks, measured.")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--pages", type=int, default=20, help="of each filter")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="taskd-", dir=options.data_dir)).resolve()
    try:
        with cases.cluster(directory, tls=True, agents=[("--queues", "default")] * 2):
            told = measured(options.tasks, options.pages)
    finally:
        shutil.rmtree(directory)
    if options.json:
        print(json.dumps(told))
        return
    for name, facts in told.items():
        print(f"{name or '(all)':<40} " + ", ".join(f"{key} {value:g}" for key, value in facts.items()))


def measured(tasks: int, pages: int) -> dict[str, measure.Facts]:
    """Fill the server, then ask for pages."""
    with closing(App()) as app:
        fill(app, tasks)
        alone = acknowledged_ms(app, threading.Event(), 500)
        profile = resolve()
        connection = http.client.HTTPConnection(urlsplit(profile.http).netloc)
        told = {words: page(connection, profile.token, words, pages) for words in FILTERS}
        told["acknowledged, nobody lists"] = _quantiles(alone)
        over = threading.Event()
        lister = threading.Thread(target=list_on, args=(urlsplit(profile.http).netloc, profile.token, over))
        lister.start()
        told["acknowledged, pages without a break"] = _quantiles(acknowledged_ms(app, over, 500))
        over.set()
        lister.join()
    return told


def fill(app: App, tasks: int) -> None:
    """Make the tasks."""
    fails = app.task(name="bench_tasks.fails")(_never)
    noop = app.task(name="bench_tasks.noop")(_never)
    handles = fails.options(retry=Retry(max_attempts=1)).map(range(DEAD)) + noop.map(range(ENDED))
    for handle in handles:
        with suppress(TaskFailed):
            handle.result(timeout=120)
    app.task(name="bench_tasks.first")(_never).options(queue="rare").map(range(OLD))
    app.task(name="bench_tasks.nap")(_never).map([3_600.0] * RUNNING)
    for start in range(0, tasks, CHUNK):
        count = min(CHUNK, tasks - start)
        noop.options(queue="images").map(range(count // EVERY))
        noop.options(queue="bulk").map(range(count - count // EVERY))


def page(connection: http.client.HTTPConnection, token: str, words: str, pages: int) -> measure.Facts:
    """Ask for the first page, again and again; then for those behind it, until it is full, or all was looked at."""
    spent: list[float] = []
    for _ in range(pages):
        first, cursor, ms = ask(connection, token, words, "")
        spent.append(ms)
    found, asked, longest = first, 1, 0.0
    while cursor and found < ROWS:
        more, cursor, ms = ask(connection, token, words, cursor)
        found, asked, longest = found + more, asked + 1, max(longest, ms)
    return {
        "p50_ms": measure.quantile(spent, 0.5),
        "max_ms": max([*spent, longest]),
        "found": first,
        "pages_to_fill": asked,
    }


def ask(connection: http.client.HTTPConnection, token: str, words: str, cursor: str) -> tuple[int, str, float]:
    """Return how many tasks a page has, its cursor, and how long it took."""
    began = perf_counter_ns()
    path = f"/api/v1/tasks?limit={ROWS}&filter={quote(words)}&cursor={cursor}"
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    ms = (perf_counter_ns() - began) / 1e6
    assert answer.status == http.HTTPStatus.OK, body
    told = json.loads(body)
    return len(told["tasks"]), told["cursor"] or "", ms


def list_on(host: str, token: str, over: threading.Event) -> None:
    """Ask for pages that walk far, without a break."""
    connection = http.client.HTTPConnection(host)
    while not over.is_set():
        ask(connection, token, "queue:none", "")


def acknowledged_ms(app: App, over: threading.Event, count: int) -> list[float]:
    """Return how long submits took, one after another."""
    task = app.task(name="bench_tasks.noop")(_never).options(queue="bulk")
    spent = []
    for number in range(count):
        if over.is_set():
            break
        began = perf_counter_ns()
        task.submit(number)
        spent.append((perf_counter_ns() - began) / 1e6)
    return spent


def _quantiles(spent: list[float]) -> measure.Facts:
    return {"p50_ms": measure.quantile(spent, 0.5), "p99_ms": measure.quantile(spent, 0.99), "max_ms": max(spent)}


def _never(value: object) -> None:
    """Stand in for a task of the agents'."""


if __name__ == "__main__":
    main()
