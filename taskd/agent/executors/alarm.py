"""An alarm: wakes an executor when leases have waited long enough for others to be run with."""

from collections.abc import Callable

import trio

from taskd.agent.clock import Clock
from taskd.agent.gathering import Gathering


class Alarm:
    """Of one pool."""

    def __init__(self, gathering: Gathering, clock: Clock, wake: Callable[[], None]) -> None:
        self._gathering = gathering
        self._clock = clock
        self._wake = wake
        self._some = trio.Event()

    def look(self) -> None:
        """Take note that there may be leases that wait."""
        if self._gathering.count:
            self._some.set()

    async def run(self) -> None:
        """Wake the executor in time, for ever."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            while (due_ns := self._gathering.due_ns(self._clock.mono_ns())) is not None:
                await trio.sleep(max(0.0, (due_ns - self._clock.mono_ns()) / 1e9))
                self._wake()
