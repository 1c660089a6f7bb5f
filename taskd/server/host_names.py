"""Host names as certificates carry them.

Invariants:
- A host name has one canonical form; none is taken that a TLS library could not match.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from taskd_protocol.errors import ConfigInvalid

HOST_NAMES_MAX: Final = 200
"""A certificate goes to every peer in every handshake."""
_DNS_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_DNS_CHARS_MAX: Final = 253


def merge_host_names(*groups: Iterable[str]) -> list[str]:
    """Return each name once, in its canonical form, in order of first mention.

    Raises:
        ConfigInvalid: One is no name and no address, or they are too many for one certificate.
    """
    names = list(dict.fromkeys(_canonical(name) for group in groups for name in group))
    if len(names) > HOST_NAMES_MAX:
        raise ConfigInvalid(f"{len(names)} host names are too many for one certificate; {HOST_NAMES_MAX} fit")
    return names


def is_host_name(host: str) -> bool:
    """Tell whether a certificate could carry it."""
    try:
        _canonical(host)
    except ConfigInvalid:
        return False
    return True


def _canonical(host: str) -> str:
    name = host.strip().removeprefix("[").removesuffix("]").rstrip(".")
    try:
        return str(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        pass
    try:
        name = name.encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    labels = name.removeprefix("*.").split(".")
    # All digits in the last label is an address mistyped, which no peer would ever match.
    if len(name) > _DNS_CHARS_MAX or labels[-1].isdigit() or not all(map(_DNS_LABEL.fullmatch, labels)):
        raise ConfigInvalid(f"host name {host[:64]!r} is neither a name nor an IP address; correct --host-name")
    return name
