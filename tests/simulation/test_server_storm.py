"""What was acknowledged is kept, whatever the disk does and however often the power goes; seeded."""

from functools import partial

import pytest
import trio

from harness.storm import storm
from harness.virtual import on_virtual_time
from taskd.core import lines
from taskd.server.certificates import Certificates


@pytest.mark.parametrize("seed", range(6))
def test_nothing_that_was_told_is_lost(seed: int, ca: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submits, outcomes and records stand over every crash; when the faults stop, all that was accepted ends."""
    monkeypatch.setattr(lines, "WINDOW_TASKS_MAX", 12)
    monkeypatch.setattr(lines, "WINDOW_LOW", 4)
    monkeypatch.setattr("taskd.core.coordinator.REFILL_TASKS", 6)
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    trio._core._run._r.seed(seed)
    world = on_virtual_time(partial(storm, seed, ca))
    assert world.crashes > 3
    assert len(world.ledger.accepted) > 50
    assert {outcome.state for outcome in world.ledger.outcomes.values()} >= {"succeeded", "dead"}
    assert world.ledger.sameness.firsts_named > 3
    assert len(world.ledger.recorded) > 20
