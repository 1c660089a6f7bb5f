"""The page's first part, taskd beside others: text and pictures, of the JSON alone; ``pages.py`` writes them."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import measure

from peers import figures, plots
from peers.figures import Bar, Case, Document


class Picture(NamedTuple):
    """One work's figure, and how it reads."""

    file: str
    work: str
    name: str
    title: str
    note: str
    unit: str
    least: bool = False


PICTURES = (
    Picture("throughput", "noop", "tasks_per_s", "No-op tasks, end to end",
            "tasks a second from the first submit to the last result; more is better", "/s"),
    Picture("enqueue", "queued", "tasks_per_s", "Submits in bulk, nobody working",
            "tasks a second until all are acknowledged; more is better", "/s"),
    Picture("submitters", "submitters", "calls_per_s", "Submits from 50 at a time, a call each, nobody working",
            "tasks a second; threads of one process, or coroutines where the client has them; more is better", "/s"),
    Picture("roundtrip", "roundtrip", "p50_ms", "One task after another: submit to result",
            "milliseconds, median; less is better", "ms", least=True),
    Picture("roundtrip-p99", "roundtrip", "p99_ms", "One task after another: the slowest of a hundred",
            "milliseconds, p99; less is better", "ms", least=True),
    Picture("mixed", "mixed", "times_ideal", "Tasks of 1 to 100 ms of CPU",
            "time until the last has ended, over the least possible; less is better", "x", least=True),
    Picture("dag", "dag", "nodes_per_s", "A graph in layers",
            "nodes a second; each comes after two of the layer before; more is better", "/s"),
    Picture("memory", "queued", "memory_bytes_each", "Memory of the broker for each queued task",
            "bytes; less is better", "B", least=True),
    Picture("disk", "queued", "disk_bytes_each", "Disk for each queued task",
            "bytes; 0 for what is kept in memory alone", "B", least=True),
)  # fmt: skip


INTRODUCTION = """\
All ran on this one machine, in turns, each alone, with two worker processes; medians of the rounds, lines in the
pictures from the least to the greatest. taskd runs as shipped: TLS, tokens, an fsync before each acknowledgement,
results stored. The others run without TLS, as they come, in the configuration that their guides advise for speed, and
in the durable one (an fsync before an acknowledgement) where they have it. The floor is the least program of taskd's
shape (`bench/floor.py`). Whoever is slow was given fewer tasks, so that a run ends; the JSON tells how many.

"On disk" is whether an acknowledged submit is on disk. The fsyncs beside it are counted by `strace` of the broker and
all its processes, over a run of no-op tasks that is not timed; the ledger is of `kill -9` under load, below.
"""
OF_CRASHES = """\
Tasks are submitted one by one while two workers do them. When a thousand are acknowledged the broker is killed, and
started again on its data half a second later; workers that ended are started again, too. Not run: acknowledged, and
nothing had run for 5 s, or 30 s were over. Most of these are lost; of those that a worker held some may come back
later (Celery waits for an hour), or when a person asks for it (Procrastinate's stalled jobs). What a broker has
written and not synced outlives its own end, not that of the machine: see the fsyncs above.

| | on disk when acknowledged | acknowledged | not run | repeated | until the last ran, s | what the client met |
|---|---|---|---|---|---|---|
"""
OF_KNOWNS = f"""\
What each did end to end on two quiet cores before this comparison was made; less where the floor is slower in this run
than {figures.KNOWN_FLOOR:,} tasks/s, never more. The floor was not measured then: that figure is of a quiet machine of
that kind, on which most of the others did what is known of them. Who ran below {figures.VOID:.0%} had no fair run: the
row is void, and nothing is to be concluded from it.

| | known, tasks/s | scaled | measured | share | |
|---|---|---|---|---|---|
"""


def pictures(document: Document) -> Iterator[tuple[str, str]]:
    """Give the name and the SVG of each picture."""
    void = {known.case.name for known in figures.knowns(document) if known.void}
    for picture in PICTURES:
        found = _bars(document.cases, picture)
        if found:
            yield f"{picture.file}.svg", plots.bars(picture.title, picture.note, found, picture.unit, void)


def _bars(cases: Sequence[Case], picture: Picture) -> list[Bar]:
    return figures.ranking(cases, picture.work, picture.name, least=picture.least)


def text(document: Document) -> Iterator[str]:
    """Give the lines of the page."""
    told = ", ".join(f"{name} {value}" for name, value in document.machine.items())
    settings = ", ".join(f"{name} {value}" for name, value in document.settings.items())
    yield "# taskd beside others"
    yield ""
    yield f"Made by `make bench-peers ARGS=--docs` on {document.date[:10]}, taskd {document.commit}."
    yield f"{told}. {settings}."
    yield ""
    yield from INTRODUCTION.splitlines()
    void = {known.case.name for known in figures.knowns(document) if known.void}
    yield from _winners(document, void)
    for picture in PICTURES:
        yield from _section(document, picture, void)
    yield from _ratios(document, void)
    yield from _knowns(document)
    yield from _crashes(document)
    yield from _peers(document)


