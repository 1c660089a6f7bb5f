"""Placement: which agent gets which ready tasks.

One pass a turn. It looks at lines and pools, never at the tasks behind a line's
head: its cost is active lines times pools, and what is granted. Queues take turns by
their weights (``shares``); within a queue the lowest rank of all its lines goes first,
so that priorities, and the order of submits within one, hold across names. Tasks that
have fair keys (``fair``) are another flow of their queue.

Tasks that ask for nothing but a slot are dealt out in numbers, ahead of what runs;
those that ask for something one by one, where there is room now (``choosing``).
"""

import heapq
from typing import Final

from taskd.core import choosing, claims, expiry, families, gates, holdups, limiting, preemption, records
from taskd.core.choosing import Choosing
from taskd.core.commands import GoOn, Now
from taskd.core.effects import Continue, SendLease
from taskd.core.events import RUNNING, TasksMoved
from taskd.core.fair import UNIT
from taskd.core.fitting import LEASED_BYTES_MAX
from taskd.core.fleet import Agent, PoolState
from taskd.core.lifecycle import State
from taskd.core.lines import ORDER_BITS, ORDER_MASK, RANK_BYTES, Line, Task, lease_record
from taskd.core.records import EpochRecord, LeaseRecord
from taskd.core.shares import turn_tasks
from taskd.core.working import EPOCH_BITS, NEVER_MS, Working
from taskd_protocol.resources import Granted
from taskd_protocol.task import Grant, Rules

_NO_BOUND = 1 << 128
"""Above every rank."""

LEASE_BYTES = 1024 * 1024
"""Arguments in one LEASE, unless one task's alone are more: no message holds all that an agent may be owed."""

LEASE_TASKS_MAX = 2_048
"""Tasks in one LEASE: with the longest names, keys and retry policies, some 7 KB each, it still fits a message."""

GRANTED_MAX = 128
"""Tasks that ask for something, granted in one turn: some five milliseconds; the next turn goes on."""

_Head = tuple[int, bytes, Line, "_Group | None"]
"""Of a line in a pass: the rank of its first task, its id, itself, and its group, once that is known."""

_Flows = tuple[list[_Head], list[_Head]]
"""Of a queue: its lines without fair keys, and with."""

Place = tuple[Agent, int, PoolState]
"""A pool of an agent, with its index."""


class _Group:
    """The places that are able to run some lines, and what was taken out of those lines for them.

    Lines that take turns at being first are dealt out together: a deal costs as much as five tasks.
    """

    __slots__ = ("mask", "places", "room", "taken")

    def __init__(self, mask: int, places: list[Place]) -> None:
        self.mask = mask
        self.places = places
        self.taken: list[Task] = []
        self.count_room()

    def count_room(self) -> None:
        """Count the leases that the places may still get; nothing must be waiting to be dealt."""
        self.room = sum([pool.credit for _, _, pool in self.places])


