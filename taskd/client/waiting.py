"""Waiting, in whatever way the caller waits: blocking a thread, or on asyncio or trio.

An operation is written once, as a generator of pauses; a face runs it and waits at each pause in
its own way. So both faces decide alike, and share one connection in one process.
"""

import functools
import math
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator
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
    wake = lock.release  # by who fires the signal, once
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


class Wakes:
    """Wakes of one event loop: those that come together call into it once.

    Each call into a loop is a byte through a socket, and lets go of the interpreter's lock: with fifty submitters at a
    time that was half of what a submit took of the client (50 us of processor time; 25 without).

    The flag is set before the call, and cleared before what is due is done: nothing is left behind.
    """

    def __init__(self, call: Callable[[Callable[[], None]], object]) -> None:
        self._call = call
        self._due: deque[Callable[[], None]] = deque()
        self._called = False

    def add(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called in the loop; from any thread.

        Raises:
            RuntimeError: The loop has ended.
        """
        self._due.append(wake)
        if not self._called:
            self._called = True
            self._call(self._do)

    def _do(self) -> None:
        self._called = False
        due = self._due
        while due:
            due.popleft()()


_LOOPS: weakref.WeakKeyDictionary[object, Wakes] = weakref.WeakKeyDictionary()
"""By event loop, or what stands for one."""


async def _await_on_trio(pause: Pause) -> bool:
    import trio  # noqa: PLC0415 - it runs this very task

    token = trio.lowlevel.current_trio_token()
    wakes = _LOOPS.get(token) or _LOOPS.setdefault(token, Wakes(token.run_sync_soon))
    event = trio.Event()
    wake = functools.partial(wakes.add, event.set)
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
    wakes = _LOOPS.get(loop) or _LOOPS.setdefault(loop, Wakes(loop.call_soon_threadsafe))
    arrived: asyncio.Future[bool] = loop.create_future()

    def settle(*, woken: bool) -> None:
        if not arrived.done():
            arrived.set_result(woken)

    wake = functools.partial(wakes.add, functools.partial(settle, woken=True))
    pause.signal.add(wake)
    limit = None
    try:
        if pause.signal.fired:
            await asyncio.sleep(0)
            return True
        left_s = pause.left_s()
        if left_s is not None:
            limit = loop.call_later(left_s, functools.partial(settle, woken=False))
        return await arrived or pause.signal.fired
    finally:
        if limit is not None:
            limit.cancel()
        pause.signal.remove(wake)
