"""The pump: a thread that moves bytes between a session and its server, and tells who waits.

Callers leave what they want in its inbox. Who finds nothing under way does by himself what he wants, and writes it: the
thread is not woken, which is one change of hands fewer in a trip of one task.

Invariants:
- Who has the turn alone touches the session, the socket and the table of ends. The thread takes it between two waits
  for the selector, a caller only if it is free: nobody but the thread ever waits for it.
- A caller does what he himself wants, never what others left in the inbox. When a signal's handler (Ctrl-C) ends him in
  the midst of it, they lose nothing: the connection, on which half a message may be, is given up for another one.
  A handler that wants something itself, while the caller whom it interrupts has the turn, is sent elsewhere (``Link``).
- What was put into the inbox is done, or refused by ``post``: nothing stays behind when the pump ends.
- Whoever waits is told when the pump ends, whatever ended it.
- The thread is a daemon: it never keeps a process alive.
"""

import contextlib
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, assert_never

from taskd.client.clock import mono_s
from taskd.client.dial import dial
from taskd.client.ends import Ends
from taskd.client.events import Abandoned, Answered, Ended, HangUp
from taskd.client.marks import MarkKeeper
from taskd.client.profile import Profile
from taskd.client.promise import Signal
from taskd.client.session import Session
from taskd_protocol.errors import CannotConnect, ConnectionLost, TaskdError

READ_BYTES: Final = 64 * 1024
"""From 128 KiB on the C library maps memory for the buffer and unmaps it again, which costs 40 us a read."""
READS_PER_TURN: Final = 32
"""TLS gives 16 KiB a read at most; after so many the writing side gets its turn."""

