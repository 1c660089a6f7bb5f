"""Slots: agents in the order of their free slots, and of their credit, for tasks that ask for nothing and are few.

So a task finds its place without a look at all agents. One may have less by now than it says here, which is seen when
it comes up, but never more: whoever may have more is in ``freed`` of ``Rooms`` until it was looked at.

Invariants:
- The order holds each pool of an agent once at most.
- A pool has no more room than it says here, and some if it stands here, or its agent is in ``freed``.
"""

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Final

from taskd.core.fleet import Agent, PoolState
from taskd.core.lines import Line

if TYPE_CHECKING:
    from taskd.core.working import Working

LOOKED_AT: Final = 64
"""Pools with room that are asked whether they have a task; then all are, see ``dealing``."""

Place = tuple[Agent, int, PoolState]
"""A pool of an agent, with its index."""


Room = tuple[int, int]
"""Free slots, and credit: also for leases that wait behind what runs."""

NONE: Final = 0, 0


class Slots:
    """The pools that have room."""

    def __init__(self) -> None:
        self._order: Final[list[tuple[Room, str, int]]] = []  # with agent and index of the pool; sorted
        self._entries: Final[dict[str, list[tuple[Room, str, int]]]] = {}  # the same, by agent

    def has_room(self, w: "Working") -> bool:
        """Tell whether any place has room."""
        self._look(w)
        while self._order:
            room, name, pool = self._order[-1]
            agent = w.agents[name]
            if room_of((agent, pool, agent.pools[pool])) == room:
                return True
            self._put(name, agent)
        return False

    def best(self, w: "Working", line: Line) -> Place | None:
        """Return the place with most room that has a line's tasks, on a calm machine; None: none was found."""
        self._look(w)
        order = self._order
        index, last = len(order) - 1, len(order) - LOOKED_AT
        while index >= max(0, last):
            room, name, pool = order[index]
            agent = w.agents[name]
            place = agent, pool, agent.pools[pool]
            if room_of(place) != room:
                before = len(order)
                self._put(name, agent)
                index -= before - len(order)
            elif has(place, line) and not agent.room.is_pressed:
                return place
            else:
                index -= 1
        return None

    def _look(self, w: "Working") -> None:
        """Put those in their places that may have more than before."""
        for name in w.rooms.freed:
            self._put(name, w.agents.get(name))
        w.rooms.freed.clear()

    def _put(self, name: str, agent: Agent | None) -> None:
        """Put an agent in its place."""
        for entry in self._entries.pop(name, ()):
            del self._order[bisect_left(self._order, entry)]
        if agent is None:
            return
        rooms = [(room_of((agent, index, pool)), name, index) for index, pool in enumerate(agent.pools)]
        entries = [entry for entry in rooms if entry[0] != NONE]
        for entry in entries:
            insort(self._order, entry)
        if entries:
            self._entries[name] = entries

    def check(self, w: "Working") -> None:
        """Assert what is said above."""
        assert self._order == sorted(entry for entries in self._entries.values() for entry in entries)
        known = {(name, pool): room for room, name, pool in self._order}
        assert len(known) == len(self._order), "each pool stands here once"
        for name, agent in w.agents.items():
            for index, pool in enumerate(agent.pools):
                room = room_of((agent, index, pool))
                assert name in w.rooms.freed or room <= known.pop((name, index), NONE), f"{name} has more room"
        assert all(name in w.rooms.freed for name, _ in known), "no place is kept of pools that are gone"


def takes_plain(agent: Agent) -> bool:
    """Tell whether an agent is granted what asks for nothing, if a pool has room."""
    return agent.takes_leases and not (agent.holder or (agent.held_for and agent.is_reserved) or agent.is_laden)


def has(place: Place, line: Line) -> bool:
    """Tell whether a place has a line's tasks, and serves its queue."""
    agent, _, pool = place
    return line.name in pool.names and (not agent.queues or line.queue in agent.queues)


def free_slots(place: Place) -> int:
    """Return how many leases would start at once, or 0: credit beyond that is for waiting behind what runs.

    Which of its pools an agent's leases are in is not known, so one with several may have more.
    """
    agent, _, pool = place
    idle = agent.slots - len(agent.leases) - (agent.room.held_cpu // pool.slot_cpu if pool.slot_cpu else 0)
    return max(0, min(pool.credit, pool.pool.slots, idle))


def room_of(place: Place) -> Room:
    """Return what a place has for what asks for nothing."""
    agent, _, pool = place
    if not pool.credit or not takes_plain(agent) or not agent.runs_plain(pool):
        return NONE
    return free_slots(place), pool.credit
