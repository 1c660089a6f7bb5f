"""Footprints: how much memory attempts hold that were granted some, and which of them are over it.

An attempt that runs alone in a process is looked at several times a second, with all that comes from it. One that
grows faster than that ends up over its limit for a moment; the kernel's own limits are for that.

Pure: knows neither clocks nor processes.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from taskd_protocol.errors import TaskCodes
from taskd_protocol.resources import MEMORY
from taskd_protocol.task import Failure, Grant

_MIB: Final = 1 << 20


class Footprints:
    """Attempts that were granted memory, from their lease on."""

    def __init__(self) -> None:
        self._limits: Final[dict[int, int]] = {}
        self._peaks: Final[dict[int, int]] = {}

    def __bool__(self) -> bool:
        """There is something to look at."""
        return bool(self._limits)

    def hold(self, grant: Grant) -> None:
        """Take up a lease, if memory was granted with it."""
        holds = [] if grant.granted is None else grant.granted.holds
        for hold in holds:
            if hold.name == MEMORY:
                self._limits[grant.token] = hold.amount

    def limit_of(self, token: int) -> int | None:
        """Return how much an attempt may hold; None: it is not looked at."""
        return self._limits.get(token)

    def note(self, token: int, memory_bytes: int) -> Failure | None:
        """Take note of what an attempt holds; return what is to be told of it if that is too much."""
        limit = self._limits.get(token)
        if limit is None:
            return None
        self._peaks[token] = max(memory_bytes, self._peaks.get(token, 0))
        if memory_bytes <= limit:
            return None
        message = (
            f"it held {memory_bytes / _MIB:,.0f} MiB of memory, more than the {limit / _MIB:,.0f} MiB granted to it"
        )
        return Failure(TaskCodes.WORKER_OUT_OF_MEMORY, message)

    def told(self, token: int, failure: Failure) -> Failure:
        """Return what is to be told of an attempt that the kernel has ended for want of memory: what it had."""
        limit = self._limits.get(token)
        if limit is None or failure.code != TaskCodes.WORKER_OUT_OF_MEMORY:
            return failure
        self._peaks[token] = max(limit, self._peaks.get(token, 0))
        return replace(failure, message=f"{failure.message}; {limit / _MIB:,.0f} MiB were granted to it")

    def take_peak(self, token: int, told_bytes: int = 0) -> int:
        """Return the most that an attempt held, which has ended, and forget it.

        Args:
            token: Of the attempt.
            told_bytes: What its process tells.
        """
        self._limits.pop(token, None)
        return max(told_bytes, self._peaks.pop(token, 0))

    def keep(self, is_held: Callable[[int], bool]) -> None:
        """Forget attempts that are held no longer."""
        for token in [token for token in self._limits if not is_held(token)]:
            self.take_peak(token)
