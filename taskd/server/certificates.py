"""Certificates: the server's own CA, the certificate it shows, and the TLS context that uses it.

Invariants:
- The CA is made once, at the first start, and pinned by every peer: it is never replaced.
- The certificate and its key stand in one file, which changes by one rename: they always fit.
- A renewal touches new handshakes only; open connections live on.

Knows no sockets. The clock and the thread are handed in.
"""

import datetime as dt
import functools
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from taskd.server.datadir import write_durably
from taskd.server.issuing import (
    HOST_NAMES_MAX,
    host_names_of,
    is_host_name,
    issue,
    make_ca,
    merge_host_names,
    private_pem,
)
from taskd.server.platform import Offload
from taskd_protocol.errors import ConfigInvalid

_ADDRESSES_MAX: Final = 64
"""Of the machine's own that are taken in: more belong to containers."""
RENEW_BELOW_DAYS: Final = 30
"""A start renews a certificate that has less left."""


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

    def __init__(self, root: Path, ca: x509.Certificate) -> None:
        self._root = root
        self._ca = ca
        self.context = _server_context()
        self.ca_pem = ca.public_bytes(serialization.Encoding.PEM).decode()
        self.ca_sha256 = ca.fingerprint(hashes.SHA256())
        self._leaf = self._load()

    def facts(self) -> CertificateFacts:
        """Return the facts of the certificate that new connections are shown."""
        return CertificateFacts(
            host_names=tuple(host_names_of(self._leaf)),
            not_before_ms=_unix_ms(self._leaf.not_valid_before_utc),
            not_after_ms=_unix_ms(self._leaf.not_valid_after_utc),
            sha256=self._leaf.fingerprint(hashes.SHA256()),
            ca_sha256=self.ca_sha256,
        )

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
        names = merge_host_names(host_names_of(self._leaf), host_names)
        await offload(functools.partial(_issue, self._root, self._ca, names, _instant(now_ms)))
        # On the loop: a handshake begun between the loading of certificate and of key would see half of each.
        self._leaf = self._load()

    def _load(self) -> x509.Certificate:
        path = self._root / "server.pem"
        self.context.load_cert_chain(path)
        return x509.load_pem_x509_certificate(path.read_bytes())


def open_certificates(root: Path, host_names: Sequence[str], now_ms: int) -> Certificates:
    """Load what the data directory holds; make or renew what is missing, short of life, or short of a name.

    Blocks: makes keys and syncs files.

    Args:
        root: The data directory, ours alone.
        host_names: Names and addresses under which peers reach this server.
        now_ms: UTC milliseconds.

    Raises:
        ConfigInvalid: A host name is none; or the CA is damaged, expired, or lacks its key when it is needed.
    """
    now = _instant(now_ms)
    wanted = merge_host_names(host_names)
    ca = _load_ca(root) or _make_ca(root, now)
    if ca.not_valid_after_utc <= now:
        raise ConfigInvalid(
            f"the CA in {root / 'ca.pem'} expired on {ca.not_valid_after_utc:%Y-%m-%d}: remove ca.pem, ca.key and"
            " server.pem to make a new one, then give every peer its new profile"
        )
    leaf = _load_leaf(root, ca)
    known = host_names_of(leaf) if leaf is not None else []
    expiring = leaf is None or leaf.not_valid_after_utc - now < dt.timedelta(days=RENEW_BELOW_DAYS)
    if expiring or not set(wanted) <= set(known):
        # Addresses come and go with the networks a machine is in: those it had before stay while there is room.
        kept = [name for name in known if name not in wanted]
        _issue(root, ca, [*wanted, *kept][:HOST_NAMES_MAX], now)
    return Certificates(root, ca)


def names_for(listen_host: str, hostname: str, addresses: Iterable[str], host_names: Sequence[str]) -> list[str]:
    """Return every name under which peers may reach this machine.

    Args:
        listen_host: Where the server listens.
        hostname: The machine's own name; left out when no certificate could carry it.
        addresses: The machine's own; they count when the server listens on all of them.
        host_names: What the user added.

    Raises:
        ConfigInvalid: One of the user's is neither a name nor an address.
    """
    names = ["localhost", "127.0.0.1", "::1"]
    if is_host_name(hostname):
        names.append(hostname)
    if listen_host in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        names += list(filter(is_host_name, addresses))[:_ADDRESSES_MAX]
    else:
        names.append(listen_host)
    return merge_host_names(names, host_names)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _load_ca(root: Path) -> x509.Certificate | None:
    """Return the CA; None when none was made, or its making was cut short before anyone could see it."""
    path = root / "ca.pem"
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ConfigInvalid(f"{path} is damaged; restore it from a backup: peers know this server by it") from None


def _make_ca(root: Path, now: dt.datetime) -> x509.Certificate:
    ca, key = make_ca(now)
    # The key first: a CA that is there without it would look like one that was lost.
    write_durably(root / "ca.key", private_pem(key), mode=0o600)
    write_durably(root / "ca.pem", ca.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return ca


def _load_leaf(root: Path, ca: x509.Certificate) -> x509.Certificate | None:
    """Return the certificate, unless it is missing, damaged, or of another CA: it can always be issued anew."""
    try:
        data = (root / "server.pem").read_bytes()
        leaf = x509.load_pem_x509_certificate(data)
        key = serialization.load_pem_private_key(data, password=None)
        leaf.verify_directly_issued_by(ca)
        host_names_of(leaf)
    except (OSError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return None
    return leaf if key.public_key() == leaf.public_key() else None


def _issue(root: Path, ca: x509.Certificate, host_names: Sequence[str], now: dt.datetime) -> None:
    """Write a new certificate and key, signed by the CA."""
    leaf, key = issue(ca, _load_ca_key(root, ca), host_names, now)
    pem = leaf.public_bytes(serialization.Encoding.PEM) + private_pem(key)
    write_durably(root / "server.pem", pem, mode=0o600)


def _load_ca_key(root: Path, ca: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    path = root / "ca.key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise ConfigInvalid(f"a new server certificate is due and {path} is not the CA's key; restore it from a backup")
    return key


def _instant(unix_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_ms // 1000, tz=dt.UTC)


def _unix_ms(instant: dt.datetime) -> int:
    return int(instant.timestamp()) * 1000
