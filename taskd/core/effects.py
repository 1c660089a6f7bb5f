"""Effects: what the shell is to do once the turn that decided so is durable.

The ``Want…`` effects ask for records; they tell nobody anything and are carried
out as soon as the turn is staged: not before, since what the turn has deleted must
not be read, and without waiting for a flush.
"""

from collections.abc import Sequence
from typing import NamedTuple

from taskd.core.commands import Command
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.task import Grant, Outcome


class SendLease(NamedTuple):
    """Give an agent these attempts to run."""

    agent: str
    connection: int
    number: int
    pool: int
    grants: list[Grant]


class SendRevoke(NamedTuple):
    """Have an agent kill these attempts."""

    agent: str
    connection: int
    tokens: list[int]


class SendDrain(NamedTuple):
    """Have an agent give back what it has not started."""

    agent: str
    connection: int


class AgentQuarantined(NamedTuple):
    """The agent fails what it takes: so many failures in a row, of so many tasks. For the log."""

    agent: str
    failures: int
    tasks: int


class WorkflowBroken(NamedTuple):
    """A workflow cannot be read: it goes on no further. For the log."""

    id: bytes
    name: str
    why: str


class AgentReadmitted(NamedTuple):
    """The agent is granted to again. For the log."""

    agent: str


class TasksEnded(NamedTuple):
    """Tell whoever waits."""

    ended: Sequence[Outcome]


class LogsAppended(NamedTuple):
    """Tell whoever follows."""

    ids: Sequence[bytes]


class TokenRevoked(NamedTuple):
    """End the sessions that it opened."""

    key_id: str


class AgentReplaced(NamedTuple):
    """The agent is back on another connection: close this one."""

    agent: str
    connection: int


class AgentLost(NamedTuple):
    """The agent fell silent; so many of its leases are given up. For the log."""

    agent: str
    requeued: int


class WantLine(NamedTuple):
    """Read a line beyond its window; answered with ``RefillWindow``."""

    line: bytes
    after: int
    """Rank to read beyond; -1: from the line's first."""
    limit: int
    bytes_max: int
    """Stop once so many bytes of arguments are read."""


class WantGate(NamedTuple):
    """Read who is parked at a gate, and, unless that is counted, who holds it; answered with ``TakeGate``."""

    gate: bytes
    held_after: bytes | None
    """HELD id: count on beyond it, some; None: it is counted."""
    after: bytes
    """PARKED id to read beyond; empty: from the first."""
    limit: int
    """Of those parked."""
    bytes_max: int
    """Stop once so many bytes of their arguments are read."""
    over: tuple[bytes, ...] = ()
    """Pass over those that are parked with the id of one of these lines."""


class WantGates(NamedTuple):
    """Find the next gates at which something is parked; answered with ``TakeGates``."""

    walk: int
    after: bytes
    limit: int


class WantTimers(NamedTuple):
    """Read timers beyond the cursor; answered with ``RefillTimers``."""

    after: bytes
    """TIMER id."""
    until: bytes
    """TIMER id; read no further."""
    limit: int


class WantFinished(NamedTuple):
    """Read the oldest FINISHED ids.

    Answered with ``PurgeFinished`` for each from before the instant; with ``SweepLogs`` if only output is to go.
    """

    before_ms: int
    limit: int
    after: bytes = b""
    """Only ids beyond it."""
    logs_only: bool = False


class WantLapsed(NamedTuple):
    """Read the oldest LAPSE ids; answered with ``DropLapsed`` for those of no later than the instant."""

    until_ms: int
    limit: int


class WantFair(NamedTuple):
    """Read ends of fair keys beyond a FAIR id; answered with ``SweepFair``."""

    after: bytes
    limit: int


class WantTasks(NamedTuple):
    """Read the tasks that a bulk job is for, from its cursor on; answered with ``StepJob``."""

    job: bytes
    filter: TaskFilter
    after: bytes
    until_ms: int
    """Not those submitted, or dead, later."""
    limit: int
    bytes_max: int
    """Stop once so many bytes of arguments are read."""


class WantFlow(NamedTuple):
    """Read a workflow's nodes, and what has become of them; answered with ``TakeFlow``."""

    id: bytes


class WantItems(NamedTuple):
    """Read some of what a node maps over; answered with ``MapItems``."""

    id: bytes
    node: int
    source: bytes
    """Whose result it is."""
    children: int
    """Of a node that maps itself: how many it has, whose results are the list; -1: the source's result is the list."""
    first: int
    limit: int


class JobsMoved(NamedTuple):
    """Bulk jobs have come further: tell whoever watches them."""


class ScheduleStopped(NamedTuple):
    """A schedule was paused by its tasks' failures, or is broken. For the log."""

    name: str
    why: str
    broken: bool


class Continue(NamedTuple):
    """Apply this as soon as its records are loaded."""

    command: Command


Effect = (
    SendLease
    | SendRevoke
    | SendDrain
    | AgentQuarantined
    | AgentReadmitted
    | TasksEnded
    | LogsAppended
    | TokenRevoked
    | AgentReplaced
    | AgentLost
    | WantLine
    | WantGate
    | WantGates
    | WantTimers
    | WantFinished
    | WantLapsed
    | WantFair
    | WantTasks
    | WantFlow
    | WantItems
    | JobsMoved
    | ScheduleStopped
    | WorkflowBroken
    | Continue
)
