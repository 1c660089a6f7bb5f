"""Certificates: made once, renewed in time, shown to whoever pins the CA."""

import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from taskd.server.certificates import Certificates, names_for, open_certificates
from taskd_protocol.errors import ConfigInvalid

NOW_MS = 1_795_000_000_000
DAY_MS = 24 * 3600 * 1000
LOCAL = ["localhost", "127.0.0.1", "::1"]

T = TypeVar("T")


async def here(work: Callable[[], T], /) -> T:
    """Offload nowhere."""
    return work()


def shake_hands(certificates: Certificates, server_name: str, *, strict: bool = True) -> tuple[ssl.SSLObject, bytes]:
    """Complete a handshake in memory; return the client's end and the certificate it was shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificates.ca_pem)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return shake_hands_as(context, certificates, server_name)


def shake_hands_as(
    context: ssl.SSLContext, certificates: Certificates, server_name: str
) -> tuple[ssl.SSLObject, bytes]:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=server_name)
    server = certificates.context.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return client, shown


def test_the_first_start_makes_ca_and_certificate(tmp_path: Path) -> None:
    """A peer that pins the CA gets through under each name, by the strictest rules; keys are their owner's alone."""
    certificates = open_certificates(tmp_path, [*LOCAL, "box.example", "2001:db8::7"], NOW_MS)
    for name in ("localhost", "127.0.0.1", "::1", "box.example", "2001:db8:0::7"):
        client, _ = shake_hands(certificates, name)
        assert client.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(certificates, "other.example")
    for secret in ("ca.key", "server.pem"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600
    facts = certificates.facts()
    assert facts.host_names == (*LOCAL, "box.example", "2001:db8::7")
    assert facts.not_after_ms - NOW_MS == 365 * DAY_MS
    assert facts.not_before_ms < NOW_MS
    assert len(facts.sha256) == len(facts.ca_sha256) == 32


def test_an_old_protocol_is_refused(tmp_path: Path) -> None:
    """Nothing below TLS 1.2."""
    certificates = open_certificates(tmp_path, LOCAL, NOW_MS)
    assert certificates.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert certificates.context.options & ssl.OP_NO_COMPRESSION


def test_a_peer_of_another_ca_refuses(tmp_path: Path) -> None:
    """Another server's CA does not open this one."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours = open_certificates(tmp_path / "a", LOCAL, NOW_MS)
    other = open_certificates(tmp_path / "b", LOCAL, NOW_MS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=other.ca_pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands_as(context, ours, "localhost")


def test_later_starts_keep_what_is_there(tmp_path: Path) -> None:
    """The same CA for ever, and the same certificate while it is good for every name."""
    first = open_certificates(tmp_path, [*LOCAL, "added.example"], NOW_MS).facts()
    assert open_certificates(tmp_path, LOCAL, NOW_MS + 300 * DAY_MS).facts() == first


def test_a_new_name_is_added_to_the_old_ones(tmp_path: Path) -> None:
    """A start with another --host-name takes none away."""
    first = open_certificates(tmp_path, [*LOCAL, "one.example"], NOW_MS).facts()
    second = open_certificates(tmp_path, [*LOCAL, "Two.Example."], NOW_MS).facts()
    assert second.host_names == (*LOCAL, "two.example", "one.example")
    assert second.ca_sha256 == first.ca_sha256
    assert second.sha256 != first.sha256


def test_names_of_former_networks_do_not_pile_up(tmp_path: Path) -> None:
    """A machine that moves about keeps starting; the names asked for now are always in."""
    for net in range(5):
        wanted = [*LOCAL, *(f"10.{net}.0.{host}" for host in range(60))]
        facts = open_certificates(tmp_path, wanted, NOW_MS).facts()
        assert set(wanted) <= set(facts.host_names)
    assert len(facts.host_names) == 200
    with pytest.raises(ConfigInvalid, match="too many for one certificate"):
        open_certificates(tmp_path, [f"10.9.0.{host}" for host in range(201)], NOW_MS)


@pytest.mark.parametrize(("days", "renewed"), [(334, False), (336, True), (400, True)])
def test_a_start_renews_in_the_last_thirty_days(tmp_path: Path, days: int, *, renewed: bool) -> None:
    """Nobody needs to remember it."""
    first = open_certificates(tmp_path, LOCAL, NOW_MS).facts()
    later = open_certificates(tmp_path, LOCAL, NOW_MS + days * DAY_MS).facts()
    assert (later.sha256 != first.sha256) == renewed


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_lost_certificate_is_issued_anew(tmp_path: Path, damage: bytes | None) -> None:
    """Only the CA is irreplaceable."""
    first = open_certificates(tmp_path, LOCAL, NOW_MS)
    path = tmp_path / "server.pem"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    second = open_certificates(tmp_path, LOCAL, NOW_MS)
    assert second.ca_pem == first.ca_pem
    shake_hands(second, "localhost")


async def test_a_renewal_shows_in_new_handshakes_alone(tmp_path: Path) -> None:
    """The context that listeners hold follows by itself; a connection that is open does not notice."""
    certificates = open_certificates(tmp_path, LOCAL, NOW_MS)
    _, before = shake_hands(certificates, "localhost")
    await certificates.renew(["new.example"], NOW_MS + DAY_MS, here)
    _, after = shake_hands(certificates, "new.example")
    assert after != before
    facts = certificates.facts()
    assert facts.host_names == (*LOCAL, "new.example")
    assert facts.not_after_ms == NOW_MS + 366 * DAY_MS
    assert open_certificates(tmp_path, LOCAL, NOW_MS).facts() == facts


async def test_a_renewal_without_the_ca_key_changes_nothing(tmp_path: Path) -> None:
    """Whoever keeps the CA's key elsewhere is told when it is needed; until then the server serves."""
    open_certificates(tmp_path, LOCAL, NOW_MS)
    (tmp_path / "ca.key").unlink()
    certificates = open_certificates(tmp_path, LOCAL, NOW_MS)
    facts = certificates.facts()
    with pytest.raises(ConfigInvalid, match=r"ca\.key is not the CA's key; restore it"):
        await certificates.renew([], NOW_MS, here)
    assert certificates.facts() == facts
    shake_hands(certificates, "localhost")


def test_a_damaged_ca_is_never_replaced(tmp_path: Path) -> None:
    """A new CA would lock every peer out without a word."""
    open_certificates(tmp_path, LOCAL, NOW_MS)
    (tmp_path / "ca.pem").write_text("rubbish")
    with pytest.raises(ConfigInvalid, match="is damaged; restore it from a backup"):
        open_certificates(tmp_path, LOCAL, NOW_MS)


def test_no_certificate_outlives_its_ca(tmp_path: Path) -> None:
    """Near the CA's end the certificate ends with it; after it the start says what to do."""
    open_certificates(tmp_path, LOCAL, NOW_MS)
    late = open_certificates(tmp_path, LOCAL, NOW_MS + 3600 * DAY_MS).facts()
    assert late.not_after_ms == NOW_MS + 3650 * DAY_MS
    with pytest.raises(ConfigInvalid, match="expired on"):
        open_certificates(tmp_path, LOCAL, NOW_MS + 3650 * DAY_MS)


def test_names_of_a_machine() -> None:
    """Loopback always, the machine's own name, where it listens, and what the user says."""
    assert names_for(["127.0.0.1"], "box", ["10.0.0.5"], ["a.example"]) == [*LOCAL, "box", "a.example"]
    assert names_for(["0.0.0.0"], "a b", ["10.0.0.5", "fe80::1%eth0"], []) == [*LOCAL, "10.0.0.5", "fe80::1"]  # noqa: S104
    assert names_for(["192.0.2.1"], "box", ["10.0.0.5"], ["bücher.example"]) == [
        *LOCAL,
        "box",
        "192.0.2.1",
        "xn--bcher-kva.example",
    ]


@pytest.mark.parametrize("name", ["", "a b", "-x.example", "10.0.0.999", "a..b", "x" * 300, "http://x"])
def test_a_host_name_that_is_none_is_refused(name: str) -> None:
    """At the start, not in some peer's handshake."""
    with pytest.raises(ConfigInvalid, match="correct --host-name"):
        names_for(["127.0.0.1"], "box", [], [name])


def test_a_server_never_holds_what_makes_certificates(tmp_path: Path) -> None:
    """Neither the library nor the CA's key: both are in a process that ends."""
    script = f"""
import sys
from pathlib import Path
from taskd.cli import serving
from taskd.server.certificates import open_certificates
print(open_certificates(Path({str(tmp_path)!r}), ["localhost"], {NOW_MS}).facts().host_names)
print([name for name in sys.modules if name.startswith("cryptography")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["('localhost',)", "[]"]