def _winners(document: Document, void: AbstractSet[str]) -> Iterator[str]:
    """Name who does best at each work; the floor does nothing that anybody could use."""
    peers = [case for case in document.cases if case.peer != "floor"]
    yield from ("", "## Who wins", "", "| | best of all | best that is on disk | taskd |", "|---|---|---|---|")
    for picture in PICTURES:
        bars = _bars(peers, picture)
        durable = [bar for bar in bars if bar.case.durable]
        ours = [bar for bar in bars if bar.case.peer == "taskd"]
        if bars:
            told = (_short(found[:1], picture.unit, void) for found in (bars, durable, ours))
            yield f"| {picture.title} | {' | '.join(told)} |"


def _short(bars: Sequence[Bar], unit: str, void: AbstractSet[str]) -> str:
    return "".join(f"{_name(bar.case, void)}, {plots.number(bar.median)} {unit}" for bar in bars)


def _name(case: Case, void: AbstractSet[str]) -> str:
    return f"{case.name} (void)" if case.name in void else case.name


def _section(document: Document, picture: Picture, void: AbstractSet[str]) -> Iterator[str]:
    bars = _bars(document.cases, picture)
    if not bars:
        return
    yield from ("", f"## {picture.title}", "", f"![{picture.title}](benchmarks/{picture.file}.svg)", "")
    yield f"{picture.note[0].upper()}{picture.note[1:]}."
    heads = ("", "median", "least to greatest", "n", "on disk", "fsyncs for 1,000 tasks", "not run after `kill -9`")
    yield from ("", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|")
    for bar in bars:
        syncs = figures.figure(bar.case, "fsyncs", "fsyncs_per_1000")
        cells = [
            _name(bar.case, void),
            f"{plots.number(bar.median)} {picture.unit}",
            f"{plots.number(bar.low)} to {plots.number(bar.high)}",
            _counts(bar.case.runs[picture.work]),
            "yes" if bar.case.durable else "no",
            "" if syncs is None else plots.number(syncs.median),
            "; ".join(f"{facts['not_run']} of {facts['acked']}" for facts in bar.case.runs.get("crash", [])),
        ]
        yield f"| {' | '.join(cells)} |"
    failed = [f"{case.name}: {case.failed[picture.work]}" for case in document.cases if picture.work in case.failed]
    if failed:
        yield ""
        yield f"Without a figure, or with fewer rounds: {_clean('; '.join(failed))}."


def _counts(runs: Sequence[measure.Facts]) -> str:
    """Tell of how many tasks the runs were, the least and the greatest where they differ."""
    found = [n for facts in runs for name in COUNTS if isinstance(n := facts.get(name), int)]
    return " to ".join(f"{count:,}" for count in sorted({min(found), max(found)})) if found else ""


COUNTS = ("tasks", "nodes", "trips")


def _ratios(document: Document, void: AbstractSet[str]) -> Iterator[str]:
    compared = figures.comparisons(document.cases)
    if compared:
        yield from ("", "## taskd over others, in times", "", "| | | over | times |", "|---|---|---|---|")
        for what, ours, theirs, times in compared:
            yield f"| {what} | {ours.case.name} | {_name(theirs.case, void)} | {times:.2f} |"


def _knowns(document: Document) -> Iterator[str]:
    found = figures.knowns(document)
    if not found:
        return
    yield from ("", "## Whether the others had a fair run", "")
    yield from OF_KNOWNS.splitlines()
    for known in found:
        told = " | ".join(f"{number:,.0f}" for number in (known.known, known.expected, known.measured))
        yield f"| {known.case.name} | {told} | {known.share:.0%} | {'void' if known.void else ''} |"


def _crashes(document: Document) -> Iterator[str]:
    rows = [(case, facts) for case in document.cases for facts in case.runs.get("crash", [])]
    if not rows:
        return
    yield from ("", "## `kill -9` of the broker under load", "")
    yield from OF_CRASHES.splitlines()
    for case, facts in rows:
        seconds = facts.get("recovered_s")
        took = f"{seconds:.1f}" if isinstance(seconds, float) and not facts["not_run"] else ""
        error = _clean(str(facts.get("error") or "")).partition(":")[0]
        counts = " | ".join(str(facts[name]) for name in ("acked", "not_run", "repeated"))
        yield f"| {case.name} | {'yes' if case.durable else 'no'} | {counts} | {took} | {error} |"
    failed = [f"{case.name}: {case.failed['crash']}" for case in document.cases if "crash" in case.failed]
    if failed:
        yield from ("", f"Not measured: {_clean('; '.join(failed))}.")


def _peers(document: Document) -> Iterator[str]:
    yield from ("", "## Who ran how", "", "| | versions | how | what differs |", "|---|---|---|---|")
    for case in document.cases:
        versions = ", ".join(f"{name} {version}" for name, version in case.versions.items())
        yield f"| {case.name} | {_clean(versions)} | {_clean(case.words)} | {_clean(case.differs)} |"
    if document.left_out:
        yield from (
            "",
            "Left out: " + "; ".join(f"{name}: {_clean(why)}" for name, why in document.left_out.items()) + ".",
        )


def _clean(words: str) -> str:
    return " ".join(words.replace("|", "/").split())
