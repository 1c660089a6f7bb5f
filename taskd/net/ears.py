"""Ears: whatever has come over sockets is heard in one place, by the task that acts on it.

A task for each connection costs a round of trio's scheduler, a call of ``epoll_ctl`` and some fifty calls of Python
each time that a few bytes come. Here who hears them acts on them in the same step.

Invariants:
- One task sleeps here at a time.
- Who has hung up is heard to the end at once: nobody acts on the last words as if more could be said to him.
- What a hearer raises concerns whoever has it listen, and nobody else.
"""

import os
import select
import weakref
from collections.abc import Callable
from typing import Final, Protocol

import trio

SOCKETS_MAX: Final = 64
"""Heard in one go: some 3 ms of work. The others are heard in the next one."""

READS_MAX: Final = 64
"""Of a socket whose other side has hung up, in one go: more than the kernel holds of one."""

_HUNG_UP: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

Hearer = Callable[[], bool]
"""Called when there is something to read: reads it, without waiting. False: there is nothing more to listen to."""


class Hearing(Protocol):
    """What the one task sleeps in."""

    def hear(self) -> None:
        """Have everything heard that has come."""
        ...

    async def sleep(self) -> None:
        """Return when something may have come, or at ``wake``."""
        ...

    def wake(self) -> None:
        """Have ``sleep`` return, if somebody is in it."""
        ...


class Ears:
    """Hears the sockets of this machine. Linux only, as the server is."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._bell)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._hearers: dict[int, Callable[[], None]] = {}
        self._asleep = False
        self._rung = False

    def hear(self) -> None:
        """See ``Hearing``."""
        for descriptor, events in self._epoll.poll(0, SOCKETS_MAX):
            for _ in range(READS_MAX if events & _HUNG_UP else 1):
                hearer = self._hearers.get(descriptor)
                if hearer is None:
                    break
                hearer()

    async def sleep(self) -> None:
        """See ``Hearing``."""
        self._asleep = True
        try:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
        finally:
            self._asleep = False
            if self._rung:
                self._rung = False
                os.eventfd_read(self._bell)

    def wake(self) -> None:
        """See ``Hearing``."""
        if self._asleep and not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    async def listen(self, descriptor: int, hearer: Hearer) -> None:
        """Return when the hearer wants no more; it is called once at first, whatever has come.

        Raises:
            Exception: What the hearer raises.
        """
        over = trio.Event()
        raised: list[Exception] = []

        def hear() -> None:
            try:
                if hearer():
                    return
            except Exception as error:  # noqa: BLE001 - it is raised where it was listened for
                raised.append(error)
            self._forget(descriptor)
            over.set()

        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP)
        self._hearers[descriptor] = hear
        try:
            hear()
            await over.wait()
        finally:
            self._forget(descriptor)
        if raised:
            raise raised[0]

    def _forget(self, descriptor: int) -> None:
        if self._hearers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)


class Deaf:
    """A ``Hearing`` where nothing comes: whoever has something to say wakes it."""

    def __init__(self) -> None:
        self._woken = trio.Event()

    def hear(self) -> None:
        """See ``Hearing``."""

    async def sleep(self) -> None:
        """See ``Hearing``."""
        self._woken = trio.Event()
        await self._woken.wait()

    def wake(self) -> None:
        """See ``Hearing``."""
        self._woken.set()
