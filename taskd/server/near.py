"""Running what blocks where it is, while that takes less than handing it to a thread.

A flush of a small batch takes a tenth of a millisecond on a local disk; handing it over and hearing of its end
takes twice that, of a loop that has nothing else to do. So the loop itself flushes, as long as the disk is quick:
one call that was slow is what all of them are taken for, until enough others have shown otherwise.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from taskd.server.clock import Clock
from taskd.store.interface import Offload

T = TypeVar("T")

NEAR_NS: Final = 300_000
"""What is expected to take longer goes to a thread: so long a loop may be deaf, which it also is while it decides."""

FIRST_NS: Final = 10 * NEAR_NS
"""Expected before anything was measured."""

FORGET: Final = 0.9
"""What was expected counts for so much at the next call: a call of 3 ms sends the next 22 to a thread."""


class Near:
    """An ``Offload`` for calls of one kind."""

    def __init__(self, far: Offload, clock: Clock) -> None:
        self._far = far
        self._clock = clock
        self._expected_ns: float = FIRST_NS

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Return what ``work`` returns; raise what it raises. Not cut short by cancellation."""

        def measured() -> T:
            began_ns = self._clock.mono_ns()
            try:
                return work()
            finally:
                self._expected_ns = max(self._clock.mono_ns() - began_ns, self._expected_ns * FORGET)

        return measured() if self._expected_ns <= NEAR_NS else await self._far(measured)
