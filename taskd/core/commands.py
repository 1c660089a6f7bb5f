"""Commands: what an authenticated peer, or time itself, asks of the state.

Each is decided on by ``Coordinator.apply``: wholly, or refused with the state as
it was. What comes back is told beside the command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from taskd.core.records import FairRecord, Key, NodeRecord, SpecRecord, StateRecord, TokenRecord, Value
from taskd.core.schedule_commands import ScheduleAnswer, ScheduleCommand
from taskd_protocol.explanation import Misfit
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import Supply
from taskd_protocol.task import Checkpoint, FailureReport, Given, Held, LogPiece, Pool, Report, TaskFilter, TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec


class Now(NamedTuple):
    """Time as handed in: only the first never steps."""

    mono_ms: int
    wall_ms: int


class NeedRecords(Exception):
    """The command concerns records that are not in memory; nothing was changed. Load them and apply it again.

    Attributes:
        keys: All that the command needs as things stand, not only what is new since it was applied last.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__(f"{len(keys)} records")
        self.keys = keys


Loaded = Mapping[Key, Value]
"""What was asked for with ``NeedRecords``; None: there is none.

As it stands now: what was decided since it was read, in this turn too, is laid over it.
"""

NOTHING_LOADED: Loaded = {}


@dataclass(frozen=True, slots=True)
class SubmitTasks:
    """Keep these tasks. Answer: ``Submitted``."""

    owner: str
    """Key id of the submitter's token."""
    specs: Sequence[TaskSpec]


class Submitted(NamedTuple):
    """Every task is kept."""

    existing: list[tuple[int, bytes]]
    """(index, id of the first) of those that were known, by id or by key."""
    warnings: Sequence[Misfit] = ()
    """What no agent that is connected could ever run."""


@dataclass(frozen=True, slots=True)
class CancelTasks:
    """End these. Answer: ``CancelStates``."""

    ids: Sequence[bytes]
    force: bool = False
    """A person knows that what runs on agents which are not connected is gone."""


class CancelStates(NamedTuple):
    """Their states now, in order; ``unknown`` for what is not stored."""

    states: list[str]


@dataclass(frozen=True, slots=True)
class RetryTasks:
    """Give those that ended without success another chance. Answer: ``RetryStates``."""

    ids: Sequence[bytes]


class RetryStates(NamedTuple):
    """Their states now, in order: ``ready`` if it was put back; ``unknown`` for what is not stored."""

    states: list[str]


@dataclass(frozen=True, slots=True)
class StartJob:
    """Do this to all tasks that fit. Answer: ``JobStarted``."""

    owner: str
    id: bytes
    action: str
    filter: TaskFilter


class JobStarted(NamedTuple):
    """The job of that id is kept, and goes on until it is done."""

    id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StepJob:
    """The answer to the effect ``WantTasks``: the next tasks that a job is to look at."""

    job: bytes
    after: bytes
    """The cursor that they were read from: of a step that was taken already nothing is taken again."""
    found: Sequence[tuple[bytes, bytes]]
    """(cursor, task id) of those whose specs fit."""
    looked_at: int
    cursor: bytes
    """How far was read."""
    last: bool
    """There are no more."""


@dataclass(frozen=True, slots=True)
class OrderQueue:
    """Have a queue take nothing new, or have nothing of it leased; or neither any more."""

    queue: str
    drain: bool
    pause: bool = False


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Have this limit hold from now on."""

    limit: Limit


@dataclass(frozen=True, slots=True)
class RemoveLimit:
    """Have it hold no longer."""

    name: str


@dataclass(frozen=True, slots=True)
class SyncLimits:
    """Have these limits hold which a module's code says, and none that it said before. Answer: ``LimitsChanged``."""

    source: str
    limits: Sequence[Limit]


class LimitsChanged(NamedTuple):
    """So it is kept; names, sorted."""

    changed: list[str]
    removed: list[str]
    kept: list[str]
    """Those that others have said."""


@dataclass(frozen=True, slots=True)
class WeighQueue:
    """Give a queue its share of the room that agents have."""

    queue: str
    weight: int


@dataclass(frozen=True, slots=True)
class OrderAgent:
    """Have an agent finish what it runs and stay idle, or work again."""

    agent: str
    drain: bool


class Charge(NamedTuple):
    """An attempt that was charged to its task."""

    task_id: bytes
    queue: str
    name: str
    outcome: str


