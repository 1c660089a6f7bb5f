"""Choosing: which of the agents that have room is the best for the next task of a line.

Lines whose tasks ask for something are served here, one task at a time, within the
pass of ``placement``. What is asked is asked of agents that have changed since the line
last found none: a line that is stuck costs nothing until some agent has more room.

The first task of a line that no agent has had room for, while what came later was
granted, is kept an agent free for: nothing behind it is granted there until it fits.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from taskd.core.commands import Now
from taskd.core.fitting import met, never, not_now
from taskd.core.lines import Line
from taskd.core.working import Agent, Working
from taskd_protocol.resources import Granted, Where, holds_for

LOOKED_AT: Final = 8
"""Agents with room among which the best is chosen, if all that counts is that the load is even."""

COMPARED: Final = 256
"""The same, if a task prefers some agents to others."""

SORTS_MAX: Final = 512
"""Sorts of agents of which a line remembers whether they could run it."""

KEPT_FREE_AFTER_MS: Final = 2_000
"""So long a first task waits before an agent is kept free for it: most room comes by itself sooner."""

KEPT_FREE_SHARE: Final = 4
"""At most one agent in so many is kept free, and at least one."""


class Choosing:
    """What one pass knows of the agents that have room."""

    def __init__(self, w: Working, agents: Sequence[Agent], now: Now) -> None:
        self._w: Final = w
        self._agents: Final = agents
        self._now: Final = now
        self._newest = max([agent.growth for agent in agents], default=0)

    def best(self, line: Line) -> Agent | None:
        """Return the agent for the line's first task; None: none has room."""
        if line.head_rank() < line.stuck_rank:
            line.stuck = -1  # what comes first by now may have an agent that is kept free for others
        if line.stuck >= self._newest:
            return None
        where = line.wants
        assert where is not None
        compares = bool(where.prefers or where.spread or where.pack)
        bound = COMPARED if compares else LOOKED_AT
        fitting: list[Agent] = []
        for agent in self._agents_since(line):
            if self._could_run(agent, line) and not_now(agent, line, self._now) is None:
                fitting.append(agent)
                if len(fitting) == bound:
                    break
        if not fitting:
            return None
        spread = self._spread(line, where) if where.spread else {}
        return min(fitting, key=lambda agent: self._cost(agent, line, where, spread))

    def granted(self, agent: Agent, line: Line) -> Granted | None:
        """Return what a task of the line is to hold on the agent, which has room for it; None: a slot."""
        where = line.wants
        assert where is not None
        if where.exclusive_host:
            return Granted(agent.room.all_of_it(), 0, exclusive_host=True)
        if not line.requests:
            return Granted([]) if where.apart else None
        number = met(agent, line)
        assert number is not None
        return Granted(agent.room.holds_of(line.requests[number]), number)

    def note_stuck(self, line: Line) -> Agent | None:
        """Note that no agent has room for the line's first task; return the agent that is kept free for it, if any."""
        w, now_ms = self._w, self._now.mono_ms
        line.stuck, line.stuck_rank = self._newest, line.head_rank()
        if not line.stuck_since_ms:
            line.stuck_since_ms = now_ms
        name = w.held.get(line.id)
        if name is None and now_ms - line.stuck_since_ms >= KEPT_FREE_AFTER_MS:
            name = self._keep_free(line)
        return None if name is None else w.agents.get(name)

    def note_served(self, line: Line) -> None:
        """Note that the line's first task was granted: what was kept free for it is so no longer."""
        line.stuck, line.stuck_since_ms = -1, 0
        release(self._w, line.id)

    def _agents_since(self, line: Line) -> Iterator[Agent]:
        """Yield the agents that may have room now and had none; beginning anywhere, so that all are used."""
        agents = self._agents
        start = self._w.lease_counter % len(agents)
        for index in range(start - len(agents), start):
            agent = agents[index]
            if agent.growth > line.stuck:
                yield agent

    def _could_run(self, agent: Agent, line: Line) -> bool:
        sort = agent.name.encode() if line.names_agents else agent.sort
        known = line.able.get(sort)
        if known is None:
            if len(line.able) >= SORTS_MAX:
                line.able.clear()
            known = line.able[sort] = never(agent, line) is None
        return known

    def _cost(self, agent: Agent, line: Line, where: Where, spread: dict[str, int]) -> tuple[int, int, float]:
        """Return what is to be least: against preferences, then for the spread, then for the load."""
        wish = -sum([p.weight for p in where.prefers if holds_for(p.rule, agent.labels)])
        crowd = spread.get(agent.labels.get(where.spread, ""), 0) if where.spread else 0
        number = met(agent, line)
        if number is None:
            load = len(agent.leases) / max(1, agent.room.slots)
        else:
            load = number + agent.room.share_of(line.requests[number], agent.busy_slots)
        return wish, crowd, -load if where.pack else load

    def _spread(self, line: Line, where: Where) -> dict[str, int]:
        """Return how many tasks of the line's name run on the agents of each value of its label."""
        crowd: dict[str, int] = {}
        for agent in self._w.agents.values():
            value = agent.labels.get(where.spread, "")
            count = sum([task.spec.name == line.name for task in agent.leases.values()])
            crowd[value] = crowd.get(value, 0) + count
        return crowd

    def _keep_free(self, line: Line) -> str | None:
        w = self._w
        if len(w.held) >= max(1, len(w.agents) // KEPT_FREE_SHARE):
            return None
        where = line.wants
        able = [
            agent
            for agent in w.agents.values()
            if agent.takes_leases
            and not agent.held_for
            and not agent.room.is_pressed
            and never(agent, line) is None
            and (where is None or agent.lives_for(where.life_ms, self._now))
        ]
        if not able:
            return None
        agent = min(able, key=_load)
        agent.held_for, agent.held_rank = line.id, line.head_rank()
        w.held[line.id] = agent.name
        return agent.name


def review(w: Working) -> None:
    """Before a pass: keep agents free only for what still waits, in lines in which another task may be first now."""
    for line_id, name in list(w.held.items()):
        agent, line = w.agents.get(name), w.active.get(line_id)
        if line is None or agent is None or agent.held_for != line_id or not agent.takes_leases:
            release(w, line_id)  # the agent may be another one of that name by now
        elif line.head_rank() != agent.held_rank:
            agent.held_rank = line.head_rank()
            w.note_room(agent)


def release(w: Working, line_id: bytes) -> None:
    """Keep no agent free for a line any more."""
    name = w.held.pop(line_id, None)
    if name is not None and (agent := w.agents.get(name)) is not None and agent.held_for == line_id:
        agent.held_for = b""
        w.note_room(agent)


def _load(agent: Agent) -> float:
    return len(agent.leases) / max(1, agent.room.slots)
