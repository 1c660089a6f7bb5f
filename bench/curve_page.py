"""The page's second part, taskd at scale: text, tables and pictures, of the JSON alone; ``pages.py`` writes them.

What is said of a knee is derived from what was used there: nothing is told that was not measured.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import measure
import msgspec
from peers import plots

FULL = 0.85
"""Of a core: who runs on one has no more to give."""
BUSY = 0.9
"""Of all cores."""
KNEE = 0.8
"""Of the best before: who falls below has met something."""
NEAR = 0.9
"""Of the best: what grows has come to its end."""
GREW = 1.3
"""What is told as a cause has grown by so much at least."""


class Point(msgspec.Struct, kw_only=True):
    """What was measured at one place of a curve."""

    at: int
    tasks: int
    """In each round."""
    rounds: int
    per_s: dict[str, float]
    """Median, min and max."""
    trips: int
    p50_ms: float
    p99_ms: float
    used: measure.Facts
    """Of the round in the middle; see ``use.py``."""
    more: dict[str, float] = {}

    def number(self, *names: str) -> float:
        """Return what was used: a number, or one by a second name."""
        value: object = self.used
        for name in names:
            assert isinstance(value, dict)
            value = value.get(name, 0.0)
        assert isinstance(value, int | float)
        return float(value)

    @property
    def median(self) -> float:
        """Tasks a second."""
        return self.per_s["median"]


class Curve(msgspec.Struct, kw_only=True):
    """Points, the smallest first."""

    name: str
    points: list[Point] = []
    left_out: list[int] = []
    """Where it was not measured: the time was over, or it failed."""
    failed: str = ""
    """Why it was not measured to its end; empty: nothing went wrong."""


class Document(msgspec.Struct, kw_only=True):
    """All of one run, as it is written down."""

    date: str
    """ISO 8601, UTC."""
    commit: str
    machine: dict[str, str]
    curves: list[Curve]


class Words(NamedTuple):
    """How a curve reads."""

    title: str
    axis: str
    one: str
    """What there is one of, where there is one."""
    about: str


WORDS = {
    "agents": Words(
        "Agents",
        "agents",
        "agent",
        "Simulated agents, each on a TLS connection of its own, that report every task as done at once: what"
        " connections cost the server. Each may hold 2,000 leases over their number, 8 at least.",
    ),
    "load": Words(
        "Load",
        "% of the most",
        "% of the most",
        "Tasks are due at even distances, at a share of the most that went through when all were submitted at once (the"
        " median of four runs before), whatever the answers do. Latency counts from the instant at which each was due.",
    ),
    "clients": Words(
        "Clients",
        "clients",
        "client",
        "Simulated clients, each on a TLS connection of its own, that submit a task, wait for its result, and do that"
        " again; two agents of a worker process.",
    ),
    "payload": Words(
        "Payload",
        "bytes of payload",
        "byte of payload",
        "Bytes that cannot be compressed go to a worker and come back as its result.",
    ),
    "backlog": Words(
        "Backlog",
        "tasks that wait",
        "task that waits",
        "Tasks that wait in a queue which no agent serves, beside the work; measured a second after they were"
        " submitted, while the store still compacts.",
    ),
    "queues": Words("Queues", "queues", "queue", "The tasks of a round are spread over queues, in turns."),
    "classes": Words(
        "Classes",
        "classes",
        "class",
        "The tasks of a round are spread over classes, in turns: each asks for another amount of memory, so that each"
        " is placed by what it asks for. Ten simulated agents, as above.",
    ),
}

INTRODUCTION = """\
Server, agents and TLS as shipped, every acknowledgement fsynced, results stored; two agents of a worker process if
nothing else is said. Each point is the median of rounds in which all tasks are submitted at once, with the least and
the greatest; then come trips, one task after another, from submit to result. `n` is the tasks of a round and the trips.
The loop is the server's one deciding thread, in shares of a core; server, agents, workers and clients are in cores.
`fsync` is the share of the time in which one was under way, `gc` that in which Python collected garbage in the server.
What is said of a knee is derived from these figures.
"""


def text(document: Document) -> Iterator[str]:
    """Give the lines of the page's part."""
    yield from ("# Scale", "")
    yield f"Made by `make bench-curves ARGS=--docs` on {document.date[:10]}, taskd {document.commit}."
    yield ", ".join(f"{name} {value}" for name, value in document.machine.items()) + "."
    yield ""
    yield from INTRODUCTION.splitlines()
    for curve in document.curves:
        words = WORDS[curve.name]
        yield from ("", f"## {words.title}", "", words.about, "")
        if curve.points:
            yield from (f"![{words.title}](benchmarks/curve-{curve.name}.svg)", "")
            yield from _table(curve)
            yield ""
            yield " ".join(story(curve, int(document.machine["cores"])))
        if curve.left_out:
            where = ", ".join(f"{at:,}" for at in curve.left_out)
            why = " ".join(curve.failed.replace("|", "/").split()) or "the time was over"
            yield from ("", f"Not measured: {where} ({why}).")


def _table(curve: Curve) -> Iterator[str]:
    more = sorted({name for point in curve.points for name in point.more})
    heads = [WORDS[curve.name].axis, "tasks/s", "p50, p99 ms", "n", "loop", "us a task", "server", "agents", "workers",
             "client", "fsync", "a fsync, ms", "gc", "turn p99, ms", "tasks a turn", "bytes a task", *more]  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for point in curve.points:
        cells = [
            f"{point.at:,}",
            f"{point.median:,.0f} ({point.per_s['min']:,.0f} to {point.per_s['max']:,.0f})",
            f"{plots.number(point.p50_ms)}, {plots.number(point.p99_ms)}",
            f"{point.rounds} x {point.tasks:,}; {point.trips:,}",
            f"{point.number('loop'):.0%}",
            plots.number(point.number("loop_us")),
            *(f"{point.number('cores', role):.2f}" for role in ROLES),
            f"{point.number('fsync_share'):.0%}",
            plots.number(point.number("fsync_ms")),
            f"{point.number('collector_share'):.1%}",
            plots.number(point.number("turn_p99_ms")),
            plots.number(point.number("tasks_per_turn")),
            plots.number(point.number("bytes_each")),
            *(plots.number(point.more[name]) if name in point.more else "" for name in more),
        ]
        yield f"| {' | '.join(cells)} |"


