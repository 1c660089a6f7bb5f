"""HTTP as probes see it: a free port, two answers, and a clean end."""

import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from taskd.http.app import make_app
from taskd.http.serve import HttpAddress, serve_http
from taskd.server.addresses import Address
from taskd.server.certificates import Certificates, open_certificates
from taskd.server.platform import system_platform
from taskd_protocol.errors import AddressInsecure, AddressInUse

HOSTS = ["localhost", "127.0.0.1", "::1"]
LOOPBACK = Address("127.0.0.1", 0)
ANYWHERE = "0.0.0.0"  # noqa: S104 - what is tested


class Answers:
    """What the server would say of itself."""

    ready = False


@asynccontextmanager
async def serving(
    answers: Answers, address: Address = LOOPBACK, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpAddress]:
    """Serve while the body runs; its end is the orderly one."""
    stop = trio.Event()
    app = make_app(ready=lambda: answers.ready, hosts=HOSTS)
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[HttpAddress]) -> None:
            await serve_http(app, address, tls, system_platform(), until=stop.wait, task_status=task_status)

        yield await nursery.start(start)
        stop.set()


async def ask(stream: trio.abc.Stream, path: str, host: str = "localhost") -> tuple[int, str]:
    """Send one request; return the status and the whole answer."""
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    data = b""
    while piece := await stream.receive_some(65536):
        data += piece
    return int(data.split(b" ")[1]), data.decode()


async def get(where: HttpAddress, path: str, host: str = "localhost") -> tuple[int, str]:
    async with await trio.open_tcp_stream("127.0.0.1", where.address.port) as stream:
        return await ask(stream, path, host)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """A server's certificates of today."""
    return open_certificates(tmp_path, HOSTS, system_platform().clock.wall_ms())


async def test_probes_are_answered() -> None:
    """Alive is not ready, and ready follows the server from moment to moment."""
    answers = Answers()
    async with serving(answers) as where:
        assert str(where) == f"http://127.0.0.1:{where.address.port}"
        assert where.address.port
        assert (await get(where, "/healthz"))[0] == 200
        assert (await get(where, "/readyz"))[0] == 503
        answers.ready = True
        status, text = await get(where, "/readyz")
        assert status == 200
        assert "cache-control: no-store" in text.lower()
        assert "server:" not in text.lower()
        assert (await get(where, "/nothing"))[0] == 404
        assert (await get(where, "/readyz", host="evil.example"))[0] == 400
    with pytest.raises(OSError, match="connect"):
        await get(where, "/healthz")


async def test_nothing_is_smuggled_in() -> None:
    """A request whose length is told twice is refused, and its connection ends: what follows is not read."""
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for lengths in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ):
        async with serving(Answers()) as where, await trio.open_tcp_stream("127.0.0.1", where.address.port) as stream:
            await stream.send_all(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n\r\n" + smuggled)
            data = b""
            with trio.fail_after(5):
                while piece := await stream.receive_some(65536):
                    data += piece
        assert data.count(b"HTTP/1.1 ") <= 1, (lengths, data)
        assert data[9:12] in {b"", b"400", b"501"}
        assert b"ok\n" not in data


@pytest.mark.parametrize(("host", "status"), [("localhost", "404"), ("evil.example", "400")])
async def test_a_websocket_is_refused(host: str, status: str) -> None:
    """There are none here; to a foreign host not even that is told."""
    asked = (
        f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    data = b""
    async with serving(Answers()) as where, await trio.open_tcp_stream("127.0.0.1", where.address.port) as stream:
        await stream.send_all(asked.encode())
        with trio.fail_after(5):
            while piece := await stream.receive_some(65536):
                data += piece
    assert data.decode().split(" ")[1] == status
    assert b"x-content-type-options: nosniff" in data


async def test_a_cancelled_server_ends_quietly() -> None:
    """Whatever else fails in the process, its error is not buried under ours."""
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[HttpAddress]) -> None:
            app = make_app(ready=lambda: True, hosts=HOSTS)
            platform = system_platform()
            await serve_http(app, LOOPBACK, None, platform, until=trio.sleep_forever, task_status=task_status)

        where = await nursery.start(start)
        assert (await get(where, "/readyz"))[0] == 200
        nursery.cancel_scope.cancel()


async def test_garbage_does_no_harm() -> None:
    """Neither to the server nor to the next request."""
    async with serving(Answers()) as where:
        for garbage in (b"\x16\x03\x01\x02\x00" * 50, b"GET " + b"x" * 100_000, b"\0\0\0\x04abcd"):
            async with await trio.open_tcp_stream("127.0.0.1", where.address.port) as stream:
                try:
                    await stream.send_all(garbage + b"\r\n\r\n")
                    while await stream.receive_some(65536):
                        pass
                except trio.BrokenResourceError:
                    pass  # reset: refused before all was read
        assert (await get(where, "/healthz"))[0] == 200


async def test_elsewhere_it_is_tls(certificates: Certificates) -> None:
    """With the server's own certificate, also after that was renewed; plain text is not answered there."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=certificates.ca_pem)
    platform = system_platform()
    async with serving(Answers(), Address(ANYWHERE, 0), certificates.context) as where:
        assert where.scheme == "https"
        shown = set()
        for _ in range(2):
            below = await trio.open_tcp_stream("127.0.0.1", where.address.port)
            stream = trio.SSLStream(below, client, server_hostname="localhost", https_compatible=True)
            assert (await ask(stream, "/healthz"))[0] == 200
            shown.add(stream.getpeercert(binary_form=True))
            await stream.aclose()
            await certificates.renew([], platform.clock.wall_ms(), platform.offload)
        assert len(shown) == 2
        below = await trio.open_tcp_stream("127.0.0.1", where.address.port)
        await below.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in await below.receive_some(65536)
        await below.aclose()


async def test_plain_http_stays_on_loopback() -> None:
    """Without a certificate there is nothing to serve elsewhere."""
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(Answers(), Address(ANYWHERE, 0)):
            pass
    assert caught.group_contains(AddressInsecure)


async def test_a_port_in_use_is_named() -> None:
    """By the flag that chose it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ExceptionGroup) as caught:
            async with serving(Answers(), address):
                pass
        assert caught.group_contains(AddressInUse, match="^--http .* the port is in use; stop what")


async def test_its_sockets_are_not_inherited() -> None:
    """What the server starts must not keep its port open after it."""
    async with serving(Answers()) as where:
        port = where.address.port
        program = f"""
import socket, os
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        continue
    assert sock.getsockname()[1:2] != ({port},)
"""
        await trio.run_process([sys.executable, "-c", program], close_fds=False)