_FULL_READ_BYTES: Final = 16 * 1024
"""A shorter read has emptied the socket, and the TLS record that it was of."""

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Pump:
    """One thread, with one session and at most one connection at a time.

    Attributes:
        session: Belongs to who has the turn; others read its plain attributes alone.
        ends: Likewise.
        ended: The thread does no more; make a new pump.
    """

    def __init__(self, profile: Profile, context: ssl.SSLContext | None, session: Session) -> None:
        self._profile = profile
        self._context = context
        self.session = session
        self._marks = MarkKeeper(profile)
        session.mark = self._marks.read()
        self.ends = Ends()
        self.ended = False
        self._inbox: deque[Callable[[], None]] = deque()
        self._turn_lock = threading.Lock()
        self._take_turn = partial(self._turn_lock.acquire, blocking=False)
        self._interrupted = False
        self._caller: int | None = None  # who has the turn, if it is not the thread
        self._answered_together = 0
        self._closing = False
        self._woken = False
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)  # noqa: FBT003 - the socket module's own shape
        self._wake_out.setblocking(False)  # noqa: FBT003
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._socket: socket.socket | None = None
        self._writable_asked = False
        self._more_to_read = False
        self._unsent = memoryview(b"")
        self._flushes: list[Signal] = []
        self._thread = threading.Thread(target=self._run, name="taskd-client", daemon=True)
        self._thread.start()

    # -- from any thread ------------------------------------------------------------------

    def post(self, act: Callable[[], None]) -> bool:
        """Do something now, or have the thread do it soon; False: it has ended and will not."""
        if self._idle() and self._do_here(act):
            return True
        self._inbox.append(act)
        if self.ended:  # looked at after the append: the thread sets it before it empties the inbox for the last time
            try:
                self._inbox.remove(act)
            except ValueError:
                return True  # it was done, and whoever waits was told
            return False
        self._wake()
        return True

    def is_held_here(self) -> bool:
        """Tell whether this thread has the turn, below who asks: he would wait for himself."""
        return self._caller == threading.get_ident()

    def stop(self, within_s: float) -> None:
        """End the thread, which hangs up and tells whoever waits; return when it has ended or the time has passed."""
        self._closing = True
        self._woken = False
        self._wake()
        if within_s and self._thread is not threading.current_thread():
            self._thread.join(within_s)

    def drop(self) -> None:
        """In a forked child: close the copies of the parent's descriptors, without a word on them."""
        self.ended = True
        for held in (self._socket, self._wake_in, self._wake_out, self._selector):
            if held is not None:
                with contextlib.suppress(OSError):
                    held.close()  # no shutdown, no TLS close_notify: the parent goes on with the connection

    def _idle(self) -> bool:
        """Tell whether a caller may do by himself what he wants.

        Not while others ask, too, or were answered together and may ask again: what comes from many at a time costs the
        server least in one piece, which the thread makes of what it finds in its inbox.
        """
        crowd = self._answered_together > 1 or self._inbox
        broken = self._unsent or self._interrupted or self._closing or self.ended
        return self.session.idle and not (crowd or broken)

    def _do_here(self, act: Callable[[], None]) -> bool:
        """Do something in the caller's thread, and write what comes of it; False: nothing was done."""
        this_thread = threading.get_ident()
        for _ in iter(self._take_turn, False):  # noqa: FBT003 - a signal's handler may run behind a call, not in a `for`
            try:
                self._caller = this_thread
                if not self._idle():
                    return False
                self._interrupted = True
                act()
                self._tell()
                self._write_here()
                self._interrupted = False
            finally:
                self._caller = None
                self._turn_lock.release()
                if self._interrupted or self._unsent:
                    self._wake()
            return True
        return False

    def _write_here(self) -> None:
        """Write what the kernel takes; the rest, and what is to be done about an error, is left to the thread."""
        with contextlib.suppress(OSError):
            if self._push() and self._flushes:
                self._fire_flushes()

    def _wake(self) -> None:
        """Have the thread look into its inbox.

        One byte is enough for many: the flag is set after the inbox was filled, cleared before it is emptied.
        """
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
                self._wake_out.send(b"\0")

    # -- in the thread --------------------------------------------------------------------

    def flush_then(self, flushed: Signal) -> None:
        """Fire the signal when all that is to be sent now was taken by the kernel."""
        self._flushes.append(flushed)

    def _run(self) -> None:
        why = ConnectionLost("this client was closed")
        try:
            while not self._closing:
                self._turn()
        except BaseException as error:
            why = ConnectionLost(f"the client's own thread failed ({error!r}); report it as a bug of taskd")
            raise  # to threading.excepthook, which shows it
        finally:
            self._end(why)

    def _turn(self) -> None:
        due_s = self.session.deadline_s()
        timeout_s = None if due_s is None else max(0.0, due_s - mono_s())
        ready = self._selector.select(0.0 if self._more_to_read else timeout_s)
        readable = self._more_to_read or any(key.fileobj is self._socket for key, _ in ready)
        woken = any(key.fileobj is self._wake_in for key, _ in ready)
        with self._turn_lock:
            self._move(readable=readable, woken=woken)

    def _move(self, *, readable: bool, woken: bool) -> None:
        if self._interrupted:
            self._mend()
        if readable:
            self._read()
        if woken:
            with contextlib.suppress(BlockingIOError):
                self._wake_in.recv(4096)
        self._woken = False
        self._work_off()
        now_s = mono_s()
        self.session.tick(now_s)
        self._tell()
        if self.session.wants_connection(now_s):
            self._connect()
        self._write()
        self._tell()
        self._marks.keep(self.session.mark, now_s)

    def _mend(self) -> None:
        """A caller was ended in the midst of what he did: say all of it again, on another connection."""
        self._interrupted = False
        if self._socket is not None:
            self._broke("whoever wrote was interrupted")
        self.session.await_ends(self.ends.wanted)

    def _work_off(self) -> None:
        inbox = self._inbox
        while inbox:
            inbox.popleft()()

    def _tell(self) -> None:
        """Pass on what happened; last of all nothing is left that somebody waits for."""
        events = self.session.take_events()
        if events:
            self._answered_together = len(events)
        for event in events:
            match event:
                case Answered():
                    event.request.signal.fire()
                case Ended():
                    self.ends.end(event.outcomes)
                case Abandoned():
                    self.ends.give_up(event.error)
                    self._fire_flushes()
                case HangUp():
                    self._hang_up()
                case _:
                    assert_never(event)

    def _connect(self) -> None:
        try:
            connection = dial(self._profile, self._context)
        except TaskdError as error:
            self.session.lose(error, mono_s())
            return
        self._socket = connection
        self._writable_asked = False
        self._selector.register(connection, selectors.EVENT_READ)
        self.session.connected(mono_s())

    def _read(self) -> None:
        """Read what is there: a TLS socket may hold bytes that the selector does not see."""
        self._more_to_read = False
        for _ in range(READS_PER_TURN):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(READ_BYTES)
            except _WOULD_BLOCK:
                return
            except OSError as error:
                self._broke(error.strerror or str(error))
                return
            if not data:
                self._broke("the server closed it")
                return
            self.session.receive(data, mono_s())
            self._tell()
            if len(data) < _FULL_READ_BYTES:
                return  # what comes now wakes the selector: to look for it takes a system call and an error
        self._more_to_read = self._socket is not None

    def _write(self) -> None:
        """Write as much as the kernel takes; the rest goes when the socket is writable."""
        if self._socket is None:
            return
        try:
            blocked = not self._push()
        except OSError as error:
            self._broke(error.strerror or str(error))
            return
        if blocked != self._writable_asked:
            self._writable_asked = blocked
            asked = selectors.EVENT_READ | selectors.EVENT_WRITE if blocked else selectors.EVENT_READ
            self._selector.modify(self._socket, asked)
        if not blocked and self._flushes and self.session.live:
            self._fire_flushes()

    def _push(self) -> bool:
        """Give the kernel what is to be sent; tell whether it took all of that."""
        assert self._socket is not None
        while True:
            if not self._unsent:
                self._unsent = memoryview(self.session.data_to_send())
                if not self._unsent:
                    return True
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except _WOULD_BLOCK:
                return False

    def _fire_flushes(self) -> None:
        flushes, self._flushes = self._flushes, []
        for flushed in flushes:
            flushed.fire()

    def _broke(self, why: str) -> None:
        if self.session.live:
            error: TaskdError = ConnectionLost(f"the connection to {self._profile.address} broke ({why})")
        else:
            error = CannotConnect(
                f"{self._profile.address} took the connection and ended it ({why}):"
                " is it a taskd server, and with TLS as the address says?"
            )
        self.session.lose(error, mono_s())
        self._tell()

    def _hang_up(self) -> None:
        connection, self._socket = self._socket, None
        self._unsent = memoryview(b"")
        self._more_to_read = False
        if connection is not None:
            self._selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.close()

    def _end(self, why: TaskdError) -> None:
        self.ended = True
        with self._turn_lock:
            self._end_all(why)

    def _end_all(self, why: TaskdError) -> None:
        self._work_off()
        self.session.end(why)
        self._tell()
        self._hang_up()
        self._fire_flushes()
        self._marks.keep_last(self.session.mark)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()
