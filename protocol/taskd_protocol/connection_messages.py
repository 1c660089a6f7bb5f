"""Messages of a connection, either way; they belong to the unions of ``messages``, and follow its rules of change.

Type numbers: 1-7.
"""

import msgspec

from taskd_protocol import limits
from taskd_protocol.mark import Mark


class PeerLimits(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the server allows; told once, in WELCOME."""

    payload_bytes_max: int = limits.PAYLOAD_BYTES_MAX
    submit_tasks_max: int = limits.SUBMIT_TASKS_MAX
    heartbeat_ms: int = limits.HEARTBEAT_MS
    heartbeats_missed: int = limits.HEARTBEATS_MISSED
    outcome_credit: int = limits.OUTCOME_CREDIT


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """First message of a connection, from the peer. Once."""

    version_min: int
    version_max: int
    role: str
    """``client`` (any token but an agent's) or ``agent``, or ``join`` with a one-time secret."""
    token: str
    """``taskd_<role>_<keyid>_<secret>_<crc>``, or the one-time secret of an invitation."""
    name: str = ""
    """The agent's name; for clients a label for people."""
    boot_id: bytes = b""
    """16 random bytes of this process's life; a second live boot of one agent name is refused."""
    session: bytes | None = None
    """The session to resume: what the last WELCOME said; None: a new one."""
    mark: Mark | None = None
    """The newest commit mark seen; None: none yet."""
    software: str = ""
    """Name and version, for people."""


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """The server knows the peer; messages of its role are allowed from here on."""

    version: int
    """The highest version that both know."""
    session: bytes
    """16 bytes; the one asked for, if the server still knew it, else a new one."""
    epoch: int
    """Rises with every start of the server."""
    server_time_ms: int
    """Wall clock, UTC: task ids are made from it."""
    limits: PeerLimits
    mark: Mark
    role: str = ""
    """The token's role."""
    software: str = ""


class Error(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A refused request, or with request id 0 the end of the connection and why."""

    request_id: int
    code: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0


class Chunk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """A piece of a message whose encoding does not fit one frame.

    The pieces of one stream, put together in order, are the message. Control
    messages may pass between two pieces. A chunk never carries a chunk.
    """

    stream: int
    """Chosen by the sender; free for use again after the last piece."""
    last: bool
    data: bytes


class Ping(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Are you there? Answered at once with PONG."""

    nonce: int


class Pong(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """The answer to PING."""

    nonce: int
    server_time_ms: int = 0
    """Wall clock of the answering server; 0 from a peer."""


class Done(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """The request with that id was carried out, durably where it changed something."""

    request_id: int
