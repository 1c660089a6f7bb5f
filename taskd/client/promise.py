"""What a caller holds while the link works for it: a signal, and a request with its answer.

Invariants:
- A signal's waiter is woken at least once after it fired: who waits adds its wake first and looks
  second, who fires sets the flag first and wakes second. So no lock is needed.
- A request is answered once: it has a reply or an error, and then its signal fires.

Knows no thread, loop or socket: a wake is any callable.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskd_protocol.event_messages import EventPage, EventsFollow
from taskd_protocol.messages import Follow, LogEntry, ToPeer, ToServer

if TYPE_CHECKING:
    from taskd_protocol.errors import TaskdError

Wake = Callable[[], object]
"""Called at most once, from any thread; may raise RuntimeError when who waited is gone."""


class Signal:
    """Fires from whichever thread moves the bytes, and wakes whoever waits."""

    __slots__ = ("_wakes", "fired")

    def __init__(self) -> None:
        self.fired = False
        self._wakes: list[Wake] = []

    def fire(self) -> None:
        """Wake all that wait now, and let pass who comes later."""
        self.fired = True
        wakes = self._wakes
        while wakes:
            try:
                wake = wakes.pop()
            except IndexError:  # the last waiter has just left
                break
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                wake()

    def rearm(self) -> None:
        """Let the next waiter wait again; look at what was signalled after this, not before."""
        self.fired = False

    def add(self, wake: Wake) -> None:
        """Have ``wake`` called when the signal fires; look at ``fired`` after this."""
        self._wakes.append(wake)

    def remove(self, wake: Wake) -> None:
        """Stop waiting; the wake may still be under way."""
        with contextlib.suppress(ValueError):
            self._wakes.remove(wake)


class Request:
    """One thing asked of the server, until it is answered.

    Attributes:
        message: What is sent, the same on every resend; None asks for nothing but a connection.
        number: Its request id, given by the session.
        repeatable: Asking twice does no more than asking once, so it is sent again after a lost connection.
        sent: It is on its way on the connection of now.
        refusals: How often a busy server put it off.
        refusal: The newest of them.
        reply: The server's answer, once ``signal`` fired and there is no ``error``.
        error: Why there is no answer.
        signal: Fires when it is answered.
    """

    __slots__ = ("error", "message", "number", "refusal", "refusals", "repeatable", "reply", "sent", "signal")

    def __init__(self, message: ToServer | None, *, repeatable: bool = True) -> None:
        self.message = message
        self.repeatable = repeatable
        self.number = 0
        self.sent = False
        self.refusals = 0
        self.refusal: TaskdError | None = None
        self.reply: ToPeer | None = None
        self.error: TaskdError | None = None
        self.signal = Signal()


class Following(Request):
    """A FOLLOW: its signal fires with each page, and with the end.

    Attributes:
        task_id: Whose output.
        sequence: Of the next entry to ask for.
        pages: Came in and were not taken yet.
        ended: The last page came, or ``error`` says why none will.
    """

    __slots__ = ("ended", "pages", "sequence", "task_id")

    def __init__(self, wanted: Follow) -> None:
        super().__init__(wanted)
        self.task_id = wanted.id
        self.sequence = wanted.sequence
        self.pages: deque[list[LogEntry]] = deque()
        self.ended = False


class Looking(Request):
    """An EVENTS_FOLLOW: its signal fires with each page, and when no more will come.

    Attributes:
        pages: Came in and were not taken yet.
    """

    __slots__ = ("pages",)

    def __init__(self, wanted: EventsFollow) -> None:
        super().__init__(wanted)
        self.pages: deque[EventPage] = deque()
