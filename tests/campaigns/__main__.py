"""Plays cases of a campaign: ``python -m campaigns NAME --from A --to B``."""

import argparse
import sys

from campaigns.catalogue import CAMPAIGNS
from campaigns.running import run_anew, run_cases, seats


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m campaigns", description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS)
    parser.add_argument("--from", dest="first", type=int, required=True)
    parser.add_argument("--to", dest="last", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case later")
    parser.add_argument("--until-broken", action="store_true", help="end with the first case that breaks a promise")
    parser.add_argument("--at-once", type=int, help="so many cases at the same time; otherwise as is best")
    parser.add_argument("--anew", action="store_true", help="whatever the report knows already")
    arguments = parser.parse_args()
    name, campaign = arguments.name, CAMPAIGNS[arguments.name]
    numbers = range(arguments.first, arguments.last + 1)
    at_once = arguments.at_once or seats(campaign)
    if arguments.anew:
        report = run_anew(name, campaign, numbers, at_once=at_once)
    else:
        report = run_cases(
            name,
            campaign,
            numbers,
            seconds=arguments.seconds,
            until_broken=arguments.until_broken,
            at_once=at_once,
            tell=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201 - for the person who waits
        )
    faults = ", ".join([f"{count} {kind}" for kind, count in sorted(report.faults.items())])
    lines = [f"{name}: {len(report.seeds)} cases, {report.ops:,} operations, {report.wall_s:.0f} s; {faults}"]
    sys.stdout.write("\n".join([*lines, *report.violations]) + "\n")
    return int(bool(report.violations))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except* KeyboardInterrupt:
        sys.exit(130)
