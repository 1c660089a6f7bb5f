"""One connection: limits before and after a peer is known, chunks, unknown messages, lanes."""

import msgpack
import msgspec
import pytest

from protocol_strategies import as_array
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol.access_messages import Ca
from taskd_protocol.agent_messages import Drain, Heartbeat, Lease, Offer, Revoke
from taskd_protocol.connection import Connection, UnknownMessage, encode, peer_side, server_side
from taskd_protocol.connection_messages import Chunk, Hello, Ping, Pong
from taskd_protocol.errors import FrameTooLarge, ProtocolViolation
from taskd_protocol.framing import FrameDecoder, frame
from taskd_protocol.mark import Mark
from taskd_protocol.task import Grant, Retry, TaskSpec

TASK_ID = bytes.fromhex("019aa8a95c007abc8def0123456789ab")
HELLO = Hello(1, 1, "client", "taskd_client_k_s_c")


def known_server() -> Connection[m.ToServer]:
    server = server_side()
    server.trust()
    return server


def all_of(connection: Connection[m.ToServer] | Connection[m.ToPeer]) -> bytes:
    data = b""
    while more := connection.data_to_send():
        data += more
    return data


def framed(*values: object) -> bytes:
    return b"".join(frame(msgpack.packb(value)) for value in values)


def test_hello_fits_before_the_peer_is_known() -> None:
    """A HELLO with every field at its longest fits the bytes that an unknown peer has."""
    mark = Mark(bytes(16), 2**64 - 1, bytes(32))
    name = "\N{SNOWMAN}" * limits.NAME_CHARS_MAX
    hello = Hello(1, 2**63, "agent", "t" * 128, name, bytes(16), bytes(16), mark, "taskd 0.1.0")
    assert server_side().receive(frame(encode(hello))) == [hello]


