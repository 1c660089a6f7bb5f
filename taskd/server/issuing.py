"""Issuing: makes CAs and server certificates out of names and instants.

Invariants:
- A certificate never outlives the CA that signed it.
- A host name has one canonical form; none is signed that a TLS library could not match.

Knows no files, no clock and no TLS.
"""

import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taskd_protocol.errors import ConfigInvalid

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 365
_SKEW: Final = dt.timedelta(days=1)
"""Certificates are good from a day before they are made, for peers whose clocks lag."""
HOST_NAMES_MAX: Final = 200
"""A certificate goes to every peer in every handshake."""
_DNS_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_DNS_CHARS_MAX: Final = 253
_ORGANIZATION: Final = "taskd"


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


def host_names_of(leaf: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is good for."""
    return [str(name.value) for name in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


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
