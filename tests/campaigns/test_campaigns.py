"""The campaigns, as far as there is time for them among the other tests; ``make prove`` plays the rest."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from campaigns.catalogue import CAMPAIGNS
from campaigns.mutants import Mutant, apply, mutants
from campaigns.report import ROOT

GOALS = tomllib.loads((ROOT / "scripts" / "goal.toml").read_text(encoding="utf-8"))
LIMIT_SECONDS = 600
AT_ONCE = 2
"""Those of real processes wait most of their time."""

Played = Future[subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[dict[str, Played]]:
    """The campaigns that were asked for, each in a process of its own, which may be forked, stopped and measured."""
    names = [item.name for item in request.session.items]
    asked = [name for name in CAMPAIGNS if f"{test_no_promise_is_broken.__name__}[{name}]" in names]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(play, name) for name in asked}


def play(name: str) -> subprocess.CompletedProcess[str]:
    """Play the first cases of one."""
    words = ["-m", "campaigns", name, "--from", "0", "--to", str(GOALS[name]["cases"]["test"] - 1), "--anew"]
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


@pytest.mark.timeout(2 * LIMIT_SECONDS)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_no_promise_is_broken(name: str, played: dict[str, Played], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever faults the cases inject."""
    ended = played[name].result()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with capsys.disabled():
        print(f"\n{ended.stdout.rstrip()}")  # noqa: T201 - for the person who waited for it


def test_each_campaign_has_a_goal() -> None:
    assert CAMPAIGNS.keys() == GOALS.keys()


def test_a_night_and_a_release_hunt_every_mutant() -> None:
    assert {GOALS["c14"]["cases"][tier] for tier in ("nightly", "release")} == {len(mutants())}


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.file.stem)
def test_a_mutant_fits(mutant: Mutant) -> None:
    """The code that it changes is still there."""
    apply(mutant, ROOT, only_look=True)
