"""Choosing: which of the agents that have room is the best for the next task of a line.

Lines whose tasks ask for something are served here, one task at a time, within the
pass of ``placement``. What is asked is asked of agents that have changed since the line
last found none: a line that is stuck costs nothing until some agent has more room.

The first task of a line that no agent has had room for, while what came later was
granted, is kept an agent free for: nothing behind it, nor of another queue, is granted
there until it fits.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice
from typing import Final

from taskd.core import limiting
from taskd.core.commands import Now
from taskd.core.fitting import met, never, not_now
from taskd.core.fleet import Agent
from taskd.core.lines import Line
from taskd.core.working import Working
from taskd_protocol.resources import MEMORY, Granted, Request, Where, holds_for

LOOKED_AT: Final = 4
"""Agents with room among which the best is chosen, if all that counts is that the load is even."""

COMPARED: Final = 256
"""The same, if a task prefers some agents to others."""

SORTS_MAX: Final = 512
"""Sorts of agents of which a line remembers whether they could run it."""

KEPT_FREE_AFTER_MS: Final = 2_000
"""So long a first task waits before an agent is kept free for it: most room comes by itself sooner."""

KEPT_FREE_AFTER_MS_MAX: Final = 60_000
"""And so long at most until it is looked again for one, as there was none."""

PRESSED_AFTER_MS: Final = 30_000
"""So long a first task waits before it is one whose machine others keep busy, if there is none else: what they do may
never end."""

KEPT_FREE_EVERY_MS: Final = 50
"""Between two agents that are chosen to be kept free."""

STUCK_LOOKED_AT: Final = 64
"""Lines, in the order in which they became stuck, among which one is found for which an agent is kept free."""

KEPT_FREE_SHARE: Final = 8
"""At most one agent in so many is kept free, and at least one."""

Left = list[tuple[int, str]]
"""What agents have left of their CPUs, with their names, sorted."""


class Choosing:
    """What one pass knows of the agents that have room.

    The agents stand by the CPUs that they have left. One may have less by now than it
    says there, but never more: whoever has more was noted in ``grown``.
    """

    def __init__(self, w: Working, now: Now) -> None:
        self._w: Final = w
        self._now: Final = now
        self._before: Final = w.rooms.looked_at
        w.rooms.looked_at = w.rooms.growth
        self._may_keep = now.mono_ms >= w.rooms.next_keep_mono_ms and len(w.rooms.held) < max(
            1, len(w.agents) // KEPT_FREE_SHARE
        )
        self._fresh: Final[Left] = w.rooms.fresh
        w.rooms.fresh = []
        self.released = False
        """An agent that was kept free is so no longer: lines that were looked at before may have it."""
        for name in w.rooms.grown:
            self._take_out(self._fresh, name)
            self._note(name)
            if name in w.rooms.cpu_left:
                insort(self._fresh, (w.rooms.cpu_left[name], name))
        w.rooms.grown.clear()

    @property
    def reach(self) -> int:
        """The most CPUs that an agent has left which has more than before this pass; less than 0: there is none.

        Who has none left, or less than that, may have room for what asks for none.
        """
        return max(0, self._fresh[-1][0]) if self._fresh else -1

    def is_hopeless(self, line: Line) -> bool:
        """Tell at little cost whether a line that was stuck before this pass is so still."""
        if line.id in self._w.rooms.held:
            return False  # it may have its agent where others have none
        if line.shelf >= 0:  # it was as stuck as its shelf, all the while that it was not looked at
            line.stuck = max(line.stuck, self._w.rooms.stuck_as_of.get(line.shelf, -1))
        if line.stuck < self._before or line.head_rank() < line.stuck_rank or self.reach >= line.least[0]:
            return False
        line.stuck = self._w.rooms.looked_at
        return True

    def best(self, line: Line) -> Agent | None:
        """Return the agent for the line's first task; None: none has room."""
        if line.head_rank() < line.stuck_rank:
            line.stuck = -1  # what comes first by now may have an agent that is kept free for others
        if line.stuck >= self._w.rooms.growth:
            return None
        where = line.wants
        assert where is not None
        compares = bool(where.prefers or where.spread)
        bound = COMPARED if compares else LOOKED_AT
        fitting: list[Agent] = []
        wished = self._wished(line)
        if wished is not None:
            if not compares:
                return wished
            fitting.append(wished)
        for agent in self._with_room(line, where):
            if self._could_run(agent, line) and not_now(agent, line, self._now) is None:
                fitting.append(agent)
                if len(fitting) == bound:
                    break
        if not fitting:
            return self._kept(line)
        spread = self._spread(line, where) if where.spread else {}
        return min(fitting, key=lambda agent: self._cost(agent, line, where, spread, wished))

    def _kept(self, line: Line) -> Agent | None:
        """Return the agent that is kept free for the line, if that has room now, be it beside what others use there."""
        name = self._w.rooms.held.get(line.id)
        agent = None if name is None else self._w.agents.get(name)
        return agent if agent is not None and not_now(agent, line, self._now) is None else None

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

    def note_stuck(self, line: Line) -> None:
        """Note that no agent has room for the line's first task."""
        rooms = self._w.rooms
        # As of the pass's beginning: what was given up in its midst is not among the fresh ones, and still to be seen.
        line.stuck, line.stuck_rank = rooms.looked_at, line.head_rank()
        if not line.stuck_since_ms:
            line.stuck_since_ms = self._now.mono_ms
        if line.requests or (line.wants is not None and line.wants.exclusive_host):
            rooms.stuck.setdefault(line.id, line)

    def _is_due(self, line: Line) -> bool:
        """Tell whether an agent may be kept free for a line that is stuck."""
        return self._now.mono_ms >= (line.keep_at_ms or line.stuck_since_ms + KEPT_FREE_AFTER_MS)

    def note_served(self, line: Line, agent: Agent) -> None:
        """Note that the line's first task was granted: what was kept free for it is so no longer."""
        stuck = line.stuck
        line.note_served()
        if stuck >= self._before:
            line.stuck = stuck  # for the next one, too, only what has more room need be looked at
        self._w.rooms.stuck.pop(line.id, None)
        if line.id in self._w.rooms.held:
            release(self._w, line.id)
            self.released = True
        left = self._w.rooms.cpu_left[agent.name]
        index = bisect_left(self._fresh, (left, agent.name))
        if index < len(self._fresh) and self._fresh[index] == (left, agent.name):
            del self._fresh[index]
            insort(self._fresh, (agent.cpu_left, agent.name))
        self._note(agent.name)

    def _take_out(self, left: Left, name: str) -> None:
        """Take an agent out of some of which is known what they have left, if it is one of them."""
        at = self._w.rooms.cpu_left.get(name)
        if left and at is not None:
            index = bisect_left(left, (at, name))
            if index < len(left) and left[index] == (at, name):
                del left[index]

    def _note(self, name: str) -> None:
        """Put an agent in its place among all."""
        w = self._w
        before = w.rooms.cpu_left.pop(name, None)
        if before is not None:
            del w.rooms.by_cpu_left[bisect_left(w.rooms.by_cpu_left, (before, name))]
        agent = w.agents.get(name)
        if agent is not None and agent.takes_leases and agent.pools:
            w.rooms.cpu_left[name] = agent.cpu_left
            insort(w.rooms.by_cpu_left, (agent.cpu_left, name))

    def _with_room(self, line: Line, where: Where) -> Iterator[Agent]:
        """Yield agents that may have room, and had none when the line was last looked at: those with most left first.

        If tasks are to be packed, those with least left first.
        """
        w = self._w
        left = self._fresh if line.stuck >= self._before else w.rooms.by_cpu_left
        cpu, memory = line.least
        first = bisect_left(left, (cpu, "")) if cpu else 0
        order = range(first, len(left)) if where.pack else range(len(left) - 1, first - 1, -1)
        agents = w.agents
        for index in order:
            agent = agents.get(left[index][1])
            if agent is not None and (not memory or agent.room.memory_left >= memory):
                yield agent

    def _could_run(self, agent: Agent, line: Line) -> bool:
        """Tell whether an agent could ever run the line; one that is away has no names, and speaks for no sort."""
        if not agent.takes_leases:
            return False
        sort = agent.name.encode() if line.names_agents else agent.sort
        known = line.able.get(sort)
        if known is None:
            if len(line.able) >= SORTS_MAX:
                line.able.clear()
            known = line.able[sort] = never(agent, line) is None
        return known

    def _wished(self, line: Line) -> Agent | None:
        """Return the agent that the line's first task wishes for, if that has room for what it asks for rather."""
        w = self._w
        for name in w.affinity.agents_of(line.head().spec) if w.affinity else ():
            agent = w.agents.get(name)
            if agent is not None and self._could_run(agent, line) and not_now(agent, line, self._now) is None:
                return None if met(agent, line) else agent
        return None

    def _cost(
        self, agent: Agent, line: Line, where: Where, spread: dict[str, int], wished: Agent | None
    ) -> tuple[int, int, bool, float]:
        """Return what is to be least: against preferences, then for the spread, the task's wish, and the load."""
        wish = -sum([p.weight for p in where.prefers if holds_for(p.rule, agent.labels)]) if where.prefers else 0
        crowd = spread.get(agent.labels.get(where.spread, ""), 0) if where.spread else 0
        number = met(agent, line)
        if number is None:
            load = len(agent.leases) / max(1, agent.slots)
        else:
            load = number + agent.room.share_of(line.requests[number], agent.cpu_left)
        return wish, crowd, agent is not wished, -load if where.pack else load

    def _spread(self, line: Line, where: Where) -> dict[str, int]:
        """Return how many tasks of the line's name run on the agents of each value of its label."""
        crowd: dict[str, int] = {}
        for agent in self._w.agents.values():
            value = agent.labels.get(where.spread, "")
            count = sum([task.spec.name == line.name for task in agent.leases.values()])
            crowd[value] = crowd.get(value, 0) + count
        return crowd

    def finish(self, *, is_complete: bool) -> None:
        """Note of which lines it is known now that they are stuck, and keep an agent free for one of them.

        Args:
            is_complete: All were looked at that the agents which have more room might have some for.
        """
        rooms = self._w.rooms
        for shelf in self._w.shares.standing:
            if is_complete or shelf > self.reach:
                rooms.stuck_as_of[shelf] = rooms.looked_at
        if not is_complete:  # those that were not looked at want to know of the same agents in the next pass
            rooms.fresh = self._fresh
            rooms.looked_at = self._before
        if not self._may_keep:
            return
        due: list[tuple[int, int, bytes, Line]] = []
        for line in list(islice(rooms.stuck.values(), STUCK_LOOKED_AT)):
            if line.entry is None or line.shelf < 0:
                del rooms.stuck[line.id]
            elif self._is_due(line) and not self._is_held_back(line):
                due.append((self._w.shares.time_of(line.queue), line.head_rank(), line.id, line))
        if due:
            _, _, _, line = min(due)
            del rooms.stuck[line.id]
            rooms.stuck[line.id] = line  # behind the others, should it be in vain
            self._keep_free(line)

    def _is_held_back(self, line: Line) -> bool:
        return limiting.holds_back(self._w, line.queue, line.name, self._now) is not None

    def _keep_free(self, line: Line) -> None:
        """Keep an agent free for a line, if one could run it."""
        w = self._w
        w.rooms.next_keep_mono_ms = self._now.mono_ms + KEPT_FREE_EVERY_MS
        where = line.wants
        able = [
            agent
            for agent in w.agents.values()
            if agent.takes_leases
            and not agent.held_for
            and self._could_run(agent, line)
            and (where is None or agent.lives_for(where.life_ms, self._now))
        ]
        calm = [agent for agent in able if not agent.room.is_pressed]
        stuck_ms = self._now.mono_ms - line.stuck_since_ms
        if not calm and stuck_ms >= PRESSED_AFTER_MS:
            calm = [
                agent for agent in able if not line.requests or any(_has_memory(agent, each) for each in line.requests)
            ]
        if not calm:  # seldom asked at last, so that lines that no agent has keep no other from its turn
            line.keep_at_ms = self._now.mono_ms + min(max(stuck_ms, KEPT_FREE_AFTER_MS), KEPT_FREE_AFTER_MS_MAX)
            return
        agent = min(calm, key=_load)
        w.note_room(agent)
        hold(w, line, agent, line.head_rank())


