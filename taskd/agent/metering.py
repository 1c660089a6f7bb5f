"""How much an attempt may say in a time."""

from typing import Final

RATE_BYTES_PER_S: Final = 1024 * 1024
"""Of one attempt: more than a person reads, and what twenty of them say at once a server still writes."""

BURST_BYTES: Final = 4 * 1024 * 1024
"""At once, after a silence: what was held up in a pipe, or a listing that is long and over."""


BURST_S: Final = BURST_BYTES // RATE_BYTES_PER_S
"""For so long a silence an attempt may say it all at once."""


class Meter:
    """A bucket that fills with time, and is drawn from."""

    __slots__ = ("_at_ms", "_level", "_rate")

    def __init__(self, now_ms: int, bytes_per_s: int = RATE_BYTES_PER_S) -> None:
        self._rate = bytes_per_s
        self._level: float = bytes_per_s * BURST_S
        self._at_ms = now_ms

    def room(self, now_ms: int) -> int:
        """Return how many bytes may be said now."""
        if now_ms > self._at_ms:
            self._level = min(self._level + (now_ms - self._at_ms) * self._rate / 1_000, self._rate * BURST_S)
            self._at_ms = now_ms
        return max(0, int(self._level))

    def take(self, count: int) -> None:
        """Take note that so much was said, if need be more than there was room for."""
        self._level -= count

    def wait_s(self, now_ms: int, count: int) -> float:
        """Return how long it takes until there is room for so much."""
        self.room(now_ms)
        return max(0.0, (count - self._level) / self._rate)
