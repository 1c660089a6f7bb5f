"""Dealing: tasks that ask for nothing but a slot are dealt out in numbers, ahead of what runs.

Lines that the same places can run form a group: what is taken out of them is dealt out together, evenly, to those
places first that would start it at once. What two groups share is dealt out in the order in which it was taken.

Invariants:
- No more is taken for a group than its places have credit for.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from taskd.core.fleet import Agent, PoolState
from taskd.core.granting import Granting
from taskd.core.lines import Line, Task
from taskd.core.working import Working

FEW_PLACES: Final = 8
"""So many are asked one by one which lines they can run; of more, one of each sort."""

Place = tuple[Agent, int, PoolState]
"""A pool of an agent, with its index."""

_Sort = tuple[bytes, int, bool]
"""Of a place: the sort of its agent, the index of the pool, whether the agent's machine is busy with what others do."""


class Group:
    """The places that are able to run some lines, and what was taken out of those lines for them.

    Lines that take turns at being first are dealt out together: a deal costs as much as five tasks.
    """

    __slots__ = ("counted", "mask", "places", "taken")

    def __init__(self, mask: int, places: list[Place]) -> None:
        self.mask = mask
        self.places = places
        self.taken: list[Task] = []
        self.counted: int | None = None

    @property
    def room(self) -> int:
        """Leases that the places may still get, less what is waiting to be dealt."""
        if self.counted is None:
            self.counted = sum([pool.credit for _, _, pool in self.places])
        return self.counted


