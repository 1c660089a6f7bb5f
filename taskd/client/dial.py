"""Making a connection: name, TCP, TLS with the pinned CA; and saying in one line why there is none."""

import socket
import ssl
from typing import Final

from taskd.client.profile import START_ONE, Profile
from taskd_protocol.errors import CannotConnect, CertificateRefused, ConfigInvalid, TaskdError

CONNECT_WITHIN_S: Final = 5.0
"""For TCP, per address that the name has."""
TLS_WITHIN_S: Final = 10.0


def tls_context(profile: Profile) -> ssl.SSLContext | None:
    """Make what verifies the server: the profile's CA alone, or the system's when it has none; None for plain TCP.

    Raises:
        ConfigInvalid: The CA is no certificate.
    """
    if not profile.tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not profile.ca_pem:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=profile.ca_pem)
    except (ssl.SSLError, ValueError):
        raise ConfigInvalid("the CA of the profile is no certificate in PEM form; copy the server's ca.pem") from None
    return context


def dial(profile: Profile, context: ssl.SSLContext | None) -> socket.socket:
    """Connect; blocks, bounded by the two constants.

    Returns:
        A non-blocking socket, an ``ssl.SSLSocket`` where there is a context.

    Raises:
        CannotConnect: Nobody answers there, or no TLS server does.
        CertificateRefused: The server's certificate is not signed by the CA, or not for this host.
    """
    try:
        plain = socket.create_connection((profile.host, profile.port), timeout=CONNECT_WITHIN_S)
    except OSError as error:
        raise _unreachable(profile, error) from None
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if context is None:
            plain.setblocking(False)  # noqa: FBT003 - the socket module's own shape
            return plain
        plain.settimeout(TLS_WITHIN_S)
        secure = context.wrap_socket(plain, server_hostname=profile.host)  # takes the socket over, closes it on failure
        secure.setblocking(False)  # noqa: FBT003
    except OSError as error:
        plain.close()
        raise _handshake_failed(profile, error) from None
    return secure


def _unreachable(profile: Profile, error: OSError) -> TaskdError:
    where = profile.address
    if isinstance(error, socket.gaierror):
        return CannotConnect(f"host name {profile.host!r} is not known ({error.strerror}); check the address {where}")
    reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
    return CannotConnect(
        f"no taskd server answers at {where} ({reason}): {START_ONE}, or choose another with `taskd context use`"
    )


def _handshake_failed(profile: Profile, error: OSError) -> TaskdError:
    where = profile.address
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateRefused(
            f"the certificate of {where} is refused ({error.verify_message.rstrip('.')}): the profile's CA must be that"
            " server's ca.pem, and the host one of its names (`taskd cert renew --host-name NAME` adds one)"
        )
    if isinstance(error, TimeoutError):
        return CannotConnect(f"{where} took the connection but no TLS handshake; is it a taskd server?")
    reason = (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or str(error)
    return CannotConnect(f"{where} does not answer with TLS ({reason}); is it a taskd server, and not a plain one?")
