"""Bugs that are put in on purpose: a harness that cannot fail proves nothing.

A case applies one patch of ``tests/mutants`` to a copy of the tree, and has the campaigns that its head names play
case after case there until one breaks a promise; a head may name tests, too, one of which must fail. A mutant that
none of them finds has survived, which is a violation; so is a patch that no longer fits.

To add one, or to mend one that no longer fits: put the bug in, write ``git diff`` below the two lines of its head, and
take the bug out. If nothing finds it, it is the campaigns that lack something.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from campaigns.report import ROOT, Found, Report

PATCHES = ROOT / "tests" / "mutants"
TREE = ("taskd", "protocol", "tests", "scripts")
SECONDS = 240.0
"""No case begins later than so long after a hunter's first."""

CASES = {"c1": 200, "c3": 100, "c4": 50, "c5": 10, "c6": 200, "c12": 2}
"""So many cases each hunter has at most."""


PASSED, FAILED = 0, 1
"""How pytest ends."""


class Mutant(NamedTuple):
    """One patch.

    Attributes:
        breaks: Which promise, in a line.
        hunters: Campaigns, or tests, that are to find it, in the order in which they try.
    """

    file: Path
    breaks: str
    hunters: list[str]


def mutants() -> list[Mutant]:
    """Return all of them, in order."""
    return [_read(file) for file in sorted(PATCHES.glob("*.patch"))]


def _read(file: Path) -> Mutant:
    breaks, hunters = file.read_text(encoding="utf-8").splitlines()[:2]
    return Mutant(file, breaks.removeprefix("Breaks "), hunters.removeprefix("Hunted by ").split())


def apply(mutant: Mutant, folder: Path, *, only_look: bool = False) -> None:
    """Put the bug into a tree."""
    words = ["git", "apply", "-C1", *(["--check"] if only_look else []), str(mutant.file)]
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}  # a checkout around it is of no interest
    applied = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, f"{mutant.file.name} no longer fits; make it anew: {applied.stderr}"


def play(case: int, home: Path, found: Found) -> None:
    """Hunt the mutant of that number."""
    mutant = mutants()[case]
    for name in TREE:
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    apply(mutant, home)
    shutil.copy(ROOT / "pyproject.toml", home)
    found.fault("mutant")
    for hunter in mutant.hunters:
        cases, is_found = _test(hunter, home) if hunter.startswith("tests/") else _hunt(hunter, home)
        found.ops += cases
        if is_found:
            found.reach(f"{mutant.file.stem}: {hunter}", cases)
            return
    raise AssertionError(f"{mutant.file.name} survives {found.ops} cases; it breaks {mutant.breaks}")


def _test(hunter: str, home: Path) -> tuple[int, bool]:
    """Run a test in the copy; return that it was one, and whether it failed."""
    words = ["-q", "-x", "-p", "no:cacheprovider", hunter]
    ended = _run(["-m", "pytest", *words], home)
    assert ended.returncode in {PASSED, FAILED}, f"{hunter} could not be run: {ended.stdout[-300:]}"
    return 1, ended.returncode == FAILED


def _hunt(hunter: str, home: Path) -> tuple[int, bool]:
    """Play cases of a campaign in the copy, until one breaks a promise; return how many, and whether one did."""
    words = ["--from", "0", "--to", str(CASES[hunter] - 1), "--seconds", str(SECONDS)]
    words += ["--until-broken", "--at-once", "1"]
    ended = _run(["-m", "campaigns", hunter, *words], home)
    try:
        report = msgspec.json.decode((home / "build" / "reports" / f"{hunter}.json").read_bytes(), type=Report)
    except FileNotFoundError:
        raise AssertionError(f"{hunter} could not be played: {ended.stderr[-300:]}") from None
    return len(report.seeds), bool(report.violations)


def _run(words: Sequence[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy; what it imports and starts is the copy's."""
    path = os.pathsep.join(str(home / name) for name in (".", "protocol", "tests", "scripts"))
    return subprocess.run(
        [sys.executable, *words],
        cwd=home,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