class _Pass:
    """One pass: what is dealt out so far."""

    def __init__(self, w: Working, places: list[Place], now: Now) -> None:
        self._w: Final = w
        self._places: Final = places
        self._wall_ms: Final = now.wall_ms
        self._groups: dict[int, _Group] = {}
        self._sends: dict[tuple[str, int], SendLease] = {}
        self._lines: dict[bytes, tuple[Line, int]] = {}  # with what they had at first
        self._aside: list[tuple[PoolState, int]] = []  # kept free, with their credit
        self._choosing: Choosing | None = None
        self._now: Final = now
        self._limited: Final = bool(w.limits or w.queues)
        self._names: set[str] | None = None  # of agents in places
        self._count = 0  # tasks that were taken out of their lines
        self.refused: dict[str, None] = {}  # queues with a line that no place has room for
        self.granted = 0
        """Tasks that asked for something."""
        self.room = sum([pool.credit for _, _, pool in places])

    def group_of(self, line: Line) -> _Group:
        """Return the group of the places that are able to run the line; once a pass for each line."""
        self._lines.setdefault(line.id, (line, line.ready))
        name, queue = line.name, line.queue
        mask = 0
        able: list[Place] = []
        for bit, place in enumerate(self._places):
            agent, _, pool = place
            if name in pool.names and (not agent.queues or queue in agent.queues):
                if not agent.runs_plain(pool) or (agent.room.is_pressed and self._is_calm_elsewhere(queue, name)):
                    continue
                mask |= 1 << bit
                able.append(place)
        group = self._groups.get(mask)
        if group is None:
            for other in self._groups.values():
                if other.mask & mask and other.taken:
                    self.deal(other)
            group = self._groups[mask] = _Group(mask, able)
        return group

    def _is_calm_elsewhere(self, queue: str, name: str) -> bool:
        """Tell whether an agent whose host is its own could run it, now or soon."""
        return any(
            agent.takes_leases and not agent.room.is_pressed and agent.can_run(queue, name)
            for agent in self._w.having.get(name, {}).values()
        )

    @property
    def is_cut_short(self) -> bool:
        """There is more that may be granted at once."""
        return self.granted >= GRANTED_MAX or (self._choosing is not None and self._choosing.released)

    @property
    def goes_on(self) -> bool:
        """There is room, and time."""
        return bool(self.room) and self.granted < GRANTED_MAX

    def serve_queue(self, queue: str, flows: _Flows, tasks: int, *, alone: bool) -> int:
        """Grant a queue's first tasks, of those that have fair keys and of the others, by the queue's time.

        Args:
            queue: Its name.
            flows: Both, as heaps; they are changed.
            tasks: How many at most.
            alone: No other queue has tasks; otherwise those that ask for something are granted one a turn.

        Returns:
            How many were granted.
        """
        plain, keyed = flows
        fair, began, end = self._w.fair, self._count, self._count + tasks
        while plain and keyed and self._count < end and self.goes_on:
            ahead = (keyed[0][0] >> ORDER_BITS) - fair.plain_at(queue)
            left = end - self._count
            if ahead >= 0:
                fair.note_plain(queue, self._serve_flow(plain, min(left, ahead // UNIT + 1), alone=alone))
            else:
                self._serve_flow(keyed, left, alone=alone, before=fair.plain_at(queue) << ORDER_BITS)
        if self._count < end:
            self._serve_flow(plain or keyed, end - self._count, alone=alone)
        return self._count - began

    def _serve_flow(self, heads: list[_Head], tasks: int, *, alone: bool, before: int = _NO_BOUND) -> int:
        """Grant the first tasks by rank over lines, which leave ``heads`` when they have nothing more.

        Args:
            heads: A heap; it is changed.
            tasks: How many at most.
            alone: As above.
            before: Only those of a lower rank.

        Returns:
            How many were granted.
        """
        began, end = self._count, self._count + tasks
        while heads and self._count < end and heads[0][0] < before and self.goes_on:
            _, line_id, line, known = heads[0]
            below = heads[1][0] if len(heads) > 1 else before
            if len(heads) > 2 and heads[2][0] < below:  # noqa: PLR2004 - a heap's second is one of these two
                below = heads[2][0]
            below = min(below, before)
            # The group is looked up when a line's turn comes: most passes end before, for want of room.
            group = known or (self.group_of(line) if line.wants is None else None)
            if group is None and not alone:
                end = self._count + 1
            count = min(end - self._count, self._left(line))
            if not count or not (
                self.serve(line, below, count) if group is None else self.take(line, group, below, count)
            ):
                self.refused[line.queue] = None
                heapq.heappop(heads)
            elif line.window_count:
                heapq.heapreplace(heads, (line.head_rank(), line_id, line, group))
            else:
                heapq.heappop(heads)
                del self._w.active[line_id]
        return self._count - began

    def _left(self, line: Line) -> int:
        """Return how many of the line's tasks may be granted, whatever room there is; none: keep no agent for them."""
        if not self._limited:
            return _NO_BOUND
        left = limiting.left(self._w, line.queue, line.name, self._now)
        if not left and line.id in self._w.rooms.held:
            choosing.release(self._w, line.id)
        return left

    def take(self, line: Line, group: _Group, below: int, count: int) -> bool:
        """Take the line's first tasks, so many at most and of a rank under ``below``; return whether there is room."""
        if len(self._groups) > 1:
            for other in self._groups.values():
                if other.taken and other is not group and other.mask & group.mask:
                    self.deal(other)  # its tasks come first, and share some of the room
        if not group.room:
            return False
        tasks = line.take(min(group.room, count), below)
        if line.holdups is not None:
            holdups.carry_away(line, tasks, self._now)
        group.taken += tasks
        group.room -= len(tasks)
        self.room -= len(tasks)
        self._leave(line, tasks)
        return True

    def _leave(self, line: Line, tasks: list[Task]) -> None:
        """Count tasks that were taken out of their line, and delete their entries."""
        w = self._w
        self._count += len(tasks)
        if self._limited:
            limiting.take(w, line.queue, line.name, len(tasks))
        if line.fair:
            w.fair.note_granted(line.queue, tasks[-1].rank >> ORDER_BITS, len(tasks))
        kind, line_id = records.READY, line.id
        old, first = tasks, w.entered_from
        if w.entered:  # the entries of this turn's own are not written yet, and never will be
            old = [task for task in tasks if not task.fresh or task.rank & ORDER_MASK < first]
        w.mutations += [(kind, line_id + task.rank.to_bytes(RANK_BYTES, "big"), None) for task in old]

    def serve(self, line: Line, below: int, count: int) -> bool:
        """Grant the first tasks, so many at most and of a rank under ``below``, of a line that asks for something.

        Returns:
            False: no agent has room for the first that is left.
        """
        choosing = self._choosing = self._choosing or Choosing(self._w, self._now)
        if choosing.is_hopeless(line):
            return False
        for group in self._groups.values():
            if group.taken:
                self.deal(group)  # its tasks come first
        self._lines.setdefault(line.id, (line, line.ready))
        granted_before = self.granted
        agent = None
        while line.window_count and line.head_rank() < below:
            agent = choosing.best(line)
            if agent is None:
                kept = choosing.note_stuck(line)
                if kept is not None:
                    self._set_aside(kept)
                break
            self._grant_one(line, agent, choosing.granted(agent, line))
            choosing.note_served(line, agent)
            if self.granted >= min(granted_before + count, GRANTED_MAX):
                break
        if self.granted > granted_before:
            self._recount()
        return agent is not None

    def serve_reserved(self, line: Line, agent: Agent) -> None:
        """Grant a line's first task on the agent where others were stopped for it."""
        if not self._left(line):
            return
        w, self._choosing = self._w, self._choosing or Choosing(self._w, self._now)
        self._lines.setdefault(line.id, (line, line.ready))
        self._grant_one(line, agent, None if line.wants is None else self._choosing.granted(agent, line))
        if not line.window_count:
            del w.active[line.id]
        del w.yielding.rooms[line.id]
        choosing.release(w, line.id)
        line.note_served()

    def _grant_one(self, line: Line, agent: Agent, granted: Granted | None) -> None:
        [task] = line.take(1, _NO_BOUND)
        if line.holdups is not None:
            holdups.carry_away(line, [task], self._now)
        self._leave(line, [task])
        index = agent.pool_of(line.name)
        pool = agent.pools[index]
        task.granted = granted
        self._grant([task], agent, index)
        task.pool = index if pool.has_slots else -1
        if granted is not None:
            self._w.note_leased(agent, task, granted)
        elif pool.has_slots:
            pool.busy += 1
        pool.credit -= 1
        self.room -= self._is_place(agent)
        self.granted += 1
        if agent.holder:
            self._set_aside(agent)

    def _set_aside(self, agent: Agent) -> None:
        """Grant nothing more on the agent in this pass."""
        for pool in agent.pools:
            if pool.credit:
                self._aside.append((pool, pool.credit))
                self.room -= pool.credit * self._is_place(agent)
                pool.credit = 0
        self._recount()

    def _is_place(self, agent: Agent) -> bool:
        """Tell whether the agent's credit was counted as room: not if it is laden, or had all of itself taken."""
        if self._names is None:
            self._names = {agent.name for agent, _, _ in self._places}
        return agent.name in self._names

    def _recount(self) -> None:
        for group in self._groups.values():
            group.count_room()

    def deal(self, group: _Group) -> None:
        """Deal out what was taken for a group."""
        tasks, group.taken = group.taken, []
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
                other.count_room()

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

    def finish(self) -> list[SendLease]:
        """Deal out the rest; return what is to be sent."""
        for group in self._groups.values():
            if group.taken:
                self.deal(group)
        for pool, credit in self._aside:
            pool.credit = credit
        w = self._w
        for line, ready_before in self._lines.values():
            if line.ready < ready_before:
                w.dirty_lines[line.id] = line
                line.note_granted(ready_before - line.ready, self._now.mono_ms)
                w.counters.move(line.queue, State.READY, State.RUNNING, ready_before - line.ready)
        return list(self._sends.values())

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
            self._grant(some, agent, index)
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

    def _grant(self, tasks: list[Task], agent: Agent, pool_index: int) -> None:
        send = self._sends.get((agent.name, pool_index))
        if send is None:
            agent.lease_number += 1
            send = SendLease(agent.name, agent.connection, agent.lease_number, pool_index, [])
            self._sends[agent.name, pool_index] = send
        w = self._w
        mutate = w.mutations.append
        grants = send.grants
        leases = agent.leases
        number, name, wall_ms = send.number, agent.name, self._wall_ms
        token = _next_tokens(w, len(tasks))
        first: list[bytes] = []  # those whose first attempt it is
        waits_ms: list[int] = []
        agent.granted_bytes += sum([len(task.spec.payload) + len(task.details) for task in tasks])
        for task in tasks:
            spec = task.spec
            task_id = spec.id
            given = spec.given
            deadline_in_ms = (
                0
                if given is None
                or not (
                    given.ttl_ms
                    or given.deadline_ms
                    or given.unique
                    or given.preemptible
                    or given.sticky
                    or given.limits
                )
                else self._stop_waiting(task, given, name)
            )
            task.token = token
            task.agent = name
            task.lease_number = number
            task.granted_at_ms = wall_ms
            leases[token] = task
            if (
                task.fresh and task.granted is None and task.past is None
            ):  # nothing has happened to it: there is no more to say, and that is said in half the time
                task.attempt = 1
                grants.append(Grant(token, 1, spec, deadline_in_ms))
                mutate((records.LEASE, task_id, LeaseRecord(token, 1, 0, name, wall_ms)))
                first.append(task_id)
                waits_ms.append(wall_ms - task.created_at_ms)
            else:
                task.attempt += 1
                task.log_bytes_before = task.log_bytes
                task.log_number = 0
                alone = task.past is not None and task.past.losses > 0
                family = task.past.family if task.past is not None else b""
                spawned = families.spawned(w, family) if family else None
                grant = Grant(token, task.attempt, spec, deadline_in_ms, task.details, alone, spawned, task.granted)
                grants.append(grant)
                if not task.fresh:
                    mutate((records.STATE, task_id, None))
                mutate((records.LEASE, task_id, lease_record(task)))
                self._tell_again(task)
            token += 1
        if first:
            spec = tasks[0].spec
            w.events.append(TasksMoved(RUNNING, spec.queue, spec.name, name, 1, first, waits_ms))

    def _tell_again(self, task: Task) -> None:
        """Tell of a lease of a task that has been through something before."""
        now, spec = self._now, task.spec
        wait_ms = now.mono_ms - task.ready_mono_ms if task.ready_mono_ms else now.wall_ms - task.created_at_ms
        self._w.events.append(
            TasksMoved(RUNNING, spec.queue, spec.name, task.agent, task.attempt, [spec.id], [wait_ms])
        )

    def _stop_waiting(self, task: Task, rules: Rules, agent: str) -> int:
        """Undo what its rules had a task have while it waited; return what is left until its deadline, or 0."""
        if rules.sticky:
            self._w.affinity.note_granted(rules.sticky, agent)
        if rules.preemptible:
            self._w.yielding.tasks[task.spec.id] = task
        if rules.limits:
            gates.begin(self._w, task, self._now)
        if rules.unique is not None:
            claims.note_grant(self._w, task, rules.unique)
        expiry.stop(self._w, task.spec, task.since_ms, task.attempt)
        return expiry.left_ms(task.spec, task.since_ms, self._wall_ms)


def _places(w: Working) -> list[Place]:
    """Return where there is credit to be used; agents that have none any more are asked again when they have."""
    places: list[Place] = []
    for name, agent in list(w.asking.items()):
        credit = [(agent, index, pool) for index, pool in enumerate(agent.pools) if pool.credit]
        if not credit:
            del w.asking[name]
        elif agent.takes_leases and not agent.holder and not agent.is_reserved and not _is_laden(agent):
            places += credit
    return places


def place(w: Working, now: Now) -> None:
    """Grant what can be granted."""
    w.limits_wake_mono_ms = NEVER_MS
    if not w.active:
        return
    if w.rooms.held:
        choosing.review(w, now)
    places = _places(w)
    held = list(w.rooms.held)
    reserved = [each for each in preemption.ready(w, now) if not _is_laden(each[1])] if w.yielding.rooms else []
    if not places and not reserved:
        return
    this = _Pass(w, places, now)
    for each in reserved:
        this.serve_reserved(*each)
    queues = _queues(w)
    if queues:
        _take_turns(w, this, queues)
    is_given_up = any(line_id not in w.rooms.held for line_id in held)
    if this.is_cut_short or is_given_up:  # others may have the agent now, that had their turn before
        w.effects.append(Continue(GoOn()))
    sends = _divided(w, this.finish())
    if sends:
        w.effects += sends
        w.counters_dirty = True


def _queues(w: Working) -> dict[str, _Flows]:
    """Return the queues that have tasks which an agent serves, with their lines."""
    queues: dict[str, _Flows] = {}
    for line in w.active.values():
        if line.wants is None and not _is_served(w, line):
            continue
        flows = queues.get(line.queue)
        if flows is None:
            flows = queues[line.queue] = [], []
        flows[line.fair].append((line.head_rank(), line.id, line, None))
    for plain, keyed in queues.values():
        heapq.heapify(plain)
        heapq.heapify(keyed)
    return queues


def _is_served(w: Working, line: Line) -> bool:
    """Tell whether a connected agent has the line's tasks, which is looked up when what agents have has changed.

    Thousands of queues may wait for agents of their own while others work.
    """
    if line.served_as_of != w.offers:
        line.served_as_of = w.offers
        having = w.having.get(line.name, {}).values()
        line.is_served = any(not agent.queues or line.queue in agent.queues for agent in having)
    return line.is_served


def _take_turns(w: Working, this: _Pass, queues: dict[str, _Flows]) -> None:
    """Serve the queue that is most behind, again and again, until there is no room or nothing that fits.

    First those for which agents are kept free, so that no other queue's tasks are dealt out to these.
    """
    shares = w.shares
    clock = shares.clock
    shares.begin(queues)
    alone = len(queues) == 1
    weights = {queue: w.weight_of(queue) for queue in queues}
    tasks = this.room if alone else turn_tasks(this.room, sum(weights.values()))
    kept = [w.lines_by_id[line_id].queue for line_id in w.rooms.held]
    turns = [(queue not in kept, shares.times[queue], queue) for queue in queues]
    heapq.heapify(turns)
    while turns and this.goes_on:
        _, _, queue = turns[0]
        weight = weights[queue]
        granted = this.serve_queue(queue, queues[queue], tasks * weight, alone=alone)
        at = shares.note(queue, granted, weight) if granted else shares.times[queue]
        if any(queues[queue]):
            heapq.heapreplace(turns, (True, at, queue))
        else:
            heapq.heappop(turns)
    shares.pass_over(this.refused, clock)


def _is_laden(agent: Agent) -> bool:
    """Tell whether the agent holds as many bytes as it may: counted afresh only when it may be so."""
    if agent.granted_bytes > LEASED_BYTES_MAX:
        agent.granted_bytes = sum([len(t.spec.payload) + len(t.details) for t in agent.leases.values()])
    return agent.granted_bytes > LEASED_BYTES_MAX


def _divided(w: Working, sends: list[SendLease]) -> list[SendLease]:
    """Cut what is too much for one LEASE into several, and number them in the order in which they go."""
    divided: list[SendLease] = []
    for send in sends:
        grants = send.grants
        sizes = [len(grant.spec.payload) + len(grant.details) for grant in grants]
        if sum(sizes) <= LEASE_BYTES and len(grants) <= LEASE_TASKS_MAX:
            divided.append(send)
            continue
        agent = w.agents[send.agent]
        start, size_before = 0, 0
        for end, size in enumerate(sizes):
            if end > start and (size_before + size > LEASE_BYTES or end - start == LEASE_TASKS_MAX):
                divided.append(_piece(agent, send, grants[start:end], first=start == 0))
                start, size_before = end, 0
            size_before += size
        divided.append(_piece(agent, send, grants[start:], first=start == 0))
    divided.sort(key=_by_number)
    return divided


def _piece(agent: Agent, send: SendLease, grants: list[Grant], *, first: bool) -> SendLease:
    """Return a part of a LEASE as one of its own; the first keeps the number."""
    if first:
        return send._replace(grants=grants)
    agent.lease_number += 1
    for grant in grants:
        agent.leases[grant.token].lease_number = agent.lease_number
    return send._replace(number=agent.lease_number, grants=grants)


def _by_number(send: SendLease) -> int:
    return send.number


def _by_room(able: tuple[int, Place]) -> int:
    return -able[0]


def _free_slots(place: Place) -> int:
    """Return how many leases would start at once, or 0: credit beyond that is for waiting behind what runs.

    Which of its pools an agent's leases are in is not known, so one with several may have more.
    """
    agent, _, pool = place
    idle = agent.slots - len(agent.leases) - (agent.room.held_cpu // pool.slot_cpu if pool.slot_cpu else 0)
    return max(0, min(pool.credit, pool.pool.slots, idle))


def _next_tokens(w: Working, count: int) -> int:
    """Reserve fencing tokens; a new epoch begins, in the same batch, before the counter runs out."""
    if w.lease_counter + count >= 1 << EPOCH_BITS:
        w.epoch += 1
        w.lease_counter = 0
        w.put(records.META, b"epoch", EpochRecord(w.epoch))
    first = w.epoch << EPOCH_BITS | w.lease_counter
    w.lease_counter += count
    return first
