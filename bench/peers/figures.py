"""What the rounds amount to: medians and spread of each case, and who did best at what."""

from collections.abc import Iterable, Sequence
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
    took_s: dict[str, float] = {}
    """By work: the seconds that its last run took, start and end of all programs included."""

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


KNOWN = {
    "beanstalkd durable": 2_946,
    "beanstalkd fast": 15_681,
    "beanstalkd pipelined": 33_242,
    "beanstalkd pipelined durable": 3_365,
    "celery durable": 610,
    "celery fast": 1_071,
    "dask fast": 606,
    "dramatiq durable": 1_926,
    "dramatiq fast": 4_163,
    "gearman fast": 11_748,
    "huey durable": 1_595,
    "huey fast": 4_155,
    "hyperqueue fast": 356,
    "nats fast": 11_138,
    "saq durable": 2_614,
    "saq fast": 2_677,
    "taskiq durable": 2_683,
    "taskiq fast": 3_079,
}
"""Tasks a second, end to end, that peers did on two quiet cores before this comparison was made."""
KNOWN_FLOOR = 330_808
"""The floor's functions in worker processes, in a round on a quiet machine of that kind in which most peers
did what is known of them: beanstalkd fast 17,724, pipelined 34,982, Celery 958, Dramatiq 4,174, SAQ 2,536."""
VOID = 0.8
"""Of what it is known to do: who ran slower than that had no fair run, and his row says nothing."""


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


class Known(NamedTuple):
    """What a peer did end to end beside what it is known to do."""

    case: Case
    known: float
    expected: float
    """That, or less where the floor is slower: by this machine, in this run."""
    measured: float

    @property
    def share(self) -> float:
        """Of what was expected."""
        return self.measured / self.expected

    @property
    def void(self) -> bool:
        """It ran too slowly to be compared with."""
        return self.share < VOID


def knowns(document: Document) -> list[Known]:
    """Hold each peer's figure against what it is known to do, as far as both are there.

    Never against more: the floor's 20,000 tasks take 0.06 s, and vary from run to run by more than a peer's do.
    """
    floor = _case(document.cases, "floor processes", "noop")
    scale = min(1.0, floor.median / KNOWN_FLOOR) if floor is not None else 1.0
    return [
        Known(case, KNOWN[case.name], KNOWN[case.name] * scale, bar.median)
        for case in document.cases
        if case.name in KNOWN and (bar := figure(case, "noop", PER_S)) is not None
    ]


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


class Comparison(NamedTuple):
    """Two figures in one number."""

    what: str
    ours: Bar
    theirs: Bar
    times: float


def comparisons(cases: Sequence[Case]) -> list[Comparison]:
    """Return how taskd stands to the others, as far as both were measured."""
    ours = [case for case in cases if case.peer == "taskd"]
    end_to_end = [
        best_python(cases, durable=False),
        best_python(cases, durable=True),
        *(_case(cases, name, "noop") for name in AGAINST),
    ]
    told = [_compare("end to end", figure(case, "noop", PER_S), bar) for case in ours for bar in end_to_end]
    redis = [case for case in cases if case.peer in REDIS_PEERS]
    told += [
        _compare(what, _first(ranking(ours, work, name)), _first(ranking(redis, work, name)))
        for what, work, name in SUBMITS
    ]
    python = [case for case in cases if case.peer in PYTHON_PEERS and not case.durable]
    quickest = [_first(ranking(these, "roundtrip", "p50_ms", least=True)) for these in (ours, python)]
    told.append(_compare("one after another, p50", *quickest))
    return [comparison for comparison in told if comparison is not None]


AGAINST = ("celery fast", "beanstalkd durable", "beanstalkd pipelined", "floor processes")
SUBMITS = (("submits in bulk", "queued", PER_S), ("submits from 50 at a time", "submitters", "calls_per_s"))


def _first(bars: Sequence[Bar]) -> Bar | None:
    return bars[0] if bars else None


def _compare(what: str, ours: Bar | None, theirs: Bar | None) -> Comparison | None:
    times = ratio(ours, theirs)
    return None if ours is None or theirs is None or times is None else Comparison(what, ours, theirs, times)


def _case(cases: Sequence[Case], name: str, work: str) -> Bar | None:
    return next((figure(case, work, PER_S) for case in cases if case.name == name), None)
