"""Clocks of a simulation: one time for all, which jumps whenever everybody waits, and a wall clock for each machine."""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from math import inf

import trio
from trio.lowlevel import Abort, RaiseCancelT, reschedule
from trio.testing import MockClock

WALL_MS = 1_763_760_000_000


class Alarms:
    """Calls at times of one run: what a cancel scope with a deadline does, at a third of its cost."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, list[Callable[[], object]]]] = []
        self._count = 0

    def at(self, when_s: float, call: Callable[[], object]) -> list[Callable[[], object]]:
        """Call at that time, outside of all tasks; return what, emptied, turns it off."""
        calls = [call]
        self._count += 1
        heappush(self._heap, (when_s, self._count, calls))
        return calls

    def next_s(self) -> float:
        """Return when the next is due."""
        return self._heap[0][0] if self._heap else inf

    def ring(self, now_s: float) -> None:
        """Call what is due."""
        while self._heap and self._heap[0][0] <= now_s:
            for call in heappop(self._heap)[2]:
                call()

    async def sleep(self, seconds: float) -> None:
        """Sleep, as trio does."""
        if seconds <= 0:
            assert seconds == 0, "trio would raise"
            await trio.lowlevel.checkpoint()
            return
        wake = partial(reschedule, trio.lowlevel.current_task())
        calls = self.at(trio.current_time() + seconds, wake)

        def turn_off(_: RaiseCancelT) -> Abort:
            calls.clear()
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(turn_off)


def jumping_clock(alarms: Alarms) -> MockClock:
    """Return trio's mock clock, which jumps, less what makes it able to run too: a third of its cost."""
    clock = MockClock(autojump_threshold=0)
    now_s = 0.0

    def jump() -> None:
        """Go on to what is due next, and have it happen."""
        nonlocal now_s
        deadlines = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines
        due_s = min(deadlines.next_deadline(), alarms.next_s())
        if now_s < due_s < inf:
            now_s = due_s
        alarms.ring(now_s)
        deadlines.expire(now_s)

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
