"""Tokens: the secret that a peer shows, as text, and the hash of it that is kept.

``taskd_<role>_<key id>_<secret>_<checksum>``. The prefix and the checksum let secret scanners find
one that leaked, and let a mistyped one be refused without a look-up. The key id finds the record,
the secret proves the right to it. The role in the text is a label for people: what counts is the
role in the record.

Invariants:
- A secret is said once, to whoever asked for it; only its SHA-256 is kept.
- Every refusal reads the same, whatever was wrong, and an unknown key id costs the same comparison
  as a wrong secret.

Knows neither the records nor the clock; chance is handed in as bytes.
"""

import hashlib
import hmac
import zlib
from dataclasses import dataclass
from typing import Final

from taskd_protocol.errors import AuthRefused

ENTROPY_BYTES: Final = 40
"""Chance that one token takes: 8 bytes for the key id, 32 for the secret."""

_KEY_ID_CHARS: Final = 12
"""60 bits: enough that two never meet."""
_SECRET_CHARS: Final = 43
"""256 bits in base 62, which has neither the separator nor anything that a shell or URL minds."""
_CHECKSUM_CHARS: Final = 8
_TEXT_CHARS_MAX: Final = 128
"""No token is longer: nothing longer is hashed or split."""
_PARTS: Final = 5

_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_REFUSED: Final = "the token is unknown, malformed, expired or revoked; make a new one with: taskd token create"


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedToken:
    """A new token: the text goes to its owner and nowhere else, the rest into a record."""

    text: str
    key_id: str
    secret_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedToken:
    """A token as a peer showed it: well-formed, and not yet believed."""

    role: str
    """As the text says; the record decides."""
    key_id: str
    secret: str

    def __repr__(self) -> str:
        """Show no secret, whoever logs it."""
        return f"ParsedToken(role={self.role!r}, key_id={self.key_id!r})"


def mint(role: str, entropy: bytes) -> MintedToken:
    """Make a token, or with the role ``join`` the one-time secret of an invitation.

    Args:
        role: A lower-case word.
        entropy: ``ENTROPY_BYTES`` unpredictable bytes, used for this token alone.
    """
    assert len(entropy) == ENTROPY_BYTES
    assert role.isascii() and role.isalpha() and role.islower()  # noqa: PT018 - one rule
    key_id = _digits(int.from_bytes(entropy[:8], "big"), _BASE32, _KEY_ID_CHARS)
    secret = _digits(int.from_bytes(entropy[8:], "big"), _BASE62, _SECRET_CHARS)
    body = f"taskd_{role}_{key_id}_{secret}"
    return MintedToken(text=f"{body}_{_checksum(body)}", key_id=key_id, secret_sha256=_sha256(secret))


def parse(text: str) -> ParsedToken:
    """Read a token as a peer showed it.

    Raises:
        AuthRefused: It is malformed, or its checksum does not fit.
    """
    text = text.strip()
    parts = text.split("_") if len(text) <= _TEXT_CHARS_MAX and text.isascii() else []
    if len(parts) != _PARTS:
        raise refusal()
    prefix, role, key_id, secret, checksum = parts
    if prefix != "taskd" or checksum != _checksum(f"taskd_{role}_{key_id}_{secret}"):
        raise refusal()
    return ParsedToken(role=role, key_id=key_id, secret=secret)


def secret_matches(token: ParsedToken, secret_sha256: bytes | None) -> bool:
    """Compare with what is kept, in the same time whether or not it fits.

    Args:
        token: As parsed.
        secret_sha256: Of the record with the token's key id; None when there is none, which never fits.
    """
    shown = _sha256(token.secret)
    fits = hmac.compare_digest(shown, secret_sha256 if secret_sha256 is not None else bytes(len(shown)))
    return fits and secret_sha256 is not None


def refusal() -> AuthRefused:
    """Return the one answer to a token that is not good, whatever is wrong with it."""
    return AuthRefused(_REFUSED)


def _sha256(secret: str) -> bytes:
    # No salt and no slow hash: the secret is 256 random bits, there is nothing to guess.
    return hashlib.sha256(secret.encode()).digest()


def _checksum(body: str) -> str:
    return format(zlib.crc32(body.encode()), f"0{_CHECKSUM_CHARS}x")


def _digits(number: int, alphabet: str, width: int) -> str:
    """Write a number with exactly ``width`` digits; what lies above them is left out."""
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, len(alphabet))
        digits = alphabet[digit] + digits
    return digits
