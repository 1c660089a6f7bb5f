"""Addresses: what people write after ``--listen`` and ``--http``, and the sockets that come of it.

Invariants:
- Without TLS, only loopback is ever listened on.
- All sockets of one address have one port, also when the port was left to the kernel.

Knows neither protocol.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import psutil
import trio

from taskd_protocol.errors import AddressInsecure, AddressInUse, ConfigInvalid, TaskdError

BACKLOG: Final = 4096
"""Connections that may wait to be accepted: every agent and client of a large site, back after a restart."""

_PORT_MAX: Final = 65535
_PORT_DIGITS_MAX: Final = 5
_PORT_TRIES: Final = 16
"""Ports tried when the kernel's free port on one address is taken on the next."""
_UNAVAILABLE: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class Address(NamedTuple):
    """Where to listen."""

    host: str
    """A name or an IP address, never empty, without brackets."""
    port: int
    """0 takes a free one."""

    def __str__(self) -> str:
        """Return ``host:port``, with brackets where IPv6 needs them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, source: str) -> Address:
    """Read ``HOST:PORT`` or ``[IPV6]:PORT``.

    Args:
        text: As people wrote it.
        source: Where they wrote it, for the message: ``--listen``.

    Raises:
        ConfigInvalid: It is neither.
    """
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    whole = colon and len(port) <= _PORT_DIGITS_MAX and port.isascii() and port.isdecimal() and int(port) <= _PORT_MAX
    if not whole or (":" in host and not bracketed):
        raise ConfigInvalid(f"{source} {text!r} is no address; write HOST:PORT, such as 127.0.0.1:7070")
    host = host[1:-1] if bracketed else host
    if not host:
        raise ConfigInvalid(
            f"{source} {text!r} names no host; write 127.0.0.1{text}, or 0.0.0.0{text} for all addresses"
        )
    return Address(host, int(port))


class Listen(Protocol):
    """Opens listening sockets."""

    async def __call__(self, host: str, port: int, backlog: int, /) -> Sequence[trio.SocketListener]:
        """Listen on every address that ``host`` names, all with one port; port 0 takes a free one.

        Raises:
            OSError: No address of that name, or the port is taken or not allowed.
        """
        ...


async def open_sockets(host: str, port: int, backlog: int, /) -> Sequence[trio.SocketListener]:
    """Listen on every address that ``host`` names, all with one port; port 0 takes a free one.

    Raises:
        OSError: No address of that name, or the port is taken or not allowed.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    for tries_left in reversed(range(_PORT_TRIES if port == 0 and len(places) > 1 else 1)):
        listeners: list[trio.SocketListener] = []
        try:
            for family, sockaddr in places:
                chosen = port_of(listeners) if listeners else port
                listeners += await _open(family, (sockaddr[0], chosen, *sockaddr[2:]), backlog)
        except OSError as error:
            close_sockets(listeners)
            if error.errno != errno.EADDRINUSE or not tries_left:
                raise
        else:
            break
    if not listeners:
        raise OSError(errno.EADDRNOTAVAIL, f"this machine has no address {host}")
    return listeners


def port_of(listeners: Sequence[trio.SocketListener]) -> int:
    """Return the port that the sockets of one address share."""
    port = listeners[0].socket.getsockname()[1]
    assert isinstance(port, int)
    return port


def only_loopback(listeners: Sequence[trio.SocketListener]) -> bool:
    """Tell whether nobody but this machine can reach any of them."""
    hosts = [listener.socket.getsockname()[0] for listener in listeners]
    return all(ipaddress.ip_address(host.partition("%")[0]).is_loopback for host in hosts)


def machine_addresses() -> list[str]:
    """Return this machine's own addresses that others may reach, in the order of its interfaces."""
    texts = [
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in {socket.AF_INET, socket.AF_INET6}
    ]
    addresses = [ipaddress.ip_address(text) for text in texts]
    return [str(address) for address in addresses if not address.is_loopback and not address.is_link_local]


def reachable(address: Address) -> list[Address]:
    """Return where others may find what listens there: every address of this machine when it listens on all."""
    if address.host not in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return [address]
    own = [host for host in machine_addresses() if (":" in host) == (":" in address.host)]
    return [Address(host, address.port) for host in own] or [address]


def close_sockets(listeners: Sequence[trio.SocketListener]) -> None:
    """Let the port go; what waits to be accepted is reset."""
    for listener in listeners:
        listener.socket.close()


async def bind(
    address: Address,
    source: str,
    listen: Listen,
    *,
    secured: bool,
) -> tuple[Sequence[trio.SocketListener], Address]:
    """Listen on an address; return the sockets and the address with its real port.

    Args:
        address: Where.
        source: Where people wrote it, for the message: ``--listen``.
        listen: Opens the sockets.
        secured: Whether TLS will be spoken there.

    Raises:
        AddressInUse: The port is taken.
        AddressInsecure: Others could reach it, and it is not secured.
        ConfigInvalid: There is no such address here, or the port is not allowed.
    """
    try:
        listeners = await listen(address.host, address.port, BACKLOG)
    except OSError as error:
        raise _refused(address, source, error) from None
    if not secured and not only_loopback(listeners):
        close_sockets(listeners)
        raise AddressInsecure(
            f"{source} {address} can be reached by others and TLS is off: leave it on or use 127.0.0.1"
        )
    return listeners, Address(address.host, port_of(listeners))


async def _open(
    family: socket.AddressFamily, sockaddr: tuple[str | int, ...], backlog: int
) -> list[trio.SocketListener]:
    """Listen on one address; empty when this machine lacks it: a name may stand for more than it has."""
    sock = None
    try:
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind(sockaddr)
        sock.listen(backlog)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError) and error.errno in _UNAVAILABLE:
            return []
        raise
    return [trio.SocketListener(sock)]


def _refused(address: Address, source: str, error: OSError) -> TaskdError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(
            f"{source} {address}: the port is in use; stop what listens there, or choose another, or 0 for a free one"
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ConfigInvalid(f"{source} {address}: not allowed to listen there; choose a port above 1023")
    return ConfigInvalid(f"{source} {address}: {error.strerror or error}; choose an address of this machine")
