"""One connection, sans I/O: bytes in, messages out; messages in, bytes out.

Both sides use it. It cuts large messages into chunks and puts them together
again, and keeps an outbox of two lanes, so that a heartbeat overtakes a
megabyte of results. It knows no socket, no clock and no rule of who may say what.
"""

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from taskd_protocol import limits
from taskd_protocol.agent_messages import Heartbeat, HeartbeatSeen, LeaseCredit
from taskd_protocol.connection_messages import Chunk, Done, Error, Ping, Pong
from taskd_protocol.errors import FrameTooLarge, ProtocolViolation, TaskdError
from taskd_protocol.framing import FrameDecoder, frame
from taskd_protocol.messages import Message, OutcomeCredit, ToPeer, ToServer

CONTROL = (Error, Ping, Pong, Done, Heartbeat, HeartbeatSeen, LeaseCredit, OutcomeCredit)
"""Messages that overtake all others in the outbox; among themselves they keep their order.

REVOKE is not among them: it must not pass the LEASE whose attempt it ends.
"""

SEND_BYTES = 256 * 1024
"""What one ``data_to_send`` gives at most, roughly: what control messages may have to wait for."""

_ENCODER = msgspec.msgpack.Encoder()
_FIELDS = msgspec.msgpack.Decoder(list[msgspec.Raw])
_INTEGER = msgspec.msgpack.Decoder(int)

_NO_MESSAGE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises on hostile bytes: malformed or mistyped, text that is no UTF-8, fields nested without end."""

Incoming = TypeVar("Incoming")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownMessage:
    """A well-formed message of a type that this side does not know; to be answered, not to be closed upon."""

    kind: int
    request_id: int
    """Its second field if that is a number, as it is in every request; else 0."""


def encode(message: Message) -> bytes:
    """Encode one message as a frame's body."""
    return _ENCODER.encode(message)


