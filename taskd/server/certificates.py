"""Certificates: the server's own CA, the certificate it shows, and the TLS context that uses it.

Invariants:
- The CA is made once, at the first start, and pinned by every peer: it is never replaced.
- The certificate and its key stand in one file, which changes by one rename: they always fit.
- A renewal touches new handshakes only; open connections live on.

What is in them is read as a peer reads it, by a handshake in memory. Knows no sockets, and no keys. The clock, the
thread and who issues are handed in.
"""

import datetime as dt
import functools
import hashlib
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskd.server.host_names import HOST_NAMES_MAX, is_host_name, merge_host_names
from taskd.server.issuer import Issue, issue_apart
from taskd.server.platform import Offload
from taskd_protocol.errors import ConfigInvalid

_ADDRESSES_MAX: Final = 64
"""Of the machine's own that are taken in: more belong to containers."""
RENEW_BELOW_DAYS: Final = 30
"""A start renews a certificate that has less left."""
_DAY_MS: Final = 24 * 3600 * 1000
_ANY_TIME: Final = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name: a certificate that has expired is read, too."""
_FLIGHTS_MAX: Final = 4
"""Of a handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What people and peers may know of the certificate in use."""

    host_names: tuple[str, ...]
    not_before_ms: int
    not_after_ms: int
    sha256: bytes
    """Of the certificate in DER."""
    ca_sha256: bytes
    """Of the CA certificate in DER: what a join code pins."""


class Certificates:
    """The CA and the certificate of one data directory, with the live TLS context.

    Attributes:
        context: For ``trio.SSLStream`` and the HTTP server; follows renewals by itself.
        ca_pem: The CA certificate, as peers pin it.
        ca_sha256: Of the CA certificate in DER.
    """

    def __init__(self, root: Path, ca: "_Ca", issue: Issue) -> None:
        self._root = root
        self._ca = ca
        self._issue = issue
        self.context = _server_context()
        self.ca_pem = ca.pem
        self.ca_sha256 = ca.sha256
        self._facts = self._load()

    def facts(self) -> CertificateFacts:
        """Return the facts of the certificate that new connections are shown."""
        return self._facts

    async def renew(self, host_names: Sequence[str], now_ms: int, offload: Offload) -> None:
        """Issue a new certificate and show it from now on, without touching open connections.

        Cancelled halfway, the old one goes on; the new one may be on disk for the next start.

        Args:
            host_names: Names and addresses added to those that it had.
            now_ms: UTC milliseconds.
            offload: Where keys are made and files synced.

        Raises:
            ConfigInvalid: A name is none, or the CA's key is missing.
        """
        names = merge_host_names(self._facts.host_names, host_names)
        await offload(functools.partial(self._issue, self._root, names, now_ms))
        # On the loop: a handshake begun between the loading of certificate and of key would see half of each.
        self._facts = self._load()

    def _load(self) -> CertificateFacts:
        self.context.load_cert_chain(self._root / "server.pem", password="")
        return _shown(self.context, self._ca)


def open_certificates(root: Path, host_names: Sequence[str], now_ms: int, issue: Issue = issue_apart) -> Certificates:
    """Load what the data directory holds; have made or renewed what is missing, short of life, or short of a name.

    Blocks: keys are made and files synced.

    Args:
        root: The data directory, ours alone.
        host_names: Names and addresses under which peers reach this server.
        now_ms: UTC milliseconds.
        issue: Makes them.

    Raises:
        ConfigInvalid: A host name is none; or the CA is damaged, expired, or lacks its key when it is needed.
    """
    wanted = merge_host_names(host_names)
    ca = _read_ca(root)
    if ca is not None and ca.not_after_ms <= now_ms:
        ended = dt.datetime.fromtimestamp(ca.not_after_ms // 1000, dt.UTC)
        raise ConfigInvalid(
            f"the CA in {root / 'ca.pem'} expired on {ended:%Y-%m-%d}: remove ca.pem, ca.key and"
            " server.pem to make a new one, then give every peer its new profile"
        )
    leaf = None if ca is None else _read_leaf(root, ca)
    known = () if leaf is None else leaf.host_names
    expiring = leaf is None or leaf.not_after_ms - now_ms < RENEW_BELOW_DAYS * _DAY_MS
    if expiring or not set(wanted) <= set(known):
        # Addresses come and go with the networks a machine is in: those it had before stay while there is room.
        kept = [name for name in known if name not in wanted]
        issue(root, [*wanted, *kept][:HOST_NAMES_MAX], now_ms)
        ca = ca or _read_ca(root)
    assert ca is not None
    return Certificates(root, ca, issue)


def names_for(hosts: Iterable[str], hostname: str, addresses: Sequence[str], host_names: Sequence[str]) -> list[str]:
    """Return every name under which peers may reach this machine.

    Args:
        hosts: Where the server listens, for all that it speaks.
        hostname: The machine's own name; left out when no certificate could carry it.
        addresses: The machine's own; they count when the server listens on all of them somewhere.
        host_names: What the user added.

    Raises:
        ConfigInvalid: One of the user's is neither a name nor an address.
    """
    names = ["localhost", "127.0.0.1", "::1"]
    if is_host_name(hostname):
        names.append(hostname)
    for host in hosts:
        if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            names += list(filter(is_host_name, addresses))[:_ADDRESSES_MAX]
        else:
            names.append(host)
    return merge_host_names(names, host_names)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


@dataclass(frozen=True, slots=True)
class _Ca:
    """A CA's certificate."""

    pem: str
    sha256: bytes
    not_after_ms: int


