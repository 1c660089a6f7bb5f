"""What agents offer, ask and report; see ``taskd.core.commands``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from taskd_protocol.resources import Supply
from taskd_protocol.task import Checkpoint, FailureReport, Held, LogPiece, Pool, Report


class OfferAgent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent is connected and has this. Answer: ``AgentAccepted``."""

    agent: str
    boot_id: bytes
    connection: int
    """Rises with every connection of the server's life; effects for the agent carry it."""
    pools: Sequence[Pool]
    queues: frozenset[str]
    """Empty: all."""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    holding: Sequence[Held] = ()
    """Leases from before the connection; of its first offer only."""
    software: str = ""
    marks_starts: bool = True
    """It heeds ``mark_start``: agents do that speak version 2 of the protocol, or a later one."""
    supplies: Sequence[Supply] = ()
    resources: Mapping[str, float] = msgspec.field(default_factory=dict)
    """What an agent says that knows no supplies."""
    life_ms: int = 0
    """Its machine is there for so long; 0: no end is known."""


class AgentAccepted(NamedTuple):
    """The agent takes part."""

    stale: list[int]
    """Tokens that it holds and that are no longer its own."""


class LoseConnection(msgspec.Struct, frozen=True):
    """The agent's connection is gone; its leases stay until its time is up."""

    agent: str
    connection: int


class AddCredit(msgspec.Struct, frozen=True):
    """The agent's pool can take so many more leases; 0: it takes all its credit back."""

    agent: str
    connection: int
    pool: int
    leases: int


class DrainAgent(msgspec.Struct, frozen=True):
    """Grant the agent nothing more."""

    agent: str
    connection: int


class HearAgent(msgspec.Struct, frozen=True):
    """Something came from the agent, whole message or not: it is alive."""

    agent: str
    connection: int


class BeatHeart(msgspec.Struct, frozen=True):
    """The agent is alive and holds this."""

    agent: str
    connection: int
    lease_number: int
    held: Sequence[int]
    cpu_outside: int = 0
    """As in ``HostStats``."""
    memory_outside: int = 0


class AckAttempts(msgspec.Struct, frozen=True):
    """These attempts succeeded. Answer: ``Recorded``."""

    agent: str
    reports: Sequence[Report]


class NackAttempts(msgspec.Struct, frozen=True):
    """These attempts ended without success. Answer: ``Recorded``."""

    agent: str
    reports: Sequence[FailureReport]


class MarkStarted(msgspec.Struct, frozen=True):
    """These attempts, granted with ``mark_start``, are about to start. Answer: ``StartsRecorded``."""

    agent: str
    tokens: Sequence[int]


class StartsRecorded(NamedTuple):
    """So it stands in their leases; ``stale`` are not the agent's."""

    recorded: list[int]
    stale: list[int]


class ReportsRecorded(NamedTuple):
    """None of these needs to be reported again."""

    recorded: list[int]
    stale: list[int]


class AppendLogs(msgspec.Struct, frozen=True):
    """Keep this output. Answer: ``LogsKept``."""

    agent: str
    pieces: Sequence[LogPiece]


class LogsKept(NamedTuple):
    """So many bytes were dealt with, kept or dropped."""

    data_bytes: int


class KeepCheckpoints(msgspec.Struct, frozen=True):
    """Keep how far these attempts have come, for the next ones."""

    agent: str
    checkpoints: Sequence[Checkpoint]
