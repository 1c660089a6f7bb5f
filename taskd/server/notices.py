"""Notices: log lines that strangers cause, one a second at most, so that nobody fills a disk by knocking.

Each says how many were left out before it.
"""

from typing import Final, Literal

import structlog

from taskd.server.clock import Clock

_EVERY_NS: Final = 1_000_000_000

_log: structlog.stdlib.BoundLogger = structlog.get_logger("taskd.listener")


class Notices:
    """One source of such lines."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_ns = 0
        self._left_out = 0

    def tell(self, event: str, peer: str, reason: str, *, level: Literal["debug", "info", "warning"] = "debug") -> None:
        """Log it, unless another one was logged just now."""
        now_ns = self._clock.mono_ns()
        if now_ns < self._next_ns:
            self._left_out += 1
            return
        getattr(_log, level)(event, peer=peer, reason=reason, left_out=self._left_out)
        self._next_ns = now_ns + _EVERY_NS
        self._left_out = 0
