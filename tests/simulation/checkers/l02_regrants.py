"""L2: when all is calm, what an agent held that is gone is granted anew in bounded time."""

from dataclasses import dataclass, field

import trio

from simulation.checkers.checker import Checker
from simulation.checkers.l02_agents import SILENCE_SECONDS
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.lifecycle import State
from taskd_protocol.agent_messages import Drain, Lease, LeaseCredit, Offer, Offered
from taskd_protocol.limits import HEARTBEAT_MS
from taskd_protocol.messages import Message
from taskd_protocol.task import Pool, TaskSpec

HEARTBEAT_SECONDS = HEARTBEAT_MS / 1_000
REGRANT_SECONDS = 2 * HEARTBEAT_SECONDS
"""Beyond an agent's silence until it is given up, and again until its tasks are granted to one that waits for work."""


@dataclass(slots=True)
class Room:
    """What an agent offers on a connection.

    Attributes:
        credit: Leases that it takes, and since when it takes any, by pool.
    """

    name: str
    queues: list[str]
    pools: list[Pool]
    heard_s: float
    taken_in: bool = False
    credit: dict[int, tuple[int, float]] = field(default_factory=dict)


class Regrants(Checker):
    """Looks every so often at who holds what, and at what waits while somebody would take it."""

    promise = "L2"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._offers: dict[Conversation, Room] = {}
        self._holders: dict[bytes, str] = {}  # agents, by task; not of those that are to be cancelled
        self._lost_s: dict[bytes, float] = {}  # since when, by task
        self._heard_s: dict[str, float] = {}  # when an agent was heard that was taken in
        self._drained: set[str] = set()
        self._started_s = 0.0

    def heard(self, conversation: Conversation, message: Message) -> None:
        now_s = trio.current_time()
        offer = self._offers.get(conversation)
        if isinstance(message, Offer):
            self._offers[conversation] = Room(conversation.name, message.queues, message.pools, now_s)
        elif offer is None:
            return
        elif isinstance(message, LeaseCredit):
            before, since_s = offer.credit.get(message.pool, (0, now_s))
            offer.credit[message.pool] = (message.leases, since_s if before else now_s)
        elif isinstance(message, Drain):
            del self._offers[conversation]
        if offer is not None and offer.taken_in:
            offer.heard_s = self._heard_s[offer.name] = now_s

    def said(self, conversation: Conversation, message: Message) -> None:
        offer = self._offers.get(conversation)
        if offer is None:
            return
        if isinstance(message, Offered):
            offer.taken_in = True
            self._heard_s[offer.name] = offer.heard_s
        elif isinstance(message, Lease):
            credit, since_s = offer.credit[message.pool]
            offer.credit[message.pool] = (credit - len(message.grants), since_s)

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if after.lease is not None and not after.lease.cancelling:
            self._holders[task_id] = after.lease.agent
        else:
            self._holders.pop(task_id, None)
        if after.name != State.READY:
            self._lost_s.pop(task_id, None)
        elif before.lease is not None:
            self._lost_s[task_id] = trio.current_time()

    def ordered(self, kind: str, name: str, *, drained: bool) -> None:
        if kind == "agent":
            (self._drained.add if drained else self._drained.discard)(name)

    def recovered(self) -> None:
        self._started_s = trio.current_time()
        self._offers.clear()
        self._heard_s.clear()

    def looked(self, calm_s: float) -> None:
        now_s = trio.current_time()
        for task_id, agent in self._holders.items():
            silent_s = now_s - max(self._heard_s.get(agent, 0.0), self._started_s, calm_s)
            if silent_s > SILENCE_SECONDS + REGRANT_SECONDS:
                self.broken(f"{task_id.hex()} is {agent}'s, of whom nobody has heard for {silent_s:.1f} s")
        if "placement" in self.world.plan.features:
            return  # others may be before it, hold what it asks for, or have its limit: see ``l01_moves``
        for task_id, lost_s in self._lost_s.items():
            spec = self.world.find_spec(task_id)
            free = [since_s for offer in self._offers.values() for since_s in self._free(offer, spec)]
            free_s = min(free, default=now_s)
            waits_s = now_s - max(lost_s, free_s, self._started_s, calm_s)
            if waits_s > REGRANT_SECONDS:
                self.broken(f"{task_id.hex()} came back, and waits for {waits_s:.1f} s while an agent has room for it")

    def _free(self, offer: Room, spec: TaskSpec) -> list[float]:
        """Return since when an agent has room for a task, in each pool that has."""
        is_well = offer.taken_in and trio.current_time() - offer.heard_s <= HEARTBEAT_SECONDS + 1
        if not is_well or offer.name in self._drained or offer.name in self.world.quarantined:
            return []
        if offer.queues and spec.queue not in offer.queues:
            return []
        free = [(pool, *offer.credit.get(index, (0, 0.0))) for index, pool in enumerate(offer.pools)]
        return [since_s for pool, credit, since_s in free if credit > 0 and spec.name in pool.names]
