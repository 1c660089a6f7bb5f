"""Messages: what one codec writes another reads, and no bytes do harm."""

import contextlib

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol_document import VECTORS, wire_name
from protocol_strategies import KINDS, SERVER_GETS, as_array, messages_of, structs
from taskd_protocol import limits, messages
from taskd_protocol.connection import Connection, UnknownMessage, peer_side, server_side
from taskd_protocol.connection_messages import Ping
from taskd_protocol.errors import FrameTooLarge, ProtocolViolation
from taskd_protocol.framing import frame

READER = {True: msgspec.msgpack.Decoder(messages.ToServer), False: msgspec.msgpack.Decoder(messages.ToPeer)}


@pytest.mark.parametrize("kind", KINDS, ids=wire_name)
@given(data=st.data())
def test_round_trip(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    """Every message is read as it was written, by us and by the reference library, which writes the same bytes."""
    message = data.draw(structs(kind))
    body = msgspec.msgpack.encode(message)
    assert READER[kind in SERVER_GETS].decode(body) == message
    array = as_array(message)
    assert msgpack.unpackb(body) == array
    assert msgpack.packb(array) == body


def known_server() -> Connection[messages.ToServer]:
    connection = server_side()
    connection.trust()
    return connection


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Return a frame of a real message with some bytes changed, put in or left out."""
    body = bytearray(msgspec.msgpack.encode(draw(messages_of(SERVER_GETS))))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 3)))
        body[start:end] = draw(st.binary(max_size=3))
    return frame(bytes(body) or b"\xc0")


def agrees(message: object, told: object) -> bool:
    """Tell whether a decoded value is what the other library read: longer arrays are passed over, short ones filled."""
    if isinstance(message, msgspec.Struct):
        tag = message.__struct_config__.tag
        assert isinstance(told, list)
        fields = told if tag is None else told[1:]
        assert tag is None or told[0] == tag
        infos = msgspec.structs.fields(type(message))
        assert all(not info.required for info in infos[len(fields) :])
        return all(agrees(getattr(message, info.name), value) for info, value in zip(infos, fields, strict=False))
    if isinstance(message, (list, tuple)):
        assert isinstance(told, list)
        return len(message) == len(told) and all(map(agrees, message, told))
    return message == told or message != message  # noqa: PLR0124 - NaN


@given(hostile())
def test_hostile_messages(data: bytes) -> None:
    """A damaged message is refused with the one error for it, or is read as the reference library reads it."""
    connection = known_server()
    try:
        found = connection.receive(data)
    except (ProtocolViolation, FrameTooLarge):
        return
    for message in found:  # none: part of a chunked one
        if isinstance(message, UnknownMessage):
            continue
        reference = msgpack.Unpacker(raw=True)
        reference.feed(data[4:])
        reference.skip()
        assert reference.tell() == len(data) - 4, "all of it is one value"
        try:
            told = msgpack.unpackb(data[4:], strict_map_key=False)
        except ValueError:
            continue  # in an element beyond the fields, which we pass over
        assert agrees(message, told)


@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans())
def test_garbage(pieces: list[bytes], known: bool) -> None:  # noqa: FBT001 - drawn
    """Bytes from anywhere give messages or one of two errors, again and again the same, and are not piled up."""
    connection = server_side()
    if known:
        connection.trust()
    error: Exception | None = None
    for piece in pieces:
        if error is not None:  # nothing is read after it
            with pytest.raises(type(error)) as again:
                connection.receive(piece)
            assert again.value is error
        try:
            connection.receive(piece)
        except (ProtocolViolation, FrameTooLarge) as raised:
            error = raised
        limit = limits.FRAME_BYTES_MAX if known else limits.PREAUTH_BYTES_MAX
        assert connection._frames.pending_bytes <= limit + limits.FRAME_HEADER_BYTES
        assert sum(map(len, connection._parts.values())) <= limits.MESSAGE_BYTES_MAX


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_claimed_lengths(length: int, known: bool) -> None:  # noqa: FBT001 - drawn
    """A length over the limit is refused with its header, one within it takes no room before its bytes come."""
    connection = peer_side() if known else server_side()
    limit = limits.FRAME_BYTES_MAX if known else limits.PREAUTH_BYTES_MAX
    header = length.to_bytes(4, "big")
    if length > limit:
        with pytest.raises(FrameTooLarge):
            connection.receive(header)
    elif length == 0:
        with pytest.raises(ProtocolViolation):
            connection.receive(header)
    else:
        assert connection.receive(header) == []
        assert connection._frames.pending_bytes == 4


@given(st.binary(max_size=2 * limits.PREAUTH_BYTES_MAX), st.integers(1, 700))
def test_unknown_peers_are_bounded(data: bytes, step: int) -> None:
    """Before it is known a peer may send so many bytes in all, however they are framed."""
    connection = server_side()
    taken = 0
    ping = frame(msgspec.msgpack.encode(Ping(1)))
    stream = ping * (len(data) // len(ping) + 1)
    for start in range(0, len(data), step):
        taken += len(stream[start : start + step])
        if taken > limits.PREAUTH_BYTES_MAX:
            with pytest.raises(FrameTooLarge):
                connection.receive(stream[start : start + step])
            return
        connection.receive(stream[start : start + step])


def test_vectors_survive_mutation() -> None:
    """Each byte of each golden SUBMIT and HEARTBEAT, changed to anything, gives a message or one of two errors."""
    for name in ("016-submit.json", "071-heartbeat.json"):
        for case in msgspec.json.decode((VECTORS / name).read_bytes())["cases"]:
            if len(case["frames"]) > 1:
                continue
            body = bytes.fromhex(case["frames"][0])[4:]
            for position in range(len(body)):
                for value in range(0, 256, 5):
                    damaged = body[:position] + bytes([value]) + body[position + 1 :]
                    with contextlib.suppress(ProtocolViolation, FrameTooLarge):
                        known_server().receive(frame(damaged))
