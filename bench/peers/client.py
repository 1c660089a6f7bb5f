"""The client of one run, in the peer's own environment: does the works that the runner asks for, a line each.

python -m peers.client NAME          reads {"work": …} from standard input, a line each; answers a line of JSON
python -m peers.client NAME --tell   tells what the adapter is, and how its programs are started
"""

import importlib
import importlib.metadata
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter

from peers.interface import Adapter, Broker, GraphAdapter, Place, missing

READY_S = 30.0
TRY = 500
"""Tasks from which the rate is guessed: who is slow is given fewer. Tried again, when they are slow at first."""
TASKS_MIN = 200
TRIES = 2
LAYERS_TRIED = 5
CHUNK = 1_000
TRIPS_S = 2.0
SUBMITTERS_S = 2.0
MIXED_SEED = 7
MIXED_US = (1_000, 100_000)
ACKS_TOLD = 100
STALL_S = 0.4
"""A little less than the broker is gone."""
CRASH_TIMES = 3
"""So many times what was acknowledged before the kill is submitted at most."""

Answer = dict[str, object]


def load(name: str, place: Place) -> Adapter:
    """Return the adapter of this name."""
    module = importlib.import_module(f"peers.adapters.{name}")
    made: Adapter = module.Peer(place)
    return made


def tell(adapter: Adapter) -> Answer:
    """Return what the runner must know of an adapter."""
    broker: Broker = adapter.broker()
    cannot = {*adapter.without, *([] if isinstance(adapter, GraphAdapter) else ["dag"])}
    return {
        "versions": {name: importlib.metadata.version(name) for name in adapter.packages},
        "modes": adapter.modes,
        "durable": list(adapter.durable),
        "works": [work for work in _WORKS if work not in cannot],
        "differs": adapter.differs,
        "broker": asdict(broker),
        "workers": adapter.workers(),
        "missing": missing(broker.argv),
    }


def ready(adapter: Adapter) -> Answer:
    """Wait until a task has gone all the way."""
    began = perf_counter()
    adapter.results([adapter.submit("noop", 0)], READY_S)
    return {"seconds": perf_counter() - began}


def noop(adapter: Adapter, *, count: int, seconds: float) -> Answer:
    """Measure from the first submit to the last result held; with fewer tasks when that would take too long."""
    tried = min(TRY, count)
    fitting, tries = _fitting(lambda: _end_to_end(adapter, tried), tried, count, seconds)
    count = max(fitting, min(TASKS_MIN, count))
    began = perf_counter()
    accepted = _end_to_end(adapter, count)
    ended = perf_counter()
    return {
        "tasks": count,
        "ran": count + tried * tries,
        "tasks_per_s": count / (ended - began),
        "accepted_per_s": count / (accepted - began),
        "seconds": ended - began,
    }


def _fitting(trial: Callable[[], object], tried: int, count: int, seconds: float) -> tuple[int, int]:
    """Return how many fit into the time, at most all, and in how many trials that was found out.

    The first goes to connections, imports and caches, too: it is the pace only of who is fast in spite of that.
    """
    fitting = 0
    for tries in range(1, TRIES + 1):
        began = perf_counter()
        trial()
        fitting = max(fitting, min(count, int(tried * seconds / (perf_counter() - began))))
        if fitting == count:
            return count, tries
    return fitting, TRIES


def _end_to_end(adapter: Adapter, count: int) -> float:
    """Run so many no-ops; return when the last was acknowledged."""
    handles = adapter.submit_many("noop", range(count))
    accepted = perf_counter()
    assert len(handles) == count
    results = adapter.results(handles, 60.0)
    assert results is None or sorted(results) == list(range(count)), "each task returned its number"
    return accepted


