"""A wall clock that steps, drifts and passes odd dates: leases and limits do not care, and all work ends.

Only ids, delays and what people read are by the wall clock; a delay lasts no longer than it is long.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from campaigns.report import Found
from campaigns.worlds import LightWorld
from harness.world import random_step, shrink
from taskd.core.effects import AgentLost
from taskd_protocol.errors import SubmitTooNew

STEPS = 120
STEP_SHARE = 0.1

SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000
JUMPS_MS = {
    "a second": SECOND,
    "an hour": HOUR,
    "a day": DAY,
    "ten years": 3_653 * DAY,
}
FIRST_MS = SECOND
"""No clock shows less: 0 is how records say that something has not been yet."""

DRIFTS = (0.0, 0.0, 1e-4, -1e-4, 0.05, -0.05)
"""Of the wall clock against the one that never steps; the last two are a clock that is being smeared."""

STARTS = {
    "an ordinary day": datetime(2026, 5, 4, 12, tzinfo=UTC),
    "before 29 February": datetime(2028, 2, 28, 23, 59, 30, tzinfo=UTC),
    "before 32 bits of seconds are full": datetime(2038, 1, 19, 3, 13, 50, tzinfo=UTC),
    "before the clocks go forward": datetime(2027, 3, 28, 0, 59, 30, tzinfo=UTC),
    "before the clocks go back": datetime(2027, 10, 31, 0, 59, 30, tzinfo=UTC),
    "1970": datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC),
}


class ClockWorld(LightWorld):
    """Its wall clock goes its own way."""

    def __init__(self, seed: int, start_ms: int, drift: float) -> None:
        super().__init__(seed)
        self._drift = drift
        self.shell.wall_ms = start_ms
        self.crash(0)

    def _advance(self, ms: int) -> None:
        super()._advance(ms)
        self.shell.wall_ms += round(ms * self._drift)

    def _checked(self, act: Callable[[], None]) -> None:
        with suppress(SubmitTooNew):  # of a resend, that the clock has left behind in the future
            super()._checked(act)

    def step_wall_clock(self, ms: int) -> None:
        """Set it back or forward."""
        super().step_wall_clock(max(ms, FIRST_MS - self.shell.wall_ms))

    def jump(self, ms: int) -> None:
        """Set the wall clock: nobody is lost by it, and nothing that is leased comes back."""
        w = self.shell.working
        leases = {token for agent in w.agents.values() for token in agent.leases}
        lost = sum([isinstance(effect, AgentLost) for effect in w.effects])
        self.step_wall_clock(ms)
        self.shell.coordinator.tick(self.shell.now)
        assert {token for agent in w.agents.values() for token in agent.leases} == leases
        assert sum([isinstance(effect, AgentLost) for effect in w.effects]) == lost


def play(case: int, _home: Path, found: Found) -> None:
    """Live through jumps and drift, from one of the odd dates on."""
    rng = random.Random(case)
    start = list(STARTS)[case % len(STARTS)]
    drift = rng.choice(DRIFTS)
    found.reach(start)
    found.fault("drift", int(drift != 0))
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        world = ClockWorld(case, int(STARTS[start].timestamp() * 1_000), drift)
        began_ms = world.shell.mono_ms
        for _ in range(STEPS):
            found.ops += 1
            if rng.random() < STEP_SHARE:
                jump = rng.choice(list(JUMPS_MS))
                sign = rng.choice([-1, 1])
                found.fault(f"{'+' if sign > 0 else '-'}{jump}")
                world.jump(sign * JUMPS_MS[jump])
            else:
                random_step(world, rng)
        world.check_restored()
        world.finish()
        found.sim_seconds += (world.shell.mono_ms - began_ms) / 1_000
