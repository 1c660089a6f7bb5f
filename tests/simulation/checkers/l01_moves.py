"""L1: when all is calm, what waits for nothing else begins where there is room for it."""

import trio

from simulation.checkers.checker import Checker
from simulation.faults import CORE_AGENTS
from simulation.journal import Standing
from simulation.sites import could_run
from taskd.core.lifecycle import State
from taskd_protocol.task import NO_RULES

IDLE_SECONDS = 20.0
"""Beyond this nobody who has work and room for it stands still: an agent is given up, others come for more."""


class Moves(Checker):
    """Looks for an agent that has nothing to do, beside a task that is ready and could run there."""

    promise = "L1"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._ready_s: dict[bytes, float] = {}  # since when, by task
        self._leased: dict[str, set[bytes]] = {}  # by agent
        self._idle_s: dict[str, float] = {}  # since when, by agent

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        now_s = trio.current_time()
        if after.name == State.READY:
            self._ready_s.setdefault(task_id, now_s)
        else:
            self._ready_s.pop(task_id, None)
        if before.lease is not None:
            self._leased.setdefault(before.lease.agent, set()).discard(task_id)
            self._idle_s[before.lease.agent] = now_s
        if after.lease is not None:
            self._leased.setdefault(after.lease.agent, set()).add(task_id)

    def recovered(self) -> None:
        self._idle_s = dict.fromkeys(self._idle_s, trio.current_time())

    def looked(self, calm_s: float) -> None:
        world, now_s = self.world, trio.current_time()
        for agent in world.agents[:CORE_AGENTS]:
            if agent.name in world.put_away or world.journal.paused or world.journal.limits:
                self._idle_s[agent.name] = now_s
            idle_s = max(self._idle_s.get(agent.name, 0.0), calm_s + IDLE_SECONDS)
            if self._leased.get(agent.name) or now_s - idle_s <= IDLE_SECONDS:
                continue
            for task_id, ready_s in self._ready_s.items():
                spec = world.find_spec(task_id)
                rules = spec.given or NO_RULES  # what others of its key hold, it waits for
                is_free = not (rules.limits or rules.fifo_key) and could_run(agent.site, agent.name, spec)
                if is_free and now_s - ready_s > IDLE_SECONDS:
                    self.broken(f"{task_id.hex()} is ready, and {agent.name} does nothing for {now_s - idle_s:.0f} s")
                    return
