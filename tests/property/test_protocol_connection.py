"""Connections: any chunking of the bytes gives the same messages, and lanes keep their order."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol_strategies import PEER_GETS, SERVER_GETS, messages_of
from taskd_protocol import limits, messages
from taskd_protocol.connection import CONTROL, Connection, UnknownMessage, peer_side, server_side
from taskd_protocol.connection_messages import Chunk, Ping
from taskd_protocol.errors import FrameTooLarge, ProtocolViolation
from taskd_protocol.framing import frame
from taskd_protocol.task import TaskSpec

TASK_ID = bytes.fromhex("019aa8a95c007abc8def0123456789ab")

Received = list[messages.ToServer | UnknownMessage]


def known_server() -> Connection[messages.ToServer]:
    connection = server_side()
    connection.trust()
    return connection


def everything_of(connection: Connection[messages.ToPeer]) -> bytes:
    """Return all that the outbox holds."""
    data = b""
    while more := connection.data_to_send():
        data += more
    assert connection.outbox_bytes == 0
    return data


def cut(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut bytes at these places, taken modulo the length."""
    places = sorted({place % (len(data) + 1) for place in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end]


def large(request_id: int, payload_bytes: int) -> messages.Submit:
    """Return a SUBMIT of about that many bytes."""
    return messages.Submit(request_id, [TaskSpec(TASK_ID, "app.big", bytes(payload_bytes))])


LARGE = st.builds(large, st.integers(1, 99), st.integers(limits.FRAME_BYTES_MAX, 3 * limits.FRAME_BYTES_MAX))
CUTS = st.lists(st.integers(0, 2**40), max_size=30)


@given(st.lists(messages_of(SERVER_GETS), max_size=6), CUTS)
def test_any_chunking(sent: list[messages.Message], cuts: list[int]) -> None:
    """However the bytes are cut up, the messages are those that were sent, in order."""
    peer, server = peer_side(), known_server()
    data = b""
    for message in sent:
        peer.send(message)
        data += everything_of(peer)
    received: Received = []
    for piece in cut(data, cuts):
        received += server.receive(piece)
    assert received == sent


@given(st.lists(messages_of(SERVER_GETS), max_size=3), LARGE, CUTS)
def test_any_chunking_of_large_messages(sent: list[messages.Message], big: messages.Submit, cuts: list[int]) -> None:
    """A message of several frames comes as one, and nothing of it stays behind."""
    peer, server = peer_side(), known_server()
    data = b""
    for message in [*sent, big, *sent]:
        peer.send(message)
        data += everything_of(peer)
    received: Received = []
    for piece in cut(data, cuts):
        received += server.receive(piece)
    assert received == [*sent, big, *sent]
    assert server._parts == {}
    assert server._parts_bytes == 0


@given(st.lists(messages_of(SERVER_GETS), max_size=3), st.binary(min_size=1, max_size=80), CUTS)
def test_any_chunking_of_a_bad_end(sent: list[messages.Message], garbage: bytes, cuts: list[int]) -> None:
    """Whatever follows good messages, each way of cutting gives the same ones first, and the same error."""

    def run(pieces: Iterator[bytes] | list[bytes]) -> tuple[Received, str]:
        server = known_server()
        received: Received = []
        try:
            for piece in pieces:
                received += server.receive(piece)
        except (ProtocolViolation, FrameTooLarge) as error:
            return received, error.code
        return received, ""

    data = b"".join(frame(msgspec.msgpack.encode(message)) for message in sent) + garbage
    by_byte, byte_error = run([data[i : i + 1] for i in range(len(data))])
    received, error = run(cut(data, cuts))
    assert error == byte_error
    assert received == by_byte[: len(received)]
    assert error or received == by_byte
    assert by_byte[: len(sent)] == sent


def is_control(message: object) -> bool:
    return isinstance(message, CONTROL)


@given(st.lists(st.one_of(messages_of(PEER_GETS), st.none()), max_size=20))
def test_lanes(steps: list[messages.Message | None]) -> None:
    """Control messages go before all that waits; each lane keeps its order, and nothing is lost or doubled."""
    server, peer = known_server(), peer_side()
    waiting: list[messages.Message] = []
    for step in [*steps, None]:
        if step is not None:
            server.send(step)
            waiting.append(step)
            continue
        received = peer.receive(server.data_to_send())
        expected = [m for m in waiting if is_control(m)] + [m for m in waiting if not is_control(m)]
        assert received == expected
        assert server.outbox_bytes == 0
        waiting = []


@given(st.lists(LARGE, min_size=1, max_size=2), st.lists(st.integers(0, 2**63), min_size=1, max_size=5))
def test_control_passes_between_chunks(bulk: list[messages.Submit], nonces: list[int]) -> None:
    """A control message waits only for what was taken before it, even behind large ones, which keep their order."""
    peer, server = peer_side(), known_server()
    for message in bulk:
        peer.send(message)
    received: Received = []
    for nonce in nonces:
        server_gets = peer.data_to_send()
        assert len(server_gets) < 2 * limits.FRAME_BYTES_MAX
        received += server.receive(server_gets)
        peer.send(Ping(nonce))
        after = server.receive(peer.data_to_send())
        assert after[0] == Ping(nonce)
        received += after[1:]
    received += server.receive(everything_of(peer))
    assert received == bulk


@given(st.randoms(use_true_random=False), st.integers(1, limits.CHUNK_STREAMS_MAX))
def test_interleaved_streams(random: object, count: int) -> None:
    """A receiver takes chunks of as many streams as are allowed, mixed in any way."""
    bodies = [msgspec.msgpack.encode(Ping(number)) for number in range(count)]
    pending = {stream: [body[i : i + 1] for i in range(len(body))] for stream, body in enumerate(bodies)}
    server = known_server()
    received: Received = []
    while pending:
        stream = random.choice(sorted(pending))  # type: ignore[attr-defined]  # the strategy's own random.Random
        data = pending[stream].pop(0)
        chunk = Chunk(stream, not pending[stream], data)
        received += server.receive(frame(msgspec.msgpack.encode(chunk)))
        if not pending[stream]:
            del pending[stream]
    assert sorted(m.nonce for m in received if isinstance(m, Ping)) == list(range(count))
    assert server._parts == {}


@given(st.integers(limits.CHUNK_STREAMS_MAX + 1, 20))
def test_too_many_streams(count: int) -> None:
    """One more than that is a violation."""
    server = known_server()
    chunks = [Chunk(stream, last=False, data=b"x") for stream in range(count)]
    with pytest.raises(ProtocolViolation):
        server.receive(b"".join(frame(msgspec.msgpack.encode(chunk)) for chunk in chunks))
    assert server._parts == {}
