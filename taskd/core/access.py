"""Access: the tokens that are kept, their hashes only, and one-time invitations.

Making secrets and comparing them is the shell's; here is what is stored, and when
a token is good.
"""

from msgspec.structs import replace

from taskd.core import records
from taskd.core.commands import EndSession, Now, RevokeToken, StoreToken, UseInvitation
from taskd.core.effects import TokenRevoked
from taskd.core.records import TokenRecord
from taskd.core.working import Working
from taskd_protocol.errors import BadRequest, InvitationRefused, TokenUnknown
from taskd_protocol.limits import NAME_CHARS_MAX

JOIN = "join"
"""The role of an invitation."""

TOKENS_MAX = 100_000
"""Each is in memory."""

LOGGED_OUT_MAX = 100
"""Of one token, within the time that a cookie is good for; with one more all of its sessions end, so that none of those
that were forgotten is good again."""


def store(w: Working, command: StoreToken, now: Now) -> None:
    """Keep a token; expired invitations go, so that they do not pile up.

    Raises:
        BadRequest: There are too many, or its label is too long, or not printable.
    """
    if not command.record.label.isprintable():
        raise BadRequest("a label has printable characters alone: no line breaks, tabs or control characters")
    if len(w.tokens) >= TOKENS_MAX or len(command.record.label) > NAME_CHARS_MAX:
        raise BadRequest(f"at most {TOKENS_MAX} tokens are kept, with labels of up to {NAME_CHARS_MAX} characters")
    for key_id in [k for k, r in w.tokens.items() if r.role == JOIN and r.expires_at_ms <= now.wall_ms]:
        del w.tokens[key_id]
        w.delete(records.TOKEN, key_id.encode())
    _keep(w, command.key_id, command.record)


def revoke(w: Working, command: RevokeToken) -> None:
    """Refuse a token from now on; revoking twice is harmless.

    Raises:
        TokenUnknown: There is none of that key id.
    """
    old = w.tokens.get(command.key_id)
    if old is None:
        raise TokenUnknown(f"no token has the key id {command.key_id[:64]!r}; `taskd token ls` shows them")
    _keep(w, command.key_id, replace(old, revoked=True, logged_out=[]))
    w.effects.append(TokenRevoked(command.key_id))


def end_session(w: Working, command: EndSession, now: Now) -> None:
    """Refuse a session from now on; of a token that is gone there is none."""
    record = w.tokens.get(command.key_id)
    if record is None or record.revoked:
        return
    ended = [(session, void_ms) for session, void_ms in record.logged_out if void_ms > now.wall_ms]
    ended.append((command.session_id, command.void_at_ms))
    if len(ended) > LOGGED_OUT_MAX:
        record, ended = replace(record, sessions_after_ms=now.wall_ms), []
    _keep(w, command.key_id, replace(record, logged_out=ended))


def is_ended(record: TokenRecord, session_id: str, opened_at_ms: int) -> bool:
    """Tell whether a session was ended before its time."""
    return opened_at_ms <= record.sessions_after_ms or any(ended == session_id for ended, _ in record.logged_out)


def use_invitation(w: Working, command: UseInvitation, now: Now) -> None:
    """Turn an invitation into a token: once.

    Raises:
        InvitationRefused: It is unknown, used or too old.
    """
    invitation = w.tokens.get(command.invitation)
    if invitation is None or invitation.role != JOIN or not is_good(invitation, now):
        raise InvitationRefused("the join code was used or is too old; make a new one with `taskd agents invite`")
    del w.tokens[command.invitation]
    w.delete(records.TOKEN, command.invitation.encode())
    _keep(w, command.key_id, command.record)


def is_good(record: TokenRecord | None, now: Now) -> bool:
    """Tell whether the token may still be used; whether its secret fits is the shell's to compare."""
    return record is not None and not record.revoked and now.wall_ms < record.expires_at_ms


def _keep(w: Working, key_id: str, record: TokenRecord) -> None:
    w.tokens[key_id] = record
    w.put(records.TOKEN, key_id.encode(), record)
