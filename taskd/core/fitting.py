"""Fitting: whether an agent may run what a line holds, and what rules it out.

The one place that says so: placement asks it before it grants, and whoever asks why a
task waits is told the same. ``never`` looks at what an agent is, and holds until it
offers something else; ``not_now`` at what it does.
"""

from typing import TYPE_CHECKING, Final

from taskd_protocol.explanation import Obstacle, Reason
from taskd_protocol.limits import NAME_CHARS_MAX
from taskd_protocol.resources import ALL, CPU, holds_for

if TYPE_CHECKING:
    from taskd.core.commands import Now
    from taskd.core.fleet import Agent
    from taskd.core.lines import Line
    from taskd.core.working import Working


NEARNESS: Final = {obstacle: index for index, obstacle in enumerate(Obstacle)}

Ruled = tuple[Obstacle, str]
"""An obstacle, and what it is about: a resource, a label, a queue; empty: the agent as a whole."""


def nearness(agent: "Agent", why: Ruled) -> tuple[int, int]:
    """Return how near the agent is to running what it is ruled out of: by the obstacle, then by how much it has."""
    obstacle, subject = why
    return NEARNESS[obstacle], agent.room.total.get(subject, 0) if obstacle == Obstacle.TOTAL else 0


def never(agent: "Agent", line: "Line") -> Ruled | None:
    """Return why the agent, as it is, cannot run the line; None: it can, when it has room."""
    if agent.queues and line.queue not in agent.queues:
        return Obstacle.QUEUE, line.queue
    if agent.pool_of(line.name) < 0:
        return Obstacle.NAME, line.name
    where = line.wants
    if where is None:
        return None
    for rule in where.labels:
        if not holds_for(rule, agent.labels):
            return Obstacle.LABEL, f"{rule.label} {rule.operator} {', '.join(rule.values)}".rstrip()[:NAME_CHARS_MAX]
    lacking = [agent.room.could_hold(request) for request in line.requests]
    if lacking and all(lacking):
        return Obstacle.TOTAL, lacking[0]
    return None


def not_now(agent: "Agent", line: "Line", now: "Now") -> Ruled | None:  # noqa: PLR0911 - one return an obstacle
    """Return why the agent, which could run the line, cannot run its next task now; None: it can."""
    if not agent.takes_leases:
        return _away(agent), ""
    where = line.wants
    if where is not None and where.life_ms and not agent.lives_for(where.life_ms, now):
        return Obstacle.LIFE, ""
    if agent.holder:
        return Obstacle.TAKEN, ""
    if where is not None and where.exclusive_host and agent.leases:
        return Obstacle.NOT_EMPTY, ""
    if where is not None and where.apart and where.apart in agent.apart:
        return Obstacle.APART, where.apart
    if line.requests and met(agent, line) is None:
        return _lacking(agent, line)
    busy = _no_slot(agent, line)
    if busy is not None:
        return busy
    if agent.held_for not in {b"", line.id} and not _is_before(line, agent):
        return Obstacle.HELD, ""
    if agent.is_laden:
        return Obstacle.LADEN, ""
    return None


def _is_before(line: "Line", agent: "Agent") -> bool:
    """Tell whether the line's next task comes before the one that the agent is kept free for."""
    is_same = line.flow == agent.held_flow and not agent.is_reserved
    return is_same and bool(line.window_count) and line.head_rank() < agent.held_rank


def ruled_out(w: "Working", agent: "Agent", line: "Line", now: "Now") -> tuple[Ruled | None, bool]:
    """Return the first thing that keeps the agent from the line's next task, and whether it always will."""
    if not agent.connection:
        return (Obstacle.ABSENT, ""), False
    ruled = never(agent, line)
    if ruled is not None:
        return ruled, True
    ruled = not_now(agent, line, now)
    if ruled is not None:
        return ruled, False
    if line.wants is None and agent.room.is_pressed and _is_calm_elsewhere(w, line):
        return (Obstacle.PRESSURE, ""), False
    return None, False


