"""Preemption: running tasks that said they may be are stopped for one of a higher priority, and go back in line.

Invariants:
- Only a ``preemptible`` task is stopped, for one that is not, of a higher priority, that has been first in its line for
  ``choosing.KEPT_FREE_AFTER_MS``.
- What was stopped for a task is kept for it: nothing else is granted on that agent until it is there, waits no more, or
  ``ROOM_MS`` have passed. So each time that tasks are stopped another one begins.
- A task is stopped ``PREEMPTED_MAX`` times; then it runs to its end.

An agent ends an attempt as one that is cancelled, by stages, and reports when its work is gone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from taskd.core import attempts, choosing, limiting, records
from taskd.core.commands import Now
from taskd.core.effects import SendRevoke
from taskd.core.fitting import never, not_now
from taskd.core.fleet import Agent
from taskd.core.lines import ORDER_MASK, Line, Task, lease_record, place_of, rank_of
from taskd.core.working import Working
from taskd_protocol.resources import CPU, MEMORY

LOOK_MS: Final = 500
"""Between two looks."""

STOPS_MAX: Final = 8
"""Tasks for which others are stopped in one look."""

COMPARED: Final = 16
"""Agents, of those where it can be done, among which whom to stop is chosen for a task."""

TRIED: Final = 32
"""Agents that are asked in one look for one task whether stopping some makes room there: some three milliseconds for
all tasks. The next look goes on behind them."""

PREEMPTED_MAX: Final = 5

ROOM_MS: Final = 60_000
"""Well above what it takes to end an attempt that does not want to end."""


class Choice(NamedTuple):
    """Whom to stop, on one agent."""

    agent: Agent
    victims: list[Task]

    def cost(self) -> tuple[int, int]:
        """Return what is to be least: how many, then how long they have run."""
        return len(self.victims), -min([task.token for task in self.victims])


def look(w: Working, now: Now) -> None:
    """Stop tasks for those that have waited too long; call in each turn, before tasks are placed."""
    if not (w.yielding.tasks or w.yielding.rooms) or now.mono_ms < w.yielding.next_look_mono_ms:
        return
    w.yielding.next_look_mono_ms = now.mono_ms + LOOK_MS
    w.yielding.tasks = {task_id: task for task_id, task in w.yielding.tasks.items() if w.tasks.get(task_id) is task}
    _review(w, now)
    waiting = _waiting(w, now) if w.yielding.tasks else []
    if not waiting:
        return
    victims = [
        task
        for task in w.yielding.tasks.values()
        if task.token
        and not task.cancelling
        and not task.preempted
        and (task.past or attempts.NO_PAST).preempted < PREEMPTED_MAX
    ]
    by_agent: dict[str, list[Task]] = {}
    for task in sorted(victims, key=_by_token, reverse=True):
        by_agent.setdefault(task.agent, []).append(task)
    for line in waiting[:STOPS_MAX]:
        choice = _choose(w, line, by_agent, now)
        if choice is not None:
            _stop(w, line, choice, now)
            del by_agent[choice.agent.name]  # that is kept for this one


def ready(w: Working, now: Now) -> list[tuple[Line, Agent]]:
    """Return the lines for whose first tasks others were stopped, and have left the room, with their agents."""
    found: list[tuple[Line, Agent]] = []
    for line_id, (rank, _) in w.yielding.rooms.items():
        line, agent = w.active.get(line_id), w.agents.get(w.rooms.held.get(line_id, ""))
        if line is None or agent is None or not agent.is_reserved or agent.held_for != line_id:
            continue
        if line.head_rank() == rank and not_now(agent, line, now) is None:
            found.append((line, agent))
    return found


def _review(w: Working, now: Now) -> None:
    """Give up room that was made for tasks that wait no more, or in vain."""
    for line_id, (rank, until_ms) in list(w.yielding.rooms.items()):
        line = w.active.get(line_id)
        name = w.rooms.held.get(line_id)
        agent = None if name is None else w.agents.get(name)
        stands = agent is not None and agent.is_reserved and agent.held_for == line_id and agent.takes_leases
        if line is None or line.head_rank() != rank or now.mono_ms >= until_ms or not stands:
            del w.yielding.rooms[line_id]
            if stands:
                choosing.release(w, line_id)


def _waiting(w: Working, now: Now) -> list[Line]:
    """Return the lines whose first tasks have waited long enough, and are not to be stopped themselves, in order."""
    heads: dict[bytes, tuple[int, int]] = {}
    for line in w.active.values():
        is_waiting = not line.head().spec.rules.preemptible and line.id not in w.yielding.rooms
        if is_waiting and limiting.holds_back(w, line.queue, line.name, now) is None:
            rank, since_ms = w.yielding.heads.get(line.id, (0, 0))
            heads[line.id] = (rank, since_ms) if rank == line.head_rank() else (line.head_rank(), now.mono_ms)
    w.yielding.heads = heads
    due_ms = now.mono_ms - choosing.KEPT_FREE_AFTER_MS
    due = [w.active[line_id] for line_id, (_, since_ms) in heads.items() if since_ms <= due_ms]
    return sorted(due, key=lambda line: _rank(w, line.head(), fair=line.fair))


def _rank(w: Working, task: Task, *, fair: bool) -> int:
    """Return a rank that can be compared between flows: that of one with a fair key as if it had none."""
    if not fair:
        return task.rank
    return rank_of(place_of(task.created_at_ms, task.spec, w.settings.ageing_ms), task.rank & ORDER_MASK)


def _choose(w: Working, line: Line, by_agent: Mapping[str, Sequence[Task]], now: Now) -> Choice | None:
    """Return whom to stop for the first task of a line; None: nobody, be it that there is room.

    Args:
        w: The working set.
        line: The line.
        by_agent: Those that may be stopped, the latest first.
        now: This instant.
    """
    names, priority = list(by_agent), line.head().spec.priority
    able: dict[bytes, bool] = {}
    best: Choice | None = None
    compared = tried = 0
    start = w.yielding.tried_to % len(names) if names else 0
    for name in names[start:] + names[:start]:
        agent = w.agents[name]
        some = [task for task in by_agent[name] if task.spec.priority < priority]
        if not (some and _may_have(agent, line, able, now) and _may_suffice(agent, line, some)):
            continue
        tried += 1
        chosen = _fewest(agent, line, some)
        if chosen == []:
            return None
        if chosen is not None:
            choice = Choice(agent, chosen)
            if best is None or choice.cost() < best.cost():
                best = choice
            compared += 1
        if compared == COMPARED or tried == TRIED:
            if best is None:
                w.yielding.tried_to = names.index(name) + 1
            break
    return best


def _by_token(task: Task) -> int:
    return task.token


def _may_have(agent: Agent, line: Line, able: dict[bytes, bool], now: Now) -> bool:
    where = line.wants
    if (
        not agent.takes_leases
        or agent.held_for not in {b"", line.id}
        or (where is None and agent.room.is_pressed)
        or (where is not None and where.life_ms and not agent.lives_for(where.life_ms, now))
    ):
        return False
    sort = agent.name.encode() if line.names_agents else agent.sort
    if sort not in able:
        able[sort] = never(agent, line) is None
    return able[sort]


def _may_suffice(agent: Agent, line: Line, victims: Sequence[Task]) -> bool:
    """Tell at little cost whether there may be enough CPUs and memory if all of these were gone."""
    if not line.requests:
        return True
    cpu, memory = agent.cpu_left, agent.room.memory_left
    for task in victims:
        if task.granted is None:
            cpu += agent.pools[task.pool].slot_cpu if task.pool >= 0 else 0
        else:
            for hold in task.granted.holds:
                cpu += hold.amount if hold.name == CPU else 0
                memory += hold.amount if hold.name == MEMORY else 0
    least_cpu, least_memory = line.least
    return cpu >= least_cpu and memory >= least_memory


def _fewest(agent: Agent, line: Line, victims: Sequence[Task]) -> list[Task] | None:
    """Return the fewest, of the latest first, without whom the line's first task has room; None: all do not suffice."""
    if _fits(agent, line, []):
        return []
    if not _fits(agent, line, victims):
        return None
    tried: set[tuple[int, str, bytes]] = set()  # those that are alike, all but the first in vain
    for task in victims:
        where = task.spec.rules.where
        alike = agent.pool_of(task.spec.name), where.apart if where else "", msgspec.msgpack.encode(task.granted)
        if alike not in tried and _fits(agent, line, [task]):
            return [task]
        tried.add(alike)
    chosen: list[Task] = []
    for task in victims:
        chosen.append(task)
        if _fits(agent, line, chosen):
            break
    for task in list(chosen):
        others = [other for other in chosen if other is not task]
        if _fits(agent, line, others):
            chosen = others
    return chosen


