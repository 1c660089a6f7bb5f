"""Compares the reports of campaigns with the goal: ``python scripts/check_goal.py --tier pr|nightly|release``.

It fails on a missing report, one of another commit or of a changed tree, too few cases, operations or faults of a
kind, a rare state that was not reached, and any violation.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import msgspec

ROOT = Path(__file__).parent.parent
REPORTS = ROOT / "build" / "reports"

Tier = Literal["pr", "nightly", "release"]
TIERS: tuple[Tier, ...] = get_args(Tier)

CHANGED = "+"
"""Behind the commit of a tree that was changed since."""

HEAD = ("campaign", "cases", "operations", "faults", "seconds", "holds", "what is played")


class Goal(msgspec.Struct, forbid_unknown_fields=True):
    """Of a campaign; see ``goal.toml``."""

    title: str
    cases: dict[str, int]
    ops: float = 0
    faults: dict[str, float] = {}
    reached: list[str] = []


class Report(msgspec.Struct):
    """What is read of a report."""

    commit: str
    seeds: list[int]
    ops: int
    faults: dict[str, int]
    reached: dict[str, int]
    violations: list[str]
    wall_s: float


def read_goals() -> dict[str, Goal]:
    """Return the goals by campaign."""
    document = tomllib.loads((ROOT / "scripts" / "goal.toml").read_text(encoding="utf-8"))
    return msgspec.convert(document, dict[str, Goal])


def read_report(campaign: str) -> Report | None:
    """Return a campaign's report, if there is one."""
    try:
        return msgspec.json.decode((REPORTS / f"{campaign}.json").read_bytes(), type=Report)
    except FileNotFoundError:
        return None


def shortfalls(goal: Goal, tier: Tier, report: Report, commit: str) -> Iterator[str]:
    """Say what keeps a report from the goal."""
    wanted = goal.cases[tier]
    if report.commit != commit:
        yield f"is of {report.commit[:10] or 'no commit'}, not of {commit[:10] or 'no commit'}"
    elif not commit or commit.endswith(CHANGED):
        yield "is of no commit: the tree was changed since"
    if len(report.seeds) < wanted:
        yield f"{wanted - len(report.seeds)} cases are missing"
    cases = min(len(report.seeds), wanted)
    if report.ops < goal.ops * cases:
        yield f"{report.ops:,} operations are fewer than {goal.ops * cases:,.0f}"
    for kind, least in goal.faults.items():
        count = report.faults.get(kind, 0)
        if count < int(least * cases):
            yield f"{count} faults of kind '{kind}' are fewer than {least * cases:,.0f}"
    if tier != "pr":
        names = dict.fromkeys([*goal.reached, *report.reached])
        missing = [name for name in names if not report.reached.get(name)]
        if missing:
            yield f"never reached: {', '.join(missing)}"
    yield from report.violations


class Verdict(NamedTuple):
    """Of a campaign.

    Attributes:
        row: What is known, by the columns of the table.
        short: What keeps it from the goal, in lines; none if it holds.
    """

    row: tuple[str, ...]
    short: list[str]


def judge(campaign: str, goal: Goal, tier: Tier, commit: str) -> Verdict:
    """Compare a campaign's report with the goal."""
    report = read_report(campaign)
    if report is None:
        return Verdict((campaign, f"0 of {goal.cases[tier]}", "", "", "", "no", goal.title), ["there is no report"])
    short = list(shortfalls(goal, tier, report, commit))
    counts = f"{report.ops:,}", f"{sum(report.faults.values()):,}", f"{report.wall_s:,.0f}"
    cases = f"{len(report.seeds)} of {goal.cases[tier]}"
    return Verdict((campaign, cases, *counts, "no" if short else "yes", goal.title), short)


def table(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Lay verdicts out in lines, what is short below each."""
    rows = [Verdict(HEAD, []), *verdicts]
    widths = [max(len(cells[column]) for cells, _ in rows) for column in range(len(HEAD) - 1)]
    for (first, *cells, title), short in rows:
        middle = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *middle, title])
        yield from [f"    {line}" for line in short]


def current_commit() -> str:
    """Return what the tree stands at, with a mark if it was changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") + (CHANGED if git("status", "--porcelain") else "")


def check(tier: Tier) -> bool:
    """Print a table of the campaigns; return whether all of them hold."""
    commit = current_commit()
    judged = [judge(campaign, goal, tier, commit) for campaign, goal in read_goals().items()]
    for line in table(judged):
        print(line)
    held = sum([not verdict.short for verdict in judged])
    print(
        f"{tier}: {held} of {len(judged)} campaigns hold at {commit[:10]}{CHANGED if commit.endswith(CHANGED) else ''}"
    )
    return held == len(judged)


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, required=True)
    return int(not check(parser.parse_args().tier))


if __name__ == "__main__":
    sys.exit(main())