def reason_of(agent: "Agent", line: "Line", why: Ruled) -> Reason:
    """Return an obstacle with its amounts, if it is a resource."""
    obstacle, subject = why
    if obstacle not in {Obstacle.RESOURCE, Obstacle.PRESSURE, Obstacle.TOTAL} or not subject:
        return Reason(str(obstacle), subject)
    room = agent.room
    needs = [
        need
        for request in line.requests
        if (obstacle == Obstacle.TOTAL) == bool(room.could_hold(request))
        for need in request.needs
        if need.name == subject
    ]
    wants = 0 if not needs or needs[0].amount == ALL else max(0, needs[0].amount)
    free = max(0, room.left_of(subject, agent.busy_cpu))
    return Reason(str(obstacle), subject, wants, free, room.total.get(subject, 0))


def misfit(w: "Working", line: "Line") -> Reason | None:
    """Return what no connected agent that has the task will ever have of what it asks for; None: one may run it.

    None, too, where no agent has the task: one that has is to be started, as for any task.
    """
    nearest: tuple[Agent, Ruled] | None = None
    seen: set[bytes] = set()
    for agent in w.agents.values():
        sort = agent.name.encode() if line.names_agents else agent.sort
        if not agent.connection or sort in seen:
            continue
        seen.add(sort)
        ruled = never(agent, line)
        if ruled is None:
            return None
        is_asked_for = ruled[0] in {Obstacle.LABEL, Obstacle.TOTAL}
        if is_asked_for and (nearest is None or nearness(agent, ruled) > nearness(*nearest)):
            nearest = agent, ruled
    return None if nearest is None else reason_of(nearest[0], line, nearest[1])


def met(agent: "Agent", line: "Line") -> int | None:
    """Return the first of the line's alternatives for which the agent has room; None: there is none.

    Where others keep the machine busy, one task that has waited for long enough to have the agent kept free has room as
    if they did not, while nothing else there holds CPUs.
    """
    room = agent.room
    alone = room.is_pressed and agent.held_for == line.id and not (room.held_cpu or agent.is_reserved)
    cpu_left = room.cpu_left(agent.busy_cpu, alone=alone)
    for number, request in enumerate(line.requests):
        if not room.lacks(request, cpu_left):
            return number
    return None


def _no_slot(agent: "Agent", line: "Line") -> Ruled | None:
    """Return why no slot is to be had: those who ask for nothing share what is left of the CPUs, ahead of what runs."""
    pool = agent.pools[agent.pool_of(line.name)]
    if not line.requests and not agent.runs_plain(pool):
        return Obstacle.RESOURCE, CPU
    if not pool.credit or (line.requests and not agent.has_free_slot(line.name)):
        return Obstacle.BUSY, ""
    if line.wants is None and agent.room.is_pressed:  # one whose host is its own comes first, even if it is busy now
        return Obstacle.PRESSURE, CPU
    return None


def _away(agent: "Agent") -> Obstacle:
    if not agent.connection:
        return Obstacle.ABSENT
    return Obstacle.QUARANTINED if agent.quarantined else Obstacle.DRAINING


def _lacking(agent: "Agent", line: "Line") -> Ruled:
    """Return what the best alternative lacks of which the agent has enough in all."""
    room = agent.room
    request = next((r for r in line.requests if not room.could_hold(r)), line.requests[0])
    lacking = room.lacks(request, room.cpu_left(agent.busy_cpu))
    if not room.is_pressed:
        return Obstacle.RESOURCE, lacking
    its_own = room.lacks(request, room.cpu_left(agent.busy_cpu, alone=True), alone=True)
    return (Obstacle.RESOURCE, its_own) if its_own else (Obstacle.PRESSURE, lacking)


def _is_calm_elsewhere(w: "Working", line: "Line") -> bool:
    return any(
        agent.takes_leases and not agent.room.is_pressed and agent.can_run(line.queue, line.name)
        for agent in w.agents.values()
    )
