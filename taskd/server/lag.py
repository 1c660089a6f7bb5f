"""Lag: by how much the loop comes late to who asked to be woken; what everybody waits behind shows here."""

from typing import Final

import trio

from taskd.server.clock import Clock
from taskd.server.histogram import Histogram

EVERY_SECONDS: Final = 0.25
"""Some ten microseconds each time."""


async def watch_lag(lag_us: Histogram, clock: Clock) -> None:
    """Sleep, see how late it is, and note that, until cancelled."""
    while True:
        due_ns = clock.mono_ns() + round(EVERY_SECONDS * 1e9)
        await trio.sleep(EVERY_SECONDS)
        lag_us.note((clock.mono_ns() - due_ns) // 1_000)
