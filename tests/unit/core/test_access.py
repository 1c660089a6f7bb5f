"""Access: tokens and one-time invitations, as they are stored."""

import msgspec
import pytest

from harness.core import Shell
from taskd.core import records
from taskd.core.access import JOIN, LOGGED_OUT_MAX, is_ended, is_good
from taskd.core.commands import EndSession, Now, RevokeToken, StoreToken, UseInvitation
from taskd.core.effects import TokenRevoked
from taskd.core.records import TokenRecord
from taskd_protocol.errors import BadRequest, InvitationRefused, TokenUnknown


def token(shell: Shell, role: str = "client", *, lasts_ms: int = 60_000) -> TokenRecord:
    return TokenRecord(role, bytes(32), "a label", shell.wall_ms, shell.wall_ms + lasts_ms)


def test_a_token_is_kept_over_a_restart(shell: Shell) -> None:
    record = token(shell)
    shell.do(StoreToken("k1", record))
    shell.crash()
    assert shell.working.tokens == {"k1": record}


def test_a_token_is_good_until_it_expires_or_is_revoked(shell: Shell) -> None:
    record = token(shell)
    assert is_good(record, shell.now)
    assert not is_good(record, Now(0, record.expires_at_ms))
    assert not is_good(msgspec.structs.replace(record, revoked=True), shell.now)
    assert not is_good(None, shell.now)


def test_revoking_is_told_and_lasts(shell: Shell) -> None:
    shell.do(StoreToken("k1", token(shell)))
    for _ in range(2):
        shell.do(RevokeToken("k1"))
        assert shell.take_told(TokenRevoked) == [TokenRevoked("k1")]
    shell.crash()
    assert shell.working.tokens["k1"].revoked
    with pytest.raises(TokenUnknown):
        shell.do(RevokeToken("k2"))


def test_a_session_that_was_ended_stays_so_over_a_restart(shell: Shell) -> None:
    """Others of the token go on; its name is forgotten when its cookie is void by itself."""
    shell.do(StoreToken("k1", token(shell)))
    shell.do(EndSession("k1", "one", shell.wall_ms + 1_000))
    shell.crash()
    record = shell.working.tokens["k1"]
    assert is_ended(record, "one", shell.wall_ms)
    assert not is_ended(record, "two", shell.wall_ms)
    shell.pass_ms(1_000)
    shell.do(EndSession("k1", "two", shell.wall_ms + 1_000))
    assert shell.working.tokens["k1"].logged_out == [("two", shell.wall_ms + 1_000)]


def test_with_too_many_ended_sessions_all_of_the_token_end(shell: Shell) -> None:
    """None that was forgotten is good again; one that is opened afterwards is."""
    shell.do(StoreToken("k1", token(shell)))
    opened_ms = shell.wall_ms
    for number in range(LOGGED_OUT_MAX + 1):
        shell.do(EndSession("k1", str(number), shell.wall_ms + 60_000))
    record = shell.working.tokens["k1"]
    assert record.logged_out == []
    assert is_ended(record, "0", opened_ms)
    assert is_ended(record, "another", opened_ms)
    assert not is_ended(record, "later", shell.wall_ms + 1)


def test_a_session_of_a_token_that_is_gone_is_nobodys(shell: Shell) -> None:
    shell.do(EndSession("k1", "one", shell.wall_ms + 1_000))
    assert shell.working.tokens == {}
    shell.do(StoreToken("k1", token(shell)))
    shell.do(RevokeToken("k1"))
    shell.do(EndSession("k1", "one", shell.wall_ms + 1_000))
    assert shell.working.tokens["k1"].logged_out == []


def test_an_invitation_becomes_a_token_once(shell: Shell) -> None:
    shell.do(StoreToken("i1", token(shell, JOIN)))
    use = UseInvitation("i1", "k1", token(shell, "agent"))
    shell.do(use)
    assert list(shell.working.tokens) == ["k1"]
    assert shell.disk.scan(records.TOKEN) == [b"k1"]
    for again in (use, msgspec.structs.replace(use, key_id="k2"), UseInvitation("i0", "k2", use.record)):
        with pytest.raises(InvitationRefused):
            shell.do(again)
    assert list(shell.working.tokens) == ["k1"]


@pytest.mark.parametrize("spoilt", ["expired", "revoked", "no invitation"])
def test_what_is_no_good_invitation_is_refused(shell: Shell, spoilt: str) -> None:
    """Above all a token of another role: it must not be turned into an agent's."""
    shell.do(StoreToken("i1", token(shell, "viewer" if spoilt == "no invitation" else JOIN)))
    if spoilt == "revoked":
        shell.do(RevokeToken("i1"))
    if spoilt == "expired":
        shell.wall_ms += 60_000
    with pytest.raises(InvitationRefused):
        shell.do(UseInvitation("i1", "k1", token(shell, "agent")))
    assert list(shell.working.tokens) == ["i1"]


def test_expired_invitations_go_when_a_token_is_stored(shell: Shell) -> None:
    shell.do(StoreToken("i1", token(shell, JOIN, lasts_ms=10)))
    shell.do(StoreToken("k1", token(shell, lasts_ms=10)))
    shell.pass_ms(10)
    shell.do(StoreToken("i2", token(shell, JOIN)))
    assert list(shell.working.tokens) == ["k1", "i2"]
    assert shell.disk.scan(records.TOKEN) == [b"i2", b"k1"]


def test_tokens_and_labels_are_bounded(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.access.TOKENS_MAX", 2)
    with pytest.raises(BadRequest):
        shell.do(StoreToken("k", msgspec.structs.replace(token(shell), label="x" * 257)))
    shell.do(StoreToken("k1", token(shell)))
    shell.do(StoreToken("k2", token(shell)))
    with pytest.raises(BadRequest):
        shell.do(StoreToken("k3", token(shell)))
    assert list(shell.working.tokens) == ["k1", "k2"]
