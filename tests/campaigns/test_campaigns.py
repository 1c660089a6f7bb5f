"""The campaigns, as far as there is time for them among the other tests; ``make prove`` plays the rest."""

import os
import subprocess
import sys
import tomllib

import pytest

from campaigns.catalogue import CAMPAIGNS
from campaigns.report import ROOT

GOALS = tomllib.loads((ROOT / "scripts" / "goal.toml").read_text(encoding="utf-8"))
LIMIT_SECONDS = 600


@pytest.mark.timeout(LIMIT_SECONDS + 30)
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_no_promise_is_broken(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever faults the cases inject. In a process of its own, which may be forked, stopped and measured."""
    words = ["-m", "campaigns", name, "--from", "0", "--to", str(GOALS[name]["cases"]["test"] - 1), "--anew"]
    ended = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with capsys.disabled():
        print(f"\n{ended.stdout.rstrip()}")  # noqa: T201 - for the person who waited for it


def test_each_campaign_has_a_goal() -> None:
    assert CAMPAIGNS.keys() == GOALS.keys()
