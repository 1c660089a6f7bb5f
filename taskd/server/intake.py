"""Intake: what waits for the next turn, and how much of it one turn takes.

Invariants:
- All that is urgent goes before submits: a flood of submits delays no report.
- What waits, what one turn takes and what is decided and not durable are bounded, in tasks and in bytes.
  Beyond the bounds submits are refused, before anything has moved.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from taskd.core.agent_commands import AckAttempts, AppendLogs, KeepCheckpoints, MarkStarted, NackAttempts
from taskd.core.commands import (
    Answer,
    CancelTasks,
    Command,
    DropLapsed,
    GiveBack,
    HastenTasks,
    PurgeFinished,
    RefillTimers,
    RefillWindow,
    RefundTasks,
    ReleaseDue,
    RetryTasks,
    StepJob,
    SubmitTasks,
    SweepLogs,
    SyncLimits,
    TakeGate,
)
from taskd.core.schedule_commands import BackfillSchedule, LookAtSchedules, SyncSchedules
from taskd.core.workflow_commands import RerunTasks, SpawnTasks, SubmitWorkflow
from taskd.core.working import FINISHED_IDS_MAX
from taskd.server.loading import Found
from taskd_protocol.errors import ServerBusy, ServerStopping, TaskdError
from taskd_protocol.limits import SCHEDULE_BACKFILL_MAX

TURN_WEIGHT_MAX = 1_000
"""Tasks submitted in one turn: 5 to 15 ms of work, so that reports never wait longer behind submits, and agents have
something to do while a flood of them comes in. Four times as many cost 3 % of the throughput of 20,000."""

URGENT_WEIGHT_MAX = 8_000
"""Tasks that reports, cancels and refills concern in one turn: its batch must not hold all that a stall left over."""

BACKLOG_WEIGHT_MAX = 100_000
"""Tasks that may wait to be decided; beyond it submits are refused before anything moved."""

OWED_WEIGHT_MAX = 100_000
"""Tasks that may be decided and not durable; beyond it submits wait until the disk has caught up."""

WEIGHT_BYTES = 4096
"""So many bytes of arguments weigh as much as a task: what is bounded in tasks is bounded in bytes, too."""

BUSY_RETRY_MS = 200
"""What a refused submitter is told to wait: the backlog above, decided in that time, would be gone twice."""

Respond = Callable[[Answer | TaskdError], None]
"""Called when the answer may leave."""


class Request(NamedTuple):
    """A command, and who is told."""

    command: Command
    respond: Respond | None
    weight: int
    """In tasks, at least 1."""
    found: Found | None = None
    """What was read for it, when the core had asked."""


class Intake:
    """Two queues, and what they weigh."""

    def __init__(self) -> None:
        self._urgent: deque[Request] = deque()
        self._bulk: deque[Request] = deque()
        self._bulk_weight = 0
        self._owed_weight = 0
        self._refusing = False

    @property
    def is_empty(self) -> bool:
        """Nothing waits."""
        return not (self._urgent or self._bulk)

    @property
    def has_work(self) -> bool:
        """Something waits that the next turn would take."""
        return bool(self._urgent or (self._bulk and self._owed_weight < OWED_WEIGHT_MAX))

    def put(self, command: Command, respond: Respond | None) -> None:
        """Put a command in line.

        Raises:
            ServerBusy: Too many submits wait already.
            ServerStopping: Submits are refused.
        """
        weight = weight_of(command)
        if not isinstance(command, SubmitTasks | SubmitWorkflow):
            self._urgent.append(Request(command, respond, weight))
            return
        if self._refusing:
            raise ServerStopping("the server is stopping; submit again when it is back", retry_after_ms=500)
        if self._bulk_weight + weight > BACKLOG_WEIGHT_MAX and self._bulk:
            raise ServerBusy(
                f"submits of {self._bulk_weight} tasks or their weight wait to be decided; submit again a little later",
                retry_after_ms=BUSY_RETRY_MS,
            )
        self._bulk_weight += weight
        self._bulk.append(Request(command, respond, weight))

    def put_again(self, request: Request) -> None:
        """Put a request in line, before all submits, that was taken before and had to wait for records."""
        self._urgent.append(request)

    def refuse_submits(self) -> None:
        """Take no more tasks."""
        self._refusing = True

    def take(self) -> tuple[list[Request], int]:
        """Take what one turn decides; return it, and the weight that is owed until that is durable."""
        taken: list[Request] = []
        room = URGENT_WEIGHT_MAX
        while self._urgent and room > 0:
            request = self._urgent.popleft()
            room -= request.weight
            taken.append(request)
        room = min(TURN_WEIGHT_MAX, OWED_WEIGHT_MAX - self._owed_weight)
        owed_weight = 0
        while self._bulk and room > 0:
            request = self._bulk.popleft()
            room -= request.weight
            owed_weight += request.weight
            taken.append(request)
        self._bulk_weight -= owed_weight
        self._owed_weight += owed_weight
        return taken, owed_weight

    def settle(self, owed_weight: int) -> None:
        """Note that what was taken is durable."""
        self._owed_weight -= owed_weight


def weight_of(command: Command) -> int:  # noqa: C901, PLR0912 - one case a kind of command
    """Return what a command weighs, in tasks: as many as it concerns, and what it carries; at least 1."""
    weight = 1
    match command:
        case SubmitTasks(_, specs):
            weight = len(specs) + sum([len(spec.payload) for spec in specs]) // WEIGHT_BYTES
        case AckAttempts(_, reports):
            weight = len(reports) + sum([len(report.result) for report in reports]) // WEIGHT_BYTES
        case AppendLogs(_, pieces):
            weight = len(pieces) + sum([len(piece.data) for piece in pieces]) // WEIGHT_BYTES
        case KeepCheckpoints(_, checkpoints):
            weight = len(checkpoints) + sum([len(each.details) for each in checkpoints]) // WEIGHT_BYTES
        case TakeGate():
            weight = len(command.entries)
        case GiveBack(some):
            weight = len(some)
        case NackAttempts(_, some) | MarkStarted(_, some) | RefillWindow(_, some):
            weight = len(some)
        case CancelTasks(some) | RetryTasks(some) | HastenTasks(some) | RefundTasks(some) | ReleaseDue(some):
            weight = len(some)
        case RefillTimers(some):
            weight = len(some)
        case DropLapsed(some):
            weight = len(some)
        case SpawnTasks(_, _, _, specs):
            weight = len(specs) + sum([len(spec.payload) for spec in specs]) // WEIGHT_BYTES
        case SubmitWorkflow(_, _, _, nodes):
            weight = len(nodes)
        case RerunTasks(tasks):
            weight = len(tasks)
        case PurgeFinished() | SweepLogs():
            weight = FINISHED_IDS_MAX  # at most: how many it names is known when it is loaded
        case StepJob():
            weight = len(command.found)
        case LookAtSchedules(names):
            weight = len(names)
        case SyncLimits(_, some):
            weight = len(some)
        case SyncSchedules(_, _, schedules):
            weight = len(schedules)
        case BackfillSchedule():
            weight = SCHEDULE_BACKFILL_MAX  # at most: how many it is for is known when it is loaded
        case _:
            pass
    return max(weight, 1)
