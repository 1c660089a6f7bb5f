"""The listener: strangers are held to their limits, and cost neither a traceback nor a peer."""

import errno
import random
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from taskd.net.tls_stream import TlsStream
from taskd.server.addresses import Address, open_sockets
from taskd.server.certificates import Certificates, open_certificates
from taskd.server.clock import SystemClock
from taskd.server.listener import Handler, Listener, open_listener
from taskd.server.platform import Platform, system_platform
from taskd_protocol import limits

T = TypeVar("T")
LOOPBACK = Address("127.0.0.1", 0)


class VirtualClock:
    """Trio's clock, so that an autojumped second is one here too."""

    def mono_ns(self) -> int:
        return int(trio.current_time() * 1e9)

    def wall_ms(self) -> int:
        return int(trio.current_time() * 1e3)

    def cpu_ns(self) -> int:
        return 0

    def thread_cpu_ns(self) -> int:
        return 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A server's certificates of today."""
    return open_certificates(tmp_path_factory.mktemp("certificates"), ["localhost"], SystemClock().wall_ms())


def client_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificates.ca_pem)
    return context


def over_memory(tls: ssl.SSLContext | None) -> Listener:
    """A listener without sockets: streams are handed to it."""
    return Listener([], LOOPBACK, tls, VirtualClock())


async def echo(stream: trio.abc.Stream, peer: str, authenticated: Callable[[], None]) -> None:
    """Send back what comes; whoever says something is known."""
    assert peer
    while data := await stream.receive_some():
        authenticated()
        await stream.send_all(data)


async def forever(*_: object) -> None:
    """Never know who it is."""
    await trio.sleep_forever()


async def test_a_peer_is_served_over_tls_and_tcp(certificates: Certificates) -> None:
    """The real thing: a free port, a handshake, bytes both ways; after close nobody gets in, and those inside stay."""
    listener = await open_listener(LOOPBACK, certificates.context, system_platform())
    assert listener.address.port
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.serve, echo)
        below = await trio.open_tcp_stream(*listener.address)
        async with TlsStream(below, client_context(certificates), server_hostname="localhost") as peer:
            await peer.send_all(b"hello")
            assert await peer.receive_some() == b"hello"
            listener.close()
            await wait_all_tasks_blocked()
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream(*listener.address)
            await peer.send_all(b"still here")
            assert await peer.receive_some() == b"still here"


async def test_a_renewal_leaves_open_connections_alone(certificates: Certificates, tmp_path: Path) -> None:
    """The old peer goes on, the next one is shown the new certificate, by the same listener."""
    del certificates
    own = open_certificates(tmp_path, ["localhost"], SystemClock().wall_ms())
    listener = over_memory(own.context)
    async with trio.open_nursery() as nursery:

        async def connect() -> tuple[TlsStream, bytes | None]:
            below, ours = memory_stream_pair()
            nursery.start_soon(listener.serve_stream, ours, "peer", "origin", echo)
            peer = TlsStream(below, client_context(own), server_hostname="localhost")
            await peer.do_handshake()
            return peer, peer._ssl.getpeercert(binary_form=True)

        async def here(work: Callable[[], T], /) -> T:
            return work()

        first, shown_first = await connect()
        await own.renew(["more.example"], SystemClock().wall_ms(), here)
        second, shown_second = await connect()
        assert shown_first != shown_second
        for peer in (first, second):
            await peer.send_all(b"hello")
            assert await peer.receive_some() == b"hello"
            await peer.aclose()


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 5000, b"\x16\x03\x01\x02\x00" + b"\1" * 600])
async def test_garbage_is_closed_on_without_noise(certificates: Certificates, data: bytes) -> None:
    """Plain text, port scans, garbage: at most a line for who debugs, and no descriptor kept."""
    listener = over_memory(certificates.context)
    theirs, ours = memory_stream_pair()
    await theirs.send_all(data)
    await theirs.send_stream.aclose()
    with structlog.testing.capture_logs() as lines:
        await listener.serve_stream(ours, "192.0.2.7:99", "192.0.2.7", echo)
    assert {line["log_level"] for line in lines} <= {"debug"}
    assert not any("exc_info" in line for line in lines)
    while await theirs.receive_some():
        pass  # an alert, then the end


async def test_a_silent_peer_is_closed_on_in_time(certificates: Certificates, autojump_clock: MockClock) -> None:
    """Ten seconds for the handshake, drip by drip or not at all."""
    del autojump_clock
    listener = over_memory(certificates.context)
    theirs, ours = memory_stream_pair()

    async def drip() -> None:
        for byte in b"\x16\x03\x01\x02\x00" + bytes(500):
            await theirs.send_all(bytes([byte]))
            await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        before = trio.current_time()
        with structlog.testing.capture_logs() as lines:
            await listener.serve_stream(ours, "peer", "origin", echo)
        assert trio.current_time() - before == pytest.approx(limits.TLS_HANDSHAKE_SECONDS)
        nursery.cancel_scope.cancel()
    assert await theirs.receive_some() == b""
    assert [line["reason"] for line in lines] == ["no TLS handshake in time"]


