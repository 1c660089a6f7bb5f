"""The fleet: what is known of each agent, and which of them have room. In memory only.

Invariants:
- What an agent's room has left is what it offered, less what its leases hold.
- Whoever may have more room than before is in ``grown`` of ``Rooms`` until it was looked at.

Knows no rule: ``taskd.core.agents`` keeps agents, ``choosing`` and ``placement`` ask what they have left.
"""

from dataclasses import dataclass, field

from taskd.core.commands import Charge, Now
from taskd.core.lines import Line, Task
from taskd.core.room import Room
from taskd_protocol.resources import CPU
from taskd_protocol.task import Pool

LEASED_BYTES_MAX = 64 * 1024 * 1024
"""Arguments in an agent's leases; above it gets no more, whatever its credit: they are in its memory, and in ours."""

ASYNC = "async"
"""The kind of a pool whose slots take no CPU each."""


@dataclass(slots=True, kw_only=True)
class PoolState:
    """A pool of a connected agent."""

    pool: Pool
    names: frozenset[str]
    credit: int = 0
    slot_cpu: int = 0
    """Thousandths of a CPU that an attempt takes that asks for nothing, if slots are CPUs here."""
    busy: int = 0
    """Leases here that ask for nothing, if so: running, or waiting for a slot."""
    granted: int = 0
    """Leases here that hold resources, if so."""

    @property
    def has_slots(self) -> bool:
        """Each of its slots stands for a CPU, or a share of it."""
        return self.pool.kind != ASYNC


@dataclass(slots=True, kw_only=True)
class Agent:
    """An agent that is connected, or still holds leases; one that lost both is forgotten when it has been silent."""

    name: str
    boot_id: bytes = b""
    """Empty: known from its leases only, since the server's start."""
    connection: int = 0
    """0: not connected."""
    pools: list[PoolState] = field(default_factory=list)
    queues: frozenset[str] = frozenset()
    labels: dict[str, str] = field(default_factory=dict)
    software: str = ""
    marks_starts: bool = True
    """As in ``OfferAgent``; until it has offered something, as if it did."""
    draining: bool = False
    lease_number: int = 0
    """Of the last LEASE on this connection."""
    seen_mono_ms: int = 0
    lost: bool = False
    """It fell silent: what it holds still is to be cancelled, and not known to have ended."""
    leases: dict[int, Task] = field(default_factory=dict)
    """By fencing token."""
    granted_bytes: int = 0
    """Arguments granted since they were last counted: at least those that ``leases`` hold."""
    drained: bool = False
    """A person ordered so."""
    quarantined: bool = False
    streak: list[Charge] = field(default_factory=list)
    """What it has failed since its last success, kept by ``taskd.core.quarantine``."""
    room: Room = field(default_factory=lambda: Room([], []))
    sort: bytes = b""
    """A digest of what it offers beside its name: what one of a sort can run, all can."""
    apart: dict[str, int] = field(default_factory=dict)
    """Leases that are to be apart from others of the same word."""
    holder: int = 0
    """Fencing token of the lease that has all of it; 0: none."""
    held_for: bytes = b""
    """Id of the line whose first task it is kept free for; empty: none."""
    held_flow: tuple[str, bool] = "", False
    """Of that line: tasks of others may not have the agent, however long they have waited."""
    held_rank: int = 0
    """The rank of that task: what comes before it may have the agent still. 0: nothing does, as others were stopped for
    it."""
    ends_mono_ms: int = 0
    """When its machine goes; 0: that is not known."""

    @property
    def takes_leases(self) -> bool:
        """It is granted to, if it has credit."""
        return bool(self.connection) and not (self.draining or self.drained or self.quarantined)

    @property
    def is_reserved(self) -> bool:
        """Others were stopped there for a task, which alone may be granted there now."""
        return bool(self.held_for) and not self.held_rank

    @property
    def is_laden(self) -> bool:
        """It holds as many bytes as it may: counted afresh only when it may be so."""
        if self.granted_bytes > LEASED_BYTES_MAX:
            self.granted_bytes = sum([len(task.spec.payload) + len(task.details) for task in self.leases.values()])
        return self.granted_bytes > LEASED_BYTES_MAX

    def pool_of(self, name: str) -> int:
        """Return the pool that has the task; -1: none."""
        for index, pool in enumerate(self.pools):
            if name in pool.names:
                return index
        return -1

    @property
    def slots(self) -> int:
        """Attempts that it runs at a time."""
        return sum([pool.pool.slots for pool in self.pools])

    def has_free_slot(self, name: str) -> bool:
        """Tell whether an attempt that asks for something would start at once in its pool."""
        pool = self.pools[self.pool_of(name)]
        return not pool.has_slots or pool.granted + pool.busy < pool.pool.slots

    def runs_plain(self, pool: PoolState) -> bool:
        """Tell whether what asks for nothing could run in a pool beside what holds CPUs."""
        return not pool.slot_cpu or self.room.total.get(CPU, 0) - self.room.held_cpu >= pool.slot_cpu

    @property
    def busy_cpu(self) -> int:
        """Thousandths of a CPU that attempts take that asked for nothing."""
        return sum([min(pool.busy, pool.pool.slots) * pool.slot_cpu for pool in self.pools if pool.busy])

    @property
    def cpu_left(self) -> int:
        """What tasks that ask for CPUs may still have."""
        return self.room.cpu_left(self.busy_cpu)

    def lives_for(self, life_ms: int, now: Now) -> bool:
        """Tell whether its machine has so long left, as far as is known."""
        return not self.ends_mono_ms or self.ends_mono_ms - now.mono_ms >= life_ms

    def can_run(self, queue: str, name: str) -> bool:
        """Tell whether it has the task and serves the queue."""
        return (not self.queues or queue in self.queues) and any(name in pool.names for pool in self.pools)


