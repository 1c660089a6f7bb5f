"""Messages about the house: its queues and agents, what they need and cost; they belong to the unions of ``messages``.

Type numbers: 27-30, 44, 45, 48, 49, 59-63 and 140. They follow the rules of change that ``messages`` tells.
"""

import msgspec

from taskd_protocol.agent_messages import HostStats


class QueueView(msgspec.Struct, array_like=True, frozen=True):
    """One queue's counts."""

    name: str
    ready: int
    scheduled: int
    running: int
    paused: bool = False
    """Nothing of it is leased."""
    draining: bool = False
    """It takes no new tasks."""
    weight: int = 1
    """Its share of the room that agents have, beside other queues."""
    fair_weights: dict[str, int] = {}
    """Shares of fair keys within it; of those that are not named, 1."""


class QueueList(msgspec.Struct, array_like=True, frozen=True, tag=27):
    """Show me the queues."""

    request_id: int


class QueuePage(msgspec.Struct, array_like=True, frozen=True, tag=28):
    """Every queue that holds a task that has not ended, or of which something was ordered."""

    request_id: int
    queues: list[QueueView]


class StockView(msgspec.Struct, array_like=True, frozen=True):
    """What an agent has of one resource, and has left."""

    name: str
    total: int
    """Amounts as in ``Supply``."""
    free: int
    """Not held by a lease."""
    items: dict[str, int] = {}
    """What is free of each that can be told apart."""


class AgentView(msgspec.Struct, array_like=True, frozen=True):
    """One agent."""

    name: str
    boot_id: bytes
    state: str
    """``live``, ``draining``, ``drained``, ``quarantined`` (the last two also of one that is not connected), ``lost``
    (silent, leases not yet given away)."""
    slots: int
    running: int
    host: HostStats
    labels: dict[str, str]
    task_names: list[str]
    queues: list[str]
    software: str
    seen_at_ms: int
    """0: not since the server's start, or since it was forgotten."""
    stock: list[StockView] = []
    """What it has that tasks may ask for."""
    pressed: bool = False
    """Others keep its machine busy: it gets no more tasks that ask for CPUs."""


class AgentList(msgspec.Struct, array_like=True, frozen=True, tag=29):
    """Show me the agents."""

    request_id: int


class AgentPage(msgspec.Struct, array_like=True, frozen=True, tag=30):
    """Every agent that is connected, or still holds leases."""

    request_id: int
    agents: list[AgentView]


class MemoryList(msgspec.Struct, array_like=True, frozen=True, tag=48):
    """Show me how much memory tasks have come to need."""

    request_id: int


class MemoryView(msgspec.Struct, array_like=True, frozen=True):
    """How much memory attempts of a task name held at most."""

    name: str
    attempts: int
    """That reported it; the older count for less."""
    highest: int
    """Bytes, of all."""
    proposal: int
    """What a task gets that asks for what was learned."""


class MemoryPage(msgspec.Struct, array_like=True, frozen=True, tag=49):
    """Of each task name that asks for memory, by name."""

    request_id: int
    names: list[MemoryView]


class StatsQuery(msgspec.Struct, array_like=True, frozen=True, tag=44):
    """Show me what the server has counted since its start."""

    request_id: int


class Stats(msgspec.Struct, array_like=True, frozen=True, tag=45):
    """Counts and costs since the server's start, for benchmarks and people."""

    request_id: int
    tasks: dict[str, int]
    """Stored tasks by state."""
    stages_ns: dict[str, int]
    """The loop's own time by stage: decode, decide, encode, stage, send."""
    counts: dict[str, int]
    """turns, flushes, submitted, leased, completed, bytes_in, bytes_out."""
    cpu_ns: int
    """CPU time of the server process, all threads."""


class QueueDrain(msgspec.Struct, array_like=True, frozen=True, tag=59):
    """Take no new tasks into this queue: what is there runs. Durable. Answered DONE."""

    request_id: int
    queue: str
    resume: bool = False
    """Take tasks again instead, and lease them: it ends a pause, too."""


class QueueWeigh(msgspec.Struct, array_like=True, frozen=True, tag=140):
    """Give this queue its share: beside others it is granted tasks by its weight. Durable. Answered DONE."""

    request_id: int
    queue: str
    weight: int
    """1 to ``QUEUE_WEIGHT_MAX``; 1 if nobody has said otherwise."""


class FairKeyWeigh(msgspec.Struct, array_like=True, frozen=True, tag=180):
    """Give this fair key its share of its queue, of tasks that come from now on. Durable. Answered DONE."""

    request_id: int
    queue: str
    fair_key: str
    weight: int
    """1 to ``QUEUE_WEIGHT_MAX``; 1 if nobody has said otherwise."""


class AgentDrain(msgspec.Struct, array_like=True, frozen=True, tag=60):
    """Have this agent finish what it runs and stay idle. Durable. Answered DONE."""

    request_id: int
    agent: str
    resume: bool = False
    """Grant to it again instead, also after a quarantine."""


class Backup(msgspec.Struct, array_like=True, frozen=True, tag=62):
    """Copy the store into a new folder on the server's machine; under an id that was used: how far is it?"""

    request_id: int
    id: bytes
    """16 random bytes of the asker's."""
    path: str
    """The folder, with its whole path; its parent must be there, and the folder must not."""
    without_keys: bool = False
    """The CA, its key and the server's certificate stay out of it."""


class BackupView(msgspec.Struct, array_like=True, frozen=True, tag=63):
    """How far it is: told at once when it has ended, else at its next stage or after a second."""

    request_id: int
    stage: str
    """``copying``, ``checking``, ``done`` or ``failed``."""
    copied_bytes: int = 0
    total_bytes: int = 0
    """0: not known yet."""
    sequence: int = 0
    """The last commit that is in it, when it is done."""
    tasks: dict[str, int] = {}
    """Tasks in it by state, when it is done."""
    code: str = ""
    """Of the error, when it has failed."""
    message: str = ""
