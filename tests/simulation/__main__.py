"""Simulate: ``python -m simulation --seed N`` plays one run, ``--seeds A-B`` many."""

import argparse
import sys
from pathlib import Path

from simulation.campaign import run_campaign, run_seed
from simulation.plan import Mode, make_plan
from simulation.report import Report

MODES: dict[str, Mode | None] = {"safety": "safety", "liveness": "liveness", "both": None}


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="play this one")
    what.add_argument("--seeds", help="play all of these: FIRST-LAST")
    parser.add_argument("--mode", choices=MODES, default="both", help="both: each seed has its own")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell all that happens")
    parser.add_argument("--report", type=Path, help="with --seeds: write the report there")
    arguments = parser.parse_args()
    mode = MODES[arguments.mode]
    if arguments.seed is not None:
        return _play_one(arguments.seed, mode, tells=arguments.trace)
    first, _, last = arguments.seeds.partition("-")
    report = run_campaign(range(int(first), int(last) + 1), mode)
    if arguments.report is not None:
        report.write(arguments.report)
    _say(report.summary())
    return int(bool(report.violations))


def _play_one(seed: int, mode: Mode | None, *, tells: bool) -> int:
    _say(str(make_plan(seed, mode)))
    report = Report()
    result = run_seed(seed, mode, _say if tells else None)
    report.add(result)
    _say(f"faults: {dict(sorted(result.faults.items()))}")
    _say(f"reached: {dict(sorted(result.reached.items()))}")
    _say(f"{result.ops:,} messages in {result.seconds:.0f} s; trace {result.digest}")
    for violation in report.violations:
        _say(violation)
    return int(bool(report.violations))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
