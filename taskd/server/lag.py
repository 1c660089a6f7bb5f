"""Lag: by how much the loop comes late to who asked to be woken; what everybody waits behind shows here.

So does the interpreter's collector of garbage, behind which every thread waits.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

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


@contextmanager
def noting_collections(collector_us: Histogram, clock: Clock) -> Iterator[None]:
    """Note how long each collection of garbage takes, whichever thread it falls upon, until left."""
    began_ns = 0

    def note(phase: Literal["start", "stop"], _info: dict[str, int]) -> None:
        nonlocal began_ns
        if phase == "start":
            began_ns = clock.mono_ns()
        else:
            collector_us.note((clock.mono_ns() - began_ns) // 1_000)

    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)
