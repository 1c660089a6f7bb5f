"""Joining and connecting over real TLS on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from taskd.agent.clock import SystemClock
from taskd.agent.connect import connector, open_stream
from taskd.agent.join import join
from taskd.client.dial import tls_context
from taskd.client.profile import Profile
from taskd.net.tls_stream import TlsStream
from taskd.server.certificates import Certificates, open_certificates
from taskd_protocol.access_messages import Ca, CaRequest, Joined
from taskd_protocol.connection import server_side
from taskd_protocol.connection_messages import Error, Hello
from taskd_protocol.errors import (
    AddressInsecure,
    CannotConnect,
    CertificateRefused,
    ConfigInvalid,
    InvitationRefused,
)
from taskd_protocol.join import format_join_code

SECRET = "one-time-secret"


class Inviting:
    """A server that knows nothing but invitations."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.shown_pem = certificates.ca_pem
        self.heard: list[str] = []
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, transport: trio.SocketStream) -> None:
        stream = TlsStream(transport, self.certificates.context, server_side=True)
        wire = server_side()
        try:
            while data := bytes(await stream.receive_some()):
                for message in wire.receive(data):
                    match message:
                        case CaRequest():
                            wire.send(Ca(self.shown_pem))
                        case Hello(token=token, role="join"):
                            self.heard.append(token)
                            good = token == SECRET and self.heard.count(token) == 1
                            wire.send(Joined("taskd_agent_new") if good else Error(0, "auth.invitation", "spent"))
                        case _:
                            pytest.fail(f"{message}")
                await stream.send_all(wire.data_to_send())
        except trio.BrokenResourceError:
            pass  # they hang up as they like
        finally:
            await trio.aclose_forcefully(stream)


def certificates_in(path: Path, *names: str) -> Certificates:
    path.mkdir()
    return open_certificates(path, names or ("127.0.0.1", "localhost"), SystemClock().wall_ms())


@asynccontextmanager
async def inviting(certificates: Certificates) -> AsyncIterator[Inviting]:
    server = Inviting(certificates)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield server
        nursery.cancel_scope.cancel()


async def test_a_code_becomes_what_an_agent_needs(tmp_path: Path) -> None:
    certificates = certificates_in(tmp_path / "a")
    async with inviting(certificates) as server:
        code = format_join_code([server.address], certificates.ca_sha256, SECRET)
        profile = await join(f"  {code}\n")
        assert (profile.address, profile.token, profile.ca_pem) == (
            server.address,
            "taskd_agent_new",
            certificates.ca_pem,
        )
        with pytest.raises(InvitationRefused, match="spent"):
            await join(code)


async def test_the_next_address_is_tried_when_one_does_not_answer(tmp_path: Path) -> None:
    certificates = certificates_in(tmp_path / "a")
    async with inviting(certificates) as server:
        code = format_join_code(["127.0.0.1:1", "nonsense", server.address], certificates.ca_sha256, SECRET)
        assert (await join(code)).address == server.address
    with pytest.raises(CannotConnect, match=r"127\.0\.0\.1"):
        await join(code)


async def test_another_server_at_the_address_never_hears_the_secret(tmp_path: Path) -> None:
    """Neither when it shows its own CA, nor when it shows ours without having its key."""
    ours, other = certificates_in(tmp_path / "a"), certificates_in(tmp_path / "b")
    async with inviting(other) as impostor:
        code = format_join_code([impostor.address], ours.ca_sha256, SECRET)
        for pem in (other.ca_pem, ours.ca_pem, "no certificate"):
            impostor.shown_pem = pem
            with pytest.raises(CertificateRefused):
                await join(code)
        assert impostor.heard == []


async def test_a_code_that_is_not_whole_says_so() -> None:
    with pytest.raises(InvitationRefused, match="not whole"):
        await join("taskd-join-abc")


async def test_only_the_pinned_ca_is_trusted(tmp_path: Path) -> None:
    ours, other = certificates_in(tmp_path / "a"), certificates_in(tmp_path / "b")
    async with inviting(ours) as server:
        good = Profile(address=server.address, token="t", ca_pem=ours.ca_pem)
        stream = await connector(good)()
        await trio.aclose_forcefully(stream)
        with pytest.raises(CertificateRefused, match=r"ca\.pem"):
            await connector(Profile(address=server.address, token="t", ca_pem=other.ca_pem))()


async def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    ours = certificates_in(tmp_path / "a", "elsewhere.example")
    async with inviting(ours) as server:
        with pytest.raises(CertificateRefused, match="--host-name"):
            await connector(Profile(address=server.address, token="t", ca_pem=ours.ca_pem))()


async def test_what_is_no_taskd_server_is_told_in_one_line(tmp_path: Path) -> None:
    ours = certificates_in(tmp_path / "a")
    context = tls_context(Profile(address="127.0.0.1:1", token="t", ca_pem=ours.ca_pem))

    async def babble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example ESMTP\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, babble, [listener])
        with pytest.raises(CannotConnect, match="does not answer with TLS") as failure:
            await open_stream("127.0.0.1", port, context)
        assert "\n" not in failure.value.message
        nursery.cancel_scope.cancel()
    with pytest.raises(CannotConnect, match=r"no taskd server answers at 127\.0\.0\.1:\d+ \(.*refused"):
        await open_stream("127.0.0.1", port, context)
    with pytest.raises(CannotConnect, match="no taskd server answers"):
        await open_stream("no-such-host.invalid", 7070, context)


def test_plain_tcp_is_for_loopback_only() -> None:
    with pytest.raises(AddressInsecure, match=r"192\.0\.2\.1"):
        connector(Profile(address="192.0.2.1:7070", token="t", tls=False))
    connector(Profile(address="[::1]:7070", token="t", tls=False))
    connector(Profile(address="localhost:7070", token="t", tls=False))


def test_a_ca_that_is_none_is_told() -> None:
    with pytest.raises(ConfigInvalid):
        connector(Profile(address="127.0.0.1:7070", token="t", ca_pem="-----nonsense-----"))
