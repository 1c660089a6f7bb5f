"""What the rounds amount to: medians and spread of each case, and who did best at what."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import measure
import msgspec

Facts = measure.Facts


class Case(msgspec.Struct, kw_only=True):
    """One peer in one mode."""

    peer: str
    mode: str
    words: str = ""
    """How it was run."""
    durable: bool = False
    """A submit that was acknowledged is on disk."""
    versions: dict[str, str] = {}
    differs: str = ""
    runs: dict[str, list[Facts]] = {}
    """By work: what each run of it measured."""
    failed: dict[str, str] = {}
    """By work: why there is a run without figures."""

    @property
    def name(self) -> str:
        """Peer and mode."""
        return f"{self.peer} {self.mode}"


class Document(msgspec.Struct, kw_only=True):
    """All of one run, as it is written down."""

    date: str
    """ISO 8601, UTC."""
    commit: str
    machine: dict[str, str]
    settings: dict[str, int | str]
    cases: list[Case]
    left_out: dict[str, str] = {}
    """Peers that could not run here, and why."""


class Bar(NamedTuple):
    """A figure of one case."""

    case: Case
    median: float
    low: float
    high: float


def figure(case: Case, work: str, name: str) -> Bar | None:
    """Return the median of a number over a case's runs, with the least and the greatest; None: it has none."""
    numbers = [float(facts[name]) for facts in case.runs.get(work, []) if isinstance(facts.get(name), int | float)]
    if not numbers:
        return None
    spread = measure.spread(numbers)
    return Bar(case, spread["median"], spread["min"], spread["max"])


def ranking(cases: Iterable[Case], work: str, name: str, *, least: bool = False) -> list[Bar]:
    """Return the cases that have a figure, the best first.

    Args:
        cases: Of one run.
        work: Which work.
        name: Which of its numbers.
        least: The least is the best.
    """
    bars = [bar for case in cases if (bar := figure(case, work, name)) is not None]
    return sorted(bars, key=lambda bar: bar.median, reverse=not least)


def ratio(over: Bar | None, under: Bar | None) -> float | None:
    """Return how many times the one is the other."""
    return over.median / under.median if over is not None and under is not None and under.median else None


def best_python(cases: Sequence[Case], *, durable: bool) -> Bar | None:
    """Return the fastest peer whose workers run Python tasks by name, end to end; in its default or durable mode."""
    bars = ranking((case for case in cases if case.peer in PYTHON_PEERS and case.durable == durable), "noop", PER_S)
    return bars[0] if bars else None


PER_S = "tasks_per_s"
PYTHON_PEERS = frozenset({"arq", "celery", "dask", "dramatiq", "huey", "procrastinate", "rq", "saq", "taskiq"})


REDIS_PEERS = frozenset({"arq", "celery", "dramatiq", "huey", "rq", "saq", "taskiq"})


def comparisons(cases: Sequence[Case]) -> Mapping[str, float]:
    """Return how taskd stands to the others, as far as both were measured: end to end, then in submits and trips."""
    return {**_end_to_end(cases), **_beside_the_best(cases)}


def _beside_the_best(cases: Sequence[Case]) -> Mapping[str, float]:
    told = {}
    for work, name, title, peers in (
        ("queued", "tasks_per_s", "submits in bulk", REDIS_PEERS),
        ("submitters", "calls_per_s", "submits from 50 at a time", REDIS_PEERS),
        ("roundtrip", "p50_ms", "median trip", PYTHON_PEERS),
    ):
        least = name.endswith("_ms")
        ours = ranking((case for case in cases if case.peer == "taskd"), work, name, least=least)
        theirs = ranking((case for case in cases if case.peer in peers and not case.durable), work, name, least=least)
        times = ratio(ours[0], theirs[0]) if ours and theirs else None
        if times is not None:
            told[f"taskd {ours[0].case.mode} / the best that does not fsync ({theirs[0].case.name}), {title}"] = times
    return told


def _end_to_end(cases: Sequence[Case]) -> Mapping[str, float]:
    ours = {mode: _case(cases, f"taskd {mode}", "noop") for mode in ("functions", "coroutines")}
    others = {
        "the fastest Python peer that does not fsync": best_python(cases, durable=False),
        "the fastest Python peer that does": best_python(cases, durable=True),
        "Celery": _case(cases, "celery fast", "noop"),
        "beanstalkd, durable": _case(cases, "beanstalkd durable", "noop"),
        "beanstalkd, pipelined, not durable": _case(cases, "beanstalkd pipelined", "noop"),
        "the floor": _case(cases, "floor processes", "noop"),
    }
    told = {}
    for mode, our in ours.items():
        for name, other in others.items():
            times = ratio(our, other)
            if times is not None and other is not None:
                who = f" ({other.case.name})" if name.startswith("the fastest") else ""
                told[f"taskd {mode} / {name}{who}"] = times
    return told


def _case(cases: Sequence[Case], name: str, work: str) -> Bar | None:
    return next((figure(case, work, PER_S) for case in cases if case.name == name), None)
