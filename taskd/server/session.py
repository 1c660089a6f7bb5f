"""A session: one peer's connection, from HELLO to its end.

A pump: bytes in become messages, messages become commands or reads; answers and
effects become messages, and bytes. Reading never waits on writing. What a slow
reader leaves unread is bounded; then the connection is closed.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog
import trio

from taskd.core.access import is_good
from taskd.core.commands import Answer, UseInvitation
from taskd.core.records import TokenRecord
from taskd.net import sockets
from taskd.net.tls_stream import TlsStream
from taskd.server import tokens
from taskd.server.hub import Peer
from taskd.server.services import Services
from taskd_protocol import limits
from taskd_protocol.access_messages import Ca, CaRequest, Joined
from taskd_protocol.connection import SEND_BYTES, Connection, UnknownMessage, server_side
from taskd_protocol.connection_messages import Error, Hello, Ping, Pong, Welcome
from taskd_protocol.errors import (
    AuthRefused,
    FrameTooLarge,
    HandshakeTimedOut,
    InvitationRefused,
    ServerBusy,
    ServerRolledBack,
    TaskdError,
    UnexpectedMessage,
    UnknownKind,
)
from taskd_protocol.handshake import (
    HELLO_JOIN,
    check_allowed,
    check_hello,
    check_mark,
    check_role,
    choose_version,
)
from taskd_protocol.ids import SESSION_ID_BYTES
from taskd_protocol.messages import Message, ToServer
from taskd_protocol.task import Outcome

log = structlog.get_logger("taskd.server")

RECEIVE_BYTES = 256 * 1024
"""Asked of the stream at once: what the kernel may hold of a busy peer."""

OUTBOX_HIGH_BYTES = 4 * 1024 * 1024
"""What can wait elsewhere is not put into an outbox that holds more."""

GOODBYE_SECONDS = 2.0
"""A peer that does not read is not waited for longer when its connection ends."""

YEAR_MS = 365 * 24 * 3600 * 1000


class Role(Protocol):
    """What a kind of peer may ask, and how it is told; one object a session."""

    def heard(self, mono_ns: int) -> None:
        """Bytes have come, whatever they say."""

    def receive(self, message: ToServer) -> None:
        """Take one message that the role may send.

        Raises:
            TaskdError: A request is refused.
        """

    def tell_outcomes(self, outcomes: list[Outcome]) -> None:
        """Tell of ends that the peer waits for."""

    def tell_logs(self, task_id: bytes) -> None:
        """A task that it follows has more output, or has ended."""

    def sent(self) -> None:
        """The outbox has been emptied: there is room for more."""

    def close(self) -> None:
        """The connection is gone: forget what it waited for."""


class Talk(Peer, Protocol):
    """A session as its role sees it: one on the wire, or one within this process."""

    services: Services
    nursery: trio.Nursery | None
    """For reads that take time; ends with the session."""

    @property
    def outbox_bytes(self) -> int:
        """What waits to be sent."""
        ...

    def send(self, message: Message) -> None:
        """Say this to the peer; in place of an answer that no message can hold goes the reason."""


MakeRole = Callable[["Session", Hello], Role]


class Session:
    """One connection.

    Attributes:
        connection: Its number.
        key_id: Of the token that it was opened with; empty before.
        version: Of the protocol, spoken here; 0 before.
        nursery: For reads that take time; ends with the connection.
    """

    def __init__(self, services: Services, stream: trio.abc.Stream, peer_address: str) -> None:
        self.services = services
        self.peer_address = peer_address
        self.connection = services.hub.next_connection()
        self.key_id = ""
        self.version = 0
        self.role_name = ""
        self.nursery: trio.Nursery | None = None
        self._stream = stream
        self._wire: Connection[ToServer] = server_side()
        self._outgoing = trio.Event()
        self._left_over = False  # the stream holds what the kernel did not take
        self._reading = trio.CancelScope()
        self._written = trio.Event()
        self._ending = False
        self._goodbye: TaskdError | None = None
        self._in_turn: deque[Message] = deque()
        self._role: Role | None = None

    @property
    def outbox_bytes(self) -> int:
        """What waits to be sent."""
        return self._wire.outbox_bytes

    async def run(self, authenticated: Callable[[], None], make_role: MakeRole) -> None:
        """Serve the peer until either side ends it; the listener closes the stream."""
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self._write)
            try:
                with self._reading:
                    await self._serve(authenticated, make_role)
                if self._reading.cancelled_caught and not self._ending:
                    raise tokens.refusal()  # its token has expired meanwhile
            except TaskdError as why:
                self._note_refusal(why)
                self.end(why)
            except trio.BrokenResourceError:
                self._written.set()
            finally:
                self._close_role()
            self._ending = True
            self._outgoing.set()
            with trio.move_on_after(GOODBYE_SECONDS):
                await self._written.wait()
            nursery.cancel_scope.cancel()

    async def _serve(self, authenticated: Callable[[], None], make_role: MakeRole) -> None:
        hello = await self._meet()
        if hello is not None:
            self._role = make_role(self, hello)
            authenticated()
            self.services.hub.join(self)
            await self._read(self._role)

    def _note_refusal(self, why: TaskdError) -> None:
        if self._role is None:
            self.services.notices.tell(
                "stranger_refused", self.peer_address, f"{why.code}: {why.message}", level="info"
            )
        else:
            log.info("connection_refused", peer=self.peer_address, code=why.code, reason=why.message)

    def send(self, message: Message) -> None:
        """Put a message into the outbox; in place of an answer that no message can hold goes the reason."""
        if self._ending:
            return
        try:
            self._wire.send(message)
        except FrameTooLarge as why:
            request_id = getattr(message, "request_id", 0)
            if not request_id:
                self.end(why)
                return
            self._wire.send(error_message(request_id, why))
        self.services.loop.outgoing.note(self)
        if self._wire.outbox_bytes > limits.OUTBOX_BYTES_MAX:
            self.end(ServerBusy("what was sent was not read; read faster, or ask for less at a time"))

    def send_in_turn(self, message: Message) -> None:
        """Put a message into the outbox when there is room, behind those that wait for it.

        For what the server decides to say, and a slow reader cannot ask for less of: leases.
        """
        if self._in_turn or self._wire.outbox_bytes > OUTBOX_HIGH_BYTES:
            self._in_turn.append(message)
        else:
            self.send(message)

    def end_in_turn(self, why: TaskdError) -> None:
        """Let go out what waits to be sent, then ``end``."""
        self._goodbye = why
        self._outgoing.set()

    def end(self, why: TaskdError) -> None:
        """Tell why, read nothing more, and close."""
        if not self._ending:
            self._wire.send(error_message(0, why))
            self._ending = True
            self._outgoing.set()
            self._reading.cancel()

    def tell_outcomes(self, outcomes: list[Outcome]) -> None:
        """See ``Role``."""
        if self._role is not None:
            self._role.tell_outcomes(outcomes)

    def tell_logs(self, task_id: bytes) -> None:
        """See ``Role``."""
        if self._role is not None:
            self._role.tell_logs(task_id)

    # -- reading and writing ------------------------------------------------------------

    async def _read(self, role: Role) -> None:
        ears, stream = self.services.platform.ears, self._stream
        transport = stream.transport if isinstance(stream, TlsStream) else stream
        if ears is not None and isinstance(transport, trio.SocketStream):
            receive = (
                stream.receive_nowait
                if isinstance(stream, TlsStream)
                else partial(sockets.receive_nowait, transport, RECEIVE_BYTES)
            )
            await ears.listen(sockets.descriptor(transport), partial(self._hear, receive, role))
            return
        while not self._ending:
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                return
            self._take_in(data, role)

    def _hear(self, receive: Callable[[], bytes | None], role: Role) -> bool:
        """Take what has come; tell whether more is wanted."""
        if self._ending:
            return False  # this connection's task has not been woken yet
        try:
            data = receive()
        except trio.BrokenResourceError:
            self._close_role()
            raise
        if data:
            self._take_in(data, role)
        elif data is not None:
            self._close_role()
        return data != b""

    def _close_role(self) -> None:
        """Have the peer be gone for the next turn already, which comes before the task of its connection is woken."""
        role, self._role = self._role, None
        if role is not None:
            role.close()

    def _take_in(self, data: bytes | bytearray, role: Role) -> None:
        """Take bytes that have come."""
        clock, stages, outgoing = self.services.platform.clock, self.services.loop.stages, self.services.loop.outgoing
        role.heard(clock.mono_ns())
        began_ns = clock.thread_cpu_ns()
        messages = self._wire.receive(bytes(data))
        stages.counts["bytes_in"] += len(data)
        stages.ns["decode"] += clock.thread_cpu_ns() - began_ns
        outgoing.hold()
        try:
            for message in messages:
                self._take(message, role)
        finally:
            outgoing.let_go()

    def _take(self, message: ToServer | UnknownMessage, role: Role) -> None:
        if isinstance(message, UnknownMessage):
            refusal = UnknownKind(f"message type {message.kind} is unknown to this server; upgrade it, or do without")
            self._refuse(message.request_id, refusal)
        elif isinstance(message, Ping):
            self.send(Pong(message.nonce, self.services.platform.clock.wall_ms()))
        elif not isinstance(message, Pong):
            try:
                check_allowed(self.role_name, message)
                role.receive(message)
            except UnexpectedMessage:
                raise
            except TaskdError as refusal:
                self._refuse(getattr(message, "request_id", 0), refusal)

    def _refuse(self, request_id: int, refusal: TaskdError) -> None:
        if not request_id:
            raise refusal
        self.send(error_message(request_id, refusal))

    def write_now(self) -> None:
        """Write what is in the outbox, if the writer rests and the kernel takes it; else have the writer do it.

        A writer that rests has nothing else to do: whatever waits for room in the outbox wakes it.
        """
        stream = self._stream
        rests = not (self._outgoing.is_set() or self._ending)
        if rests and self._wire.outbox_bytes <= SEND_BYTES and isinstance(stream, TlsStream):
            data = self._wire.data_to_send()
            try:
                self._left_over = not stream.send_nowait(data)
            except trio.BrokenResourceError:
                self._left_over = True  # so that the writer meets it
            self.services.loop.stages.counts["bytes_out"] += len(data)
            if not self._left_over:
                return
        self._outgoing.set()

    def wake_writer(self) -> None:
        """Have the writer write what is in the outbox."""
        self._outgoing.set()

    async def _write(self) -> None:
        counts = self.services.loop.stages.counts
        try:
            while True:
                data = self._wire.data_to_send()
                if data or self._left_over:
                    self._left_over = False
                    await self._stream.send_all(data)
                    counts["bytes_out"] += len(data)
                elif self._ending:
                    return
                elif not self._put_what_waits():
                    self._outgoing = trio.Event()
                    await self._outgoing.wait()
        except trio.BrokenResourceError:
            self._ending = True
            self._reading.cancel()
        finally:
            self._written.set()

    def _put_what_waits(self) -> bool:
        """Put what waits for room into the empty outbox; return whether there is something to send now."""
        while self._in_turn and self._wire.outbox_bytes <= OUTBOX_HIGH_BYTES:
            self.send(self._in_turn.popleft())
        if self._role is not None:
            self._role.sent()
        if self._goodbye is not None and not self._wire.outbox_bytes:
            self.end(self._goodbye)
        return self._ending or self._wire.outbox_bytes > 0

    # -- who is there ---------------------------------------------------------------------

    async def _meet(self) -> Hello | None:
        """Return the HELLO of a peer that may come in; None when all was said before."""
        with trio.move_on_after(limits.PREAUTH_SECONDS) as patience:
            first = await self._first_message()
        if patience.cancelled_caught:
            raise HandshakeTimedOut(f"no HELLO within {limits.PREAUTH_SECONDS:.0f} s")
        if first is None:
            return None
        if isinstance(first, CaRequest):
            self.send(Ca(self.services.certificates.ca_pem))
            return None
        if not isinstance(first, Hello):
            raise UnexpectedMessage("the first message of a connection is HELLO")
        return await self._welcome(first)

    async def _first_message(self) -> ToServer | UnknownMessage | None:
        while True:
            data = await self._stream.receive_some(limits.PREAUTH_BYTES_MAX)
            if not data:
                return None
            messages = self._wire.receive(bytes(data))
            if len(messages) > 1:
                raise UnexpectedMessage("wait for WELCOME before the next message")
            if messages:
                return messages[0]

    async def _welcome(self, hello: Hello) -> Hello | None:
        version = choose_version(hello)
        check_hello(hello)
        if hello.role == HELLO_JOIN:
            await self._join(hello.token)
            return None
        parsed = tokens.parse(hello.token)
        record = self._good_token(parsed)
        if record is None or record.role == HELLO_JOIN:
            raise tokens.refusal()
        check_role(hello.role, record.role)
        services = self.services
        try:
            store, lives = services.store, services.working.lives
            check_mark(services.mark_key, hello.mark, store.lineage, store.durable_sequence, lives)
        except ServerRolledBack as why:
            assert hello.mark is not None
            services.note_loss(hello.mark.sequence)
            services.stop(why)
            raise
        left_ms = record.expires_at_ms - services.platform.clock.wall_ms()
        self._reading.deadline = trio.current_time() + left_ms / 1_000
        self.key_id, self.role_name, self.version = parsed.key_id, record.role, version
        self._wire.trust()
        self.send(
            Welcome(
                version=version,
                session=hello.session or services.platform.token_bytes(SESSION_ID_BYTES),
                epoch=services.working.epoch,
                server_time_ms=services.platform.clock.wall_ms(),
                limits=services.limits,
                mark=services.mark(),
                role=record.role,
                software=services.software,
            )
        )
        return hello

    def _good_token(self, parsed: tokens.ParsedToken) -> TokenRecord | None:
        record = self.services.working.tokens.get(parsed.key_id)
        fits = tokens.secret_matches(parsed, None if record is None else record.secret_sha256)
        return record if fits and is_good(record, self.services.loop.now()) else None

    async def _join(self, secret: str) -> None:
        """Give an invited agent its token, once."""
        try:
            invitation = tokens.parse(secret)
        except AuthRefused:
            invitation = None
        record = None if invitation is None else self._good_token(invitation)
        if invitation is None or record is None or record.role != HELLO_JOIN:
            raise InvitationRefused("the join code is unknown, used or too old; make one with `taskd agents invite`")
        now_ms = self.services.platform.clock.wall_ms()
        minted = tokens.mint("agent", self.services.platform.token_bytes(tokens.ENTROPY_BYTES))
        kept = TokenRecord(
            "agent", minted.secret_sha256, f"joined from {self.peer_address}"[:200], now_ms, now_ms + YEAR_MS
        )
        done = trio.Event()
        refused: list[TaskdError] = []

        def respond(answer: Answer | TaskdError) -> None:
            if isinstance(answer, TaskdError):
                refused.append(answer)
            done.set()

        self.services.loop.ask(UseInvitation(invitation.key_id, minted.key_id, kept), respond)
        await done.wait()
        if refused:
            raise refused[0]
        self.send(Joined(minted.text))


def error_message(request_id: int, refusal: TaskdError) -> Error:
    """Return the answer to a request that was refused."""
    return Error(request_id, refusal.code, refusal.message, refusal.retryable, refusal.retry_after_ms)
