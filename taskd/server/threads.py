"""Running what blocks beside the loop, in a thread that is there already.

Two of them lie on the way of every task, the flushes of its submit and of its end. Handing a call to
``trio.to_thread`` and back costs 0.3 ms on an idle machine, in three rounds of the scheduler; a
thread that waits for a lock, and says that it is done by one byte, costs half of that and one round. A call
that is about to end is waited for right here, a fraction of a millisecond at most, and costs no round at all.

Invariants:
- The thread does one call at a time; whoever comes meanwhile is served by trio's threads.
- The loop is deaf for ``PATIENCE_SECONDS`` at most, however long a call takes.
"""

import socket
import threading
import weakref
from collections.abc import Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")

PATIENCE_SECONDS: Final = 0.0003
"""Waited for on the spot: as long as coming back to the call later takes."""


class Threads:
    """An ``Offload``. Its thread starts with the first call, and ends when nobody holds this any more."""

    def __init__(self) -> None:
        self._hand: _Hand | None = None
        self._busy = False

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Return what ``work`` returns; raise what it raises. Not cut short by cancellation."""
        return await self.run(work, is_quick=False)

    async def run(self, work: Callable[[], T], *, is_quick: bool, waits: Callable[[], None] = lambda: None) -> T:
        """Do the same; a call that is thought to be quick is waited for on the spot first, then ``waits`` is called."""
        if self._busy:
            waits()
            return await trio.to_thread.run_sync(work)
        hand = self._hand
        if hand is None:
            hand = self._hand = _Hand()
            weakref.finalize(self, hand.dismiss).atexit = False
        returned: list[T] = []
        raised: list[BaseException] = []

        def act() -> None:
            try:
                returned.append(work())
            except BaseException as error:  # noqa: BLE001 - it is raised where it was waited for
                raised.append(error)

        self._busy = True
        try:
            await hand.do(act, is_quick=is_quick, waits=waits)
        finally:
            self._busy = False
        if raised:
            raise raised[0]
        return returned[0]


BYTES_MAX: Final = 16
"""Read at once; there are two at most."""


class _Hand:
    """The thread, and the two ways of waking each other."""

    def __init__(self) -> None:
        self._act: Callable[[], None] | None = None
        self._asked = threading.Lock()
        self._asked.acquire()  # free: there is something to do
        self._done = threading.Lock()
        self._done.acquire()  # free: it is done
        self._byte_wanted = False
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)  # noqa: FBT003 - the socket module's own shape
        threading.Thread(target=self._work, name="taskd-flush", daemon=True).start()

    async def do(self, act: Callable[[], None], *, is_quick: bool, waits: Callable[[], None]) -> None:
        """Have the thread do something; return when it has."""
        self._act = act
        self._byte_wanted = not is_quick
        self._asked.release()
        if is_quick and self._done.acquire(timeout=PATIENCE_SECONDS):
            return
        waits()
        # In this order: the thread frees the lock, then looks whether a byte is wanted. One that was sent though the
        # lock was taken here already wakes the next call once for nothing.
        self._byte_wanted = True
        while not self._done.acquire(blocking=False):
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(self._ear)
            self._ear.recv(BYTES_MAX)

    def dismiss(self) -> None:
        """Have the thread end."""
        self._act = None
        self._asked.release()

    def _work(self) -> None:
        while True:
            self._asked.acquire()
            act, self._act = self._act, None
            if act is None:
                break
            act()
            del act  # it holds on to what was called, and so to us
            self._done.release()
            if self._byte_wanted:
                self._mouth.send(b"\0")
        self._ear.close()
        self._mouth.close()
