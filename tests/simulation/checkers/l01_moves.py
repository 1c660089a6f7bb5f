"""L1: when all is calm, what waits for nothing else begins, as long as nothing runs that could be in its way."""

import trio

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.lifecycle import State

IDLE_SECONDS = 20.0
"""Beyond this nobody who has work and room for it stands still: an agent is given up, others come for more."""


class Moves(Checker):
    """Looks for a cluster in which nothing runs, and something is ready."""

    promise = "L1"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._ready: set[bytes] = set()
        self._leased: set[bytes] = set()
        self._moved_s = 0.0

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        (self._ready.add if after.name == State.READY else self._ready.discard)(task_id)
        (self._leased.add if after.lease is not None else self._leased.discard)(task_id)
        self._moved_s = trio.current_time()

    def recovered(self) -> None:
        self._moved_s = trio.current_time()

    def looked(self, calm_s: float) -> None:
        world = self.world
        if not self._ready or self._leased or world.journal.paused or world.put_away:
            self._moved_s = trio.current_time()
        idle_s = trio.current_time() - max(self._moved_s, calm_s + IDLE_SECONDS)
        if idle_s > IDLE_SECONDS:
            some = min(self._ready).hex()
            self.broken(f"{len(self._ready)} tasks are ready, such as {some}, and for {idle_s:.0f} s nothing runs")
