"""Placement: which agent gets which ready tasks.

One pass a turn. It looks at lines and pools, never at the tasks behind a line's
head: its cost is active lines times pools, and what is granted. The lowest rank
of all lines goes first, so that priorities hold across queues and names.
"""

import heapq

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.effects import SendLease
from taskd.core.lifecycle import State
from taskd.core.lines import Line, Task, ready_id
from taskd.core.records import EpochRecord, LeaseRecord
from taskd.core.working import EPOCH_BITS, Agent, PoolState, Working
from taskd_protocol.task import Grant

_NO_BOUND = 1 << 80
"""Above every rank."""

Place = tuple[Agent, int, PoolState]
"""A pool of an agent, with its index."""


def place(w: Working, now: Now) -> None:
    """Grant what can be granted."""
    if not w.active:
        return
    places = [
        (agent, index, pool)
        for agent in w.agents.values()
        if agent.connection and not agent.draining
        for index, pool in enumerate(agent.pools)
        if pool.credit > 0
    ]
    if not places:
        return
    granted: dict[tuple[str, int], list[Grant]] = {}
    heads = [(line.head_rank(), line.id, line) for line in w.active.values()]
    heapq.heapify(heads)
    while heads:
        _, _, line = heapq.heappop(heads)
        able = [place for place in places if _is_able(line, place)]
        room = sum(pool.credit for _, _, pool in able)
        if not room:
            continue
        below = heads[0][0] if heads else _NO_BOUND
        tasks = line.take(room, below)
        _share(w, line, tasks, able, granted, now)
        if line.window_count:
            heapq.heappush(heads, (line.head_rank(), line.id, line))
        else:
            del w.active[line.id]
    for (name, pool_index), grants in granted.items():
        agent = w.agents[name]
        agent.lease_number += 1
        for grant in grants:
            agent.leases[grant.token].lease_number = agent.lease_number
        w.effects.append(SendLease(name, agent.connection, agent.lease_number, pool_index, grants))


def _is_able(line: Line, place: Place) -> bool:
    agent, _, pool = place
    return pool.credit > 0 and line.name in pool.names and (not agent.queues or line.queue in agent.queues)


def _share(  # noqa: PLR0917 - its own second half calls it
    w: Working, line: Line, tasks: list[Task], able: list[Place], granted: dict[tuple[str, int], list[Grant]], now: Now
) -> None:
    """Deal the tasks out evenly, to the pools with most room first."""
    able.sort(key=_by_room)
    start, left = 0, len(able)
    for agent, index, pool in able:
        rest = len(tasks) - start
        if not rest:
            break
        count = min(-(-rest // left), pool.credit)
        _grant(w, line, tasks[start : start + count], agent, granted.setdefault((agent.name, index), []), now)
        pool.credit -= count
        start += count
        left -= 1
    if start < len(tasks):  # the even share was more than some had room for
        _share(w, line, tasks[start:], [place for place in able if place[2].credit > 0], granted, now)


def _by_room(place: Place) -> int:
    return -place[2].credit


def _grant(  # noqa: PLR0917 - called once a batch
    w: Working, line: Line, tasks: list[Task], agent: Agent, grants: list[Grant], now: Now
) -> None:
    mutate = w.mutations.append
    leases = agent.leases
    name = agent.name
    wall_ms = now.wall_ms
    token = _next_tokens(w, len(tasks))
    for task in tasks:
        task_id = task.spec.id
        attempt = task.attempt = task.attempt + 1
        task.token = token
        task.agent = name
        task.granted_at_ms = wall_ms
        leases[token] = task
        grants.append(Grant(token, attempt, task.spec))
        mutate((records.READY, ready_id(line.id, task.rank), None))
        if not task.fresh:
            mutate((records.STATE, task_id, None))
        mutate(
            (
                records.LEASE,
                task_id,
                LeaseRecord(
                    token,
                    attempt,
                    task.failures,
                    name,
                    wall_ms,
                    task.cancelling,
                    task.failure,
                    task.logs,
                    task.log_bytes,
                ),
            )
        )
        token += 1
    w.dirty_lines[line.id] = line
    w.counters.move(line.queue, State.READY, State.RUNNING, len(tasks))
    w.counters_dirty = True


def _next_tokens(w: Working, count: int) -> int:
    """Reserve fencing tokens; a new epoch begins, in the same batch, before the counter runs out."""
    if w.lease_counter + count >= 1 << EPOCH_BITS:
        w.epoch += 1
        w.lease_counter = 0
        w.put(records.META, b"epoch", EpochRecord(w.epoch))
    first = w.epoch << EPOCH_BITS | w.lease_counter
    w.lease_counter += count
    return first