def _fits(agent: Agent, line: Line, gone: Sequence[Task]) -> bool:
    """Tell whether the agent would have room for the line's first task if these were gone."""
    tokens = {task.token for task in gone}
    where, room, index = line.wants, agent.room, agent.pool_of(line.name)
    if agent.holder and agent.holder not in tokens:
        return False
    left = [task for token, task in agent.leases.items() if token not in tokens]
    if where is not None and where.exclusive_host and left:
        return False
    if where is not None and where.apart and any(_is_apart(task, where.apart) for task in left):
        return False
    if sum([agent.pool_of(task.spec.name) == index for task in left]) >= agent.pools[index].pool.slots:
        return False
    held = [task.granted for task in gone if task.granted is not None]
    plain = Counter([task.pool for task in gone if task.granted is None])
    busy_cpu = sum([min(p.busy - plain[n], p.pool.slots) * p.slot_cpu for n, p in enumerate(agent.pools)])
    for granted in held:
        room.give_back(granted)
    try:
        if line.requests:
            return any(not room.lacks(request, room.cpu_left(busy_cpu)) for request in line.requests)
        return agent.runs_plain(agent.pools[index])
    finally:
        for granted in held:
            room.take(granted)


def _is_apart(task: Task, word: str) -> bool:
    where = task.spec.rules.where
    return where is not None and where.apart == word


def _stop(w: Working, line: Line, choice: Choice, now: Now) -> None:
    """Have tasks stopped, and keep their room for the first task of a line."""
    agent = choice.agent
    for task in choice.victims:
        task.preempted = True
        w.put(records.LEASE, task.spec.id, lease_record(task))
    w.effects.append(SendRevoke(agent.name, agent.connection, [task.token for task in choice.victims]))
    choosing.release(w, line.id)
    choosing.hold(w, line, agent, 0)
    w.yielding.rooms[line.id] = line.head_rank(), now.mono_ms + ROOM_MS
