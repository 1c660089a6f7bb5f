"""The campaigns, as far as there is time for them among the other tests; ``make prove`` plays the rest."""

import pytest

from campaigns.background import GOALS, Background
from campaigns.catalogue import CAMPAIGNS
from campaigns.mutants import Mutant, apply, mutants
from campaigns.report import ROOT

LIMIT_SECONDS = 1_200


@pytest.mark.timeout(LIMIT_SECONDS)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_no_promise_is_broken(name: str, background: Background, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever faults the cases inject."""
    ended = background.wait(name)
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