@dataclass(slots=True, kw_only=True)
class Quarantine:
    """An agent that is granted nothing, since it failed what it took."""

    boot_id: bytes
    tasks: dict[bytes, None]
    """What it had failed."""
    cleared: dict[bytes, None] = field(default_factory=dict)
    """Of those, what has failed elsewhere since."""


class Rooms:
    """Which agents have room, kept by ``taskd.core.choosing``.

    Attributes:
        growth: Rises whenever some agent has, or may have, room that it had not before.
        grown: Which, since they were last looked at.
        looked_at: ``growth`` then.
        freed: The same, for the order of ``taskd.core.slots``.
        fresh: Those that a pass which was cut short had not told all lines of, by what they have left of their CPUs.
        cpu_left: What each that is granted to had left of its CPUs then; it may have less by now.
        by_cpu_left: The same, sorted.
        stuck: Lines that need more room than any agent has, by id, in the order in which that began; and some others.
        stuck_as_of: Of each shelf of lines (``taskd.core.rows``), at which ``growth`` all of it was known to be stuck.
        held: Agents that are kept free, by the id of the line for whose first task.
        next_keep_mono_ms: Before, none is chosen to be kept free.
    """

    def __init__(self) -> None:
        self.growth = 0
        self.grown: dict[str, None] = {}
        self.looked_at = 0
        self.freed: dict[str, None] = {}
        self.fresh: list[tuple[int, str]] = []
        self.cpu_left: dict[str, int] = {}
        self.by_cpu_left: list[tuple[int, str]] = []
        self.stuck: dict[bytes, Line] = {}
        self.stuck_as_of: dict[int, int] = {}
        self.held: dict[bytes, str] = {}
        self.next_keep_mono_ms = 0

    def note(self, name: str) -> None:
        """Note an agent that has more room than it had, or may have."""
        self.growth += 1
        self.grown[name] = None
        self.freed[name] = None

    def forget(self, name: str) -> None:
        """Note an agent that is gone."""
        self.freed[name] = None
        if name in self.cpu_left:
            self.grown[name] = None  # its place is taken away when they are looked at
        else:
            self.grown.pop(name, None)
