"""Dealing: tasks that ask for nothing but a slot are dealt out in numbers, ahead of what runs.

Lines that the same places can run form a group: what is taken out of them is dealt out together, evenly, to those
places first that would start it at once. What two groups share is dealt out in the order in which it was taken.

Where agents are many and tasks few, each goes at once to where most room is (``slots``), and no pass looks at all
agents for them; only what finds no place so is dealt out as above.

Invariants:
- No more is taken for a group than its places have credit for.
"""

from collections.abc import Iterable
from typing import Final

from taskd.core.fleet import Agent
from taskd.core.granting import Granting
from taskd.core.lines import Line, Task
from taskd.core.slots import Place, free_slots, has, takes_plain
from taskd.core.working import Working

FEW_PLACES: Final = 8
"""So many are asked one by one which lines they can run; of more, one of each sort."""

AT_ONCE_MAX: Final = 64
"""Tasks that go to where most room is, in one pass: each costs as much as a look at some twenty places."""

MANY_AGENTS: Final = 4
"""So many times as many agents as tasks in the line: then those may go so."""

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
        room: Leases that places may still get which could run what asks for nothing; as long as not all places were
            looked at, 1 if there is any.
        places_asked: How many were looked at to deal out tasks.
    """

    def __init__(self, w: Working, granting: Granting, *, has_tasks: bool) -> None:
        self._w: Final = w
        self._granting: Final = granting
        self._all: list[Place] | None = None  # places; None: not looked at
        self._sorts: dict[_Sort, list[tuple[int, Place]]] | None = None
        self._names: set[str] | None = None  # of agents in places
        self._of_line: dict[bytes, Group] = {}
        self._of_sorts: dict[tuple[_Sort, ...], Group] = {}
        self._groups: dict[int, Group] = {}
        self._at_once = 0 if w.affinity else AT_ONCE_MAX
        self.room = 0
        self.places_asked = 0
        if not has_tasks:
            self._all = []
        elif len(w.asking) <= FEW_PLACES:
            self._look_at_all()
        else:
            self.room = int(w.slots.has_room(w))

    def room_up_to(self, bound: int) -> int:
        """Return how many leases places may still get, or a number not less than the bound if that is more."""
        if self._all is not None:
            return self.room
        room = 0
        for agent in self._w.asking.values():
            if takes_plain(agent):
                room += sum([pool.credit for pool in agent.pools if pool.credit and agent.runs_plain(pool)])
            if room >= bound:
                break
        return room

    def _look_at_all(self) -> list[Place]:
        """Return where there is credit; looked at once a pass, if at all."""
        if self._all is None:
            self._all = _places(self._w)
            self.room = sum([pool.credit for _, _, pool in self._all])
        return self._all

    def _group_of(self, line: Line) -> Group:
        """Return the group of the places that are able to run the line; asked once a pass."""
        group = self._of_line.get(line.id)
        if group is None:
            places = self._look_at_all()
            group = self._grouped(line, enumerate(places)) if len(places) <= FEW_PLACES else self._group_by_sort(line)
            self._of_line[line.id] = group
        return group

    def _group_by_sort(self, line: Line) -> Group:
        """Return the same, asked of each sort of agent, unless the machine of one is busy with what others do there."""
        if self._sorts is None:
            self._sorts = {}
            for bit, place in enumerate(self._look_at_all()):
                sort = place[0].sort, place[1], place[0].room.is_pressed
                self._sorts.setdefault(sort, []).append((bit, place))
        sorts = [sort for sort, [(_, place), *_] in self._sorts.items() if has(place, line)]
        if any(is_pressed for _, _, is_pressed in sorts):
            return self._grouped(line, enumerate(self._look_at_all()))
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
                has(place, line)
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
        if self._all is None and line.window_count * MANY_AGENTS < len(self._w.asking):
            tasks = self._take_at_once(line, below, count)
            if tasks:
                return tasks
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

    def _take_at_once(self, line: Line, below: int, count: int) -> list[Task]:
        """Take the line's first tasks, as above, and grant each where most room is; none: that is not known."""
        taken: list[Task] = []
        count = min(count, line.window_count, self._at_once)
        while len(taken) < count and line.head_rank() < below:
            place = self._w.slots.best(self._w, line)
            if place is None:
                break
            tasks = line.take(1, below)
            self._share(tasks, [(1, place)])
            taken += tasks
        self._at_once -= len(taken)
        self.room = int(self._w.slots.has_room(self._w))
        return taken

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
        if self._all is None:
            self.room = int(self._w.slots.has_room(self._w))
            return
        if self._names is None:
            self._names = {agent.name for agent, _, _ in self._all}
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
        free = [(room, place) for place in able if (room := free_slots(place)) > 0] if len(able) > 1 else []
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
                if place is not None and len(some) < free_slots(place):
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


def _places(w: Working) -> list[Place]:
    """Return where there is credit to be used; agents that have none any more are asked again when they have."""
    places: list[Place] = []
    for name, agent in list(w.asking.items()):
        credit = [(agent, index, pool) for index, pool in enumerate(agent.pools) if pool.credit]
        if not credit:
            del w.asking[name]
        elif takes_plain(agent):
            places += [place for place in credit if agent.runs_plain(place[2])]
    return places


def _by_room(able: tuple[int, Place]) -> int:
    return -able[0]


def _by_bit(place: tuple[int, Place]) -> int:
    return place[0]
