"""Access: whose token this is; tokens, and the server's certificate."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.server import tokens
from taskd.text.documents import CertificateDocument, TokenDocument, certificate_document, token_document
from taskd_protocol.access_messages import (
    CertQuery,
    CertRenew,
    CertView,
    TokenCreate,
    TokenCreated,
    TokenList,
    TokenPage,
    TokenRevoke,
)
from taskd_protocol.connection_messages import Done

_DAY_MS: Final = 24 * 3600 * 1000


class WhoDocument(msgspec.Struct):
    """Whose request this is, and what the server is."""

    key_id: str
    role: str
    software: str
    payload_bytes_max: int


class TokenAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A token."""

    key_id: str


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """What it is to be good for."""

    role: Literal["client", "agent", "viewer", "operator", "admin"]
    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
    expires_in_ms: Annotated[int, msgspec.Meta(ge=1, le=3660 * _DAY_MS)] = 90 * _DAY_MS


class NewToken(msgspec.Struct):
    """A token, told this once."""

    token: str
    key_id: str
    """By which it is listed and revoked."""


class Tokens(msgspec.Struct):
    """All tokens, revoked and expired ones too."""

    tokens: list[TokenDocument]


class RevokedDocument(msgspec.Struct):
    """A token that is good no longer."""

    key_id: str
    revoked: bool


class RenewBody(msgspec.Struct, forbid_unknown_fields=True):
    """What the certificate is to be good for beside what it was."""

    host_names: list[Annotated[str, msgspec.Meta(min_length=1, max_length=253)]] = []


async def who_am_i(call: Call[Nothing, Nothing]) -> WhoDocument:
    """Tell whose token this is, and what may be sent."""
    session = call.session
    return WhoDocument(session.key_id, session.role_name, session.services.software, call.payload_bytes_max)


async def list_tokens(call: Call[Nothing, Nothing]) -> Tokens:
    """List the tokens; their secrets are not kept."""
    return Tokens([token_document(view) for view in (await call.ask(TokenList(0), TokenPage)).tokens])


async def create_token(call: Call[Nothing, TokenBody]) -> NewToken:
    """Make a token; its secret is told this once."""
    body = call.body
    text = (await call.ask(TokenCreate(0, body.role, body.label, body.expires_in_ms), TokenCreated)).token
    return NewToken(text, tokens.parse(text).key_id)


async def revoke_token(call: Call[TokenAsked, Nothing]) -> RevokedDocument:
    """Refuse a token from now on."""
    await call.ask(TokenRevoke(0, call.asked.key_id), Done)
    return RevokedDocument(call.asked.key_id, revoked=True)


async def show_certificate(call: Call[Nothing, Nothing]) -> CertificateDocument:
    """Show the certificate in use."""
    return certificate_document(await call.ask(CertQuery(0), CertView))


async def renew_certificate(call: Call[Nothing, RenewBody]) -> CertificateDocument:
    """Issue a new certificate from the same CA."""
    return certificate_document(await call.ask(CertRenew(0, call.body.host_names), CertView))


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/whoami", who_am_i, Nothing, WhoDocument),
    get("/tokens", list_tokens, Nothing, Tokens, TokenList),
    post("/tokens", create_token, Nothing, TokenBody, NewToken, TokenCreate, status=201),
    post("/tokens/{key_id}/revoke", revoke_token, TokenAsked, Nothing, RevokedDocument, TokenRevoke),
    get("/certificate", show_certificate, Nothing, CertificateDocument, CertQuery),
    post("/certificate/renew", renew_certificate, Nothing, RenewBody, CertificateDocument, CertRenew),
)
