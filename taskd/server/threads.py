"""Running what blocks beside the loop, in a thread that is there already.

Two of them lie on the way of every task, the flushes of its submit and of its end. Handing a call to
``trio.to_thread`` and back costs 0.3 ms on an idle machine, in three rounds of the scheduler; a
thread that waits for a lock, and says that it is done by one byte, costs half of that and one round.

Invariant:
- The thread does one call at a time; whoever comes meanwhile is served by trio's threads.
"""

import socket
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


class Threads:
    """An ``Offload``. Its thread starts with the first call, and ends when nobody holds this any more."""

    def __init__(self) -> None:
        self._hand: _Hand | None = None
        self._busy = False

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Return what ``work`` returns; raise what it raises. Not cut short by cancellation."""
        if self._busy:
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
            await hand.do(act)
        finally:
            self._busy = False
        if raised:
            raise raised[0]
        return returned[0]


class _Hand:
    """The thread, and the two ways of waking each other."""

    def __init__(self) -> None:
        self._act: Callable[[], None] | None = None
        self._asked = threading.Lock()
        self._asked.acquire()  # free: there is something to do
        self._done, self._tell_done = socket.socketpair()
        self._done.setblocking(False)  # noqa: FBT003 - the socket module's own shape
        threading.Thread(target=self._work, name="taskd-flush", daemon=True).start()

    async def do(self, act: Callable[[], None]) -> None:
        """Have the thread do something; return when it has."""
        self._act = act
        self._asked.release()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.wait_readable(self._done)
        self._done.recv(1)

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
            self._tell_done.send(b"\0")
        self._done.close()
        self._tell_done.close()
