"""The handshake's rules: versions, roles, and the commit mark.

Invariants:
- What a connection may send is decided by its token's role and by ``ALLOWED`` alone; what is not listed is refused.
- A commit mark is believed only if its MAC is the server's own.

Knows neither tokens nor their storage: who a peer is, is found out elsewhere.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from taskd_protocol import limit_messages as lm
from taskd_protocol import limits
from taskd_protocol import messages as m
from taskd_protocol import schedule_messages as sm
from taskd_protocol import workflow_messages as wm
from taskd_protocol.access_messages import CaRequest, CertQuery, CertRenew, Invite, TokenCreate, TokenList, TokenRevoke
from taskd_protocol.agent_messages import Ack, Checkpoints, Drain, Heartbeat, LeaseCredit, Logs, Nack, Offer, Started
from taskd_protocol.connection_messages import Hello, Ping, Pong
from taskd_protocol.errors import BadRequest, RoleRefused, ServerRolledBack, UnexpectedMessage, VersionUnsupported
from taskd_protocol.event_messages import EventsFollow, EventsMore, OverviewQuery, WebhookList, WebhookOrder, WebhookSet
from taskd_protocol.house_messages import (
    AgentDrain,
    AgentList,
    Backup,
    FairKeyWeigh,
    MemoryList,
    QueueDrain,
    QueueList,
    QueueWeigh,
    StatsQuery,
)
from taskd_protocol.ids import SESSION_ID_BYTES
from taskd_protocol.mark import Mark
from taskd_protocol.task import check_name

Messages = frozenset[type[msgspec.Struct]]

HELLO_CLIENT: Final = "client"
"""HELLO.role of everyone who holds a token of a role other than agent."""
HELLO_AGENT: Final = "agent"
"""Of those who hold a token of that role."""
HELLO_JOIN: Final = "join"
"""HELLO.role of an agent that has nothing but an invitation's secret; answered JOINED, never WELCOME."""

TOKEN_ROLES: Final = ("client", "agent", "viewer", "operator", "admin")
"""Roles that a token may have; each includes what is listed for it in ``ALLOWED`` and nothing else."""

MARK_KEY_BYTES = 32
LINEAGE_BYTES = 16
BOOT_ID_BYTES = 16
_SEQUENCE_BYTES = 8

BEFORE_WELCOME: Final[Messages] = frozenset({Hello, CaRequest})
"""All that a peer may say before the server knows it, and never afterwards."""

_ALWAYS: Messages = frozenset({Ping, Pong})
_READS: Messages = _ALWAYS | {
    m.Wait,
    m.OutcomeCredit,
    m.TaskQuery,
    m.TaskExplain,
    m.TaskList,
    m.TaskCount,
    m.JobList,
    m.DeadList,
    QueueList,
    AgentList,
    MemoryList,
    m.Follow,
    m.FollowMore,
    m.FollowStop,
    StatsQuery,
    CertQuery,
    wm.WorkflowList,
    wm.WorkflowQuery,
    wm.ChildrenQuery,
    lm.LimitList,
    sm.ScheduleList,
    sm.ScheduleHistory,
    sm.SchedulePreview,
    EventsFollow,
    EventsMore,
    OverviewQuery,
}
_SCHEDULING: Messages = frozenset(
    {sm.ScheduleSet, sm.ScheduleSync, sm.ScheduleOrder, sm.ScheduleTrigger, sm.ScheduleBackfill}
)
_WORK: Messages = (
    _READS
    | _SCHEDULING
    | {
        m.Submit,
        m.Cancel,
        m.TaskRetry,
        m.TaskHasten,
        m.JobStart,
        lm.LimitSync,
        wm.WorkflowSubmit,
        wm.WorkflowOrder,
        wm.WorkflowSignal,
    }
)
_ORDERS: Messages = frozenset(
    {QueueDrain, QueueWeigh, FairKeyWeigh, AgentDrain, Backup, lm.QueuePause, lm.LimitSet, lm.LimitRemove}
)
_ACCESS: Messages = frozenset(
    {WebhookSet, WebhookList, WebhookOrder, TokenCreate, TokenList, TokenRevoke, Invite, CertRenew}
)

