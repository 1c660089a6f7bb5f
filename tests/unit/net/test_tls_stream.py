"""The TLS stream: the same bytes whatever the chunking, and an end that is told from a break."""

import datetime as dt
import ssl
import tempfile
from functools import cache

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from taskd.net.tls_stream import READ_BYTES, TlsStream
from taskd.server import issuing

MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server and of a client that trusts it."""
    now = dt.datetime.now(tz=dt.UTC)  # noqa: TID251 - OpenSSL itself will ask the machine's clock
    ca, ca_key = issuing.make_ca(now)
    leaf, key = issuing.issue(ca, ca_key, ["localhost"], now)
    pem = serialization.Encoding.PEM
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:  # OpenSSL takes keys from files alone
        file.write(leaf.public_bytes(pem) + issuing.private_pem(key))
        file.flush()
        server.load_cert_chain(file.name)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=ca.public_bytes(pem).decode())
    return server, client


def tls_pair() -> tuple[TlsStream, TlsStream]:
    """Return a client's and a server's end over memory."""
    below_client, below_server = memory_stream_pair()
    server, client = contexts()
    return (
        TlsStream(below_client, client, server_hostname="localhost"),
        TlsStream(below_server, server, server_side=True),
    )


async def shaken_pair() -> tuple[TlsStream, TlsStream]:
    """Return both ends after the handshake."""
    client, server = tls_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


async def read_all(stream: trio.abc.ReceiveStream, max_bytes: int | None = None) -> bytes:
    """Read until the end."""
    data = b""
    while piece := await stream.receive_some(max_bytes):
        assert max_bytes is None or len(piece) <= max_bytes
        data += piece
    return data


@given(
    pieces=st.lists(st.integers(0, 70_000), max_size=5),
    max_bytes=st.one_of(st.none(), st.integers(1, 40_000)),
)
def test_what_is_sent_is_received(pieces: list[int], max_bytes: int | None) -> None:
    """Whatever the sizes on either side: the same bytes in the same order, then the end."""
    sent = b"".join(bytes([index % 256]) * size for index, size in enumerate(pieces))

    async def run() -> None:
        client, server = await shaken_pair()

        async def send() -> None:
            for index, size in enumerate(pieces):
                await client.send_all(bytes([index % 256]) * size)
            await client.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await read_all(server, max_bytes) == sent
        assert await server.receive_some() == b""

    trio.run(run)


async def test_many_records_come_in_one_piece() -> None:
    """What the transport gave at once is given at once: that is what this stream is for."""
    client, server = await shaken_pair()
    await client.send_all(bytes(100_000))
    assert len(await server.receive_some()) == 100_000
    assert READ_BYTES >= 256 * 1024


async def test_both_directions_at_once() -> None:
    """One task may send while another receives, on both ends."""
    client, server = await shaken_pair()
    received: dict[TlsStream, int] = {}

    async def send(stream: TlsStream) -> None:
        for _ in range(20):
            await stream.send_all(bytes(50_000))

    async def receive(stream: TlsStream) -> None:
        received[stream] = 0
        while received[stream] < 1_000_000:
            received[stream] += len(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        for stream in (client, server):
            nursery.start_soon(send, stream)
            nursery.start_soon(receive, stream)
    assert received == {client: 1_000_000, server: 1_000_000}


async def test_a_cut_transport_is_the_end() -> None:
    """No goodbye is needed: every message has its length in front."""
    client, server = await shaken_pair()
    await client.send_all(b"last words")
    await client.transport.aclose()
    assert await read_all(server) == b"last words"


async def test_what_follows_a_goodbye_does_not_count() -> None:
    """Bytes after the end of the TLS stream are nobody's."""
    client, server = await shaken_pair()
    await client.send_all(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        client._ssl.unwrap()
    await client._flush()
    await client.transport.send_all(b"garbage")
    assert await read_all(server) == b"last words"
    assert await server.receive_some() == b""


async def test_damage_is_no_end() -> None:
    """A changed bit breaks the connection, and is not taken for its end."""
    client, server = await shaken_pair()
    await client.send_all(b"words")
    damaged = bytearray(await server.transport.receive_some())
    damaged[-1] ^= 1
    server._feed(damaged)
    with pytest.raises(trio.BrokenResourceError, match="damaged"):
        await server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"answer")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x10garbage garbage.", b"\x16\x03\x01\xff\xff" * 99]
)
async def test_who_speaks_no_tls_is_refused(data: bytes) -> None:
    """At the first bytes, with OpenSSL's reason, and the connection can be closed at once."""
    ours, theirs = memory_stream_pair()
    server, _ = contexts()
    await theirs.send_all(data)
    stream = TlsStream(ours, server, server_side=True)
    with pytest.raises(trio.BrokenResourceError) as caught:
        await stream.do_handshake()
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert caught.value.__cause__.reason
    await stream.aclose()
    await read_all(theirs)


async def test_a_handshake_that_is_cut_is_refused() -> None:
    """The end of the transport before the keys are agreed on is a break."""
    ours, theirs = memory_stream_pair()
    server, _ = contexts()
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError, match="closed during the TLS handshake"):
        await TlsStream(ours, server, server_side=True).do_handshake()


