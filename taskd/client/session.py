"""The client's session with a server, over as many connections as it takes.

Owns correlation of requests and answers, what is waited for, when to connect again, what to send
again, liveness, and the server's clock as seen from here. Time and chance are handed in; what happened is
handed out as events; bytes are moved by somebody else.

Invariants:
- A request that was asked is answered exactly once, or given up by who asked it.
- After a connection was lost, what was unanswered is sent again as it was, under the same ids, and
  what is waited for is waited for again. A request that is not ``repeatable`` fails instead.
- Before the first WELCOME a failure is told at once; after it only what no patience can mend is.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from taskd.client.asked import Asked
from taskd.client.events import Abandoned, Answered, Ended, Event, HangUp
from taskd.client.older import refusal_in_version_1
from taskd.client.patience import PING_AFTER_S, PONG_WITHIN_S, WELCOME_WITHIN_S, Chance, Reconnects, Silence
from taskd.client.promise import Following, Looking, Request
from taskd.client.waits import Waits, wait_requests
from taskd_protocol import limits
from taskd_protocol.agent_messages import Drain
from taskd_protocol.connection import Connection, UnknownMessage, peer_side
from taskd_protocol.connection_messages import Error, Hello, PeerLimits, Ping, Pong, Welcome
from taskd_protocol.errors import (
    BadRequest,
    CannotConnect,
    ConnectionLost,
    HandshakeTimedOut,
    ProtocolViolation,
    SubmitTooNew,
    TaskdError,
    UnexpectedMessage,
    UnknownKind,
    VersionUnsupported,
    error_from_code,
)
from taskd_protocol.event_messages import EventPage, EventsFollow, EventsMore
from taskd_protocol.handshake import HELLO_CLIENT, newest_mark
from taskd_protocol.messages import (
    Accepted,
    Follow,
    FollowMore,
    FollowStop,
    LogPage,
    OutcomeCredit,
    Outcomes,
    ToPeer,
    ToServer,
    Wait,
)
from taskd_protocol.workflow_messages import WorkflowAccepted

if TYPE_CHECKING:
    from taskd_protocol.mark import Mark


class Session:
    """One client's dealings with one server.

    Attributes:
        limits: What the server allows; the defaults until the first WELCOME.
        clock_offset_ms: Server's wall clock minus the local monotonic one; None until the first WELCOME.
        trouble: Why there is no connection, when one was lost or could not be made.
        mark: The newest commit mark, which others of this user may have been given; None: none yet.
    """

    def __init__(self, *, token: str, name: str, boot_id: bytes, chance: Chance, software: str = "") -> None:
        """Make a session that has not connected yet.

        Args:
            token: Shown to the server in HELLO.
            name: A label for people.
            boot_id: 16 random bytes of this process's life.
            chance: Gives numbers from 0 up to 1, for jitter.
            software: Name and version, for people.
        """
        self._token = token
        self._name = name
        self._boot_id = boot_id
        self._software = software
        self._connection: Connection[ToPeer] | None = None
        self._live = False
        self._welcomed: Welcome | None = None  # the newest
        self.mark: Mark | None = None
        self._asked = Asked(chance)
        self._waits = Waits()
        self._reconnects = Reconnects(chance)
        self._silence = Silence(0.0)
        self._events: list[Event] = []
        self.limits = PeerLimits()
        self.clock_offset_ms: float | None = None
        self.trouble: TaskdError | None = None

    # -- what callers want --------------------------------------------------------------

    def ask(self, request: Request) -> None:
        """Take on a request: send it now, or as soon as there is a connection."""
        self._asked.add(request)
        if self._live:
            self._send(request)

    def give_up(self, request: Request) -> None:
        """Forget a request whose asker has gone; an answer that still comes is dropped."""
        if self._asked.find(request.number) is not request:
            return
        self._asked.take(request.number)
        if isinstance(request, Following) and self._live and self._connection is not None:
            self._connection.send(FollowStop(request.number))

    @property
    def followed(self) -> Following | None:
        """Output that is followed live and of which nothing is here to be taken; None: there is none."""
        for request in self._asked.every():
            if isinstance(request, Following) and not request.pages:
                return request
        return None

    def stop_following(self, following: Following, why: TaskdError) -> None:
        """Tell whoever follows that nothing more will come."""
        self._fail(following, why)

    def await_ends(self, ids: Iterable[bytes]) -> None:
        """Wait for these tasks, in addition to those waited for already."""
        fresh = self._waits.add(ids)
        if self._live:
            self._send_waits(fresh)

    def take_more(self, following: Following | Looking) -> None:
        """Ask for the next page of output, or of events; the one before was taken."""
        if self._live and self._connection is not None and self._asked.find(following.number) is following:
            more = FollowMore if isinstance(following, Following) else EventsMore
            self._connection.send(more(following.number))

    # -- the connection -----------------------------------------------------------------

    @property
    def live(self) -> bool:
        """There is a connection, and the server has welcomed us on it."""
        return self._live

    @property
    def idle(self) -> bool:
        """The server has welcomed us, and owes us no answer."""
        return self._live and not self._asked

    @property
    def server_software(self) -> str:
        """Name and version of the server, as it told them last; empty: it has not."""
        return "" if self._welcomed is None else self._welcomed.software

    def wants_connection(self, now_s: float) -> bool:
        """Tell whether to connect now."""
        return self._connection is None and self._wanted() and now_s >= self._reconnects.at_s

    def deadline_s(self) -> float | None:
        """When ``tick`` is due, or ``wants_connection`` may turn; None: only when something comes in."""
        if self._connection is None:
            return self._reconnects.at_s if self._wanted() else None
        silent_s = self._silence.due_s(live=self._live)
        put_off_s = self._asked.due_s()
        return silent_s if put_off_s is None else min(silent_s, put_off_s)

    def connected(self, now_s: float) -> None:
        """Start over on a fresh connection: HELLO goes first, the rest after WELCOME."""
        self._connection = peer_side()
        self._silence = Silence(now_s)
        self._connection.send(
            Hello(
                version_min=limits.PROTOCOL_VERSION_MIN,
                version_max=limits.PROTOCOL_VERSION_MAX,
                role=HELLO_CLIENT,
                token=self._token,
                name=self._name,
                boot_id=self._boot_id,
                session=None if self._welcomed is None else self._welcomed.session,
                mark=self.mark,
                software=self._software,
            )
        )

    def receive(self, data: bytes, now_s: float) -> None:
        """Take bytes of the connection, cut up in any way."""
        if self._connection is None:
            return
        self._silence.heard(now_s)
        try:
            messages = self._connection.receive(data)
        except TaskdError as error:
            self.lose(error if self._live else _no_taskd(error), now_s)
            return
        for message in messages:
            self._take(message, now_s)
            if not self._connected():
                return

    def lose(self, error: TaskdError, now_s: float) -> None:
        """The connection broke, or could not be made: decide what that means for whom."""
        was_connected = self._connection is not None
        lost = self._disconnect()
        self.trouble = error
        if self._hopeless(error):
            self._abandon_all(error, lost)
        else:
            self._reconnects.lost(now_s)
            broke = "the connection broke before the answer came; look whether it was done, then ask again"
            for request in lost:
                self._fail(request, ConnectionLost(broke))
        if was_connected:
            self._events.append(HangUp(error))

    def end(self, error: TaskdError) -> None:
        """Give up everything, for this reason: the client is closed."""
        self._abandon_all(error, self._disconnect())

    def tick(self, now_s: float) -> None:
        """Do what is due by time: send again what was put off, ask whether the server is there, give it up."""
        if self._connection is None:
            return
        for request in self._asked.due(now_s):
            self._send(request)
        if not self._live:
            if self._silence.unwelcome(now_s):
                self.lose(CannotConnect(f"connected, but no WELCOME came within {WELCOME_WITHIN_S:.0f} s"), now_s)
        elif self._silence.over(now_s):
            self.lose(ConnectionLost(f"the server was silent for {PING_AFTER_S + PONG_WITHIN_S:.0f} s"), now_s)
        elif self._silence.to_be_asked(now_s):
            self._connection.send(Ping(self._asked.number()))

    def data_to_send(self) -> bytes:
        """Take the next bytes to be sent; empty: nothing now."""
        return b"" if self._connection is None else self._connection.data_to_send()

    def take_events(self) -> list[Event]:
        """Take what happened since the last time, in order."""
        events, self._events = self._events, []
        return events

    # -- what the server says -------------------------------------------------------------

    def _take(self, message: ToPeer | UnknownMessage, now_s: float) -> None:
        match message:
            case Welcome():
                self._welcome(message, now_s)
            case Error(request_id=0):
                self.lose(_told(message), now_s)
            case _ if self._live:
                self._take_live(message, now_s)
            case _:
                self.lose(UnexpectedMessage(f"the server began with {type(message).__name__}, not WELCOME"), now_s)

    def _take_live(self, message: ToPeer | UnknownMessage, now_s: float) -> None:
        match message:
            case Outcomes():
                self._outcomes(message)
            case Error():
                self._refused(message, now_s)
            case LogPage():
                self._page(message)
            case EventPage():
                self._event_page(message)
            case Ping():
                self._reply(Pong(message.nonce))
            case Pong():
                self._set_clock(message.server_time_ms, now_s)
            case Drain():
                pass  # the server closes the connection when it has finished
            case UnknownMessage():
                self._unknown(message)
            case _:
                self._answer(message, now_s)

    def _welcome(self, welcome: Welcome, now_s: float) -> None:
        if self._live:
            self.lose(UnexpectedMessage("a second WELCOME"), now_s)
            return
        if not limits.PROTOCOL_VERSION_MIN <= welcome.version <= limits.PROTOCOL_VERSION_MAX:
            self.lose(
                VersionUnsupported(f"the server chose protocol version {welcome.version}: upgrade taskd here"), now_s
            )
            return
        self._live = True
        self._reconnects.welcomed()
        self.trouble = None
        self._welcomed = welcome
        self.limits = welcome.limits
        self._set_clock(welcome.server_time_ms, now_s)
        self.mark = newest_mark(self.mark, welcome.mark)
        for request in self._asked.every():
            self._send(request)
        self._send_waits(list(self._waits.ids))

    def _answer(self, message: ToPeer, now_s: float) -> None:
        number = getattr(message, "request_id", None)
        if number is None:
            self.lose(UnexpectedMessage(f"{type(message).__name__} is nothing that a client is told"), now_s)
            return
        if isinstance(message, Accepted | WorkflowAccepted):
            self.mark = newest_mark(self.mark, message.mark)
        request = self._asked.take(number)
        if request is not None and not isinstance(request.message, Wait):
            request.reply = message
            self._events.append(Answered(request))

    def _refused(self, error: Error, now_s: float) -> None:
        request = self._asked.find(error.request_id)
        if request is None:
            return
        told = _told(error)
        if isinstance(told, SubmitTooNew):  # its clock was put back
            self._reply(Ping(self._asked.number()))
        if told.retryable:
            self._asked.put_off(request, told, now_s)
        else:
            self._fail(request, told)

    def _outcomes(self, message: Outcomes) -> None:
        credit = self._waits.ended(message.outcomes, self.limits.outcome_credit)
        if credit:
            self._reply(OutcomeCredit(credit))
        self._events.append(Ended(message.outcomes))

    def _page(self, page: LogPage) -> None:
        following = self._asked.find(page.request_id)
        if not isinstance(following, Following):
            return
        following.pages.append(page.entries)
        if page.entries or page.next_sequence:
            following.sequence = page.next_sequence or page.entries[-1].sequence + 1
            assert isinstance(following.message, Follow)
            following.message = replace(following.message, sequence=following.sequence)
        if page.end:
            following.ended = True
            self._asked.take(page.request_id)
        self._events.append(Answered(following))

    def _event_page(self, page: EventPage) -> None:
        looking = self._asked.find(page.request_id)
        if isinstance(looking, Looking) and isinstance(looking.message, EventsFollow):
            looking.pages.append(page)
            looking.message = replace(looking.message, after=page.after)
            self._events.append(Answered(looking))

    def _unknown(self, message: UnknownMessage) -> None:
        request = self._asked.find(message.request_id)
        if request is not None:
            self._fail(
                request, UnknownKind(f"the server answered with message type {message.kind}: upgrade taskd here")
            )

    # -- the inside -----------------------------------------------------------------------

    def _connected(self) -> bool:
        return self._connection is not None

    def _reply(self, message: ToServer) -> None:
        assert self._connection is not None
        self._connection.send(message)

    def _send(self, request: Request) -> None:
        """Put a request into the outbox; one that cannot be encoded is answered with the reason."""
        assert self._connection is not None
        if request.message is None:
            self._asked.take(request.number)
            request.reply = self._welcomed
            self._events.append(Answered(request))
            return
        assert self._welcomed is not None
        if self._welcomed.version == 1:
            refusal = refusal_in_version_1(request.message)
            if refusal is not None:
                self._fail(request, refusal)
                return
        try:
            self._connection.send(request.message)
        except TaskdError as error:
            self._fail(request, error)
        except (TypeError, ValueError, OverflowError) as error:
            self._fail(request, BadRequest(f"{type(request.message).__name__} cannot be encoded: {error}"))
        else:
            request.sent = True

    def _send_waits(self, ids: Sequence[bytes]) -> None:
        for request in wait_requests(ids):
            self._asked.add(request)
            self._send(request)

    def _wanted(self) -> bool:
        return bool(self._asked or self._waits.ids)

    def _disconnect(self) -> list[Request]:
        self._connection = None
        self._live = False
        self._waits.disconnected()
        return self._asked.disconnected()

    def _abandon_all(self, error: TaskdError, lost: Sequence[Request]) -> None:
        self._reconnects.forget()
        for request in (*lost, *self._asked.every()):
            self._fail(request, error)
        self._waits.clear()
        self._events.append(Abandoned(error))

    def _fail(self, request: Request, error: TaskdError) -> None:
        self._asked.take(request.number)
        if isinstance(request.message, Wait):
            self._events.append(Ended(self._waits.refused(request.message, error)))
            return
        # each asker raises its own: an exception collects the tracebacks of all who raise it
        request.error = error_from_code(
            error.code, error.message, retryable=error.retryable, retry_after_ms=error.retry_after_ms
        )
        if isinstance(request, Following):
            request.ended = True
        self._events.append(Answered(request))

    def _set_clock(self, server_time_ms: int, now_s: float) -> None:
        if server_time_ms:
            self.clock_offset_ms = server_time_ms - now_s * 1000

    def _hopeless(self, error: TaskdError) -> bool:
        """Tell whether trying again is of no use, or not what a first caller wants to wait for."""
        broken = isinstance(error, CannotConnect | ConnectionLost | HandshakeTimedOut)
        if broken:
            return self._welcomed is None
        return not error.retryable


def _told(error: Error) -> TaskdError:
    return error_from_code(error.code, error.message, retryable=error.retryable, retry_after_ms=error.retry_after_ms)


def _no_taskd(error: TaskdError) -> TaskdError:
    """Say of bytes that are no WELCOME what they most likely mean."""
    if isinstance(error, ProtocolViolation) or error.code == "protocol.too_large":
        return CannotConnect(
            "what answers there does not speak taskd's protocol in the clear; if it is a taskd"
            " server, it speaks TLS: use taskd:// and its CA"
        )
    return error
