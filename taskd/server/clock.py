"""The clock: the one place of the server that reads it; everyone else is handed a `Clock`."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two times: one that only ever rises, and the one on the wall, which may step."""

    def mono_ns(self) -> int:
        """Return nanoseconds since an arbitrary start; never steps, says nothing across restarts."""
        ...

    def wall_ms(self) -> int:
        """Return UTC milliseconds since 1970; may step either way."""
        ...

    def cpu_ns(self) -> int:
        """Return nanoseconds of processor time that this process has used, all threads."""
        ...

    def thread_cpu_ns(self) -> int:
        """Return nanoseconds of processor time that the calling thread has used: what its work costs, undisturbed."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def mono_ns(self) -> int:
        """Return nanoseconds of the kernel's monotonic clock."""
        return time.monotonic_ns()

    def cpu_ns(self) -> int:
        """Return what the kernel accounts to the process."""
        return time.process_time_ns()

    def thread_cpu_ns(self) -> int:
        """Return what the kernel accounts to the thread; about half a microsecond."""
        return time.thread_time_ns()

    def wall_ms(self) -> int:
        """Return UTC milliseconds of the machine's wall clock."""
        return time.time_ns() // 1_000_000