@dataclass(frozen=True, slots=True)
class RefundTasks:
    """Give tasks that have not ended back what these attempts on an agent have cost them."""

    charges: Sequence[Charge]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferAgent:
    """An agent is connected and has this. Answer: ``AgentAccepted``."""

    agent: str
    boot_id: bytes
    connection: int
    """Rises with every connection of the server's life; effects for the agent carry it."""
    pools: Sequence[Pool]
    queues: frozenset[str]
    """Empty: all."""
    labels: Mapping[str, str] = field(default_factory=dict)
    holding: Sequence[Held] = ()
    """Leases from before the connection; of its first offer only."""
    software: str = ""
    marks_starts: bool = True
    """It heeds ``mark_start``: agents do that speak version 2 of the protocol, or a later one."""
    supplies: Sequence[Supply] = ()
    resources: Mapping[str, float] = field(default_factory=dict)
    """What an agent says that knows no supplies."""
    life_ms: int = 0
    """Its machine is there for so long; 0: no end is known."""


class AgentAccepted(NamedTuple):
    """The agent takes part."""

    stale: list[int]
    """Tokens that it holds and that are no longer its own."""


@dataclass(frozen=True, slots=True)
class LoseConnection:
    """The agent's connection is gone; its leases stay until its time is up."""

    agent: str
    connection: int


@dataclass(frozen=True, slots=True)
class AddCredit:
    """The agent's pool can take so many more leases; 0: it takes all its credit back."""

    agent: str
    connection: int
    pool: int
    leases: int


@dataclass(frozen=True, slots=True)
class DrainAgent:
    """Grant the agent nothing more."""

    agent: str
    connection: int


@dataclass(frozen=True, slots=True)
class HearAgent:
    """Something came from the agent, whole message or not: it is alive."""

    agent: str
    connection: int


@dataclass(frozen=True, slots=True)
class BeatHeart:
    """The agent is alive and holds this."""

    agent: str
    connection: int
    lease_number: int
    held: Sequence[int]
    cpu_outside: int = 0
    """As in ``HostStats``."""
    memory_outside: int = 0


@dataclass(frozen=True, slots=True)
class AckAttempts:
    """These attempts succeeded. Answer: ``Recorded``."""

    agent: str
    reports: Sequence[Report]


@dataclass(frozen=True, slots=True)
class NackAttempts:
    """These attempts ended without success. Answer: ``Recorded``."""

    agent: str
    reports: Sequence[FailureReport]


@dataclass(frozen=True, slots=True)
class MarkStarted:
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


@dataclass(frozen=True, slots=True)
class AppendLogs:
    """Keep this output. Answer: ``LogsKept``."""

    agent: str
    pieces: Sequence[LogPiece]


class LogsKept(NamedTuple):
    """So many bytes were dealt with, kept or dropped."""

    data_bytes: int


@dataclass(frozen=True, slots=True)
class KeepCheckpoints:
    """Keep how far these attempts have come, for the next ones."""

    agent: str
    checkpoints: Sequence[Checkpoint]


@dataclass(frozen=True, slots=True)
class StoreToken:
    """Keep a token or an invitation."""

    key_id: str
    record: TokenRecord


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Refuse it from now on."""

    key_id: str


@dataclass(frozen=True, slots=True)
class UseInvitation:
    """Turn an invitation, whose secret the shell has compared, into an agent's token."""

    invitation: str
    key_id: str
    record: TokenRecord


class LineEntry(NamedTuple):
    """A ready task as it was read."""

    rank: int
    spec: SpecRecord
    state: StateRecord | None
    details: bytes = b""
    """DETAILS, if the state has some."""


@dataclass(frozen=True, slots=True)
class RefillWindow:
    """The answer to the effect ``WantLine``: what stands in the line beyond its window."""

    line: bytes
    entries: Sequence[LineEntry]
    last: bool
    """The line ends with these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeGate:
    """The answer to the effect ``WantGate``."""

    gate: bytes
    held: Sequence[tuple[bytes, int]]
    """What HELD holds of it, the next, task id and places, if it was to be counted."""
    counted: bool
    """That was all; else nothing is read of who is parked."""
    entries: Sequence[LineEntry]
    """The first tasks that are parked at it, by the rank in PARKED."""
    last: bool
    """There are no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeGates:
    """The answer to the effect ``WantGates``."""

    walk: int
    gates: Sequence[bytes]
    """The next gates at which something is parked."""
    last: bool


@dataclass(frozen=True, slots=True)
class RefillTimers:
    """The answer to the effect ``WantTimers``."""

    timers: Sequence[tuple[bytes, int]]
    """(TIMER id, length in ms), sorted."""
    last: bool


@dataclass(frozen=True, slots=True)
class ReleaseDue:
    """The time of these timers has come."""

    timers: Sequence[bytes]
    """TIMER ids."""


