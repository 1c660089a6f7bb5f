"""Opening a connection to the server: TCP, TLS with the pinned CA, and why not, in one line."""

import ipaddress
import socket
import ssl

import trio

from taskd.agent.platform import Connect
from taskd.client.dial import CONNECT_WITHIN_S, TLS_WITHIN_S, tls_context
from taskd.client.profile import Profile
from taskd.net.tls_stream import TlsStream
from taskd_protocol.errors import AddressInsecure, CannotConnect, CertificateRefused, TaskdError

USER_TIMEOUT_MS = 15_000
"""Bytes that a dead peer has not acknowledged for so long end the connection."""


def connector(server: Profile) -> Connect:
    """Return what connects to the server.

    Raises:
        ConfigInvalid: The CA is no certificate.
        AddressInsecure: Plain TCP to another machine.
    """
    if not server.tls and not _is_loopback(server.host):
        raise AddressInsecure(f"plain TCP to {server.host} is refused: it is for this machine's own loopback only")
    context = tls_context(server)

    async def connect() -> trio.abc.Stream:
        return await open_stream(server.host, server.port, context)

    return connect


async def open_stream(host: str, port: int, context: ssl.SSLContext | None) -> trio.abc.Stream:
    """Connect, and agree on TLS if there is a context.

    Raises:
        CannotConnect: Nobody answers there, or no TLS server does.
        CertificateRefused: The server's certificate is not signed by the CA, or not for this host.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with trio.fail_after(CONNECT_WITHIN_S):
            plain = await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as error:
        reason = "no answer in time" if isinstance(error, trio.TooSlowError) else _reason(error)
        raise CannotConnect(f"no taskd server answers at {where} ({reason})") from None
    plain.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    if context is None:
        return plain
    stream = TlsStream(plain, context, server_hostname=host)
    try:
        with trio.fail_after(TLS_WITHIN_S):
            await stream.do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError) as error:
        await trio.aclose_forcefully(stream)
        raise _handshake_failed(where, error) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _handshake_failed(where: str, error: Exception) -> TaskdError:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return CertificateRefused(
            f"the certificate of {where} is refused ({cause.verify_message.rstrip('.')}): the CA must be that server's"
            " ca.pem, and the host one of its names (`taskd cert renew --host-name NAME` adds one)"
        )
    reason = "no answer in time" if isinstance(error, trio.TooSlowError) else _reason(cause or error)
    return CannotConnect(f"{where} does not answer with TLS ({reason}); is it a taskd server, and not a plain one?")


def _reason(error: BaseException) -> str:
    """Return the system's words for it, in one line."""
    inner = error.__cause__ or error
    while isinstance(inner, BaseExceptionGroup):  # one for each address that the name has
        inner = inner.exceptions[0]
    if isinstance(inner, ssl.SSLError) and inner.reason:
        return inner.reason
    return (isinstance(inner, OSError) and inner.strerror) or str(inner)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