class Connection(Generic[Incoming]):
    """The state of one connection, on either side.

    Holds at most one frame that is not whole, and ``MESSAGE_BYTES_MAX`` of
    messages in pieces; of a peer that is not known, ``PREAUTH_BYTES_MAX`` in all.

    Attributes:
        outbox_bytes: What waits to be sent, in both lanes.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[Incoming], *, known: bool) -> None:
        self._decoder = decoder
        self._known = known
        self._unknown_bytes = 0
        self._failure: TaskdError | None = None
        self._frames = FrameDecoder(limits.FRAME_BYTES_MAX if known else limits.PREAUTH_BYTES_MAX)
        self._parts: dict[int, bytearray] = {}
        self._parts_bytes = 0
        self._control: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._next_stream = 0
        self.outbox_bytes = 0

    def trust(self) -> None:
        """Lift the limits that hold before the peer is known."""
        self._known = True
        self._frames.frame_bytes_max = limits.FRAME_BYTES_MAX

    def receive(self, data: bytes) -> list[Incoming | UnknownMessage]:
        """Take what came in; return the messages that are whole now.

        After an error nothing more is read, or searched for a next frame: each
        later call raises the same error again.

        Raises:
            ProtocolViolation: The bytes are no message; close the connection.
            FrameTooLarge: A frame, a chunked message, or all that an unknown peer sent, exceeds its
                limit; close the connection.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._receive(data)
        except TaskdError as error:
            self._failure = error
            self._frames = FrameDecoder(0)
            self._parts.clear()
            raise

    def _receive(self, data: bytes) -> list[Incoming | UnknownMessage]:
        if not self._known:
            self._unknown_bytes += len(data)
            if self._unknown_bytes > limits.PREAUTH_BYTES_MAX:
                raise FrameTooLarge(f"more than {limits.PREAUTH_BYTES_MAX} bytes before WELCOME; wait for it")
        messages: list[Incoming | UnknownMessage] = []
        for body in self._frames.feed(data):
            message = self._decode(body)
            if isinstance(message, Chunk):
                if not self._known:
                    raise ProtocolViolation("a chunk before WELCOME; what is said before it fits one frame")
                whole = self._collect(message)
                if whole is None:
                    continue
                message = self._decode(whole)
                if isinstance(message, Chunk):
                    raise ProtocolViolation("a chunked message holds a chunk")
            messages.append(message)
        return messages

    def send(self, message: Message) -> None:
        """Put a message into the outbox; nothing is sent yet.

        Raises:
            FrameTooLarge: Not even chunks may carry it. The outbox is as it was; divide the message's lists.
        """
        body = _ENCODER.encode(message)
        if len(body) > limits.FRAME_BYTES_MAX:
            self._send_in_chunks(body)
            return
        lane = self._control if isinstance(message, CONTROL) else self._bulk
        lane.append(frame(body))
        self.outbox_bytes += len(body) + limits.FRAME_HEADER_BYTES

    def data_to_send(self) -> bytes:
        """Take the next bytes out of the outbox, control messages first; empty when there are none."""
        pieces: list[bytes] = []
        taken = 0
        for lane in (self._control, self._bulk):
            while lane and taken < SEND_BYTES:
                piece = lane.popleft()
                taken += len(piece)
                pieces.append(piece)
        self.outbox_bytes -= taken
        return b"".join(pieces)

    def _decode(self, body: bytes | bytearray) -> Incoming | UnknownMessage:
        try:
            return self._decoder.decode(body)
        except _NO_MESSAGE as error:
            unknown = _unknown_message(body, error)
            if unknown is None:
                raise ProtocolViolation(f"no message: {_one_line(error)}") from None
            return unknown

    def _collect(self, chunk: Chunk) -> bytearray | None:
        part = self._parts.get(chunk.stream)
        if part is None:
            if len(self._parts) >= limits.CHUNK_STREAMS_MAX:
                raise ProtocolViolation(f"more than {limits.CHUNK_STREAMS_MAX} messages in pieces at once")
            part = self._parts[chunk.stream] = bytearray()
        self._parts_bytes += len(chunk.data)
        if self._parts_bytes > limits.MESSAGE_BYTES_MAX:
            raise FrameTooLarge(f"messages in chunks exceed {limits.MESSAGE_BYTES_MAX} bytes")
        part += chunk.data
        if not chunk.last:
            return None
        del self._parts[chunk.stream]
        self._parts_bytes -= len(part)
        return part

    def _send_in_chunks(self, body: bytes) -> None:
        if len(body) > limits.MESSAGE_BYTES_MAX:
            raise FrameTooLarge(
                f"a message of {len(body)} bytes; no more than {limits.MESSAGE_BYTES_MAX} travel at once, ask for less"
            )
        stream = self._next_stream
        self._next_stream = (stream + 1) % limits.CHUNK_STREAMS_MAX
        for start in range(0, len(body), limits.CHUNK_DATA_BYTES):
            data = body[start : start + limits.CHUNK_DATA_BYTES]
            piece = frame(_ENCODER.encode(Chunk(stream, start + len(data) == len(body), data)))
            self._bulk.append(piece)
            self.outbox_bytes += len(piece)


def server_side() -> Connection[ToServer]:
    """Return the server's end of a new connection; the peer is unknown until ``trust``."""
    return Connection(msgspec.msgpack.Decoder(ToServer), known=False)


def peer_side() -> Connection[ToPeer]:
    """Return a client's or agent's end of a new connection."""
    return Connection(msgspec.msgpack.Decoder(ToPeer), known=True)


def _unknown_message(body: bytes | bytearray, error: Exception) -> UnknownMessage | None:
    """Tell a message of an unknown type from a malformed one."""
    if not isinstance(error, msgspec.ValidationError):
        return None
    try:
        fields = _FIELDS.decode(body)
        kind = _INTEGER.decode(fields[0])
    except (*_NO_MESSAGE, IndexError):
        return None
    if kind in _KNOWN_KINDS:
        return None
    try:
        request_id = _INTEGER.decode(fields[1])
    except (*_NO_MESSAGE, IndexError):
        request_id = 0
    return UnknownMessage(kind=kind, request_id=request_id)


def _one_line(error: Exception) -> str:
    """Give a decoder's words to people, without what the peer sent: its text may hold anything."""
    match error:
        case UnicodeDecodeError():
            return "a string is not UTF-8"
        case RecursionError():
            return "it nests without end"
        case _:
            return str(error)[:200]


_KNOWN_KINDS = frozenset(kind.__struct_config__.tag for union in (ToServer, ToPeer) for kind in union.__args__)
"""A message of the other direction is known, and thus malformed here: such a peer is confused, not newer."""