def roundtrip(adapter: Adapter, *, count: int) -> Answer:
    """Measure one task after another: submit, wait for its result."""
    trips: list[float] = []
    until = perf_counter() + TRIPS_S
    while len(trips) < count and perf_counter() < until:
        began = perf_counter()
        adapter.results([adapter.submit("noop", len(trips))], READY_S)
        trips.append((perf_counter() - began) * 1e3)
    trips = sorted(trips[len(trips) // 10 :])  # the first tenth warms up
    return {"trips": len(trips), "p50_ms": _quantile(trips, 0.5), "p99_ms": _quantile(trips, 0.99)}


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def mixed(adapter: Adapter, *, count: int) -> Answer:
    """Measure tasks of 1 to 100 ms of CPU, most of them short, until the last has ended."""
    times = mixed_times(count)
    began = perf_counter()
    adapter.results(adapter.submit_many("burn", times), 60.0)
    seconds = perf_counter() - began
    ideal = sum(times) / 1e6 / max(1, adapter.place.workers)
    return {"tasks": count, "seconds": seconds, "ideal_seconds": ideal, "times_ideal": seconds / ideal}


def mixed_times(count: int) -> list[int]:
    """Return the microseconds of each: evenly spread by their logarithm, the same each time."""
    rng = random.Random(MIXED_SEED)  # noqa: S311 - the same work for all
    low, high = MIXED_US
    return [round(low * (high / low) ** rng.random()) for _ in range(count)]


def dag(adapter: GraphAdapter, *, layers: int, width: int, seconds: float, at_most_s: float) -> Answer:
    """Measure a graph in layers, from its submit to its end; with fewer layers when that would take too long."""
    began = perf_counter()
    adapter.run_graph(LAYERS_TRIED, width, at_most_s)
    fitting = int(LAYERS_TRIED * seconds / (perf_counter() - began))
    layers = min(layers, adapter.layers_at_most, max(LAYERS_TRIED, fitting))
    began = perf_counter()
    adapter.run_graph(layers, width, at_most_s)
    took = perf_counter() - began
    return {"nodes": layers * width, "seconds": took, "nodes_per_s": layers * width / took}


def queued(adapter: Adapter, *, count: int, seconds: float) -> Answer:
    """Submit while nobody works, as many as the time allows."""
    began, done = perf_counter(), 0
    while done < count and perf_counter() - began < seconds:
        done += len(adapter.submit_many("noop", range(done, min(done + CHUNK, count))))
    took = perf_counter() - began
    return {"tasks": done, "tasks_per_s": done / took, "seconds": took}


def submitters(adapter: Adapter, *, count: int, at_once: int) -> Answer:
    """Have many submit at once, a call for each task, while nobody works; with fewer tasks when that takes too long."""
    tried = min(TRY, count)
    fitting, _ = _fitting(lambda: adapter.submit_at_once("noop", tried, at_once), tried, count, SUBMITTERS_S)
    count = max(fitting, TASKS_MIN)
    began = perf_counter()
    adapter.submit_at_once("noop", count, at_once)
    took = perf_counter() - began
    return {"tasks": count, "submitters": at_once, "calls_per_s": count / took, "seconds": took}


def crash(adapter: Adapter, *, count: int, seconds: float, say: Callable[[Answer], None]) -> Answer:
    """Submit one by one until the broker is gone; tell how many were acknowledged, every now and then.

    It is gone when a submit fails, or takes long: then the client has waited, and tried again by itself.
    """
    acked, error = 0, ""
    until = perf_counter() + seconds
    try:
        while acked < count * CRASH_TIMES and perf_counter() < until:
            began = perf_counter()
            adapter.submit("told", acked)
            acked += 1
            if acked >= count and perf_counter() - began > STALL_S:
                break
            if acked % ACKS_TOLD == 0:
                say({"acked_so_far": acked})
    except Exception as why:  # noqa: BLE001 - what it is, is the answer
        error = f"{type(why).__name__}: {why}"[:200]
    return {"acked": acked, "error": error}


_WORKS: dict[str, Callable[..., Answer]] = {
    "ready": ready,
    "noop": noop,
    "roundtrip": roundtrip,
    "mixed": mixed,
    "dag": dag,
    "queued": queued,
    "submitters": submitters,
    "crash": crash,
    "fsyncs": noop,
}


def main() -> None:
    """Answer until standard input ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what a library prints is no answer

        def say(answer: Answer) -> None:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

        adapter = load(sys.argv[1], Place.here())
        if "--tell" in sys.argv:
            say(tell(adapter))
            return
        adapter.open()
        for line in sys.stdin:
            asked = json.loads(line)
            say(_do(adapter, asked.pop("work"), asked, say))
        adapter.close()


def _do(adapter: Adapter, work: str, asked: dict[str, object], say: Callable[[Answer], None]) -> Answer:
    if work == "crash":
        asked["say"] = say
    try:
        return {"work": work, **_WORKS[work](adapter, **asked)}
    except Exception as why:  # noqa: BLE001 - the runner tells it
        return {"work": work, "failed": f"{type(why).__name__}: {why}"[:300]}


if __name__ == "__main__":
    main()
