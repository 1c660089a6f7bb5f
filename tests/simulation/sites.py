"""Sites: what agents' machines have, and what tasks ask of them, by chance.

The first agent's is large: whatever is asked for, it has, since it is well in the end.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from taskd.agent.gpus import Gpu
from taskd_protocol.agent_messages import HostStats
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import ALL, LEARNED, ONE, LabelRule, Need, Preference, Request, Where
from taskd_protocol.task import NO_RULES, Rules, TaskSpec, Use

GIB = 1 << 30


class Site(NamedTuple):
    """What an agent has."""

    cpus: int
    """Thousandths."""
    memory: int
    gpus: Sequence[str] = ()
    """Their kinds."""
    licenses: int = 0
    labels: dict[str, str] = {}  # noqa: RUF012 - nothing changes it

    def found_gpus(self) -> list[Gpu]:
        """Return them as an agent finds them."""
        return [Gpu(number, f"gpu-{number}", kind) for number, kind in enumerate(self.gpus)]

    def totals(self) -> dict[str, int]:
        """Return how much there is of each resource."""
        have = {"cpu": self.cpus, "memory": self.memory, "gpu": ONE * len(self.gpus), "license": ONE * self.licenses}
        return {name: amount for name, amount in have.items() if amount}


LARGE = Site(8_000, 8 * GIB, ("a100", "t4"), 3, {"zone": "a", "cores": "64"})
OTHERS = (
    Site(8_000, 8 * GIB, ("a100", "a100"), 2, {"zone": "b", "cores": "64"}),
    Site(4_000, 4 * GIB, (), 0, {"zone": "a"}),
    Site(2_000, GIB, ("t4",), 0, {"zone": "b", "cores": "2"}),
    Site(1_500, GIB, (), 1, {}),
)

WHERES = (
    Where([Request([Need("cpu", 1_000)])]),
    Where([Request([Need("cpu", 500), Need("memory", GIB // 2)])]),
    Where([Request([Need("cpu", 4_000), Need("memory", 2 * GIB)])], pack=True),
    Where([Request([Need("cpu", ALL)])]),
    Where([Request([Need("gpu", 500)])]),
    Where([Request([Need("gpu", 1_000, "a100")]), Request([Need("cpu", 3_000)])]),
    Where([Request([Need("gpu", 1_000, items=["0"])])]),
    Where([Request([Need("license", 2_000), Need("cpu", 500)])]),
    Where([Request([Need("memory", LEARNED)])]),
    Where([Request([Need("cpu", 1_000)])], labels=[LabelRule("zone", "in", ["a", "c"])]),
    Where(labels=[LabelRule("cores", ">=", ["64"]), LabelRule("zone", "exists")]),
    Where(labels=[LabelRule("taskd.agent", "=", ["agent0"])]),
    Where([Request([Need("cpu", 1_000)])], apart="db"),
    Where(exclusive_host=True),
    Where([Request([Need("cpu", 500)])], prefers=[Preference(LabelRule("zone", "=", ["b"]), 5)], spread="zone"),
)

LIMITS = (
    Limit("queue:default", concurrency=4),
    Limit("queue:default", concurrency=12, tokens=20, period_ms=1_000, burst=8),
    Limit("queue:other", concurrency=1),
    Limit("queue:other", tokens=5, period_ms=1_000, burst=2),
    Limit("task:m.blocking", concurrency=3),
    Limit("stripe", concurrency=1),
    Limit("stripe", concurrency=3),
    Limit("db", concurrency=1),
)
LIMITED = tuple(dict.fromkeys(limit.name for limit in LIMITS))
USES = ([Use("stripe", "a")], [Use("stripe", "b", 2)], [Use("stripe", "a"), Use("db")])
WORDS = ("w1", "w2", "w3")
KEYS = ("k1", "k2")

HOARD_MIB = 700
"""More than the least that tasks ask for, so that some die of it, and less than twice as much."""

TOGGLES = 0.1
"""Heartbeats at which neighbours come or go."""


def sites(seed: int, count: int) -> list[Site]:
    """Draw what each agent has."""
    rng = random.Random(f"sites of {seed}")
    return [LARGE, *(rng.choice(OTHERS) for _ in range(count - 1))]


def wishes(rng: random.Random, *, delayed: bool, once: bool) -> dict[str, object]:
    """Draw what a task asks of agents and of others, as fields of its rules.

    Args:
        rng: Chance.
        delayed: The task has a delay.
        once: It runs at most once.
    """
    asked: dict[str, object] = {}
    if rng.random() < 0.5:
        asked["where"] = rng.choice(WHERES)
    if rng.random() < 0.3:
        asked["sticky"] = rng.choice(WORDS)
    share = rng.choice(["", "", "uses", "fifo", "fair", "preemptible"])
    if share == "uses":
        asked["limits"] = rng.choice(USES)
    elif share == "fifo" and not delayed:
        asked["fifo_key"] = rng.choice(KEYS)
    elif share == "fair":
        asked["fair_key"] = rng.choice(WORDS)
    elif share == "preemptible" and not once:
        asked["preemptible"] = True
    return asked


def asks_for_memory(rules: Rules | None) -> bool:
    """Tell whether a task asks for memory."""
    where = None if rules is None else rules.where
    return where is not None and any(need.name == "memory" for request in where.requests for need in request.needs)


def uses_of(rules: Rules) -> list[tuple[str, str, int]]:
    """Return the limits that a task names, with key and weight."""
    return [(use.limit, use.key, use.weight) for use in rules.limits]


def obeys(rule: LabelRule, labels: dict[str, str]) -> bool:
    """Tell whether a rule holds: once more, and otherwise than placement asks it."""
    has = labels.get(rule.label)
    match rule.operator:
        case "exists":
            return has is not None
        case ">=":
            return has is not None and has.isdigit() and int(has) >= int(rule.values[0])
        case _:
            return has in rule.values


def could_run(site: Site, agent: str, spec: TaskSpec) -> bool:
    """Tell whether an agent there could run a task if it were idle."""
    where = (spec.given or NO_RULES).where or Where()
    labels, totals = {**site.labels, "taskd.agent": agent}, site.totals()
    return all(obeys(rule, labels) for rule in where.labels) and (
        not where.requests or any(_has(site, totals, request) for request in where.requests)
    )


def _has(site: Site, totals: dict[str, int], request: Request) -> bool:
    for need in request.needs:
        kinds = [kind for kind in site.gpus if need.kind in {"", kind}]
        if not totals.get(need.name) or need.amount > totals[need.name]:
            return False
        if need.name == "gpu" and (need.amount > ONE * len(kinds) or len(need.items) > len(site.gpus)):
            return False
    return True


class Neighbours:
    """What others use of an agent's machine."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self._site = site
        self._rng = rng
        self._busy = False
        self.are_gone = False

    def stats(self) -> HostStats:
        """Measure."""
        if self.are_gone:
            return HostStats()
        if self._rng.random() < TOGGLES:
            self._busy = not self._busy
        if not self._busy:
            return HostStats(cpu_outside=self._site.cpus // 10)
        return HostStats(
            cpu_outside=self._site.cpus * self._rng.randint(60, 100) // 100,
            memory_outside=self._rng.choice([0, self._site.memory // 4]),
        )
