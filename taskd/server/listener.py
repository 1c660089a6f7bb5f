"""The listener: accepts connections, speaks TLS with them, and holds strangers to their limits.

Invariants:
- At most ``PREAUTH_CONNECTIONS_MAX`` connections are unauthenticated, and of one origin
  ``PREAUTH_CONNECTIONS_PER_ADDRESS_MAX``; one more is closed at once. Authenticated ones do not count.
- A TLS handshake ends within ``TLS_HANDSHAKE_SECONDS``, one way or the other.
- No peer, and no shortage of descriptors, ends the accepting; nothing that a stranger sends makes more
  than one log line a second.

Knows no messages: who a peer is, and how long it may take to say so, is its handler's matter.
"""

import contextlib
import errno
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import structlog
import trio

from taskd.net.tls_stream import TlsStream
from taskd.server.addresses import Address, bind, close_sockets
from taskd.server.clock import Clock
from taskd.server.notices import Notices
from taskd.server.platform import Platform
from taskd_protocol import limits

Handler: TypeAlias = Callable[[trio.abc.Stream, str, Callable[[], None]], Awaitable[None]]
"""Serves one connection: the stream, the peer as ``host:port``, and what to call, once, when it is known who
it is. The stream is closed when it returns or raises; of what it raises, broken connections are no news."""

_ACCEPT_PAUSE_SECONDS: Final = 0.1
"""After running out of descriptors or memory: connections that end meanwhile give some back."""

_KEEPALIVE_IDLE_SECONDS: Final = 20
_KEEPALIVE_EVERY_SECONDS: Final = 5
_UNANSWERED_MS: Final = 30_000
"""How long sent bytes may stay unacknowledged, or a reader's window shut: twice what makes an agent dead."""

_IPV6_SITE_BYTES: Final = 8
"""One customer of a network has a /64: its addresses are one origin."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("taskd.listener")


class Listener:
    """An address that peers connect to.

    Attributes:
        address: Where it listens, with the real port.
    """

    def __init__(
        self, sockets: Sequence[trio.SocketListener], address: Address, tls: ssl.SSLContext | None, clock: Clock
    ) -> None:
        self.address = address
        self._sockets = sockets
        self._tls = tls
        self._strangers = _Strangers()
        self._notices = Notices(clock)
        self._accepting = trio.CancelScope()

    async def serve(self, handler: Handler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and hand over; returns when ``close`` was called and every handler has returned.

        Cancelled, it cancels the handlers, and closes their connections and the sockets.
        """
        try:
            async with trio.open_nursery() as connections:
                task_status.started()
                with self._accepting:
                    async with trio.open_nursery() as acceptors:
                        for listening in self._sockets:
                            acceptors.start_soon(self._accept, listening, handler, connections)
                close_sockets(self._sockets)
        finally:
            close_sockets(self._sockets)

    def close(self) -> None:
        """Accept no more and let the port go; connections live on."""
        self._accepting.cancel()

    async def serve_stream(self, stream: trio.abc.Stream, peer: str, origin: str, handler: Handler) -> None:
        """Serve one connection, wherever it came from, until its handler returns; then close it.

        Args:
            stream: Below TLS.
            peer: For people.
            origin: What counts as one source of connections.
            handler: As for ``serve``.
        """
        if not self._strangers.admit(origin):
            self._notices.tell("connection_refused", peer, "too many unauthenticated connections")
            await trio.aclose_forcefully(stream)
            return
        known = False

        def authenticated() -> None:
            nonlocal known
            if not known:
                known = True
                self._strangers.leave(origin)

        try:
            await self._serve_stranger(stream, peer, handler, authenticated)
        finally:
            authenticated()

    async def _accept(self, listening: trio.SocketListener, handler: Handler, connections: trio.Nursery) -> None:
        while True:
            try:
                stream = await listening.accept()
            except OSError as error:
                # EMFILE and its kin, or something that the kernel thought of later: dying would be worse.
                self._notices.tell("accept_failed", str(self.address), error.strerror or str(error), level="warning")
                await trio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            named = _prepare(stream)
            if named is None:  # gone before it was looked at
                await trio.aclose_forcefully(stream)
                continue
            connections.start_soon(self.serve_stream, stream, *named, handler)

    async def _serve_stranger(
        self, stream: trio.abc.Stream, peer: str, handler: Handler, authenticated: Callable[[], None]
    ) -> None:
        try:
            if self._tls is not None:
                stream = TlsStream(stream, self._tls, server_side=True)
                with trio.move_on_after(limits.TLS_HANDSHAKE_SECONDS) as handshake:
                    await stream.do_handshake()
                if handshake.cancelled_caught:
                    self._notices.tell("handshake_failed", peer, "no TLS handshake in time")
                    return
            await handler(stream, peer, authenticated)
        # In groups, as they come out of a handler's nursery.
        except* (trio.BrokenResourceError, trio.ClosedResourceError) as group:
            for error in group.exceptions:
                if isinstance(error.__cause__, ssl.SSLError):
                    self._notices.tell("handshake_failed", peer, error.__cause__.reason or str(error.__cause__))
        except* Exception:  # noqa: BLE001 - a fault in serving one peer must not be one for all others
            _log.exception("connection_failed", peer=peer)
        finally:
            await _close(stream)


async def open_listener(address: Address, tls: ssl.SSLContext | None, platform: Platform) -> Listener:
    """Take the port; nothing is accepted before ``serve``.

    Args:
        address: Where; port 0 takes a free one.
        tls: None: plain TCP, on loopback only.
        platform: The machine.

    Raises:
        AddressInUse: The port is taken.
        AddressInsecure: Plain TCP where others can reach it.
        ConfigInvalid: There is no such address here, or the port is not allowed.
    """
    sockets, real = await bind(address, "--listen", platform.listen, secured=tls is not None)
    return Listener(sockets, real, tls, platform.clock)


class _Strangers:
    """How many connections nobody answers for yet, in all and by origin."""

    def __init__(self) -> None:
        self._by_origin: Counter[str] = Counter()
        self._count = 0

    def admit(self, origin: str) -> bool:
        if self._count >= limits.PREAUTH_CONNECTIONS_MAX:
            return False
        if self._by_origin[origin] >= limits.PREAUTH_CONNECTIONS_PER_ADDRESS_MAX:
            return False
        self._count += 1
        self._by_origin[origin] += 1
        return True

    def leave(self, origin: str) -> None:
        self._count -= 1
        self._by_origin[origin] -= 1
        if not self._by_origin[origin]:
            del self._by_origin[origin]


def _prepare(stream: trio.SocketStream) -> tuple[str, str] | None:
    """Set what keeps a dead peer from being believed alive; return the peer and its origin, None if it is gone."""
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
        host, port, *_ = stream.socket.getpeername()
    except OSError as error:
        if error.errno in {errno.ENOTCONN, errno.EINVAL, errno.ECONNRESET}:
            return None
        raise
    return str(Address(host, port)), origin_of(host)


def origin_of(host: str) -> str:
    """Return what counts as one source of connections: an address, of IPv6 the site."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return address.packed[:_IPV6_SITE_BYTES].hex()


async def _close(stream: trio.abc.Stream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.aclose()
