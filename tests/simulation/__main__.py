"""Simulate: ``python -m simulation --seed N`` plays one run, ``--seeds A-B`` many."""

import argparse
import sys
import time

from campaigns.report import Found
from simulation.campaign import run_campaign, run_seed
from simulation.plan import Mode, make_plan

MODES: dict[str, Mode | None] = {"safety": "safety", "liveness": "liveness", "both": None}


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="play this one")
    what.add_argument("--seeds", help="play all of these: FIRST-LAST")
    parser.add_argument("--mode", choices=MODES, default="both", help="both: each seed has its own")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell all that happens")
    arguments = parser.parse_args()
    mode = MODES[arguments.mode]
    if arguments.seed is not None:
        return _play_one(arguments.seed, mode, tells=arguments.trace)
    first, _, last = arguments.seeds.partition("-")
    began_s = time.process_time()
    found = run_campaign(range(int(first), int(last) + 1), mode)
    cpu_s = time.process_time() - began_s
    _tell(found)
    speed = found.sim_seconds / cpu_s
    _say(f"{len(found.seeds)} seeds, {found.sim_seconds / 3600:.2f} cluster-hours, {speed:.0f} of them per CPU-hour")
    return int(bool(found.violations))


def _play_one(seed: int, mode: Mode | None, *, tells: bool) -> int:
    _say(str(make_plan(seed, mode)))
    found = Found()
    digest = run_seed(seed, found, mode, _say if tells else None)
    _tell(found)
    _say(f"{found.ops:,} messages in {found.sim_seconds:.0f} s; trace {digest}")
    return int(bool(found.violations))


def _tell(found: Found) -> None:
    _say(f"faults: {dict(sorted(found.faults.items()))}")
    _say(f"reached: {dict(sorted(found.reached.items()))}")
    for violation in found.violations:
        _say(violation)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
