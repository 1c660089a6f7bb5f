"""`make bench-peers`: taskd, its floor and its peers, in turns on this machine; see ``peers``.

    python -m peers.run [--only celery,taskd] [--works noop,crash] [--rounds 3] [--minutes 58] [--docs]

Speeds are measured in every round; memory, recovery and fsyncs, which vary little, in the first.
Who fails is told with the reason, and the others go on. Writes ``build/bench/peers-<date>.json``.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import machine
import measure
import msgspec
import pages
import programs
import psutil

from peers import figures, page, plots, session
from peers.figures import Case, Document
from peers.interface import Place
from peers.session import Failed

PEERS = ("taskd", "beanstalkd", "gearman", "nats", "celery", "dramatiq", "huey", "rq", "taskiq", "saq", "arq",
         "procrastinate", "dask", "hyperqueue")  # fmt: skip
WORKERS = 2
TRIPS = 500
MIXED = 300
LAYERS, WIDTH = 50, 100
ENQUEUE_S = 5.0
SUBMITTED, SUBMITTERS = 10_000, 50
NOOP_S = 8.0
DAG_S = 5.0
"""Who is slow gets fewer layers."""
DAG_AT_MOST_S = 25.0
ACKED = 1_000
SYNCED = 1_000
FAILED_AFTER_S = 90.0
EACH_ROUND = ("noop", "roundtrip", "mixed", "dag")
ONCE = ("queued", "crash", "fsyncs")
ALONE = ("submitters",)
"""Of each round, in a session without workers."""
KEPT = ("noop", "roundtrip", "submitters", "dag", "mixed")
"""Of each round, the last left out first where time is short: mixed varies least, being made of CPU alone, and few have
graphs. What is done once is in the first round, where nothing is left out: nobody would have a figure of it."""


def main() -> None:
    """Measure, write down, print."""
    options = _options(sys.argv[1:])
    if options.one:
        print(json.dumps(_one(options)))
        return
    started = time.monotonic()
    where = machine.machine(options.data_dir)
    cases, left_out = _cases(options)
    for number in range(1, options.rounds + 1):
        works = [work for work in (*EACH_ROUND, *ALONE, *(ONCE if number == 1 else ())) if work in options.works]
        left_s = started + options.minutes * 60 - time.monotonic()
        for work in _too_long(cases, works, left_s / (options.rounds - number + 1)):
            for case in cases:
                case.failed.setdefault(work, f"not run in round {number}: {options.minutes:g} minutes are too few")
        for case in cases:
            if time.monotonic() - started > options.minutes * 60:
                case.failed.setdefault("all", f"not run in round {number}: the {options.minutes} minutes were over")
                continue
            print(f"round {number} of {options.rounds}: {case.name}", file=sys.stderr, flush=True)
            _floor(case, options) if case.peer == "floor" else _measure(case, works, options)
    where["load_after"] = machine.load()
    document = Document(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%SZ"),
        commit=machine.commit(),
        machine=where,
        settings={"rounds": options.rounds, "tasks": options.tasks, "queued": options.queued, "workers": WORKERS},
        cases=cases,
        left_out=left_out,
    )
    path = options.data_dir / f"peers-{document.date}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    print("\n".join(_lines(document)))
    print(f"\nall figures: {path}; {time.monotonic() - started:,.0f} s")
    print(f"the page: {pages.take(pages.DOCS if options.docs else options.data_dir / 'page', 'peers', path)}")


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="taskd beside its peers, measured in turns.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=58, help="no case begins after that")
    parser.add_argument("--tasks", type=int, default=20_000, help="no-op tasks; who is slow gets fewer")
    parser.add_argument("--queued", type=int, default=100_000, help="tasks that wait; who is slow gets fewer")
    parser.add_argument("--only", default="", help="cases whose names start so, by commas: 'celery,taskd functions'")
    parser.add_argument("--works", default=",".join((*EACH_ROUND, *ALONE, *ONCE)), help="by commas")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/benchmarks.md, in place of a page beside the JSON"
    )
    parser.add_argument("--one", default="", metavar="CASE", help="measure no-ops once, print the facts alone")
    parser.add_argument(
        "--json", action="store_true", help="as the other programs of bench/ have it; --one always does"
    )
    options = parser.parse_args(words)
    options.data_dir = options.data_dir.resolve()
    options.works = options.works.split(",")
    return options


def _cases(options: argparse.Namespace) -> tuple[list[Case], dict[str, str]]:
    """Return who is to be measured, and who cannot be."""
    cases = [Case(peer="floor", mode=mode, words="bench/floor.py", durable=True) for mode in ("processes", "async")]
    left_out: dict[str, str] = {}
    for peer in PEERS:
        try:
            told = session.tell(peer, Place())
        except (Failed, subprocess.SubprocessError) as why:
            left_out[peer] = f"{why}"
            continue
        if told["missing"]:
            left_out[peer] = f"{told['missing']}"
            continue
        cases += [_case(peer, mode, words, told) for mode, words in cast("dict[str, str]", told["modes"]).items()]
    wanted = tuple(options.only.split(","))
    return [case for case in cases if case.name.startswith(wanted)], left_out


def _too_long(cases: Sequence[Case], works: Sequence[str], left_s: float) -> list[str]:
    """Return the works that a round has no time for, by what they took in the last; never all."""
    wanted, needed_s = [work for work in KEPT if work in works], 0.0
    for place, work in enumerate(wanted):
        needed_s += sum(case.took_s.get(work, 0.0) for case in cases if work not in case.failed)
        if place and needed_s > left_s:
            return wanted[place:]
    return []


def _case(peer: str, mode: str, words: str, told: measure.Facts) -> Case:
    versions = dict(cast("dict[str, str]", told["versions"]))
    argv = cast("dict[str, list[str]]", told["broker"])["version"]
    program = Path(argv[0]).name
    if program not in versions and not program.startswith("python"):
        versions[program] = session.version(argv)
    works = cast("list[str]", told["works"])
    case = Case(peer=peer, mode=mode, words=words, durable=mode in cast("list[str]", told["durable"]),
                versions=versions, differs=str(told["differs"]))  # fmt: skip
    case.failed = {work: "it cannot" for work in (*ALONE, *ONCE) if work not in works}
    case.runs = {work: [] for work in works}
    return case


def _floor(case: Case, options: argparse.Namespace) -> None:
    argv = [sys.executable, "floor.py", "--mode", case.mode, "--tasks", str(options.tasks), "--json"]
    try:
        done = subprocess.run(
            [*argv, "--data-dir", str(options.data_dir)],
            cwd=programs.BENCH,
            stdout=subprocess.PIPE,
            timeout=FAILED_AFTER_S * 2,
            check=True,
        )
        case.runs.setdefault("noop", []).append(json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError) as why:
        case.failed["noop"] = f"{why}"


def _measure(case: Case, works: list[str], options: argparse.Namespace) -> None:
    """Do these works, those of each round in one session; who failed at one is not asked for it again."""
    wanted = [work for work in works if work in case.runs and work not in case.failed]
    together = [work for work in wanted if work in EACH_ROUND]
    while together:
        failed = _try(case, together, partial(_together, case, together, options))
        together = together[together.index(failed) + 1 :] if failed else []
    for work, alone in (("submitters", _submitters), ("queued", _queued), ("crash", _crash), ("fsyncs", _fsyncs)):
        if work in wanted:
            _try(case, [work], partial(alone, case, options))


def _try(case: Case, works: Sequence[str], do: Callable[[], Iterator[tuple[str, measure.Facts]]]) -> str:
    """Note what is measured; return the work that failed, empty: none."""
    left = list(works)
    began = time.monotonic()
    try:
        for name, facts in do():
            case.runs[name].append(facts)
            left.remove(name)
            case.took_s[name] = time.monotonic() - began
            began = time.monotonic()
        case.took_s[works[-1]] += time.monotonic() - began
    except (Failed, OSError, psutil.Error, subprocess.SubprocessError, SystemExit) as why:
        failed = left[0] if left else works[-1]
        case.failed[failed] = " ".join(f"{why}".split())[:300]
        print(f"  {failed}: {why}", file=sys.stderr, flush=True)
        return failed
    return ""


def _together(case: Case, works: list[str], options: argparse.Namespace) -> Iterator[tuple[str, measure.Facts]]:
    arguments: dict[str, measure.Facts] = {
        "noop": {"count": options.tasks, "seconds": NOOP_S},
        "roundtrip": {"count": TRIPS},
        "mixed": {"count": MIXED},
        "dag": {"layers": LAYERS, "width": WIDTH, "seconds": DAG_S, "at_most_s": DAG_AT_MOST_S},
    }
    with session.session(case.peer, case.mode, options.data_dir, workers=WORKERS) as running:
        for work in works:
            pids = running.pids()
            before = measure.cpu_ns(pids)
            facts = running.ask(work, FAILED_AFTER_S, **arguments[work])
            if work == "noop":
                facts["cpu_us"] = measure.cpu_us(before, measure.cpu_ns(pids), cast("int", facts["ran"]))
            yield work, facts


def _queued(case: Case, options: argparse.Namespace) -> Iterator[tuple[str, measure.Facts]]:
    with session.session(case.peer, case.mode, options.data_dir, workers=0) as running:
        memory, disk = running.memory(), running.disk()
        facts = running.ask("queued", FAILED_AFTER_S, count=options.queued, seconds=ENQUEUE_S)
        count = cast("int", facts["tasks"])
        facts["memory_mib"] = running.memory() / 2**20
        facts["memory_bytes_each"] = max(0, running.memory() - memory) / count
        facts["disk_bytes_each"] = max(0, running.disk() - disk) / count
        yield "queued", facts


def _submitters(case: Case, options: argparse.Namespace) -> Iterator[tuple[str, measure.Facts]]:
    with session.session(case.peer, case.mode, options.data_dir, workers=0) as running:
        yield "submitters", running.ask("submitters", FAILED_AFTER_S, count=SUBMITTED, at_once=SUBMITTERS)


def _crash(case: Case, options: argparse.Namespace) -> Iterator[tuple[str, measure.Facts]]:
    with session.session(case.peer, case.mode, options.data_dir, workers=WORKERS) as running:
        yield "crash", running.crash(ACKED)


def _fsyncs(case: Case, options: argparse.Namespace) -> Iterator[tuple[str, measure.Facts]]:
    with session.session(case.peer, case.mode, options.data_dir, workers=WORKERS, traced=True) as running:
        before = running.syncs()
        facts = running.ask("fsyncs", FAILED_AFTER_S, count=SYNCED, seconds=NOOP_S)
        time.sleep(session.SETTLE_S)
        done = running.syncs() - before
        yield "fsyncs", {"fsyncs": done, "fsyncs_per_1000": done * 1000 / cast("int", facts["ran"])}


def _one(options: argparse.Namespace) -> measure.Facts:
    """Measure the no-ops of one case, for another program."""
    peer, _, mode = options.one.partition(" ")
    case = Case(peer=peer, mode=mode, runs={"noop": []})
    _, facts = next(_together(case, ["noop"], options))
    return {name: value for name, value in facts.items() if name != "work"}


def _lines(document: Document) -> Iterator[str]:
    """Give the figures for people."""
    yield f"taskd {document.commit}, {document.date}"
    yield ", ".join(f"{name} {value}" for name, value in document.machine.items())
    for case in document.cases:
        versions = ", ".join(f"{name} {version}" for name, version in case.versions.items())
        yield f"  {case.name:28}{case.words}; {versions}"
    for picture in page.PICTURES:
        found = figures.ranking(document.cases, picture.work, picture.name, least=picture.least)
        if found:
            yield f"\n{picture.title}: {picture.note}"
        for bar in found:
            spread = f"({plots.number(bar.low)} to {plots.number(bar.high)})"
            durable = "durable" if bar.case.durable else ""
            yield f"  {bar.case.name:28}{plots.number(bar.median):>10} {picture.unit:3} {spread:28}{durable}"
    for case in document.cases:
        for facts in case.runs.get("crash", []):
            counts = f"{facts['acked']} acknowledged, {facts['not_run']} not run, {facts['repeated']} repeated"
            yield f"  {case.name:28} kill -9: {counts}"
    for what, ours, theirs, times in figures.comparisons(document.cases):
        yield f"{what}: {ours.case.name} over {theirs.case.name}".ljust(70) + f"{times:8.2f}"
    for known in figures.knowns(document):
        if known.void:
            yield f"{known.case.name}: void, with {known.share:.0%} of what it is known to do here"
    yield from (f"{case.name}: {work}: {why}" for case in document.cases for work, why in case.failed.items())
    yield from (f"{peer}: left out: {why}" for peer, why in document.left_out.items())


if __name__ == "__main__":
    main()
