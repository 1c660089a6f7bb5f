"""Plays what the goal wants and no report has yet: ``make prove TIER=pr|nightly|release``.

Cases that the reports of this commit know are not played again, so that it can be stopped and goes on. A case that
hangs is ended and counts as a promise that is broken. In the end there is a table.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Thread

from campaigns.catalogue import CAMPAIGNS
from check_goal import ROOT, TIERS, Tier, check, current_commit, read_goals, read_report


def play(campaign: str, first: int, last: int, seconds: float, before: Sequence[str] = ()) -> None:
    """Play these cases in a process of their own, until the time is over.

    Args:
        campaign: Which.
        first: Case.
        last: Case.
        seconds: None begins later.
        before: Words that the process is started with.
    """
    words = ["-m", "campaigns", campaign, "--from", str(first), "--to", str(last), "--seconds", f"{seconds:.0f}"]
    subprocess.run([*before, sys.executable, *words], cwd=ROOT, check=False)


def play_tier(tier: Tier, seconds: float) -> None:
    """Play what a tier lacks: campaigns that wait for real processes beside those that only compute and make way."""
    goals = read_goals()
    commit = current_commit()
    lanes: dict[bool, list[str]] = {True: [], False: []}
    for name, goal in goals.items():
        report = read_report(name)
        known = set(report.seeds) if report is not None and report.commit == commit else set()
        missing = goal.cases[tier] - len(known & set(range(goal.cases[tier])))
        print(f"{name}: {goal.title}: {missing} of {goal.cases[tier]} cases to play", flush=True)
        if missing:
            lanes[CAMPAIGNS[name].is_timed].append(name)
    end_s = time.perf_counter() + seconds

    def play_lane(*, timed: bool) -> None:
        for index, name in enumerate(lanes[timed]):
            share_s = (end_s - time.perf_counter()) / (len(lanes[timed]) - index)
            play(name, 0, goals[name].cases[tier] - 1, max(share_s, 0), () if timed else ("nice", "-n", "19"))

    others = Thread(target=play_lane, kwargs={"timed": False})
    others.start()
    play_lane(timed=True)
    others.join()


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="pr")
    parser.add_argument("--campaign", help="this one alone")
    parser.add_argument("--from", dest="first", type=int, default=0, help="with --campaign: first case")
    parser.add_argument("--to", dest="last", type=int, help="with --campaign: last case; otherwise as the tier wants")
    parser.add_argument("--minutes", type=float, default=60 * 24 * 7, help="begin no case later")
    asked = parser.parse_args()
    if asked.campaign is None:
        play_tier(asked.tier, asked.minutes * 60)
        return int(not check(asked.tier))
    goals = read_goals()
    if asked.campaign not in goals:
        parser.error(f"there is no campaign {asked.campaign!r}; there are {', '.join(goals)}")
    last = goals[asked.campaign].cases[asked.tier] - 1 if asked.last is None else asked.last
    play(asked.campaign, asked.first, last, asked.minutes * 60)
    report = read_report(asked.campaign)
    return int(report is None or report.commit != current_commit() or bool(report.violations))


if __name__ == "__main__":
    sys.exit(main())