ROLES = ("server", "agents", "workers", "client")


def line(point: Point) -> str:
    """Return a point for people who wait."""
    return (
        f"{point.at:,}: {point.median:,.0f}/s, p50 {plots.number(point.p50_ms)} p99 {plots.number(point.p99_ms)} ms, "
        f"loop {point.number('loop'):.0%}, {point.number('loop_us'):.1f} us a task"
    )


def story(curve: Curve, cores: int) -> Iterator[str]:
    """Tell where throughput turns, and what was full there; in sentences."""
    points, words = curve.points, WORDS[curve.name]
    best = max(points, key=lambda point: point.median)
    near = next(point for point in points if point.median >= NEAR * best.median)
    yield f"With {points[0].at:,} {words.one if points[0].at == 1 else words.axis}, {limits(points[0], cores)}."
    if near is not points[0]:
        yield f"Throughput grows until {near.at:,}, where {limits(near, cores)}."
    after = points[points.index(best) + 1 :]
    knee = next((point for point in after if point.median < KNEE * best.median), None)
    if knee is not None:
        yield f"The knee is at {knee.at:,}, with {_fall(best, knee, cores)}."
        if knee is not points[-1]:
            yield f"At {points[-1].at:,} it is {_fall(best, points[-1], cores)}."
    elif after:
        least = min(after, key=lambda point: point.median)
        yield f"After its best, at {best.at:,}, it stays at {least.median / best.median:.0%} of that or more: no knee."
    slowest = max(points, key=lambda point: point.p99_ms)
    yield (
        f"p99 is {plots.number(points[0].p99_ms)} ms with {points[0].at:,}, and {plots.number(slowest.p99_ms)} ms at"
        f" most, with {slowest.at:,}."
    )


def _fall(best: Point, point: Point, cores: int) -> str:
    share = f"{point.median / best.median:.0%} of the best ({best.at:,})"
    grown = list(_grown(best, point))
    return f"{share}: {limits(point, cores)}" + (f"; {', '.join(grown)}" if grown else "")


def limits(point: Point, cores: int) -> str:
    """Tell what had no more to give; of a point where all had, what each used."""
    used = {role: point.number("cores", role) for role in ROLES}
    told = []
    if point.number("loop") >= FULL:
        told.append(f"the server's loop is full ({point.number('loop'):.0%} of a core)")
    if sum(used.values()) >= BUSY * cores:
        shares = ", ".join(f"{role} {share:.2f}" for role, share in used.items() if share)
        told.append(f"all cores are busy ({shares}, of {cores})")
    fsync = f"{point.number('fsync_share'):.0%} of the time, {plots.number(point.number('fsync_ms'))} ms each"
    if point.number("fsync_share") >= FULL:
        told.append(f"one fsync follows another ({fsync})")
    return " and ".join(told) or (
        f"nothing is full: the loop uses {point.number('loop'):.0%} of a core, all processes {sum(used.values()):.2f}"
        f" of {cores} cores, fsyncs {fsync}; the rest is one waiting for the other"
    )


def _grown(before: Point, after: Point) -> Iterator[str]:
    """Tell what has grown between two points, for each task."""
    if _grew(before, after, "loop_us"):
        stages = {name: after.number("stages_us", name) - before.number("stages_us", name) for name in STAGES}
        most = max(STAGES, key=lambda stage: stages[stage])
        yield f"{_instead(before, after, 'loop_us')} us of the loop a task, {most} +{plots.number(stages[most])}"
    for name, words in GROWING:
        if _grew(before, after, name):
            yield f"{_instead(before, after, name)} {words}"
    if _grew(after, before, "tasks_per_turn"):
        yield f"{_instead(before, after, 'tasks_per_turn')} tasks a turn"


STAGES = ("decode", "decide", "encode", "stage", "send")
GROWING = (
    ("store_us", "us of the store's own threads a task"),
    ("bytes_each", "bytes on the wire a task"),
    ("fsyncs_per_1000", "fsyncs for 1,000 tasks"),
    ("fsync_ms", "ms for an fsync"),
)


def _grew(before: Point, after: Point, name: str) -> bool:
    return after.number(name) > GREW * before.number(name)


def _instead(before: Point, after: Point, name: str) -> str:
    return f"{plots.number(after.number(name))} (in place of {plots.number(before.number(name))})"


def pictures(document: Document) -> Iterator[tuple[str, str]]:
    """Give the name and the SVG of each picture."""
    for curve in document.curves:
        if curve.points:
            words = WORDS[curve.name]
            yield f"curve-{curve.name}.svg", plots.lines(words.title, words.axis, _panels(curve.points))


def _panels(points: Sequence[Point]) -> list[plots.Panel]:
    places = [f"{point.at:,}" for point in points]
    spread = [(point.median, point.per_s["min"], point.per_s["max"]) for point in points]
    return [
        plots.Panel("tasks/s", places, {"": spread}),
        plots.Panel(
            "submit to result, ms",
            places,
            {
                "p50": [(point.p50_ms,) * 3 for point in points],
                "p99": [(point.p99_ms,) * 3 for point in points],
            },
            log=True,
        ),
    ]
