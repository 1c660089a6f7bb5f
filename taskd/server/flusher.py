"""Flushing: in a thread, and waited for on the spot while the disk is quick.

A flush of a small batch takes a tenth of a millisecond on a local disk; coming back to it by way of the loop takes
as long again. One flush that was slow is what all of them are taken for, until enough others have shown otherwise.
"""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from taskd.server.clock import Clock
from taskd.server.threads import PATIENCE_SECONDS

T = TypeVar("T")

QUICK_NS: Final = round(PATIENCE_SECONDS * 1e9)
"""What is expected to take longer is not waited for on the spot."""

FIRST_NS: Final = 10 * QUICK_NS
"""Expected before anything was measured."""

FORGET: Final = 0.9
"""What was expected counts for so much at the next call: one of 3 ms has the next 22 come back by way of the loop."""


class Runs(Protocol):
    """Runs what blocks beside the loop."""

    async def run(self, work: Callable[[], T], *, is_quick: bool, waits: Callable[[], None]) -> T:
        """Return what ``work`` returns; one that is quick may be waited for on the spot, for a bounded time.

        ``waits`` is called before others may have a turn.
        """
        ...


class Flusher:
    """An ``Offload`` for calls of one kind.

    Attributes:
        waits: Called when a call does not end on the spot.
    """

    def __init__(self, threads: Runs, clock: Clock) -> None:
        self._threads = threads
        self._clock = clock
        self._expected_ns: float = FIRST_NS
        self.waits: Callable[[], None] = lambda: None

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Return what ``work`` returns; raise what it raises. Not cut short by cancellation."""

        def measured() -> T:
            began_ns = self._clock.mono_ns()
            try:
                return work()
            finally:
                self._expected_ns = max(self._clock.mono_ns() - began_ns, self._expected_ns * FORGET)

        return await self._threads.run(measured, is_quick=self.is_quick(), waits=self.waits)

    def is_quick(self) -> bool:
        """Tell whether the next call is thought to end on the spot."""
        return self._expected_ns <= QUICK_NS