ALLOWED: Final[Mapping[str, Messages]] = {
    "viewer": _READS,
    "client": _WORK,
    "operator": _WORK | _ORDERS,
    "admin": _WORK | _ORDERS | _ACCESS,
    HELLO_AGENT: _ALWAYS
    | {
        Offer,
        LeaseCredit,
        Ack,
        Nack,
        Heartbeat,
        Drain,
        Logs,
        Checkpoints,
        Started,
        wm.InputQuery,
        wm.Spawn,
    },
}
"""Token role to the messages that its connections may send after WELCOME. The one table that is enforced.

CHUNK is in none: a connection puts chunked messages together before they are looked at.
"""


def check_hello(hello: Hello) -> None:
    """Refuse a HELLO whose fields are out of range; its token is not looked at.

    Raises:
        BadRequest: A field is out of its range; it is named.
    """
    if hello.role not in {HELLO_CLIENT, HELLO_AGENT, HELLO_JOIN}:
        raise BadRequest(f"role {hello.role[:64]!r} of HELLO is unknown; use client, agent or join")
    if hello.role == HELLO_AGENT or hello.name:
        check_name("name", hello.name)
    if len(hello.boot_id) not in {0, BOOT_ID_BYTES} or (hello.role == HELLO_AGENT and not hello.boot_id):
        raise BadRequest(f"boot_id must be {BOOT_ID_BYTES} bytes")
    if hello.session is not None and len(hello.session) != SESSION_ID_BYTES:
        raise BadRequest(f"session must be {SESSION_ID_BYTES} bytes, or nil for a new one")


def choose_version(hello: Hello) -> int:
    """Return the highest protocol version that both sides know.

    Raises:
        VersionUnsupported: There is none; the message names both ranges and who is to be upgraded.
    """
    lowest = max(hello.version_min, limits.PROTOCOL_VERSION_MIN)
    highest = min(hello.version_max, limits.PROTOCOL_VERSION_MAX)
    if lowest <= highest:
        return highest
    behind = "the peer" if hello.version_max < limits.PROTOCOL_VERSION_MIN else "the server"
    raise VersionUnsupported(
        f"the peer speaks protocol versions {hello.version_min} to {hello.version_max}, this server"
        f" {limits.PROTOCOL_VERSION_MIN} to {limits.PROTOCOL_VERSION_MAX}: upgrade {behind}"
    )


def check_role(hello_role: str, token_role: str) -> None:
    """Refuse a token that is good but not for this kind of peer.

    Args:
        hello_role: What HELLO asked to be: ``client`` or ``agent``.
        token_role: The role that the server stored with the token.

    Raises:
        RoleRefused: An agent's token in a client's hand, or the other way round; or no token of a session at all.
    """
    if token_role == HELLO_JOIN:
        raise RoleRefused("the secret of an invitation opens no session; join with it, and use the token that you get")
    if token_role not in ALLOWED:
        raise RoleRefused(f"the token's role {token_role[:64]!r} is unknown to this server; upgrade it")
    if (hello_role == HELLO_AGENT) != (token_role == HELLO_AGENT):
        raise RoleRefused(f"a token of role {token_role} cannot connect as {hello_role}; use one made for it")


def check_allowed(role: str, message: msgspec.Struct) -> None:
    """Refuse a message that the role may not send.

    Args:
        role: Of the connection's token.
        message: A known message that came in after WELCOME.

    Raises:
        RoleRefused: A request; answer it with this error, the connection goes on.
        UnexpectedMessage: It carries no request id to answer under; close the connection with this error.
    """
    kind = type(message)
    if kind in ALLOWED[role]:
        return
    if kind in BEFORE_WELCOME:
        raise UnexpectedMessage(f"{kind.__name__} after WELCOME; it is for the start of a connection only")
    if not hasattr(message, "request_id"):
        raise UnexpectedMessage(f"{kind.__name__} from a connection of role {role}; its role does not send that")
    raise RoleRefused(f"{kind.__name__} needs another role than {role}; use a token whose role allows it")