def _read_ca(root: Path) -> _Ca | None:
    """Return the CA; None when none was made, or its making was cut short before anyone could see it."""
    path = root / "ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=path.read_text(encoding="ascii"))
        ca, der = context.get_ca_certs()[0], context.get_ca_certs(binary_form=True)[0]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError):
        raise ConfigInvalid(f"{path} is damaged; restore it from a backup: peers know this server by it") from None
    return _Ca(ssl.DER_cert_to_PEM_cert(der), hashlib.sha256(der).digest(), _unix_ms(ca["notAfter"]))


def _read_leaf(root: Path, ca: _Ca) -> CertificateFacts | None:
    """Return the certificate, unless it is missing, damaged, or of another CA: it can always be issued anew."""
    context = _server_context()
    try:
        context.load_cert_chain(root / "server.pem", password="")
        return _shown(context, ca)
    except (OSError, ValueError, KeyError):
        return None


def _shown(context: ssl.SSLContext, ca: _Ca) -> CertificateFacts:
    """Return what a peer that pins the CA is shown.

    Raises:
        SSLError: It would not trust that.
        KeyError: It is good for no name.
    """
    pinned = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pinned.check_hostname = False
    pinned.verify_flags |= _ANY_TIME
    pinned.load_verify_locations(cadata=ca.pem)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = pinned.wrap_bio(down, up)
    ends = peer, context.wrap_bio(up, down, server_side=True)
    for end in ends * _FLIGHTS_MAX:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown, der = peer.getpeercert(), peer.getpeercert(binary_form=True)
    assert shown is not None
    assert der is not None
    return CertificateFacts(
        host_names=tuple(_host_name(*map(str, each)) for each in shown["subjectAltName"]),
        not_before_ms=_unix_ms(shown["notBefore"]),
        not_after_ms=_unix_ms(shown["notAfter"]),
        sha256=hashlib.sha256(der).digest(),
        ca_sha256=ca.sha256,
    )


def _host_name(kind: str, name: str) -> str:
    return str(ipaddress.ip_address(name)) if kind == "IP Address" else name


def _unix_ms(instant: object) -> int:
    return ssl.cert_time_to_seconds(str(instant)) * 1000