def review(w: Working, now: Now) -> None:
    """Before a pass: keep agents free only for what still waits, in lines in which another task may be first now."""
    for line_id, name in list(w.rooms.held.items()):
        agent, line = w.agents.get(name), w.active.get(line_id)
        if line is None or agent is None or agent.held_for != line_id or not agent.takes_leases:
            release(w, line_id)  # the agent may be another one of that name by now
        elif agent.room.is_pressed and not agent.is_reserved and now.mono_ms - line.stuck_since_ms < PRESSED_AFTER_MS:
            release(w, line_id)  # there may be one that is calm
        elif line.head_rank() != agent.held_rank and not agent.is_reserved:
            agent.held_rank = line.head_rank()
            w.note_room(agent)


def hold(w: Working, line: Line, agent: Agent, rank: int) -> None:
    """Keep an agent free for a line, of which each pass takes note; but for what comes before a rank."""
    agent.held_for, agent.held_flow, agent.held_rank = line.id, line.flow, rank
    w.rooms.held[line.id] = agent.name
    w.shares.loosen(line)


def release(w: Working, line_id: bytes) -> None:
    """Keep no agent free for a line any more."""
    name = w.rooms.held.pop(line_id, None)
    if name is not None and (agent := w.agents.get(name)) is not None and agent.held_for == line_id:
        agent.held_for = b""
        w.note_room(agent)


def _has_memory(agent: Agent, request: Request) -> bool:
    """Tell whether others leave an agent as much memory as is asked for."""
    room = agent.room
    left = room.total.get(MEMORY, 0) - room.outside_memory
    return all(room.amount_of(need) <= left for need in request.needs if need.name == MEMORY)


def _load(agent: Agent) -> float:
    return len(agent.leases) / max(1, agent.slots)
