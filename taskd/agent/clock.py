"""The clock: the one place of the agent and its workers that reads it; everyone else is handed a `Clock`."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two times: one that only ever rises, and the one on the wall, which may step."""

    def mono_ns(self) -> int:
        """Return nanoseconds since an arbitrary start; never steps."""
        ...

    def wall_ms(self) -> int:
        """Return UTC milliseconds since 1970; may step either way."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def mono_ns(self) -> int:
        """Return nanoseconds of the kernel's monotonic clock."""
        return time.monotonic_ns()

    def wall_ms(self) -> int:
        """Return UTC milliseconds of the machine's wall clock."""
        return time.time_ns() // 1_000_000
