"""`make bench`: taskd, its floor and a peer, measured in turns on one machine, and set against what was promised.

Each measurement is a program of its own (``floor.py``, ``cases.py``, a peer of ``peers``), run once in
every round. Writes ``build/bench/<date>.json`` and prints tables. ARGS="--rounds 1 --only floor,taskd"
makes it shorter; --check makes a missed bar an error.
"""

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path

import machine
import measure
import msgspec
import report
from peers.session import interpreter

BENCH = Path(__file__).parent
PROGRAM_WITHIN_S = 400

CASES = {
    "floor processes": ["floor.py", "--mode", "processes"],
    "taskd processes": ["cases.py", "throughput", "--function", "noop"],
    "floor async": ["floor.py", "--mode", "async"],
    "taskd async": ["cases.py", "throughput", "--function", "anoop"],
    "huey redis": ["-m", "peers.run", "--one", "huey fast"],
    "floor processes plain": ["floor.py", "--mode", "processes", "--no-tls"],
    "taskd processes plain": ["cases.py", "throughput", "--function", "noop", "--no-tls"],
    "taskd roundtrip": ["cases.py", "roundtrip"],
    "taskd restart": ["cases.py", "restart"],
    "taskd mixed": ["cases.py", "mixed"],
}
"""In the order of each round: what is compared runs next to each other. The first word is for --only."""


def main() -> None:
    """Measure, write down, print; exit with 1 if asked to check and a bar is missed."""
    parser = argparse.ArgumentParser(description="taskd, its floor and a peer, measured in turns.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=20_000, help="in each measurement of throughput")
    parser.add_argument("--only", default="floor,taskd,huey", help="cases whose names start so, by commas")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    parser.add_argument("--baseline", type=Path, default=BENCH / "baseline.json")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    options = parser.parse_args()
    wanted = tuple(options.only.split(","))
    cases = {name: argv for name, argv in CASES.items() if name.startswith(wanted)}
    left_out = {}
    if "huey redis" in cases and interpreter("huey") == sys.executable:
        left_out["huey redis"] = "it is not installed: make build/peers/huey/.ready"
        del cases["huey redis"]
    where = machine.machine(options.data_dir)
    rounds = _rounds(cases, options)
    where["load_after"] = machine.load()
    figures = report.figures(rounds)
    document = report.Document(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%SZ"),
        commit=machine.commit(),
        machine=where,
        rounds=rounds,
        left_out=left_out,
        figures=figures,
        bars=report.bars(figures),
    )
    if options.baseline.exists():
        baseline = msgspec.json.decode(options.baseline.read_bytes(), type=report.Document)
        document.against_baseline = report.against(figures, baseline.figures)
    path = options.data_dir / f"{document.date}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    print(report.tables(document))
    print(f"\nall figures: {path}")
    if options.check and not all(bar.met for bar in document.bars):
        sys.exit(1)


def _rounds(cases: dict[str, list[str]], options: argparse.Namespace) -> dict[str, list[measure.Facts]]:
    facts: dict[str, list[measure.Facts]] = {name: [] for name in cases}
    for number in range(1, options.rounds + 1):
        for name, argv in cases.items():
            print(f"round {number} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            many = (
                [] if name in {"taskd roundtrip", "taskd restart", "taskd mixed"} else ["--tasks", str(options.tasks)]
            )
            facts[name].append(_run([*argv, *many, "--data-dir", str(options.data_dir), "--json"]))
    return facts


def _run(argv: list[str]) -> measure.Facts:
    program = [sys.executable, *(argv if argv[0] == "-m" else [str(BENCH / argv[0]), *argv[1:]])]
    environment = {**os.environ, "PYTHONPATH": str(BENCH)}
    done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, timeout=PROGRAM_WITHIN_S, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed with exit code {done.returncode}")
    facts: measure.Facts = json.loads(done.stdout)
    return facts


if __name__ == "__main__":
    main()