async def test_a_flood_of_garbage_is_one_line_a_second(certificates: Certificates, autojump_clock: MockClock) -> None:
    """The next line says how many were left out."""
    del autojump_clock
    listener = over_memory(certificates.context)

    async def one() -> None:
        theirs, ours = memory_stream_pair()
        await theirs.send_all(b"GET / HTTP/1.0\r\n\r\n")
        await listener.serve_stream(ours, "peer", "origin", echo)

    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            await one()
        await trio.sleep(1)
        await one()
    assert [line["left_out"] for line in lines] == [0, 49]


async def occupied(listener: Listener, nursery: trio.Nursery, origins: Sequence[str], handler: Handler) -> int:
    """Open a connection from each origin; return how many were closed at once."""
    ends = []
    for origin in origins:
        theirs, ours = memory_stream_pair()
        nursery.start_soon(listener.serve_stream, ours, f"{origin}:1", origin, handler)
        ends.append(theirs)
    await wait_all_tasks_blocked()
    closed = 0
    for theirs in ends:
        try:
            await theirs.send_all(b"x")
        except trio.BrokenResourceError:
            closed += 1
    return closed


async def test_one_origin_cannot_take_every_place() -> None:
    """Others still get in; and when strangers go, their places are free again."""
    listener = over_memory(None)
    most = limits.PREAUTH_CONNECTIONS_PER_ADDRESS_MAX
    async with trio.open_nursery() as nursery:
        assert await occupied(listener, nursery, ["a"] * (most + 3), forever) == 3
        assert await occupied(listener, nursery, ["b"], forever) == 0
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        assert await occupied(listener, nursery, ["a"] * most, forever) == 0
        nursery.cancel_scope.cancel()


async def test_all_strangers_together_are_bounded() -> None:
    """However many origins an attacker has."""
    listener = over_memory(None)
    most = limits.PREAUTH_CONNECTIONS_MAX
    async with trio.open_nursery() as nursery:
        assert await occupied(listener, nursery, [str(i) for i in range(most + 5)], forever) == 5
        nursery.cancel_scope.cancel()


async def test_known_peers_take_no_stranger_s_place() -> None:
    """A thousand agents behind one address are no crowd of strangers."""
    listener = over_memory(None)
    most = limits.PREAUTH_CONNECTIONS_PER_ADDRESS_MAX
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            assert await occupied(listener, nursery, ["a"] * most, echo) == 0
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_handler_that_fails_costs_one_connection() -> None:
    """It is logged with its traceback, the connection is closed, and others are served."""
    listener = over_memory(None)

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def lose(*_: object) -> None:
        async with trio.open_nursery():
            raise trio.BrokenResourceError

    for handler, expected in ((fail, ["connection_failed"]), (lose, [])):
        theirs, ours = memory_stream_pair()
        with structlog.testing.capture_logs() as lines:
            await listener.serve_stream(ours, "peer", "origin", handler)
        assert [line["event"] for line in lines] == expected
        assert await theirs.receive_some() == b""


async def test_a_shortage_of_descriptors_is_waited_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMFILE on accept: a pause and a warning, then on as before."""
    del autojump_clock
    shortages = 3

    async def listen(host: str, port: int, backlog: int, /) -> Sequence[trio.SocketListener]:
        listeners = await open_sockets(host, port, backlog)
        accept = listeners[0].socket.accept

        async def short() -> object:
            nonlocal shortages
            if shortages:
                shortages -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return await accept()

        monkeypatch.setattr(listeners[0].socket, "accept", short)
        return listeners

    real = system_platform()
    platform = Platform(
        clock=VirtualClock(),
        rng=random.Random(1),
        token_bytes=bytes,
        offload=real.offload,
        flush=real.flush,
        listen=listen,
    )
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            listener = await open_listener(LOOPBACK, None, platform)
            await nursery.start(listener.serve, echo)
            peer = await trio.open_tcp_stream(*listener.address)
            await peer.send_all(b"hello")
            assert await peer.receive_some() == b"hello"
            assert trio.current_time() == pytest.approx(0.3)
            await peer.aclose()
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["accept_failed"]


async def test_accepted_sockets_notice_dead_peers() -> None:
    """No delay of small messages, and a bound on how long silence is believed."""
    seen: list[int] = []

    async def look(stream: trio.abc.Stream, *_: object) -> None:
        assert isinstance(stream, trio.SocketStream)
        for option in (socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT):
            value = stream.getsockopt(socket.IPPROTO_TCP, option)
            assert isinstance(value, int)
            seen.append(value)

    async with trio.open_nursery() as nursery:
        listener = await open_listener(LOOPBACK, None, system_platform())
        await nursery.start(listener.serve, look)
        peer = await trio.open_tcp_stream(*listener.address)
        assert await peer.receive_some() == b""
        await peer.aclose()
        nursery.cancel_scope.cancel()
    assert seen == [1, 30_000]
