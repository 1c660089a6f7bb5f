"""What a campaign has found, kept as ``build/reports/<campaign>.json``.

Reports of one commit add up, case by case: a campaign that was cut short goes on where it stopped.
"""

import subprocess
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "build" / "reports"
CHANGED = "+"
"""Behind the commit of a tree that was changed since: such a report proves nothing, and nothing is added to it."""


class Found(msgspec.Struct, kw_only=True):
    """What one case, or several, came to.

    Attributes:
        sim_seconds: Time that passed in the world of the case, if it has one of its own.
        ops: Operations that were carried out and looked at.
        faults: How often each kind of fault was injected.
        reached: How often a rare state was seen that the campaign is there for; 0 where it was not.
        violations: One line for each broken promise, with what plays it again.
    """

    sim_seconds: float = 0.0
    ops: int = 0
    faults: dict[str, int] = {}
    reached: dict[str, int] = {}
    violations: list[str] = []

    def fault(self, kind: str, count: int = 1) -> None:
        """Count a fault that was injected."""
        self.faults[kind] = self.faults.get(kind, 0) + count

    def reach(self, name: str, count: int = 1) -> None:
        """Count a rare state; 0 says that it was looked for."""
        self.reached[name] = self.reached.get(name, 0) + count

    def add(self, other: "Found") -> None:
        """Take in what another case came to."""
        self.sim_seconds += other.sim_seconds
        self.ops += other.ops
        for kind, count in other.faults.items():
            self.fault(kind, count)
        for name, count in other.reached.items():
            self.reach(name, count)
        self.violations += other.violations


class Report(Found, kw_only=True):
    """A campaign's file.

    Attributes:
        commit: What was tested; empty outside a checkout.
        seeds: The cases that were run, sorted.
        wall_s: How long that took.
    """

    commit: str
    seeds: list[int] = []
    wall_s: float = 0.0


@cache
def current_commit() -> str:
    """Return what the checkout stands at, with a mark if it was changed since; empty where git does not know."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") + (CHANGED if git("status", "--porcelain") else "")


def read_report(campaign: str) -> Report:
    """Return what is known of this commit; an empty report if that is nothing."""
    commit = current_commit()
    try:
        report = msgspec.json.decode((FOLDER / f"{campaign}.json").read_bytes(), type=Report)
    except FileNotFoundError:
        return Report(commit=commit)
    return report if report.commit == commit and commit[-1:] not in {"", CHANGED} else Report(commit=commit)


def write_report(campaign: str, report: Report) -> None:
    """Write it, whole or not at all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    report.seeds.sort()
    new = FOLDER / f"{campaign}.json.new"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(report, order="sorted")) + b"\n")
    new.replace(FOLDER / f"{campaign}.json")
