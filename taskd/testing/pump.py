"""Moves bytes between the App's client session and the server of the same process, in the server's own loop.

It stands where a client otherwise has a thread and a socket. No time limits are watched on this line: a stream in
memory does not fall silent.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from typing import assert_never

import trio

from taskd.client.clock import mono_s
from taskd.client.ends import Ends
from taskd.client.events import Abandoned, Answered, Ended, HangUp
from taskd.client.promise import Signal
from taskd.client.session import Session
from taskd_protocol.errors import ConnectionLost

RECEIVE_BYTES = 256 * 1024


class LoopPump:
    """One client's session, driven from the server's loop.

    Attributes:
        session: Belongs to the loop's thread; others read its plain attributes alone.
        ends: Likewise.
        ended: The server has ended.
    """

    def __init__(self, session: Session, token: trio.lowlevel.TrioToken, changed: Callable[[], None]) -> None:
        """Prepare.

        Args:
            session: Not connected yet.
            token: Of the server's loop.
            changed: Called in the loop when callers have asked for something.
        """
        self.session = session
        self.ends = Ends()
        self.ended = False
        self._token = token
        self._changed = changed
        self._inbox: deque[Callable[[], None]] = deque()
        self._flushes: list[Signal] = []
        self._wake = trio.Event()
        self._closing = trio.CancelScope()

    # -- from any thread: see `Mover` -----------------------------------------------------

    def post(self, act: Callable[[], None]) -> bool:
        """Have the loop do something soon; False: it has ended and will not."""
        self._inbox.append(act)
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._work_off, idempotent=True)
        if self.ended:  # looked at after the append, as in the pump that has a thread
            try:
                self._inbox.remove(act)
            except ValueError:
                return True  # it was done, and whoever waits was told
            return False
        return True

    def is_held_here(self) -> bool:
        """See ``Mover``: callers never move bytes themselves."""
        return False

    def stop(self, within_s: float) -> None:
        """Hang up, soon."""
        del within_s
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._closing.cancel)

    def drop(self) -> None:
        """In a forked child: the server is the parent's."""
        self.ended = True

    # -- in the loop ------------------------------------------------------------------------

    def flush_then(self, flushed: Signal) -> None:
        """Fire the signal when all that is to be sent now was sent."""
        self._flushes.append(flushed)

    async def run(self, stream: trio.abc.Stream) -> None:
        """Speak on this connection until it ends."""
        try:
            self.session.connected(mono_s())
            with self._closing:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, stream)
                    while data := await stream.receive_some(RECEIVE_BYTES):
                        self.session.receive(bytes(data), mono_s())
                        self._tell()
                        self._wake.set()
                    nursery.cancel_scope.cancel()
        finally:
            self.end()
            await trio.aclose_forcefully(stream)

    def end(self) -> None:
        """Tell whoever waits that the server has ended."""
        self.ended = True
        self._do_what_was_asked()
        self.session.end(ConnectionLost("the server of this test has ended"))
        self._tell()
        self._fire_flushes()

    async def _write(self, stream: trio.abc.Stream) -> None:
        while True:
            data = self.session.data_to_send()
            if data:
                await stream.send_all(data)
                continue
            if self.session.live:
                self._fire_flushes()
            self._wake = trio.Event()
            await self._wake.wait()

    def _work_off(self) -> None:
        if not self.ended:
            self._do_what_was_asked()
            self._wake.set()
            self._changed()

    def _do_what_was_asked(self) -> None:
        while self._inbox:
            self._inbox.popleft()()
        self._tell()

    def _tell(self) -> None:
        for event in self.session.take_events():
            match event:
                case Answered():
                    event.request.signal.fire()
                case Ended():
                    self.ends.end(event.outcomes)
                case Abandoned():
                    self.ends.give_up(event.error)
                    self._fire_flushes()
                case HangUp():
                    self._closing.cancel()
                case _:
                    assert_never(event)

    def _fire_flushes(self) -> None:
        flushes, self._flushes = self._flushes, []
        for flushed in flushes:
            flushed.fire()