class Dealing:
    """What one pass deals out.

    Attributes:
        room: Leases that places may still get which could run what asks for nothing.
        places_asked: How many were looked at to deal out tasks.
    """

    def __init__(self, w: Working, granting: Granting, places: Sequence[Place]) -> None:
        self._w: Final = w
        self._granting: Final = granting
        self._places: Final = places
        self._sorts: dict[_Sort, list[tuple[int, Place]]] | None = None
        self._names: set[str] | None = None  # of agents in places
        self._of_line: dict[bytes, Group] = {}
        self._of_sorts: dict[tuple[_Sort, ...], Group] = {}
        self._groups: dict[int, Group] = {}
        self.room = sum([pool.credit for _, _, pool in places])
        self.places_asked = 0

    def _group_of(self, line: Line) -> Group:
        """Return the group of the places that are able to run the line; asked once a pass."""
        group = self._of_line.get(line.id)
        if group is None:
            places = self._places
            group = self._grouped(line, enumerate(places)) if len(places) <= FEW_PLACES else self._group_by_sort(line)
            self._of_line[line.id] = group
        return group

    def _group_by_sort(self, line: Line) -> Group:
        """Return the same, asked of each sort of agent, unless the machine of one is busy with what others do there."""
        if self._sorts is None:
            self._sorts = {}
            for bit, place in enumerate(self._places):
                sort = place[0].sort, place[1], place[0].room.is_pressed
                self._sorts.setdefault(sort, []).append((bit, place))
        sorts = [sort for sort, [(_, place), *_] in self._sorts.items() if _has(place, line)]
        if any(is_pressed for _, _, is_pressed in sorts):
            return self._grouped(line, enumerate(self._places))
        group = self._of_sorts.get(tuple(sorts))
        if group is None:
            places = sorted([each for sort in sorts for each in self._sorts[sort]], key=_by_bit)
            group = self._of_sorts[tuple(sorts)] = self._grouped(line, places)
        return group

    def _grouped(self, line: Line, places: Iterable[tuple[int, Place]]) -> Group:
        mask = 0
        able: list[Place] = []
        for bit, place in places:
            agent, _, pool = place
            if (
                _has(place, line)
                and agent.runs_plain(pool)
                and not (agent.room.is_pressed and self._is_calm_elsewhere(line))
            ):
                mask |= 1 << bit
                able.append(place)
        group = self._groups.get(mask)
        if group is None:
            for other in self._groups.values():
                if other.mask & mask and other.taken:
                    self._deal(other)
            group = self._groups[mask] = Group(mask, able)
        return group

    def _is_calm_elsewhere(self, line: Line) -> bool:
        """Tell whether an agent whose host is its own could run it, now or soon."""
        return any(
            agent.takes_leases and not agent.room.is_pressed and agent.can_run(line.queue, line.name)
            for agent in self._w.having.get(line.name, {}).values()
        )

    def take(self, line: Line, below: int, count: int) -> list[Task]:
        """Take the line's first tasks, so many at most and of a rank under ``below``; none: there is no room."""
        group = self._group_of(line)
        if len(self._groups) > 1:
            for other in self._groups.values():
                if other.taken and other is not group and other.mask & group.mask:
                    self._deal(other)  # its tasks come first, and share some of the room
        room = group.room
        if not room:
            return []
        tasks = line.take(min(room, count), below)
        if group.taken and (group.taken[-1].spec.name, group.taken[-1].spec.queue) != (line.name, line.queue):
            self._granting.is_mixed = True
        group.taken += tasks
        group.counted = room - len(tasks)
        self.room -= len(tasks)
        return tasks

    def deal_all(self) -> None:
        """Deal out what was taken so far."""
        for group in self._groups.values():
            if group.taken:
                self._deal(group)

    def recount(self) -> None:
        """Have room be counted anew, after others were granted beside; nothing must be waiting to be dealt."""
        for group in self._groups.values():
            group.counted = None

    def note_used(self, agent: Agent, credit: int) -> None:
        """Note that an agent's credit was used for something else, if it was counted as room."""
        if self._names is None:
            self._names = {agent.name for agent, _, _ in self._places}
        if agent.name in self._names:
            self.room -= credit

    def _deal(self, group: Group) -> None:
        """Deal out what was taken for a group."""
        tasks, group.taken = group.taken, []
        self.places_asked += len(group.places)
        able = [place for place in group.places if place[2].credit]
        if self._w.affinity and len(able) > 1:
            tasks = self._deal_wished(tasks, able)
            able = [place for place in able if place[2].credit]
        free = [(room, place) for place in able if (room := _free_slots(place)) > 0] if len(able) > 1 else []
        if sum([room for room, _ in free]) < len(tasks):
            free = [(place[2].credit, place) for place in able]
        self._share(tasks, free)
        for other in self._groups.values():
            if other.mask & group.mask and not other.taken:
                other.counted = None

    def _deal_wished(self, tasks: list[Task], able: list[Place]) -> list[Task]:
        """Deal out those for which a certain agent is wished that has a free slot; return the others."""
        places = {place[0].name: place for place in able}
        agents_of = self._w.affinity.agents_of
        wished: dict[str, list[Task]] = {}
        others: list[Task] = []
        for task in tasks:
            for name in agents_of(task.spec):
                place, some = places.get(name), wished.setdefault(name, [])
                if place is not None and len(some) < _free_slots(place):
                    some.append(task)
                    break
            else:
                others.append(task)
        for name, some in wished.items():
            if some:
                self._share(some, [(len(some), places[name])])
        return others

    def _share(self, tasks: list[Task], able: list[tuple[int, Place]]) -> None:
        """Deal the tasks out evenly, to the places with most room first; they have room for all."""
        able.sort(key=_by_room)
        start, left = 0, len(able)
        more: list[tuple[int, Place]] = []
        for room, (agent, index, pool) in able:
            rest = len(tasks) - start
            if not rest:
                break
            count = min(-(-rest // left), room)
            some = tasks[start : start + count]
            self._granting.grant(some, agent, index)
            if pool.has_slots:
                pool.busy += count
                for task in some:
                    task.pool = index
            pool.credit -= count
            start += count
            left -= 1
            if room > count:
                more.append((room - count, (agent, index, pool)))
        if start < len(tasks):  # the even share was more than some had room for
            self._share(tasks[start:], more)


def _has(place: Place, line: Line) -> bool:
    """Tell whether a place has a line's tasks, and serves its queue."""
    agent, _, pool = place
    return line.name in pool.names and (not agent.queues or line.queue in agent.queues)


def _by_room(able: tuple[int, Place]) -> int:
    return -able[0]


def _free_slots(place: Place) -> int:
    """Return how many leases would start at once, or 0: credit beyond that is for waiting behind what runs.

    Which of its pools an agent's leases are in is not known, so one with several may have more.
    """
    agent, _, pool = place
    idle = agent.slots - len(agent.leases) - (agent.room.held_cpu // pool.slot_cpu if pool.slot_cpu else 0)
    return max(0, min(pool.credit, pool.pool.slots, idle))


def _by_bit(place: tuple[int, Place]) -> int:
    return place[0]
