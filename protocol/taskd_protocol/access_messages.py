"""Messages about who may connect, and with which certificate; they belong to the unions of ``messages``.

Type numbers: 8-10 and 34-43. They follow the rules of change that ``messages`` tells.
"""

import msgspec


class CaRequest(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """Asked before HELLO by an agent that holds a join code: show me your CA. No secret has been said yet."""


class Ca(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """The server's CA certificate; the asker compares its SHA-256 with the join code's, then connects anew."""

    pem: str


class Joined(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """The invitation was good: a token of the role agent, told this once. The connection ends."""

    token: str


class TokenCreate(msgspec.Struct, array_like=True, frozen=True, tag=34):
    """Make a token."""

    request_id: int
    role: str
    label: str = ""
    expires_in_ms: int = 90 * 24 * 3600 * 1000


class TokenCreated(msgspec.Struct, array_like=True, frozen=True, tag=35):
    """The secret, told this once."""

    request_id: int
    token: str


class TokenView(msgspec.Struct, array_like=True, frozen=True):
    """What is known of a token; never its secret."""

    key_id: str
    role: str
    label: str
    created_at_ms: int
    expires_at_ms: int
    revoked: bool


class TokenList(msgspec.Struct, array_like=True, frozen=True, tag=36):
    """Show me the tokens."""

    request_id: int


class TokenPage(msgspec.Struct, array_like=True, frozen=True, tag=37):
    """All tokens, revoked and expired ones too."""

    request_id: int
    tokens: list[TokenView]


class TokenRevoke(msgspec.Struct, array_like=True, frozen=True, tag=38):
    """Refuse this token from now on; its live sessions end within a second. Answered DONE."""

    request_id: int
    key_id: str


class Invite(msgspec.Struct, array_like=True, frozen=True, tag=39):
    """Make a one-time code with which an agent on another machine joins."""

    request_id: int
    expires_in_ms: int = 10 * 60 * 1000


class Invitation(msgspec.Struct, array_like=True, frozen=True, tag=40):
    """The one-time secret and the pin; the inviting program adds the address that the agent can reach."""

    request_id: int
    secret: str
    ca_sha256: bytes
    """32 bytes, of the CA certificate in DER."""
    addresses: list[str]
    """``host:port`` as the server listens, best first."""


class CertRenew(msgspec.Struct, array_like=True, frozen=True, tag=41):
    """Issue a new server certificate from the same CA; open connections live on."""

    request_id: int
    host_names: list[str] = []
    """Added to those it had."""


class CertView(msgspec.Struct, array_like=True, frozen=True, tag=42):
    """The certificate in use."""

    request_id: int
    host_names: list[str]
    not_before_ms: int
    not_after_ms: int
    sha256: bytes
    ca_sha256: bytes


class CertQuery(msgspec.Struct, array_like=True, frozen=True, tag=43):
    """Show me the certificate in use."""

    request_id: int
