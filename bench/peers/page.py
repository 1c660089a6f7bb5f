"""The page of a run: `docs/benchmarks.md` and its pictures, made of the JSON alone.

python -m peers.page FILE.json [FOLDER]        in bench/; FOLDER is docs/ if none is said
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from peers import figures, plots
from peers.figures import Bar, Case, Document

DOCS = Path(__file__).parents[2] / "docs"


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
"""
OF_CRASHES = """\
Tasks are submitted one by one while two workers do them. When a thousand are acknowledged the broker is killed, and
started again on its data half a second later; workers that ended are started again, too. Not run: acknowledged, and
nothing had run for 5 s, or 30 s were over. Most of these are lost; of those that a worker held some may come back
later (Celery waits for an hour), or when a person asks for it (Procrastinate's stalled jobs). What a broker has
written and not synced outlives its own end, not that of the machine: see the fsyncs below.

| | on disk when acknowledged | acknowledged | not run | repeated | until the last ran, s | what the client met |
|---|---|---|---|---|---|---|
"""


def write(document: Document, folder: Path) -> Path:
    """Write the page and its pictures below a folder; return the page."""
    pictures = folder / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        found = _bars(document.cases, picture)
        if found:
            svg = plots.bars(picture.title, picture.note, found, picture.unit)
            (pictures / f"{picture.file}.svg").write_text(svg)
    page = folder / "benchmarks.md"
    page.write_text("\n".join(text(document)) + "\n")
    return page


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
    for picture in PICTURES:
        yield from _section(document, picture)
    yield from _ratios(document)
    yield from _crashes(document)
    yield from _syncs(document)
    yield from _peers(document)


def _section(document: Document, picture: Picture) -> Iterator[str]:
    found = _bars([case for case in document.cases if case.peer != "floor"], picture)
    if not found:
        return
    yield from ("", f"## {picture.title}", "", f"![{picture.title}](benchmarks/{picture.file}.svg)", "")
    best = found[0]
    ours = next((bar for bar in found if bar.case.peer == "taskd"), None)
    line = f"Best: {best.case.name}, {plots.number(best.median)} {picture.unit}."
    if ours is not None and best.case.peer != "taskd":
        line += f" taskd: {plots.number(ours.median)} {picture.unit} ({ours.case.mode})."
    yield line
    failed = [f"{case.name}: {case.failed[picture.work]}" for case in document.cases if picture.work in case.failed]
    if failed:
        yield ""
        yield f"Without a figure, or with fewer rounds: {_clean('; '.join(failed))}."


def _ratios(document: Document) -> Iterator[str]:
    compared = figures.comparisons(document.cases)
    if compared:
        yield from ("", "## taskd beside them, in times", "", "| | times |", "|---|---|")
        yield from (f"| {name} | {times:.2f} |" for name, times in compared.items())


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


def _syncs(document: Document) -> Iterator[str]:
    rows = [bar for case in document.cases if (bar := figures.figure(case, "fsyncs", "fsyncs_per_1000"))]
    if rows:
        yield from ("", "## Counted fsyncs", "")
        yield "By `strace` of the broker and all its processes, over a run of no-op tasks that is not timed."
        yield from ("", "| | fsyncs for 1,000 tasks |", "|---|---|")
        yield from (f"| {bar.case.name} | {plots.number(bar.median)} |" for bar in rows)


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


def main() -> None:
    """Make the page of a file."""
    document = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Document)
    print(write(document, Path(sys.argv[2]) if len(sys.argv) > 2 else DOCS))  # noqa: PLR2004 - two words


if __name__ == "__main__":
    main()
