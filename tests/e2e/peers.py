"""A scripted peer that speaks to a real server, over TLS."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from e2e.house import House
from harness.peer import Peer, hello
from taskd.client.profile import Profile
from taskd.net.tls_stream import TlsStream


def profile(home: House) -> Profile:
    """Return what the server wrote for its user."""
    path = home.home / ".config" / "taskd" / "profiles" / "default.json"
    return msgspec.json.decode(path.read_bytes(), type=Profile)


@asynccontextmanager
async def connected(
    home: House, token: str = "", server_name: str = "localhost", *, reads: bool = True
) -> AsyncIterator[Peer]:
    """Connect over TLS, as an admin or with the token given; what was said stays in the inbox."""
    known = profile(home)
    context = ssl.create_default_context(cadata=known.ca_pem)
    async with trio.open_nursery() as nursery:
        below = await trio.open_tcp_stream(known.host, known.port)
        async with TlsStream(below, context, server_hostname=server_name) as stream:
            await stream.do_handshake()
            peer = Peer(stream, nursery, reads=reads)
            await peer.send(hello("client", token or known.token))
            yield peer
            nursery.cancel_scope.cancel()
