"""S19: no agent is over-committed, and each task is where it may be, by what is durable of leases."""

from collections import Counter, defaultdict

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.sites import Site, obeys
from taskd.core.records import LeaseRecord
from taskd_protocol.resources import ALL, ONE, Hold, Need, Where
from taskd_protocol.task import NO_RULES, TaskSpec

NOWHERE = Where()


class Placed(Checker):
    """Adds up what the leases of an agent hold, after each batch that has given one."""

    promise = "S19"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._held: defaultdict[str, dict[bytes, tuple[TaskSpec, LeaseRecord]]] = defaultdict(dict)  # by agent and task
        self._granted: dict[str, None] = {}

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        self._granted[lease.agent] = None

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if before.lease is not None:
            self._held[before.lease.agent].pop(task_id, None)
        if after.lease is not None and after.spec is not None:
            self._held[after.lease.agent][task_id] = after.spec.spec, after.lease
            if before.lease is None or before.lease.token != after.lease.token:
                self._look_at(after.spec.spec, after.lease)

    def committed(self) -> None:
        for agent in self._granted:
            self._add_up(agent)
        self._granted.clear()

    def _look_at(self, spec: TaskSpec, lease: LeaseRecord) -> None:
        """Compare a new lease with what its task asks for."""
        site, where = self.world.agent(lease.agent).site, spec.rules.where or NOWHERE
        labels = {**site.labels, "taskd.agent": lease.agent}
        for rule in where.labels:
            if not obeys(rule, labels):
                self.broken(f"{spec.id.hex()} is on {lease.agent}, and asks for {rule}")
        granted = lease.granted
        if granted is None:
            if where.requests or where.exclusive_host:
                self.broken(f"{spec.id.hex()} asks for {where.requests}, and holds a slot")
        elif where.exclusive_host:
            if {hold.name: hold.amount for hold in granted.holds} != site.totals():
                self.broken(f"{spec.id.hex()} is to have all of {lease.agent}, and holds {granted.holds}")
        elif where.requests:
            wrong = _differ(site, where.requests[granted.alternative].needs, granted.holds)
            if wrong:
                self.broken(f"{spec.id.hex()} on {lease.agent}: {wrong}")

    def _add_up(self, agent: str) -> None:
        site, held = self.world.agent(agent).site, self._held[agent]
        used: Counter[str] = Counter()
        items: Counter[tuple[str, str]] = Counter()
        words: Counter[str] = Counter()
        alone = 0
        for spec, lease in held.values():
            where = (spec.given or NO_RULES).where or NOWHERE
            words[where.apart] += 1
            alone += where.exclusive_host
            for hold in lease.granted.holds if lease.granted is not None else ():
                used[hold.name] += hold.amount
                items.update({(hold.name, item): min(hold.amount, ONE) for item in hold.items})
        totals = site.totals()
        for name, amount in used.items():
            if amount > totals.get(name, 0):
                self.broken(f"{agent} has {totals.get(name, 0)} of {name}, and its leases hold {amount}")
        for item, amount in items.items():
            if amount > ONE:
                self.broken(f"{item} of {agent} was given to more than one")
        del words[""]
        if any(count > 1 for count in words.values()):
            self.broken(f"{agent} has two that are to be apart: {words}")
        if alone and len(held) > 1:
            self.broken(f"{agent} has {len(held)} leases, of which one is to be alone")
        if any(used[name] == totals[name] for name in used):
            self.world.reach("an agent had nothing left of what was asked for")


def _differ(site: Site, needs: list[Need], holds: list[Hold]) -> str:
    """Return how what is held differs from what was asked for; empty: it does not."""
    totals = site.totals()
    held = {hold.name: hold for hold in holds}
    for need in needs:
        hold = held.pop(need.name, None)
        if hold is None:
            return f"it holds no {need.name}"
        wanted = totals[need.name] if need.amount == ALL else need.amount
        is_right = hold.amount == wanted or (need.name == "memory" and hold.amount > need.amount)  # it has died for it
        kinds = [site.gpus[int(item)] for item in hold.items]
        if not is_right or (need.items and hold.items != need.items) or (need.kind and {*kinds} != {need.kind}):
            return f"it asks for {need}, and holds {hold} of {kinds}"
    return f"it holds {held}, which it did not ask for" if held else ""
