"""Plays what the goal wants and no report has yet: ``make prove TIER=pr|nightly|release``.

Cases that the reports of this commit know are not played again, so that it can be stopped and goes on.
"""

import argparse
import os
import subprocess
import sys
import time

from check_goal import ROOT, TIERS, check, current_commit, read_goals, read_report


def play(campaign: str, first: int, last: int, seconds: float) -> None:
    """Play these cases in a process of their own, until the time is over."""
    words = ["-m", "campaigns", campaign, "--from", str(first), "--to", str(last), "--seconds", f"{seconds:.0f}"]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False)


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="pr")
    parser.add_argument("--campaign", help="this one alone")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first case")
    parser.add_argument("--to", dest="last", type=int, help="last case; without it as many as the tier wants")
    parser.add_argument("--minutes", type=float, default=60 * 24 * 7, help="begin no case later")
    asked = parser.parse_args()
    goals = read_goals()
    if asked.campaign and asked.campaign not in goals:
        parser.error(f"there is no campaign {asked.campaign!r}; there are {', '.join(goals)}")
    names = [asked.campaign] if asked.campaign else list(goals)
    end_s = time.perf_counter() + asked.minutes * 60
    for index, name in enumerate(names):
        last = goals[name].cases[asked.tier] - 1 if asked.last is None else asked.last
        share_s = (end_s - time.perf_counter()) / (len(names) - index)
        print(f"{name}: {goals[name].title}: cases {asked.first} to {last}", flush=True)
        play(name, asked.first, last, max(share_s, 0))
    if asked.campaign is None:
        return int(not check(asked.tier))
    report = read_report(asked.campaign)
    holds = report is not None and report.commit == current_commit() and not report.violations
    print(f"{asked.campaign}: {len(report.seeds) if report else 0} cases known of this commit")
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
