"""Moves a server's clock, and lets its agent work: nothing else does.

A *drive* gives the agent work, lets everything happen that can, then moves the clock to where something is due, and so
on, until what it is for has come. Between drives tasks wait as they are.

Invariants:
- The clock is moved only when nothing can happen without it: each attempt that runs in a thread waits for the end of
  another task.
- One drive at a time.
"""

import math
from collections.abc import Callable

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from taskd.testing.house import House
from taskd.testing.runner import Runner


class VirtualClock:
    """The server's clock, on trio's.

    Attributes:
        wall_zero_ms: The wall clock when trio's began.
    """

    def __init__(self, wall_zero_ms: int) -> None:
        self._wall_zero_ms = wall_zero_ms

    def mono_ns(self) -> int:
        """See ``Clock``."""
        return round(trio.current_time() * 1e9)

    def wall_ms(self) -> int:
        """See ``Clock``: it does not step."""
        return self._wall_zero_ms + self.mono_ns() // 1_000_000

    def cpu_ns(self) -> int:
        """See ``Clock``: nobody asks what a test costs."""
        return 0

    def thread_cpu_ns(self) -> int:
        """See ``cpu_ns``."""
        return 0


class Driver:
    """Drives one server."""

    def __init__(self, clock: MockClock, house: House, runner: Runner, moved: Callable[[], None]) -> None:
        """Join the parts.

        Args:
            clock: The loop's; moves only when it is told to.
            house: The server.
            runner: Its agent.
            moved: Called after each move of the clock.
        """
        self._clock = clock
        self._house = house
        self._runner = runner
        self._moved = moved
        self._one_at_a_time = trio.Lock()

    async def drive(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, and everything happen that is due meanwhile.

        Args:
            seconds: So long; infinity: as long as something is due.
            done: Ends it earlier.

        Returns:
            Whether ``done`` did.
        """
        async with self._one_at_a_time:
            until_s = trio.current_time() + seconds
            self._runner.open()
            try:
                return await self._pass(until_s, done)
            finally:
                self._runner.close()
                await self._settle()

    async def _pass(self, until_s: float, done: Callable[[], bool]) -> bool:
        while True:
            await self._settle()
            if done():
                return True
            next_s = await self._next_s(with_schedules=not math.isinf(until_s))
            if next_s > until_s or math.isinf(next_s):
                break
            self._jump(next_s)
        if not math.isinf(until_s):
            self._jump(until_s)
            await self._settle()
        return done()

    async def _settle(self) -> None:
        """Return when nothing can happen before the clock moves."""
        await wait_all_tasks_blocked()
        while self._runner.busy:
            await self._runner.until_changed()
            await wait_all_tasks_blocked()

    async def _next_s(self, *, with_schedules: bool) -> float:
        """Return when something is due, by the loop's clock; infinity: nothing is, and nothing can go on.

        A schedule is due for ever: who waits for something without a limit is not kept waiting by that.
        """
        now_s = trio.current_time()
        soonest_s = now_s + trio.lowlevel.current_statistics().seconds_to_next_deadline
        if self._runner.may_sleep:
            return soonest_s
        timer_ms = await self._house.next_due_ms()
        firing_ms = self._house.next_firing_ms() if with_schedules else None
        due_ms = min((at_ms for at_ms in (timer_ms, firing_ms) if at_ms is not None), default=None)
        if due_ms is None:
            return math.inf
        due_s = now_s + (due_ms - self._house.clock.wall_ms()) / 1000
        return due_s if due_s > now_s else soonest_s

    def _jump(self, to_s: float) -> None:
        seconds = to_s - trio.current_time()
        if seconds > 0:
            self._clock.jump(seconds)
            self._moved()
