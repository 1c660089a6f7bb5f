"""Commands: what an authenticated peer, or time itself, asks of the state.

Each is decided on by ``Coordinator.apply``: wholly, or refused with the state as
it was. What comes back is told beside the command.

Those of agents, workflows and schedules are in rooms of their own; the unions of all are here.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from taskd.core.agent_commands import (
    AckAttempts,
    AddCredit,
    AgentAccepted,
    AppendLogs,
    BeatHeart,
    DrainAgent,
    HearAgent,
    KeepCheckpoints,
    LogsKept,
    LoseConnection,
    MarkStarted,
    NackAttempts,
    OfferAgent,
    ReportsRecorded,
    StartsRecorded,
)
from taskd.core.records import BucketRecord, FairRecord, Key, SpecRecord, StateRecord, TokenRecord, Value
from taskd.core.schedule_commands import ScheduleAnswer, ScheduleCommand
from taskd.core.workflow_commands import (
    MapItems,
    NodesTaken,
    OrderWorkflow,
    RerunTasks,
    SignalWorkflow,
    SpawnTasks,
    SubmitWorkflow,
    TakeFlow,
    WakeTask,
)
from taskd_protocol.explanation import Misfit
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.limiting import Limit
from taskd_protocol.task import TaskSpec


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


class SubmitTasks(msgspec.Struct, frozen=True):
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


class CancelTasks(msgspec.Struct, frozen=True):
    """End these. Answer: ``CancelStates``."""

    ids: Sequence[bytes]
    force: bool = False
    """A person knows that what runs on agents which are not connected is gone."""


class CancelStates(NamedTuple):
    """Their states now, in order; ``unknown`` for what is not stored."""

    states: list[str]


class RetryTasks(msgspec.Struct, frozen=True):
    """Give those that ended without success another chance. Answer: ``RetryStates``."""

    ids: Sequence[bytes]


class RetryStates(NamedTuple):
    """Their states now, in order: ``ready`` if it was put back; ``unknown`` for what is not stored."""

    states: list[str]


class HastenTasks(msgspec.Struct, frozen=True):
    """Put those in line that wait for a time. Answer: ``HastenStates``."""

    ids: Sequence[bytes]


class HastenStates(NamedTuple):
    """Their states now, in order: ``ready`` if it was put in line; ``unknown`` for what is not stored."""

    states: list[str]


class StartJob(msgspec.Struct, frozen=True):
    """Do this to all tasks that fit. Answer: ``JobStarted``."""

    owner: str
    id: bytes
    action: str
    filter: TaskFilter


class JobStarted(NamedTuple):
    """The job of that id is kept, and goes on until it is done."""

    id: bytes


class StepJob(msgspec.Struct, frozen=True, kw_only=True):
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


class OrderQueue(msgspec.Struct, frozen=True):
    """Have a queue take nothing new, or have nothing of it leased; or neither any more."""

    queue: str
    drain: bool
    pause: bool = False


class SetLimit(msgspec.Struct, frozen=True):
    """Have this limit hold from now on."""

    limit: Limit


class RemoveLimit(msgspec.Struct, frozen=True):
    """Have it hold no longer."""

    name: str


class SyncLimits(msgspec.Struct, frozen=True):
    """Have these limits hold which a module's code says, and none that it said before. Answer: ``LimitsChanged``."""

    source: str
    limits: Sequence[Limit]


class LimitsChanged(NamedTuple):
    """So it is kept; names, sorted."""

    changed: list[str]
    removed: list[str]
    kept: list[str]
    """Those that others have said."""


class WeighQueue(msgspec.Struct, frozen=True):
    """Give a queue its share of the room that agents have."""

    queue: str
    weight: int


class WeighFairKey(msgspec.Struct, frozen=True):
    """Give a fair key its share of its queue."""

    queue: str
    fair_key: str
    weight: int


class OrderAgent(msgspec.Struct, frozen=True):
    """Have an agent finish what it runs and stay idle, or work again."""

    agent: str
    drain: bool


class Charge(NamedTuple):
    """An attempt that was charged to its task."""

    task_id: bytes
    queue: str
    name: str
    outcome: str


class RefundTasks(msgspec.Struct, frozen=True):
    """Give tasks that have not ended back what these attempts on an agent have cost them."""

    charges: Sequence[Charge]


class StoreToken(msgspec.Struct, frozen=True):
    """Keep a token or an invitation."""

    key_id: str
    record: TokenRecord


class RevokeToken(msgspec.Struct, frozen=True):
    """Refuse it from now on."""

    key_id: str


class EndSession(msgspec.Struct, frozen=True):
    """Refuse a browser's session with a token from now on."""

    key_id: str
    """Of the token."""
    session_id: str
    void_at_ms: int
    """When its cookie is void by itself."""


class UseInvitation(msgspec.Struct, frozen=True):
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


class RefillWindow(msgspec.Struct, frozen=True):
    """The answer to the effect ``WantLine``: what stands in the line beyond its window."""

    line: bytes
    entries: Sequence[LineEntry]
    last: bool
    """The line ends with these."""


class TakeGate(msgspec.Struct, frozen=True, kw_only=True):
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
    reached: int = -1
    """The rank in PARKED up to which all was looked at; -1: nothing was there."""
    over: Sequence[bytes] = ()
    """Lines of which some were passed over."""
    bucket: BucketRecord | None = None
    """What is left of its rate; None: all."""


class GiveBack(msgspec.Struct, frozen=True):
    """These tasks wait in a line that has been granted nothing for a while: they are to hold no places meanwhile."""

    tasks: Sequence[bytes]


class TakeGates(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the effect ``WantGates``."""

    walk: int
    gates: Sequence[bytes]
    """The next gates at which something is parked."""
    last: bool


class RefillTimers(msgspec.Struct, frozen=True):
    """The answer to the effect ``WantTimers``."""

    timers: Sequence[tuple[bytes, int]]
    """(TIMER id, length in ms), sorted."""
    last: bool


class ReleaseDue(msgspec.Struct, frozen=True):
    """The time of these timers has come."""

    timers: Sequence[bytes]
    """TIMER ids."""


class PurgeFinished(msgspec.Struct, frozen=True):
    """Take away what retention no longer keeps: one FINISHED record's tasks."""

    finished_id: bytes


class SweepLogs(msgspec.Struct, frozen=True):
    """Take away what one FINISHED record's tasks have said, if all that ended before has been gone through."""

    finished_id: bytes
    after: bytes
    """The id before it."""


class DropLapsed(msgspec.Struct, frozen=True):
    """Take away records that count no longer."""

    ids: Sequence[bytes]
    """LAPSE ids."""


class SweepFair(msgspec.Struct, frozen=True):
    """Take away those ends of fair keys that lie behind."""

    found: Sequence[tuple[bytes, FairRecord]]
    """By FAIR id."""
    last: bool
    """There are none beyond these."""


class GoOn(msgspec.Struct, frozen=True):
    """Go on with workflows, or with placement, where there is more to do than one turn holds."""


Command = (
    SubmitTasks
    | CancelTasks
    | RetryTasks
    | HastenTasks
    | StartJob
    | StepJob
    | OrderQueue
    | WeighQueue
    | WeighFairKey
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
    | EndSession
    | UseInvitation
    | RefillWindow
    | TakeGate
    | TakeGates
    | GiveBack
    | RefillTimers
    | ReleaseDue
    | PurgeFinished
    | SweepLogs
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
    | HastenStates
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
