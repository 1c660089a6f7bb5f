"""Issuing: makes CAs and server certificates out of names and instants, and puts them into a data directory.

A server has it done by a process of its own (``taskd.server.issuer``).

Invariants:
- A certificate never outlives the CA that signed it.
- A CA that is there is never replaced.

Knows no clock and no TLS.
"""

import datetime as dt
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taskd.server.datadir import write_durably
from taskd.server.host_names import merge_host_names
from taskd_protocol.errors import ConfigInvalid

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 365
_SKEW: Final = dt.timedelta(days=1)
"""Certificates are good from a day before they are made, for peers whose clocks lag."""
_ORGANIZATION: Final = "taskd"


def main(words: Sequence[str]) -> NoReturn:
    """Issue into a data directory, then exit: with 0, or 1 and a line that says why not.

    Args:
        words: The directory, the instant (UTC milliseconds), and names.
    """
    root, now_ms, *host_names = words
    try:
        issue_files(Path(root), host_names, int(now_ms))
    except ConfigInvalid as error:
        sys.exit(error.message)
    sys.exit()


def issue_files(root: Path, host_names: Sequence[str], now_ms: int) -> None:
    """Write a new certificate and its key; before, the CA and its key, if there are none. See ``issuer.Issue``."""
    now = dt.datetime.fromtimestamp(now_ms // 1000, tz=dt.UTC)
    path = root / "ca.pem"
    if path.exists():
        ca = x509.load_pem_x509_certificate(path.read_bytes())
        ca_key = _load_key(root / "ca.key", ca)
    else:
        ca, ca_key = make_ca(now)
        # The key first: a CA that is there without it would look like one that was lost.
        write_durably(root / "ca.key", private_pem(ca_key), mode=0o600)
        write_durably(path, ca.public_bytes(serialization.Encoding.PEM), mode=0o644)
    leaf, key = issue(ca, ca_key, merge_host_names(host_names), now)
    pem = leaf.public_bytes(serialization.Encoding.PEM) + private_pem(key)
    write_durably(root / "server.pem", pem, mode=0o600)


def make_ca(now: dt.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a CA and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Its own name for each, so that a peer that knows two CAs tells by the name which one signed.
    name = _name(f"taskd CA {x509.random_serial_number():x}"[:32])
    ca = (
        _builder(name, name, key.public_key(), now, now + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return ca, key


def issue(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    host_names: Sequence[str],
    now: dt.datetime,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a server certificate and its key.

    Args:
        ca: Who signs.
        ca_key: The CA's key.
        host_names: As ``merge_host_names`` gives them.
        now: When its year begins.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    not_after = min(now + dt.timedelta(days=SERVER_DAYS), ca.not_valid_after_utc)
    names = x509.SubjectAlternativeName([_general_name(host) for host in host_names])
    leaf = (
        _builder(_name("taskd server"), ca.subject, key.public_key(), now, not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return leaf, key


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a key as it goes into a file that only its owner reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path, ca: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise ConfigInvalid(f"a new server certificate is due and {path} is not the CA's key; restore it from a backup")
    return key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    not_after: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(not_after)
        # Strict verifiers (Python's own from 3.13 on) refuse a CA without it.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
