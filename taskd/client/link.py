"""The link: what callers of any thread or event loop hold of the one connection that they share.

Invariants:
- A process has at most one live pump per link, started by the first use; and a second one, once a signal's handler
  wanted something while its thread was in the midst of the first.
- A forked child never speaks on its parent's connection: it drops it and starts a pump of its own.
- Dropping the last reference, or the interpreter's exit, ends the pump.
"""

import atexit
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

from taskd.client.dial import tls_context
from taskd.client.ends import Awaited, Ends, Watch
from taskd.client.profile import Profile
from taskd.client.promise import Following, Looking, Request, Signal
from taskd.client.pump import Pump
from taskd.client.session import Session
from taskd_protocol.handshake import BOOT_ID_BYTES

CLOSE_WITHIN_S: Final = 1.0
"""How long closing waits for the thread, which may be in the midst of connecting."""


class Mover(Protocol):
    """Moves a session's bytes, and does what callers leave in its inbox: see ``Pump``."""

    session: Session
    ends: Ends
    ended: bool

    def post(self, act: Callable[[], None]) -> bool:
        """Have something done soon; False: it has ended and will not."""
        ...

    def flush_then(self, flushed: Signal) -> None:
        """Fire the signal when all that is to be sent now is on its way."""
        ...

    def is_held_here(self) -> bool:
        """Tell whether this thread is in the midst of it, below whoever asks."""
        ...

    def stop(self, within_s: float) -> None:
        """End; return when it has ended or the time has passed."""
        ...

    def drop(self) -> None:
        """In a forked child: let go of what is the parent's."""
        ...


class Link:
    """One process's line to one server.

    Attributes:
        profile: Where it leads.
    """

    def __init__(
        self, profile: Profile, *, name: str, software: str, start: Callable[[Session], Mover] | None = None
    ) -> None:
        """Prepare a link; nothing is connected yet.

        Args:
            profile: Where it leads.
            name: A label for people who look at the server.
            software: Name and version, for people.
            start: Begins to move a session's bytes; None: a thread with a socket does.

        Raises:
            ConfigInvalid: The profile's CA is no certificate.
        """
        self.profile = profile
        self._name = name
        self._software = software
        self._start_mover = partial(Pump, profile, tls_context(profile)) if start is None else start
        self._pump: Mover | None = None
        self._aside: Mover | None = None
        self._starting = threading.Lock()
        _LINKS.add(self)

    @property
    def session(self) -> Session | None:
        """The session, for reading its plain attributes; None: not started."""
        pump = self._pump
        return None if pump is None else pump.session

    def ask(self, request: Request) -> None:
        """Have a request sent; its signal fires when it is answered."""
        self._post(lambda pump: pump.session.ask(request))

    def ask_and_flush(self, request: Request) -> Signal:
        """Have a request sent; the signal returned fires when the kernel has taken it, or no hope is left."""
        flushed = Signal()

        def act(pump: Mover) -> None:
            pump.flush_then(flushed)
            pump.session.ask(request)

        self._post(act)
        return flushed

    def give_up(self, request: Request) -> None:
        """Forget a request."""
        self._post_if_running(lambda pump: pump.session.give_up(request))

    def take_more(self, following: Following | Looking) -> None:
        """Have the next page of output sent."""
        self._post_if_running(lambda pump: pump.session.take_more(following))

    def watch(self, wanted: Sequence[Awaited], targets: Sequence[Awaited], watch: Watch) -> None:
        """Have the ends of all these sent here, and the watch told of those of ``targets``, known ones too."""

        def act(pump: Mover) -> None:
            fresh = pump.ends.want((*wanted, *targets))
            pump.ends.watch(targets, watch)
            if fresh:
                pump.session.await_ends(fresh)

        self._post(act)

    def unwatch(self, targets: Iterable[Awaited], watch: Watch) -> None:
        """Tell the watch no more."""
        self._post_if_running(lambda pump: pump.ends.unwatch(targets, watch))

    def close(self) -> None:
        """Hang up; whoever waits is told. A later use connects anew."""
        for pump in self._taken():
            pump.stop(CLOSE_WITHIN_S)

    def after_fork_in_child(self) -> None:
        """Drop the parent's connection; runs while the child has no other thread."""
        self._starting = threading.Lock()  # a thread that the child does not have may hold the other one
        for pump in self._taken():
            pump.drop()

    def _post(self, act: Callable[[Mover], None]) -> None:
        while True:
            pump = self._pump
            if pump is not None and pump.is_held_here():
                pump = self._aside
                if pump is None or pump.ended:
                    pump = self._aside = self._make()
            elif pump is None or pump.ended:
                pump = self._start()
            if pump.post(partial(act, pump)):
                return

    def _post_if_running(self, act: Callable[[Mover], None]) -> None:
        """Do what only means something to the session that was asked."""
        for pump in (self._pump, self._aside):
            if pump is not None:
                pump.post(partial(act, pump))

    def _taken(self) -> list[Mover]:
        """Take the pumps that there are: the next use starts another."""
        pumps, self._pump, self._aside = (self._pump, self._aside), None, None
        return [pump for pump in pumps if pump is not None]

    def _start(self) -> Mover:
        with self._starting:
            pump = self._pump
            if pump is None or pump.ended:
                pump = self._pump = self._make()
            return pump

    def _make(self) -> Mover:
        session = Session(
            token=self.profile.token,
            name=self._name,
            boot_id=os.urandom(BOOT_ID_BYTES),
            chance=random.Random().random,  # noqa: S311 - jitter is no secret; seeded by the system
            software=self._software,
        )
        pump = self._start_mover(session)
        weakref.finalize(self, pump.stop, 0.0).atexit = False
        return pump


_LINKS: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for link in list(_LINKS):
        link.after_fork_in_child()


def _at_exit() -> None:
    for link in list(_LINKS):
        link.close()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