async def test_a_wrong_ca_is_refused_with_its_reason() -> None:
    """The client's error says that it is the certificate; the server hears the same in an alert."""
    below_client, below_server = memory_stream_pair()
    context = ssl.create_default_context()
    client = TlsStream(below_client, context, server_hostname="localhost")
    server = TlsStream(below_server, contexts()[0], server_side=True)

    async def shake() -> None:
        with pytest.raises(trio.BrokenResourceError) as heard:
            await server.receive_some()
        assert isinstance(heard.value.__cause__, ssl.SSLError)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.do_handshake()
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_send_cut_short_breaks_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    """Half a record went out: nothing may follow it, and closing does not wait for the peer."""
    del autojump_clock
    client, server = await shaken_pair()
    below = client.transport
    assert isinstance(below, trio.StapledStream)
    below.send_stream.send_all_hook = trio.sleep_forever
    with trio.move_on_after(1):
        await client.send_all(b"words")
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"more")
    before = trio.current_time()
    await client.aclose()
    assert trio.current_time() == before
    await server.aclose()


async def test_a_goodbye_waits_for_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """A peer that does not read holds a closing up for a second at most."""
    del autojump_clock
    client, _ = await shaken_pair()
    below = client.transport
    assert isinstance(below, trio.StapledStream)
    below.send_stream.send_all_hook = trio.sleep_forever
    before = trio.current_time()
    await client.aclose()
    assert trio.current_time() - before == pytest.approx(1.0)
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()


async def socket_pair() -> tuple[TlsStream, TlsStream]:
    """Return both ends over the kernel, after the handshake."""
    below_client, below_server = (trio.SocketStream(end) for end in trio.socket.socketpair())
    server_context, client_context = contexts()
    client = TlsStream(below_client, client_context, server_hostname="localhost")
    server = TlsStream(below_server, server_context, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


async def test_what_is_sent_without_waiting_arrives_at_once_if_it_fits() -> None:
    """And the next send has nothing to add to it."""
    client, server = await socket_pair()
    assert client.send_nowait(b"at once")
    assert await server.receive_some() == b"at once"
    await client.send_all(b"later")
    assert await server.receive_some() == b"later"
    await client.aclose()
    await server.aclose()


async def test_what_has_come_is_received_without_waiting() -> None:
    """All of it, also what came with the handshake; nothing is made up, and nothing is kept back."""
    client, server = await socket_pair()
    assert server.receive_nowait() is None
    await client.send_all(b"hello")
    await client.send_all(b"x" * 3_000)
    assert await server.receive_some(5) == b"hello"  # the rest has been read from the kernel by now
    assert server.receive_nowait() == b"x" * 3_000
    await client.send_all(b"words")
    assert server.receive_nowait() == b"words"
    assert server.receive_nowait() is None
    await client.aclose()
    assert server.receive_nowait() == b""
    assert server.receive_nowait() == b""
    await server.aclose()


async def test_a_record_that_comes_in_pieces_is_waited_for() -> None:
    """Half of one is nothing yet; with the rest comes all, and damage is told as such."""
    client, server = await socket_pair()
    assert isinstance(client.transport, trio.SocketStream)
    client._encrypt(b"in two halves")
    record = client._outgoing.read()
    await client.transport.send_all(record[:9])
    assert server.receive_nowait() is None
    await client.transport.send_all(record[9:])
    assert server.receive_nowait() == b"in two halves"
    await client.transport.send_all(b"\x17\x03\x03\x00\x20" + b"?" * 32)
    with pytest.raises(trio.BrokenResourceError, match="damaged"):
        server.receive_nowait()
    await trio.aclose_forcefully(client.transport)
    await server.aclose()


async def test_what_does_not_fit_goes_before_the_next_send() -> None:
    """However often the kernel is full: the same bytes in the same order."""
    client, server = await socket_pair()
    sent = b""
    while True:
        piece = len(sent).to_bytes(8, "big") * 5_000
        sent += piece
        if not client.send_nowait(piece):
            break
    assert not client.send_nowait(b"behind it")
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await client.send_all(b", and last")
            await client.aclose()

        nursery.start_soon(send)
        assert await read_all(server) == sent + b"behind it, and last"
    await server.aclose()


async def test_over_another_transport_all_waits_for_the_next_send() -> None:
    """Only a socket can say what it takes at once."""
    client, server = await shaken_pair()
    assert not client.send_nowait(b"one ")
    await client.send_all(b"two")
    assert await server.receive_some() == b"one two"


async def test_a_broken_stream_sends_nothing_without_waiting_either() -> None:
    """It is known for broken from the first failure on."""
    client, server = await socket_pair()
    await trio.aclose_forcefully(server.transport)
    with pytest.raises(trio.BrokenResourceError):
        client.send_nowait(b"words")
    with pytest.raises(trio.BrokenResourceError, match="broke before"):
        await client.send_all(b"more")
    await client.aclose()


async def test_two_senders_are_refused(autojump_clock: trio.testing.MockClock) -> None:
    """Their records would mix."""
    del autojump_clock
    client, _ = await shaken_pair()
    below = client.transport
    assert isinstance(below, trio.StapledStream)
    below.send_stream.send_all_hook = trio.sleep_forever
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"one")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.send_all(b"two")
        with pytest.raises(trio.BusyResourceError):
            client.send_nowait(b"three")
        nursery.cancel_scope.cancel()


async def test_key_updates_and_tickets_do_not_stop_reading() -> None:
    """What TLS says for itself is no data and no end; the version is told."""
    client, server = await shaken_pair()
    assert client.version() == server.version() == "TLSv1.3"
    await server.send_all(b"after the tickets")
    assert await client.receive_some() == b"after the tickets"