def test_unknown_peers_may_not_send_much() -> None:
    """More bytes than a HELLO needs are refused, in one frame or in many small ones."""
    large = Hello(1, 1, "client", "t" * limits.PREAUTH_BYTES_MAX)
    with pytest.raises(FrameTooLarge):
        server_side().receive(frame(encode(large)))
    server = server_side()
    ping = frame(encode(Ping(1)))
    for _ in range(limits.PREAUTH_BYTES_MAX // len(ping)):
        assert server.receive(ping) == [Ping(1)]
    with pytest.raises(FrameTooLarge):
        server.receive(ping)


def test_unknown_peers_may_not_send_chunks() -> None:
    """Chunks would be kept: nobody who is unknown may have anything kept."""
    with pytest.raises(ProtocolViolation):
        server_side().receive(frame(encode(Chunk(0, last=False, data=b"x"))))


def test_known_peers_may() -> None:
    """Once it is known, a peer sends what it likes, within the limits of the connection."""
    server = server_side()
    server.receive(frame(encode(HELLO)))
    server.trust()
    submit = m.Submit(1, [TaskSpec(TASK_ID, "app.big", bytes(limits.FRAME_BYTES_MAX - 100))])
    assert server.receive(frame(encode(submit))) == [submit]
    for _ in range(100):
        server.receive(frame(encode(Ping(1))) * 100)


def test_the_largest_frame() -> None:
    """A body of exactly the limit is one frame; a byte more goes in chunks."""
    spare = limits.FRAME_BYTES_MAX - len(encode(Ca("x" * 70_000))) + 70_000
    peer = known_server()
    peer.send(Ca("x" * spare))
    data = all_of(peer)
    assert len(data) == limits.FRAME_BYTES_MAX + limits.FRAME_HEADER_BYTES
    assert peer_side().receive(data) == [Ca("x" * spare)]
    peer.send(Ca("x" * (spare + 1)))
    first = all_of(peer)
    assert int.from_bytes(first[:4], "big") < limits.CHUNK_DATA_BYTES + 20
    assert peer_side().receive(first) == [Ca("x" * (spare + 1))]


def test_the_largest_message() -> None:
    """A task with the largest payload can be submitted and leased; a message over the limit is refused unsent."""
    spec = TaskSpec(TASK_ID, "n" * limits.NAME_CHARS_MAX, bytes(limits.PAYLOAD_BYTES_MAX), "q" * limits.NAME_CHARS_MAX)
    peer, server = peer_side(), known_server()
    peer.send(m.Submit(1, [spec]))
    assert server.receive(all_of(peer)) == [m.Submit(1, [spec])]
    server.send(Lease(1, 0, [Grant(2**63 - 1, 1, spec)]))
    assert peer.receive(all_of(server)) == [Lease(1, 0, [Grant(2**63 - 1, 1, spec)])]
    with pytest.raises(FrameTooLarge):
        peer.send(m.Submit(2, [spec, spec]))
    assert peer.outbox_bytes == 0
    assert peer.data_to_send() == b""


def test_chunks_over_the_limit() -> None:
    """What is being put together of all streams is bounded; what was put together no longer counts."""
    server = known_server()
    chunk = frame(encode(Chunk(0, last=False, data=bytes(limits.CHUNK_DATA_BYTES))))
    fitting = limits.MESSAGE_BYTES_MAX // limits.CHUNK_DATA_BYTES
    for _ in range(fitting):
        assert server.receive(chunk) == []
    with pytest.raises(FrameTooLarge):
        server.receive(frame(encode(Chunk(1, last=False, data=bytes(limits.CHUNK_DATA_BYTES)))))
    assert server._parts == {}, "a connection that is done for holds nothing"
    server, peer = known_server(), peer_side()
    for number in range(3):
        big = m.Submit(number, [TaskSpec(TASK_ID, "app.big", bytes(10 * 1024 * 1024))])
        peer.send(big)
        assert server.receive(all_of(peer)) == [big]


def test_chunk_in_chunk() -> None:
    """A chunk carries a message, never a chunk."""
    inner = encode(Chunk(1, last=True, data=encode(Ping(1))))
    with pytest.raises(ProtocolViolation):
        known_server().receive(frame(encode(Chunk(0, last=True, data=inner))))


def test_a_stream_is_free_after_its_last_piece() -> None:
    """More large messages than streams go over one connection, one after the other."""
    peer, server = peer_side(), known_server()
    for number in range(2 * limits.CHUNK_STREAMS_MAX + 1):
        peer.send(m.Submit(number, [TaskSpec(TASK_ID, "app.big", bytes(limits.FRAME_BYTES_MAX))]))
    received = server.receive(all_of(peer))
    assert [message.request_id for message in received if isinstance(message, m.Submit)] == list(range(17))


def test_revoke_stays_behind_its_lease() -> None:
    """REVOKE never overtakes the LEASE whose attempt it ends, however large that is; a PONG overtakes both."""
    server, agent = known_server(), peer_side()
    lease = Lease(1, 0, [Grant(7, 1, TaskSpec(TASK_ID, "app.big", bytes(3 * limits.FRAME_BYTES_MAX)))])
    server.send(lease)
    server.send(Revoke([7]))
    server.send(Pong(1))
    assert agent.receive(all_of(server)) == [Pong(1), lease, Revoke([7])]


def test_a_large_control_message_is_bulk() -> None:
    """A heartbeat of more than one frame keeps its place behind what was sent before it."""
    agent, server = peer_side(), known_server()
    beat = Heartbeat(1, 1, list(range(2**62, 2**62 + 40_000)))
    agent.send(Drain())
    agent.send(beat)
    agent.send(Ping(1))
    assert server.receive(all_of(agent)) == [Ping(1), Drain(), beat]


def test_outbox_is_counted() -> None:
    """``outbox_bytes`` is what waits, to the byte, in both lanes."""
    peer = peer_side()
    peer.send(m.Submit(1, [TaskSpec(TASK_ID, "app.big", bytes(3 * limits.FRAME_BYTES_MAX))]))
    peer.send(Ping(1))
    waiting = peer.outbox_bytes
    sent = 0
    while data := peer.data_to_send():
        sent += len(data)
        assert peer.outbox_bytes == waiting - sent
    assert sent == waiting


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([126, 7, "x"], UnknownMessage(kind=126, request_id=7)),
        ([126], UnknownMessage(kind=126, request_id=0)),
        ([126, "x"], UnknownMessage(kind=126, request_id=0)),
        ([-1, 2**64 - 1], UnknownMessage(kind=-1, request_id=2**64 - 1)),
        ([2**64 - 1, None], UnknownMessage(kind=2**64 - 1, request_id=0)),
    ],
)
def test_unknown_messages(value: list[object], expected: UnknownMessage) -> None:
    """A message of a type that nobody here knows is told as such, with what it can be answered under."""
    server = known_server()
    assert server.receive(framed(value)) == [expected]
    assert server.receive(framed([5, 1])) == [Ping(1)], "the connection goes on"


