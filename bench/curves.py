"""`make bench-curves`: throughput and latency against load, agents, clients, payload, queues, classes, backlog.

    python bench/curves.py [--only agents,clients] [--minutes 14] [--shrink N] [--docs]

Server, agents and TLS as shipped. Each point is measured in rounds of as many tasks as take about ``ROUND_S``, all
submitted at once; what is told is the median, with what was used in that round (``use.py``), and then trips, one task
after another. Clients and load are exceptions: of these the trips are the work. Writes
``build/bench/curves-<date>.json``, and with ``--docs`` the second part of docs/benchmarks.md.
"""

import argparse
import datetime as dt
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from time import perf_counter_ns

import backlog
import bench_tasks
import cases
import crowd
import curve_page
import machine
import measure
import msgspec
import paced
import pages
from curve_page import Curve, Point
from use import Use

from taskd import App
from taskd.client import Client
from taskd.client.handle import TaskHandle
from taskd_protocol.errors import TaskdError
from taskd_protocol.payload import pack_arguments
from taskd_protocol.resources import MEMORY, Need, Request, Where
from taskd_protocol.task import Rules, TaskSpec

TASKS = 20_000
"""In a round, at most."""
TRIED = 500
"""Tasks from which the rate is guessed; they warm up, too."""
TASKS_MIN = 100
ROUND_S = 1.5
ROUNDS = 3
TRIPS = 400
TRIPS_S = 3.0
CLIENTS_S = 4.0
"""For so long all clients make trips."""
LOAD_S = 4.0
"""For so long tasks arrive; the first second does not count."""
WITHIN_S = 120.0
WINDOW, WINDOW_MIN = 2_000, 8
"""Leases that all simulated agents hold together, and that each may hold at least."""
CHUNK = 10_000
REST_S = 1.0
PAYLOAD_ALL = 64 << 20
"""Bytes of all payloads of a round, at most: they come back as results, too."""

NOTHING = pack_arguments((0,), {})
MEMORY_LEAST, MEMORY_STEP = 1 << 20, 1 << 10
CLASSES_AGENTS = 10

Points = Generator[Point]
Work = Callable[[int], object]
"""Has so many tasks done, all at once."""