def make_mark(key: bytes, lineage: bytes, sequence: int, epoch: int = 0) -> Mark:
    """Make the commit mark of a durable sequence number.

    Args:
        key: The store's secret, ``MARK_KEY_BYTES`` bytes.
        lineage: ``LINEAGE_BYTES`` bytes: which store, since its creation or last restore.
        sequence: A commit that is durable, 0 to 2**64 - 1.
        epoch: Of the server's start; 0 leaves it open.
    """
    return Mark(lineage, sequence, _mac(key, lineage, sequence, epoch), epoch)


def newest_mark(kept: Mark | None, told: Mark) -> Mark:
    """Return which of a server's marks a peer keeps: within a lineage the higher, else the one told last."""
    return told if kept is None or kept.lineage != told.lineage or kept.sequence < told.sequence else kept


def mark_is_ours(key: bytes, mark: Mark) -> bool:
    """Tell, in constant time, whether the mark was made with this key; anything may be in it."""
    numbers_max = 1 << 8 * _SEQUENCE_BYTES
    if len(mark.lineage) != LINEAGE_BYTES or not (0 <= mark.sequence < numbers_max and 0 <= mark.epoch < numbers_max):
        return False
    return hmac.compare_digest(mark.mac, _mac(key, mark.lineage, mark.sequence, mark.epoch))


def check_mark(
    key: bytes, mark: Mark | None, lineage: bytes, sequence: int, lives: Sequence[tuple[int, int]] = ()
) -> None:
    """Compare the mark that a peer shows with how far the store has come.

    A mark with a foreign MAC, or of another lineage (before a restore, or of
    another server), proves nothing and is passed over.

    Args:
        key: The store's secret.
        mark: From HELLO.
        lineage: The store's own.
        sequence: Its newest durable commit.
        lives: The store's starts, as far back as it knows them, oldest first: epoch, and commits there were then.

    Raises:
        ServerRolledBack: The peer saw a commit of this lineage that the store does not hold.
    """
    if mark is None or mark.lineage != lineage or mark.sequence <= _reached(mark, sequence, lives):
        return
    if not mark_is_ours(key, mark):
        return
    raise ServerRolledBack(
        f"a peer was told of commit {mark.sequence}, which this data directory does not hold: it was rolled back;"
        " bring the newest one back, or accept the loss with taskd recover"
    )


def epoch_of(sequence: int, lives: Sequence[tuple[int, int]]) -> int:
    """Return which start of the server made a durable commit; 0: none that is known.

    Not the one that tells of it: until its first commit is durable, that start may be lost with all that it did.
    """
    return next((epoch for epoch, commits in reversed(lives) if commits < sequence), 0)


def _reached(mark: Mark, sequence: int, lives: Sequence[tuple[int, int]]) -> int:
    """Return the last commit of the start that gave the mark: what was committed later proves nothing of it."""
    if not mark.epoch or not lives:
        return sequence
    later = [commits for epoch, commits in lives if epoch > mark.epoch]
    if any(epoch == mark.epoch for epoch, _ in lives):
        return later[0] if later else sequence
    # A start that the store does not know: one before all that it does, or one that was lost with all it did.
    return mark.sequence if mark.epoch < lives[0][0] else -1


def _mac(key: bytes, lineage: bytes, sequence: int, epoch: int) -> bytes:
    body = lineage + sequence.to_bytes(_SEQUENCE_BYTES, "big")
    if epoch:
        body += epoch.to_bytes(_SEQUENCE_BYTES, "big")
    return hashlib.blake2b(body, key=key, digest_size=32).digest()
