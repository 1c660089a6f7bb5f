"""Tokens: what is told, what is kept, and what is refused."""

import hashlib
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from taskd.server import tokens
from taskd_protocol.errors import AuthRefused

ENTROPY = st.binary(min_size=tokens.ENTROPY_BYTES, max_size=tokens.ENTROPY_BYTES)
ROLES = st.sampled_from(["client", "agent", "viewer", "operator", "admin", "join"])


@given(ROLES, ENTROPY)
def test_a_minted_token_is_read_back(role: str, entropy: bytes) -> None:
    """What mint tells, parse reads, and it fits the hash that was kept and no other."""
    minted = tokens.mint(role, entropy)
    assert re.fullmatch(r"taskd_[a-z]+_[a-z2-7]{12}_[0-9A-Za-z]{43}_[0-9a-f]{8}", minted.text)
    parsed = tokens.parse(f" {minted.text}\n")
    assert (parsed.role, parsed.key_id) == (role, minted.key_id)
    assert tokens.secret_matches(parsed, minted.secret_sha256)
    assert not tokens.secret_matches(parsed, hashlib.sha256(b"other").digest())
    assert not tokens.secret_matches(parsed, None)
    assert not tokens.secret_matches(parsed, bytes(32))


@given(ENTROPY, ENTROPY)
def test_chance_is_used_in_full(first: bytes, second: bytes) -> None:
    """Other secret bits give another secret; other key id bits another key id."""
    one, other = tokens.mint("agent", first), tokens.mint("agent", second)
    assert (first[8:] == second[8:]) == (one.secret_sha256 == other.secret_sha256)
    assert (int.from_bytes(first[:8]) % 2**60 == int.from_bytes(second[:8]) % 2**60) == (one.key_id == other.key_id)


@given(ROLES, ENTROPY, st.data())
def test_a_mistyped_token_is_refused_in_the_same_words(role: str, entropy: bytes, data: st.DataObject) -> None:
    """One changed, dropped or added character: refused before any look-up, always with one message."""
    text = tokens.mint(role, entropy).text
    index = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(exclude_categories=["Zs", "Zl", "Zp", "Cc"]))
    other = data.draw(st.sampled_from([text[:index] + letter + text[index + 1 :], text[:index] + text[index + 1 :]]))
    assume(other != text)
    with pytest.raises(AuthRefused) as caught:
        tokens.parse(other)
    assert caught.value.message == tokens.refusal().message


@pytest.mark.parametrize("text", ["", "taskd", "taskd_agent_x_y_z", "x" * 10_000_000, "taskd_" * 5, "é_" * 5, "____"])
def test_what_is_no_token_is_refused(text: str) -> None:
    """Whatever a stranger sends as a token, the refusal is the same."""
    with pytest.raises(AuthRefused, match=re.escape(tokens.refusal().message)):
        tokens.parse(text)


def test_a_parsed_token_shows_no_secret() -> None:
    """A token that ends up in a log line or a traceback gives nothing away."""
    parsed = tokens.parse(tokens.mint("admin", bytes(range(40))).text)
    assert parsed.secret not in repr(parsed)
    assert parsed.key_id in repr(parsed)