@pytest.mark.parametrize(
    "value",
    [
        [],
        [None],
        ["5", 1],
        [5.0, 1],
        [True, 1],
        {"type": 5},
        5,
        [5],
        [5, "1"],
        [5, 1.0],
        [5, None],
        [2, 1, b"", 0, 0, [], []],
        [18, 1, ["not bytes"]],
        [16, 1, [[TASK_ID]]],
        [64, [["process", 1]]],
    ],
    ids=repr,
)
def test_malformed_messages(value: object) -> None:
    """What is no message, or one that only the other side sends, is a violation; the reason is one line."""
    with pytest.raises(ProtocolViolation) as caught:
        known_server().receive(framed(value))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"\x92\x05",  # cut short
        b"\x92\x05\x01\x00",  # something after it
        b"\x92\x05\xc1",  # the byte that is never used
        b"\x95\x01\x01\x01\xa1\xff\xa1t",  # a string that is no UTF-8
        b"\x93\x12\x01\xdd\xff\xff\xff\xff",  # a list that claims four billion
        b"\xdd\xff\xff\xff\xff\x05\x01",  # so does the message
        b"\x93\x05\x01" + b"\x91" * 100_000 + b"\x90",  # nested without end, where nobody looks
        b"\x93\x7e\x01" + b"\x91" * 100_000 + b"\x90",
    ],
    ids=lambda body: body[:8].hex(),
)
def test_malformed_bytes(body: bytes) -> None:
    """Bytes that no writer sends end in the same error, not in another and not in a crash."""
    with pytest.raises(ProtocolViolation):
        known_server().receive(frame(body))


def test_nothing_is_read_after_an_error() -> None:
    """The same error again, whatever comes; what came before it in other reads has been given."""
    server = known_server()
    assert server.receive(framed([5, 1])) == [Ping(1)]
    with pytest.raises(ProtocolViolation) as first:
        server.receive(framed([5, 2], [5, "bad"], [5, 3]))
    with pytest.raises(ProtocolViolation) as second:
        server.receive(framed([5, 4]))
    assert second.value is first.value
    assert server._frames.pending_bytes == 0


def test_later_fields_are_passed_over() -> None:
    """A newer peer's fields at the end do no harm, an older one's missing ones are the defaults."""
    server = known_server()
    assert server.receive(framed([5, 1, "new", {"a": [1]}])) == [Ping(1)]
    fields = as_array(TaskSpec(TASK_ID, "app.add", b"p"))
    retry = as_array(Retry())
    assert isinstance(fields, list)
    assert isinstance(retry, list)
    fields[TaskSpec.__struct_fields__.index("retry")] = [*retry, "new"]
    (submit,) = server.receive(framed([16, 1, [[*fields, "new"]]]))
    assert isinstance(submit, m.Submit)
    assert submit.tasks[0].name == "app.add"
    assert server.receive(framed([16, 1, [[TASK_ID, "app.add"]]])) == [m.Submit(1, [TaskSpec(TASK_ID, "app.add")])]


def test_frames_byte_by_byte() -> None:
    """A frame is given when its last byte comes, and not before."""
    decoder = FrameDecoder()
    data = frame(b"one") + frame(b"four")
    found = [decoder.feed(data[i : i + 1]) for i in range(len(data))]
    assert [bodies for bodies in found if bodies] == [[b"one"], [b"four"]]
    assert found[6] == [b"one"]
    assert decoder.pending_bytes == 0


def test_encode_is_deterministic() -> None:
    """The same message is the same bytes, so that vectors can pin them."""
    offer = Offer([], labels={"b": "1", "a": "2"})
    assert (
        encode(offer) == encode(msgspec.structs.replace(offer)) == bytes.fromhex("9840909082a162a131a161a13280909000")
    )
