"""Posting: one signed request to an address that somebody named, which must not lead to where only this machine may go.

Invariants:
- The address that is connected to is the one that was checked: the name is looked up once.
- Only public addresses, over TLS, unless the operator allows a network; there also in the clear.
- No redirect is followed; little of the answer is read; all of it has a time limit.

The signature is that of standardwebhooks.com: ``v1,BASE64(HMAC-SHA256(secret, "id.timestamp.body"))``.
"""

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from taskd_protocol.errors import BadRequest, ConfigInvalid

SECONDS: Final = 10.0
"""For each step of a request: connecting, TLS, and each wait for the answer."""

ANSWER_BYTES: Final = 4096
URL_CHARS_MAX: Final = 2_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Target(NamedTuple):
    """Where to post, looked up and checked."""

    url: SplitResult
    host: str
    address: str
    port: int


def check_url(url: str) -> SplitResult:
    """Return a webhook's URL in its parts.

    Raises:
        BadRequest: It is none that can be posted to.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), None
    is_good = parts.scheme in {"http", "https"} and parts.hostname and not parts.username and not parts.fragment
    if not is_good or port == 0 or len(url) > URL_CHARS_MAX or not url.isascii() or not url.isprintable():
        raise BadRequest("a webhook's URL is https://HOST/PATH, without a user or a fragment, and of ASCII letters")
    return parts


def read_network(text: str) -> Network:
    """Read a network as an operator writes it.

    Raises:
        ConfigInvalid: It is none.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ConfigInvalid(f"--webhook-network {text[:64]!r} is no network; write it as 10.0.0.0/8") from None


def look_up(url: str, allowed: Sequence[Network]) -> Target:
    """Return where a URL leads.

    Raises:
        OSError: Nowhere, or to where posts do not go.
    """
    parts = check_url(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in allowed if network.version == address.version):
            return Target(parts, host, text, port)
        if parts.scheme == "https" and is_public(address):
            return Target(parts, host, text, port)
    raise OSError(f"{host} is no public address with https; --webhook-network NETWORK lets posts go there")


def is_public(address: _IpAddress) -> bool:
    """Tell whether an address leads out to everybody's internet."""
    return address.is_global and not address.is_multicast


def signature(secret: bytes, delivery: str, timestamp: int, body: bytes) -> str:
    """Return what proves who posts, and what."""
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def post(url: str, secret: bytes, delivery: str, timestamp: int, body: bytes, allowed: Sequence[Network]) -> str:  # noqa: PLR0917 - of one call
    """Post a body; return why it was not taken, empty if it was. Blocks."""
    try:
        target = look_up(url, allowed)
        connection = _connection(target)
    except (OSError, UnicodeError, BadRequest) as error:
        return _line(error)
    try:
        path = target.url.path or "/"
        headers = {
            "host": target.url.netloc,
            "content-type": "application/json",
            "user-agent": "taskd-webhook/1",
            "webhook-id": delivery,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, delivery, timestamp, body),
        }
        connection.request("POST", f"{path}?{target.url.query}" if target.url.query else path, body, headers)
        answer = connection.getresponse()
        answer.read(ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return _line(error)
    finally:
        connection.close()
    return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"  # noqa: PLR2004 - statuses of success


def _connection(target: Target) -> http.client.HTTPConnection:
    stream = socket.create_connection((target.address, target.port), timeout=SECONDS)
    if target.url.scheme == "https":
        stream = ssl.create_default_context().wrap_socket(stream, server_hostname=target.host)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=SECONDS)
    connection.sock = stream
    return connection


def _line(error: Exception) -> str:
    text = error.message if isinstance(error, BadRequest) else str(error)
    return (text or type(error).__name__).partition("\n")[0][:200]
