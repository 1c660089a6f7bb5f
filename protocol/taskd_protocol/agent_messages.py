"""Messages between server and agents; they belong to the unions of ``messages``, and follow its rules of change.

Type numbers: 64-95.
"""

import msgspec

from taskd_protocol.mark import Mark
from taskd_protocol.resources import Supply
from taskd_protocol.task import Checkpoint, FailureReport, Grant, Held, LogPiece, Pool, Report


class HostStats(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an agent measures of its host, with each heartbeat. What others use of it lowers what is granted there."""

    cpu_percent: float = 0.0
    """0 to 100, over all cores, since the last heartbeat."""
    load1: float = 0.0
    memory_used: int = 0
    """Bytes, of the host or the agent's cgroup."""
    memory_total: int = 0
    cpu_outside: int = 0
    """Thousandths of a CPU, of those that the agent may use, that others than its tasks are using."""
    memory_outside: int = 0
    """Bytes that others than its tasks use."""


class Offer(msgspec.Struct, array_like=True, frozen=True, tag=64):
    """What an agent has; first message after WELCOME, and again when it changes. Answered OFFERED."""

    pools: list[Pool]
    queues: list[str] = []
    """Only these; empty: all."""
    labels: dict[str, str] = {}
    resources: dict[str, float] = {}
    holding: list[Held] = []
    """Every lease of earlier connections that is not recorded: they are taken up again. In the first OFFER only."""
    supplies: list[Supply] = []
    """What it has that tasks may ask for. Empty: what ``resources`` says, and nothing else."""
    life_ms: int = 0
    """Its machine is there for so long from now; 0: no end is known."""


class Offered(msgspec.Struct, array_like=True, frozen=True, tag=65):
    """The offer stands, all credit is 0; of what the agent holds, these are no longer its own: kill and forget them."""

    stale: list[int] = []
    """Fencing tokens."""


class LeaseCredit(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=66):
    """The agent's pool can take so many more leases. Sent after OFFERED: a control message may overtake an OFFER."""

    pool: int
    """Index in the OFFER's pools."""
    leases: int
    """0, from version 2 on: the pool takes all its credit back."""


class Lease(msgspec.Struct, array_like=True, frozen=True, tag=67):
    """Pushed under credit: run these."""

    number: int
    """1, 2, 3, ... on a connection; echoed in heartbeats."""
    pool: int
    grants: list[Grant]


class Ack(msgspec.Struct, array_like=True, frozen=True, tag=68):
    """These attempts succeeded. Answered RECORDED; resent until then."""

    reports: list[Report]


class Nack(msgspec.Struct, array_like=True, frozen=True, tag=69):
    """These attempts ended without success. Answered RECORDED; resent until then."""

    failures: list[FailureReport]


class Recorded(msgspec.Struct, array_like=True, frozen=True, tag=70):
    """These reports are durable, or were already, or change nothing: none needs to be sent again."""

    tokens: list[int]
    stale: list[int] = []
    """Of those reported: not what is stored (``lease.stale``)."""
    mark: Mark | None = None


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag=71):
    """I am alive, and this is what I hold."""

    number: int
    lease_number: int
    """Highest LEASE received on this connection; 0: none yet."""
    held: list[int]
    """Fencing tokens: waiting, running, or finished and not yet recorded."""
    host: HostStats = HostStats()


class HeartbeatSeen(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=72):
    """The answer to HEARTBEAT, at once and without a flush."""

    number: int
    server_time_ms: int


class Revoke(msgspec.Struct, array_like=True, frozen=True, tag=73):
    """Kill these attempts; report each as ``cancelled`` when every process of it is gone."""

    tokens: list[int]


class Drain(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=74):
    """From an agent: grant me nothing more. From a server: finish, accept nothing new, and go."""

    reason: str = ""
    stay: bool = False
    """From a server: give back what has not started, and stay; nothing is granted until a person says so."""


class Logs(msgspec.Struct, array_like=True, frozen=True, tag=75):
    """Keep this output. Answered LOGS_RECORDED."""

    pieces: list[LogPiece]


class LogsRecorded(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=76):
    """So many bytes of output are durable, or dropped as stale: credit for as many more."""

    data_bytes: int


class Checkpoints(msgspec.Struct, array_like=True, frozen=True, tag=77):
    """Keep these for the next attempts. Not answered: the newest are sent again on a new connection."""

    checkpoints: list[Checkpoint]


class Started(msgspec.Struct, array_like=True, frozen=True, tag=78):
    """These leases, granted with ``mark_start``, are about to start. Answered START_RECORDED."""

    tokens: list[int]


class StartRecorded(msgspec.Struct, array_like=True, frozen=True, tag=79):
    """That is durable: start them."""

    tokens: list[int]
    stale: list[int] = []
    """Of those asked: no longer the agent's own; forget them."""
