"""Rare states of placement and limits, counted where they show from the outside."""

from typing import TYPE_CHECKING

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.lifecycle import State
from taskd.core.records import LeaseRecord
from taskd_protocol.task import NO_RULES, Rules

if TYPE_CHECKING:
    from simulation.world import World


class RarePlaces(Checker):
    """Counts; breaks nothing."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._last: dict[str, str] = {}  # where the last task of each word was granted
        self._stopped: set[bytes] = set()

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        lease = after.lease
        if lease is None or after.spec is None:
            if before.lease is not None and before.lease.preempted and after.name == State.READY:
                self.world.reach("stopped for another, and back in line")
                self._stopped.add(task_id)
        elif before.lease is None or before.lease.token != lease.token:
            if task_id in self._stopped:
                self.world.reach("what was stopped for another ran again")
            self._note_wishes(after.spec.spec.given or NO_RULES, lease)
            granted = lease.granted
            if lease.past is not None and lease.past.memory:
                self.world.reach("asked for more memory after a death for want of it")
            if granted is not None and granted.exclusive_host:
                self.world.reach("an agent was granted as a whole")
            if granted is not None and granted.alternative:
                self.world.reach("a second alternative was granted")

    def _note_wishes(self, rules: Rules, lease: LeaseRecord) -> None:
        """Count where a task was granted that would rather run on a certain agent, or waits for its key's turn."""
        world, word, agent = self.world, rules.sticky, lease.agent
        if rules.fair_key:
            world.reach("a task of a fair key was granted")
        if word in self._last:
            same = self._last[word] == agent
            world.reach("ran where the last of its word did" if same else "ran elsewhere than the last of its word")
        if word:
            self._last[word] = agent
        makers = [given.maker for given in rules.member.inputs if given.maker] if rules.member is not None else []
        made = [world.journal.leases[maker] for maker in makers if maker in world.journal.leases]
        if any(maker == agent for _, _, maker in made):
            world.reach("ran where an input of it was made")