@dataclass(frozen=True, slots=True)
class PurgeFinished:
    """Take away what retention no longer keeps: one FINISHED record's tasks."""

    finished_id: bytes


@dataclass(frozen=True, slots=True)
class DropLapsed:
    """Take away records that count no longer."""

    ids: Sequence[bytes]
    """LAPSE ids."""


@dataclass(frozen=True, slots=True)
class SweepFair:
    """Take away those ends of fair keys that lie behind."""

    found: Sequence[tuple[bytes, FairRecord]]
    """By FAIR id."""
    last: bool
    """There are none beyond these."""


@dataclass(frozen=True, slots=True)
class SubmitWorkflow:
    """Keep these nodes of a workflow, and with the last of them the workflow. Answer: ``NodesTaken``."""

    owner: str
    spec: WorkflowSpec
    first: int
    nodes: Sequence[Node]


class NodesTaken(NamedTuple):
    """So many nodes of the workflow are known; if that is all, it is kept."""

    nodes: int


@dataclass(frozen=True, slots=True)
class OrderWorkflow:
    """Cancel a workflow, resume it, or run a node of it again."""

    id: bytes
    action: str
    node: str = ""
    order_id: bytes = b""
    """The same order again is known by it; empty: it is not."""


@dataclass(frozen=True, slots=True)
class SignalWorkflow:
    """Let the nodes of a workflow go on that wait for this, now or later."""

    id: bytes
    name: str
    packed: bytes


@dataclass(frozen=True, slots=True)
class GoOn:
    """Go on with workflows, or with placement, where there is more to do than one turn holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeFlow:
    """The answer to the effect ``WantFlow``: a workflow's nodes, and what is stored of each."""

    id: bytes
    nodes: Sequence[msgspec.Raw]
    made: Sequence[int]
    """Nodes that have a task."""
    ended: Sequence[tuple[int, bool, bytes | None]]
    """Those whose task has ended: whether it succeeded, and its result, if that stands in the state record."""
    records: Sequence[tuple[int, NodeRecord]]
    children: Mapping[int, bytes]
    """Of nodes that map: the status of each child that has a task, see ``graph``."""
    void: Sequence[tuple[int, int, bytes]]
    """Children (node, child, item or nothing) that have ended and are to run again."""
    signals: Mapping[str, bytes]
    broken: str = ""
    """Why it cannot be read, and nothing else is told; empty: it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapItems:
    """The answer to the effect ``WantItems``."""

    id: bytes
    node: int
    total: int
    """Items in all; -1: it is no list."""
    longest: int = 0
    """Bytes of the longest of all; 0: not known."""
    first: int
    broken: str = ""
    """Why they cannot be read; empty: they were."""
    items: Sequence[bytes]
    """Packed, from ``first`` on."""


@dataclass(frozen=True, slots=True)
class SpawnTasks:
    """Make what a running task has spawned."""

    agent: str
    token: int
    first: int
    specs: Sequence[TaskSpec]


@dataclass(frozen=True, slots=True)
class WakeTask:
    """Put a task back in line that waited for what it has spawned."""

    id: bytes
    family: bytes


@dataclass(frozen=True, slots=True)
class RerunTasks:
    """Run these tasks of workflows again, which have ended, with these inputs; none: with those of before."""

    tasks: Sequence[tuple[bytes, Sequence[Given]]]


Command = (
    SubmitTasks
    | CancelTasks
    | RetryTasks
    | StartJob
    | StepJob
    | OrderQueue
    | WeighQueue
    | SetLimit
    | RemoveLimit
    | SyncLimits
    | OrderAgent
    | RefundTasks
    | OfferAgent
    | LoseConnection
    | AddCredit
    | DrainAgent
    | HearAgent
    | BeatHeart
    | AckAttempts
    | NackAttempts
    | MarkStarted
    | AppendLogs
    | KeepCheckpoints
    | StoreToken
    | RevokeToken
    | UseInvitation
    | RefillWindow
    | TakeGate
    | TakeGates
    | RefillTimers
    | ReleaseDue
    | PurgeFinished
    | DropLapsed
    | SweepFair
    | SubmitWorkflow
    | OrderWorkflow
    | SignalWorkflow
    | GoOn
    | TakeFlow
    | MapItems
    | RerunTasks
    | ScheduleCommand
    | SpawnTasks
    | WakeTask
)

Answer = (
    Submitted
    | CancelStates
    | RetryStates
    | JobStarted
    | AgentAccepted
    | ReportsRecorded
    | StartsRecorded
    | LogsKept
    | LimitsChanged
    | NodesTaken
    | ScheduleAnswer
    | None
)
