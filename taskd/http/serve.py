"""The adapter between our HTTP application and the server that speaks HTTP: nothing else knows which it is.

That is anycorn; with ``from hypercorn.config import Config, Sockets`` and ``from hypercorn.trio import serve``
in its place it is hypercorn.
"""

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio
from anycorn import serve
from anycorn.config import Config, Sockets
from starlette.types import ASGIApp, Receive, Scope, Send

from taskd.server.addresses import BACKLOG, Address, bind, only_loopback
from taskd.server.platform import Platform

_GRACE_SECONDS: Final = 2.0
"""How long answers that were begun may take when the server stops."""


class HttpAddress(NamedTuple):
    """Where HTTP is served."""

    scheme: str
    """``http`` on loopback, else ``https``."""
    address: Address
    """With the real port."""

    def __str__(self) -> str:
        """Return the URL without a path."""
        return f"{self.scheme}://{self.address}"


async def serve_http(
    app: ASGIApp,
    address: Address,
    tls: ssl.SSLContext | None,
    platform: Platform,
    *,
    until: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[HttpAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP: plain on loopback, with TLS everywhere else.

    Args:
        app: What answers.
        address: Where; port 0 takes a free one.
        tls: The live context of the server's certificate; None: loopback only.
        platform: The machine.
        until: Returns when the server stops: what was begun is answered, then this returns.
        task_status: Told the real address once it is served.

    Raises:
        AddressInUse: The port is taken.
        AddressInsecure: Others could reach it, and there is no TLS.
        ConfigInvalid: There is no such address here, or the port is not allowed.
    """
    sockets, real = await bind(address, "--http", platform.listen, secured=tls is not None)
    context = None if only_loopback(sockets) else tls
    config = _Config([socket.socket(fileno=listening.socket.detach()) for listening in sockets], context)
    async with trio.open_nursery() as nursery:
        await nursery.start(_serve, app, config, until)
        task_status.started(HttpAddress("http" if context is None else "https", real))


async def _serve(
    app: ASGIApp, config: Config, until: Callable[[], Awaitable[None]], *, task_status: trio.TaskStatus[list[str]]
) -> None:
    async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette takes a cancellation for a failed shutdown and tells anycorn, which raises that in its place.
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    await serve(without_lifespan, config, shutdown_trigger=until, task_status=task_status, mode="asgi")  # type: ignore[arg-type]


class _Config(Config):
    """Settings of the HTTP server: our sockets, and our TLS context, which follows renewals."""

    def __init__(self, sockets: list[socket.socket], tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._sockets = sockets
        self._tls = tls
        self.backlog = BACKLOG
        self.graceful_timeout = _GRACE_SECONDS
        self.include_server_header = False
        self.accesslog = None
        self.errorlog = logging.getLogger("taskd.http")

    @property
    def ssl_enabled(self) -> bool:
        """Whether TLS is spoken."""
        return self._tls is not None

    def create_sockets(self) -> Sockets:
        """Return what listens already."""
        return Sockets([], self._sockets, []) if self._tls is None else Sockets(self._sockets, [], [])

    def create_ssl_context(self) -> ssl.SSLContext | None:
        """Return the live context."""
        return self._tls
