"""The whole cluster, with what goes wrong chosen by a seed: no promise is broken."""

import pytest

from simulation.campaign import run_campaign

SEEDS = 40
CHUNK = 10


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_every_promise_is_kept(first: int) -> None:
    """Nothing acknowledged is lost, nothing counts twice, and when the faults stop all work ends."""
    report = run_campaign(range(first, first + CHUNK))
    assert not report.violations, report.summary()
