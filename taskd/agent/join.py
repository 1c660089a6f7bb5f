"""Joining: a one-time code into a profile that an agent can connect with.

The code names the CA by its hash, so nothing secret is said to anybody before it
is certain that this is the inviting server.
"""

import hashlib
import hmac
import socket
import ssl

import trio

from taskd import __version__
from taskd.agent.connect import open_stream
from taskd.agent.exchange import exchange, told
from taskd.client.profile import Profile
from taskd_protocol import limits
from taskd_protocol.access_messages import Ca, CaRequest, Joined
from taskd_protocol.connection import UnknownMessage, peer_side
from taskd_protocol.connection_messages import Error, Hello
from taskd_protocol.errors import (
    CannotConnect,
    CertificateRefused,
    TaskdError,
    UnexpectedMessage,
)
from taskd_protocol.handshake import HELLO_JOIN
from taskd_protocol.join import JoinCode, parse_join_code
from taskd_protocol.messages import Message, ToPeer

ANSWER_S = 10.0


async def join(code: str) -> Profile:
    """Join the server that made the code; its addresses are tried in order.

    Returns:
        Address, CA and token, to be stored: the code is spent.

    Raises:
        InvitationRefused: The code is not whole, or is spent or too old.
        CertificateRefused: The server at the address is not the inviting one.
        CannotConnect: Nobody answers at any of the addresses.
    """
    wanted = parse_join_code(code)
    unreachable: TaskdError = CannotConnect("the join code names no address")
    for address in wanted.addresses:
        try:
            return await _join_at(address, wanted)
        except CannotConnect as error:
            unreachable = error
    raise unreachable


async def _join_at(address: str, wanted: JoinCode) -> Profile:
    host, _, port_text = address.rpartition(":")
    host = host.strip("[]")
    try:
        port = int(port_text)
    except ValueError:
        raise CannotConnect(f"{address!r} in the join code is no address") from None
    ca = await _ask(host, port, _unverified(), CaRequest())
    if not isinstance(ca, Ca):
        raise UnexpectedMessage("the server did not show its CA; is it of this release?")
    context = _pinned(ca.pem, wanted.ca_sha256, address)
    hello = Hello(
        version_min=limits.PROTOCOL_VERSION_MIN,
        version_max=limits.PROTOCOL_VERSION_MAX,
        role=HELLO_JOIN,
        token=wanted.secret,
        name=socket.gethostname()[: limits.NAME_CHARS_MAX],
        software=f"taskd {__version__}",
    )
    joined = await _ask(host, port, context, hello)
    if not isinstance(joined, Joined):
        raise UnexpectedMessage("the server did not answer with a token; is it of this release?")
    return Profile(address=address, token=joined.token, ca_pem=ca.pem)


async def _ask(host: str, port: int, context: ssl.SSLContext, message: Message) -> ToPeer:
    """Open a connection, say one thing, return the answer."""
    stream = await open_stream(host, port, context)
    try:
        with trio.fail_after(ANSWER_S):
            answer = (await exchange(stream, peer_side(), message))[0]
    except trio.TooSlowError:
        raise CannotConnect(f"no answer from {host}:{port} within {ANSWER_S:.0f} s") from None
    finally:
        await trio.aclose_forcefully(stream)
    if isinstance(answer, Error):
        raise told(answer)
    if isinstance(answer, UnknownMessage):
        raise UnexpectedMessage(f"the server answered with message type {answer.kind}; is it of this release?")
    return answer


def _unverified() -> ssl.SSLContext:
    """Return a context for the one connection on which nothing but the CA is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _pinned(ca_pem: str, sha256: bytes, address: str) -> ssl.SSLContext:
    """Return a context that trusts this CA alone, if it is the one of the join code."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca_pem)).digest()
        if hmac.compare_digest(found, sha256):
            context.load_verify_locations(cadata=ca_pem)
            return context
    except (ValueError, ssl.SSLError):
        pass
    raise CertificateRefused(
        f"the server at {address} is not the one that made the join code: its CA is another. Ask for a new code,"
        " and find out who answers there"
    )
