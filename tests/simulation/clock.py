"""Clocks of a simulation: one time for all, which jumps whenever everybody waits, and a wall clock for each machine."""

from math import inf

import trio
from trio.testing import MockClock

WALL_MS = 1_763_760_000_000


def jumping_clock() -> MockClock:
    """Return trio's mock clock, which jumps, less what makes it able to run too: a third of its cost."""
    clock = MockClock(autojump_threshold=0)
    now_s = 0.0

    def jump() -> None:
        nonlocal now_s
        deadline_s: float = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if now_s < deadline_s < inf:
            now_s = deadline_s

    clock.current_time = lambda: now_s  # type: ignore[method-assign]
    clock.deadline_to_sleep_time = lambda deadline: deadline - now_s  # type: ignore[method-assign]
    clock._autojump = jump  # type: ignore[method-assign]
    return clock


class MachineClock:
    """One machine's clocks, as server, agents and clients are handed them; the one on the wall can be stepped."""

    def __init__(self) -> None:
        self.step_ms = 0

    def mono_ns(self) -> int:
        return int(trio.current_time() * 1e9)

    def wall_ms(self) -> int:
        return WALL_MS + self.step_ms + int(trio.current_time() * 1e3)

    def cpu_ns(self) -> int:
        return 0

    def thread_cpu_ns(self) -> int:
        return 0
