"""Waiting, in whatever way the caller waits: blocking a thread, or on asyncio or trio.

An operation is written once, as a generator of pauses; a face runs it and waits at each pause in
its own way. So both faces decide alike, and share one connection in one process.
"""

import functools
import math
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from taskd.client.clock import mono_s
from taskd.client.promise import Signal

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait until the signal fires, or until a time of ``mono_s``; None: as long as it takes."""

    signal: Signal
    until_s: float | None

    def left_s(self) -> float | None:
        """Return the seconds left, at least 0; None: no limit."""
        return None if self.until_s is None else max(0.0, self.until_s - mono_s())


Steps: TypeAlias = Generator[Pause, bool, R]
"""An operation: yields where it has to wait, is told whether it was woken in time, returns its result.

Woken, it looks again: who fires a signal that was rearmed meanwhile may wake the next waiter too.
"""


def deadline(timeout_s: float | None) -> float | None:
    """Return the time at which so many seconds have passed; None for None or infinity."""
    return None if timeout_s is None or timeout_s == math.inf else mono_s() + timeout_s


def run(steps: Steps[R]) -> R:
    """Run an operation, blocking this thread at its pauses."""
    try:
        pause = next(steps)
        while True:
            pause = steps.send(pause.signal.fired or _block(pause))
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        steps.close()


async def arun(steps: Steps[R]) -> R:
    """Run an operation, awaiting at its pauses; on asyncio or trio, whichever runs this task.

    Cancelled, it gives up its requests; one that was sent may still take effect.
    """
    wait = _await_on_trio if _on_trio() else _await_on_asyncio
    try:
        pause = next(steps)
        while True:
            pause = steps.send(await wait(pause))
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        steps.close()


def _block(pause: Pause) -> bool:
    lock = threading.Lock()
    lock.acquire()
    wake = lock.release  # by the link's thread, once
    woken = False
    pause.signal.add(wake)
    try:
        if not pause.signal.fired:
            left_s = pause.left_s()
            # a lock waits for no longer than TIMEOUT_MAX, on some systems for 49 days
            woken = lock.acquire(timeout=-1 if left_s is None else min(left_s, threading.TIMEOUT_MAX))
    finally:
        pause.signal.remove(wake)
    return woken or pause.signal.fired


def _on_trio() -> bool:
    """Tell whether this is a trio task; who never imported trio is not made to."""
    if "trio" not in sys.modules:
        return False
    import trio  # noqa: PLC0415 - it is loaded already

    return trio.lowlevel.in_trio_task()


async def _await_on_trio(pause: Pause) -> bool:
    import trio  # noqa: PLC0415 - it runs this very task

    event = trio.Event()
    wake = functools.partial(trio.lowlevel.current_trio_token().run_sync_soon, event.set)
    pause.signal.add(wake)
    try:
        if pause.signal.fired:
            await trio.lowlevel.checkpoint()
        else:
            left_s = pause.left_s()
            with trio.move_on_after(math.inf if left_s is None else left_s):
                await event.wait()
    finally:
        pause.signal.remove(wake)
    return event.is_set() or pause.signal.fired


async def _await_on_asyncio(pause: Pause) -> bool:
    import asyncio  # noqa: PLC0415 - 20 ms that a synchronous program need not pay

    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def settle() -> None:
        if not arrived.done():
            arrived.set_result(None)

    wake = functools.partial(loop.call_soon_threadsafe, settle)
    woken = False
    pause.signal.add(wake)
    try:
        if pause.signal.fired:
            await asyncio.sleep(0)
        else:
            await asyncio.wait((arrived,), timeout=pause.left_s())
            woken = arrived.done()
    finally:
        arrived.cancel()
        pause.signal.remove(wake)
    return woken or pause.signal.fired
