"""Plays cases of a campaign: ``python -m campaigns NAME --from A --to B``."""

import argparse
import sys

from campaigns.catalogue import CAMPAIGNS
from campaigns.running import run_anew, run_cases


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m campaigns", description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS)
    parser.add_argument("--from", dest="first", type=int, required=True)
    parser.add_argument("--to", dest="last", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case later")
    parser.add_argument("--until-broken", action="store_true", help="end with the first case that breaks a promise")
    parser.add_argument("--anew", action="store_true", help="whatever the report knows already")
    arguments = parser.parse_args()
    name, numbers = arguments.name, range(arguments.first, arguments.last + 1)
    if arguments.anew:
        report = run_anew(name, CAMPAIGNS[name], numbers)
    else:
        until_broken = arguments.until_broken
        report = run_cases(name, CAMPAIGNS[name], numbers, seconds=arguments.seconds, until_broken=until_broken)
    faults = ", ".join([f"{count} {kind}" for kind, count in sorted(report.faults.items())])
    lines = [f"{name}: {len(report.seeds)} cases, {report.ops:,} operations, {report.wall_s:.0f} s; {faults}"]
    sys.stdout.write("\n".join([*lines, *report.violations]) + "\n")
    return int(bool(report.violations))


if __name__ == "__main__":
    sys.exit(main())
