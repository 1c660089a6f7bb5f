"""Explanations: what a task waits for, has waited for, or has come to; one definition for wire, disk and HTTP.

A reason is a stable word, and what it is about: programs compare the word; ``words`` tells it to people.
"""

import enum
from typing import Final

import msgspec

from taskd_protocol.resources import Granted
from taskd_protocol.task import Failure

AGENTS_LISTED_MAX: Final = 32
"""Agents told one by one, the nearest to running the task first; of the others it is told how many there are."""

NAMED_MAX: Final = 8
"""Nodes, or tasks, that are named of those that are waited for."""

WAITS_KEPT_MAX: Final = 4
"""Reasons kept with an attempt that had waited, the longest first."""


class Obstacle(enum.StrEnum):
    """What rules an agent out: the first that holds, in the order in which they are asked.

    So the later one comes, the nearer is the agent to running the task.
    """

    ABSENT = "agent.absent"
    """It is not connected, and holds leases still."""
    QUEUE = "agent.queue"
    NAME = "agent.name"
    LABEL = "agent.label"
    TOTAL = "agent.too_small"
    QUARANTINED = "agent.quarantined"
    DRAINING = "agent.draining"
    LIFE = "agent.life"
    TAKEN = "agent.taken"
    """A task has all of it for itself."""
    NOT_EMPTY = "agent.not_empty"
    APART = "agent.apart"
    RESOURCE = "agent.resource"
    PRESSURE = "agent.pressure"
    """Others use its machine."""
    BUSY = "agent.busy"
    """Its slots are taken, or it asks for nothing more."""
    LADEN = "agent.laden"
    """The arguments of what it has been granted are as much as it may hold."""
    HELD = "agent.held"
    """It is kept free for another task."""


class Reasons:
    """What else a task waits for."""

    NODES: Final = "dependency.nodes"
    """Nodes of its workflow that it comes after."""
    CHILDREN: Final = "dependency.children"
    """Tasks that it has spawned."""
    PHASE: Final = "dependency.phase"
    """The end of all other nodes; ``subject``: the phase."""
    SIGNAL: Final = "dependency.signal"
    TURN: Final = "dependency.turn"
    """Its workflow is about to begin it."""
    UNREADABLE: Final = "dependency.unreadable"
    """Its workflow cannot be read; ``subject``: why."""
    DELAY: Final = "time.delay"
    BACKOFF: Final = "time.backoff"
    """The wait after an attempt that failed; ``count``: how many have."""
    SLEEP: Final = "time.sleep"
    READING: Final = "line.reading"
    """The server reads its line from disk."""
    AHEAD: Final = "line.ahead"
    """Tasks before it in its line; ``count``: how many."""
    PAUSED: Final = "queue.paused"
    CONCURRENCY: Final = "limit.concurrency"
    """As many run as a limit allows; ``subject``: the limit, ``count``: how many run."""
    KEY: Final = "limit.key"
    """A place of a limit that it names; ``subject``: the limit and its key, ``count``: how many are taken, if known."""
    FIFO: Final = "limit.fifo"
    """The end of tasks before it of its ``fifo_key``, which is ``subject``."""
    RATE: Final = "limit.rate"
    """As many have begun as a limit allows; ``until_ms``: the next one may."""
    NO_AGENT: Final = "agents.none"
    """No agent is connected."""
    PLACING: Final = "line.placing"
    """Nothing: it is about to be granted."""
    PROOF: Final = "cancel.proof"
    """That its agent proves that its work is gone; ``subject``: the agent."""
    AWAY: Final = "cancel.away"
    """The same, of an agent that is not connected."""


class Wishes:
    """What a task would find on a certain agent."""

    STICKY: Final = "sticky"
    """What the last task of its ``sticky`` word has left there."""
    INPUTS: Final = "inputs"
    """Results that it is given, and that were made there: more bytes of them than elsewhere."""


class Reason(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a task waits for."""

    code: str
    """Of ``Reasons``, or, of what agents lack, of ``Obstacle``."""
    subject: str = ""
    """What it is about: a resource, a rule for a label, a queue, a signal."""
    wants: int = 0
    """How much of it the task asks for; 0: all of it, or it is nothing to be counted."""
    free: int = 0
    """How much of it is left."""
    total: int = 0
    """How much there is in all."""
    count: int = 0
    """How many are waited for, or are in the way; of ``time.backoff``: attempts that have failed."""
    until_ms: int = 0
    """When it is over by itself, UTC; 0: that is not known."""
    named: list[str] = []
    """Some of those waited for, at most ``NAMED_MAX``."""


class AgentReason(msgspec.Struct, array_like=True, frozen=True):
    """The first thing that rules one agent out."""

    agent: str
    reason: Reason
    never: bool = False
    """As the agent is, it could not run the task even if it were idle."""


class Misfit(msgspec.Struct, array_like=True, frozen=True):
    """What tasks of a submit ask for that no agent which is connected, and has them, will ever have."""

    index: int
    """Of the first of these tasks in its SUBMIT."""
    reason: Reason


class Place(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where a task stands in its line: of one queue, name and request."""

    ahead: int
    """Tasks of its line before it."""
    ready: int
    """Tasks in its line."""
    is_exact: bool = True
    """Else ``ahead`` is an estimate: it stands beyond what is in memory of the line, of which the tasks are taken to be
    spread evenly over the submits since."""
    ahead_min: int = 0
    """At least so many are before it."""
    lines_before: int = 0
    """Other lines whose first task comes before it, by priority and age, wherever it may run."""


class Waited(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How long a task has waited for something before an attempt began."""

    code: str
    subject: str
    ms: int


class AttemptWaited(msgspec.Struct, array_like=True, frozen=True):
    """What was waited for before one attempt."""

    attempt: int
    waited: list[Waited]
    """The longest first, at most ``WAITS_KEPT_MAX``. What was in line for less than a second has none."""


class Explanation(msgspec.Struct, array_like=True, frozen=True):
    """Why a task, or a node of a workflow, is where it is."""

    id: bytes
    name: str
    queue: str
    state: str
    attempt: int
    """Leases granted so far."""
    reason: Reason | None = None
    """The first thing that it waits for; None: it does not wait."""
    place: Place | None = None
    """None: it is in no line."""
    agents: list[AgentReason] = []
    """Of a task in line: the nearest to running it first, at most ``AGENTS_LISTED_MAX``."""
    others: dict[str, int] = {}
    """Agents that are not listed, by the code of their reason."""
    impossible: bool = False
    """No agent that is connected could ever run it."""
    kept_free: str = ""
    """The agent that is kept free for it; empty: none."""
    starts_in_ms: int = -1
    """Estimated from ``per_minute`` and its place; -1: unknown."""
    per_minute: float = 0.0
    """Tasks of its line granted a minute, of late; 0: none."""
    agent: str = ""
    """Who runs it or ran it last."""
    started_at_ms: int = 0
    """When that was granted or began, UTC; 0: not yet."""
    holds: Granted | None = None
    """What it holds of that agent while it runs; None: a slot, or nothing."""
    finished_at_ms: int = 0
    """UTC; 0: it has not ended."""
    failure: Failure | None = None
    """Of the last attempt that failed; its traceback is left out."""
    waited: list[AttemptWaited] = []
    """Of the attempts that had waited, oldest first."""
    rather: str = ""
    """Of a task in line: the agent that it goes to if that has room, for what it would find there; empty: none."""
    rather_for: str = ""
    """What that is, of ``Wishes``."""
    by_rate: bool = False
    """``per_minute`` is what a limit lets begin: nothing of its line was granted of late."""