class Place:
    """Where a curve is measured: a directory, programs that end with it, and until when."""

    def __init__(self, directory: Path, stack: ExitStack, until: float) -> None:
        self.directory = directory
        self.stack = stack
        self.until = until

    def cluster(self, agents: Sequence[Sequence[str]]) -> cases.Cluster:
        """Start a server and agents of a worker process each."""
        here = Path(tempfile.mkdtemp(dir=self.directory))
        return self.stack.enter_context(cases.cluster(here, tls=True, agents=agents))

    def simulated(self, count: int) -> measure.Pids:
        """Start a server and so many agents without workers; return who they are."""
        running = self.cluster([])
        window = str(max(WINDOW_MIN, WINDOW // count))
        programs = crowd.start(self.stack, running.directory, "agents", count, "--window", window)
        cases.wait_for_agents(count)
        return running.pids() | {"agents": [program.pid for program in programs]}

    def app(self) -> App:
        """Make a client of the server that was started last."""
        app = App()
        self.stack.callback(app.close)
        return app

    def fits(self, seconds: float = 0.0) -> bool:
        """Tell whether there is time left."""
        return time.monotonic() + seconds < self.until


def point(at: int, pids: measure.Pids, work: Work, trip: Callable[[], object], most: int = TASKS) -> Point:
    """Measure one point: rounds of work, then trips."""
    began = perf_counter_ns()
    work(min(TRIED, most))
    rate = min(TRIED, most) * 1e9 / (perf_counter_ns() - began)
    tasks = min(most, max(TASKS_MIN, int(rate * ROUND_S)))
    runs = []
    for _ in range(ROUNDS):
        use, began = Use(pids), perf_counter_ns()
        work(tasks)
        ended = perf_counter_ns()
        runs.append((tasks * 1e9 / (ended - began), use.told(tasks, ended)))
    runs.sort(key=lambda run: run[0])
    trips: list[float] = []
    until = time.monotonic() + TRIPS_S
    while len(trips) < TRIPS and time.monotonic() < until:
        began = perf_counter_ns()
        trip()
        trips.append((perf_counter_ns() - began) / 1e6)
    return Point(
        at=at,
        tasks=tasks,
        rounds=ROUNDS,
        per_s=measure.spread([rate for rate, _ in runs]),
        trips=len(trips),
        p50_ms=measure.quantile(trips, 0.5),
        p99_ms=measure.quantile(trips, 0.99),
        used=runs[len(runs) // 2][1],
    )


def agents(place: Place, counts: Sequence[int]) -> Points:
    """Simulated agents that report each task as done at once: what many connections cost the server."""
    for count in counts:
        with ExitStack() as stack:
            here = Place(Path(tempfile.mkdtemp(dir=place.directory)), stack, place.until)
            pids = here.simulated(count)
            task = here.app().task(name=crowd.DONE)(bench_tasks.noop.function)
            yield point(count, pids, partial(_done, task.map), partial(_done, task.map, 1))


def _done(submit: Callable[[range], Sequence[TaskHandle[object]]], many: int) -> None:
    for handle in submit(range(many)):
        handle.result(timeout=WITHIN_S)


def payload(place: Place, sizes: Sequence[int]) -> Points:
    """Bytes that go to a worker and come back as its result."""
    running = place.cluster(((), ()))
    task = place.app().task(name="bench_tasks.noop")(bench_tasks.noop.function)
    for size in sizes:
        value = os.urandom(size)

        def work(many: int, value: bytes = value) -> None:
            assert all(handle.result(timeout=WITHIN_S) == value for handle in task.map([value] * many))

        def trip(value: bytes = value) -> None:
            assert task.submit(value).result(timeout=WITHIN_S) == value

        yield point(size, running.pids(), work, trip, max(TASKS_MIN // 2, min(TASKS, PAYLOAD_ALL // max(1, size))))


def of_backlog(place: Place, counts: Sequence[int]) -> Points:
    """Tasks that wait in a queue which no agent serves, beside the work."""
    side = backlog.Side(place.stack, place.directory / "backlog", tls=True)
    waiting, submitted_s = 0, 0.0
    for count in counts:
        while waiting < count:
            many = min(CHUNK, count - waiting)
            submitted_s += side.submit("waiting", many)
            waiting += many
            if not place.fits():
                return
        time.sleep(REST_S)
        found = point(
            count,
            side.running.pids(),
            partial(_done, side.noop.map),
            partial(_done, side.noop.map, 1),
        )
        found.more = {"rss_mib": side.rss_mib(), "disk_mib": side.disk_bytes() / 2**20}
        if waiting:
            found.more["submitted_per_s"] = waiting / submitted_s
        yield found


def queues(place: Place, counts: Sequence[int]) -> Points:
    """As many tasks, spread over queues, each of which is a line of its own."""
    pids = place.cluster(((), ())).pids()
    return _spread(pids, counts, lambda task_id, line: TaskSpec(task_id, crowd.NOOP, NOTHING, queue=f"q{line}"))


def classes(place: Place, counts: Sequence[int]) -> Points:
    """As many tasks, spread over classes: each asks for an amount of memory of its own, of simulated agents."""

    def spec(task_id: bytes, line: int) -> TaskSpec:
        where = Where([Request([Need(MEMORY, MEMORY_LEAST + MEMORY_STEP * line)])])
        return TaskSpec(task_id, crowd.DONE, NOTHING, given=Rules(where=where))

    return _spread(place.simulated(CLASSES_AGENTS), counts, spec)


def _spread(pids: measure.Pids, counts: Sequence[int], spec: Callable[[bytes, int], TaskSpec]) -> Points:
    with closing(Client()) as client:

        def work(lines: int, many: int) -> None:
            ids = client.make_ids(many)
            client.submit([spec(task_id, number % lines) for number, task_id in enumerate(ids)])
            assert all(outcome.state == "succeeded" for outcome in client.wait(ids, WITHIN_S))

        for count in counts:
            yield point(count, pids, partial(work, count), partial(work, count, 1))


def clients(place: Place, counts: Sequence[int]) -> Points:
    """Simulated clients, each of which submits a task, waits for its result, and does that again."""
    running = place.cluster(((), ()))
    for count in counts:
        with ExitStack() as stack:
            programs = crowd.start(stack, place.directory, "clients", count)
            use = Use(running.pids() | {"client": [program.pid for program in programs]})
            trips = crowd.trips(programs, CLIENTS_S)
            told = use.told(len(trips), perf_counter_ns())
            yield _single(count, trips, len(trips) / CLIENTS_S, told, len(trips))


def load(place: Place, shares: Sequence[int]) -> Points:
    """Tasks that arrive by a schedule, at a share of what is possible, whatever the answers do."""
    running = place.cluster(((), ()))
    task = place.app().task(name=crowd.NOOP)(bench_tasks.noop.function)
    most = paced.most(task)
    for share in shares:
        use = Use(running.pids())
        late_ms, sizes = paced.paced(task, most * share / 100, LOAD_S)
        told = use.told(sum(sizes), perf_counter_ns())
        yield _single(share, late_ms, most * share / 100, told, sum(sizes))


def _single(at: int, trips: Sequence[float], rate: float, used: measure.Facts, tasks: int) -> Point:
    """Tell of a point that is measured once, its trips being its work."""
    return Point(
        at=at,
        tasks=tasks,
        rounds=1,
        per_s=measure.spread([rate]),
        trips=len(trips),
        p50_ms=measure.quantile(trips, 0.5),
        p99_ms=measure.quantile(trips, 0.99),
        used=used,
    )


CURVES: dict[str, tuple[Callable[[Place, Sequence[int]], Points], Sequence[int]]] = {
    "agents": (agents, (1, 10, 100, 500, 1_000, 2_000)),
    "payload": (payload, (0, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)),
    "queues": (queues, (1, 10, 100, 1_000)),
    "classes": (classes, (1, 10, 100, 1_000)),
    "load": (load, (10, 30, 50, 70, 90)),
    "clients": (clients, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    "backlog": (of_backlog, (0, 10_000, 100_000, 1_000_000, 10_000_000)),
}
"""What is measured, and where; the backlog, which takes longest, comes last."""


def curve(name: str, options: argparse.Namespace, until: float) -> Curve:
    """Measure one curve, as far as time allows; when something goes wrong, tell what, and keep what there is."""
    measured, places = CURVES[name]
    wanted = sorted({max(1, at // options.shrink) if at else 0 for at in places})
    found = Curve(name=name)
    directory = Path(tempfile.mkdtemp(prefix=f"curve-{name}-", dir=options.data_dir)).resolve()
    try:
        with ExitStack() as stack:
            place = Place(directory, stack, until)
            points = stack.enter_context(closing(measured(place, wanted)))
            while place.fits() and (made := next(points, None)) is not None:
                found.points.append(made)
                print(f"{name} {curve_page.line(made)}", file=sys.stderr, flush=True)
        shutil.rmtree(directory)
    except (AssertionError, OSError, SystemExit, TaskdError) as why:  # the logs stay
        found.failed = " ".join(f"{type(why).__name__}: {why}".split())[:300]
        print(f"{name}: {found.failed}", file=sys.stderr, flush=True)
    found.left_out = [at for at in wanted if at not in {point.at for point in found.points}]
    return found


def main() -> None:
    """Measure, write down, print."""
    parser = argparse.ArgumentParser(description="taskd's throughput and latency against what grows.")
    parser.add_argument("--only", default=",".join(CURVES), help="by commas")
    parser.add_argument("--minutes", type=float, default=14, help="no point begins after that")
    parser.add_argument("--shrink", type=int, default=1, help="divides how far each curve goes, to try it out")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/benchmarks.md, in place of a page beside the JSON"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    options.data_dir = options.data_dir.resolve()
    started = time.monotonic()
    where = machine.machine(options.data_dir)
    found = [curve(name, options, started + options.minutes * 60) for name in options.only.split(",")]
    where["load_after"] = machine.load()
    document = curve_page.Document(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%SZ"),
        commit=machine.commit(),
        machine=where,
        curves=found,
    )
    path = options.data_dir / f"curves-{document.date}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    folder = pages.DOCS if options.docs else options.data_dir / "page"
    print(f"all figures: {path}; the page: {pages.take(folder, 'curves', path)}; {time.monotonic() - started:,.0f} s")


if __name__ == "__main__":
    main()
