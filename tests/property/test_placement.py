"""Placement, beside a ledger that knows nothing of how it is done.

No agent is ever over-committed, no constraint ever violated, and what has work and room always moves: whatever agents
offer, however they come and go, and whatever others do on their machines. The ledger counts what agents were sent and
still hold, by rules that are written here once more.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from harness.placed import check_placed
from harness.world import OUT_OF_MEMORY
from taskd.core.choosing import PRESSED_AFTER_MS
from taskd.core.invariants import check_invariants
from taskd.core.lifecycle import State
from taskd.core.records import SPEC, SpecRecord
from taskd_protocol.limits import HEARTBEAT_MS
from taskd_protocol.resources import ALL, LabelRule, Need, Preference, Request, Supply, Where
from taskd_protocol.task import Grant, Retry, TaskSpec

GIB = 1 << 30
MS_PER_BEAT = HEARTBEAT_MS
NAMES, QUEUES, ZONES = ("m.f", "m.g"), ("default", "other"), ("a", "b", "")

amounts = st.sampled_from([500, 1_000, 2_000, 4_000, 8_000, ALL])
needs = st.one_of(
    st.builds(Need, st.just("cpu"), amounts),
    st.builds(Need, st.just("memory"), st.sampled_from([GIB, 4 * GIB, 16 * GIB, ALL])),
    st.builds(Need, st.just("gpu"), st.sampled_from([250, 1_000, 2_000, ALL]), st.sampled_from(["", "", "a100", "t4"])),
    st.just(Need("gpu", 1_000, items=["0"])),
    st.builds(Need, st.just("license"), st.sampled_from([500, 1_000, 3_000])),
)
requests = st.lists(needs, min_size=1, max_size=3, unique_by=lambda need: need.name).map(Request)
rules = st.one_of(
    st.builds(LabelRule, st.just("zone"), st.sampled_from(["=", "!="]), st.sampled_from([["a"], ["b"]])),
    st.builds(LabelRule, st.just("zone"), st.sampled_from(["in", "not in"]), st.just(["a", "c"])),
    st.builds(LabelRule, st.just("zone"), st.sampled_from(["exists", "absent"])),
    st.builds(LabelRule, st.just("cores"), st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from([["8"], ["16.5"]])),
    st.builds(LabelRule, st.just("taskd.agent"), st.just("in"), st.sampled_from([["a0", "a1"], ["a9"]])),
)
wheres = st.builds(
    Where,
    requests=st.lists(requests, max_size=3),
    labels=st.lists(rules, max_size=2),
    prefers=st.lists(st.builds(Preference, rules, st.integers(-5, 5)), max_size=1),
    exclusive_host=st.sampled_from([False] * 5 + [True]),
    apart=st.sampled_from(["", "", "", "db"]),
    spread=st.sampled_from(["", "", "zone"]),
    pack=st.booleans(),
)


class Machine(NamedTuple):
    """What an agent has, as its user would say it."""

    supplies: Sequence[Supply]
    labels: dict[str, str]
    names: Sequence[str]
    queues: Sequence[str]

    def amount(self, name: str) -> int:
        return next((supply.amount for supply in self.supplies if supply.name == name), 0)

    def kinds(self, name: str) -> dict[str, str]:
        """Return the items of a resource with their kinds."""
        for supply in self.supplies:
            if supply.name == name and supply.items:
                return dict(zip(supply.items, supply.kinds or [""] * len(supply.items), strict=True))
        return {}


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    supplies = [Supply("cpu", draw(st.sampled_from([1_000, 2_500, 8_000, 16_000])))]
    if draw(st.booleans()):
        supplies.append(Supply("memory", draw(st.sampled_from([2 * GIB, 16 * GIB]))))
    gpus = draw(st.sampled_from([[], [], ["t4"], ["a100", "t4"], ["a100", "a100"]]))
    if gpus:
        supplies.append(Supply("gpu", 1_000 * len(gpus), [str(n) for n in range(len(gpus))], gpus))
    if draw(st.booleans()):
        supplies.append(Supply("license", draw(st.sampled_from([1_000, 3_000]))))
    labels = {"zone": zone} if (zone := draw(st.sampled_from(ZONES))) else {}
    if draw(st.booleans()):
        labels["cores"] = draw(st.sampled_from(["8", "64", "many"]))
    names = draw(st.sampled_from([NAMES, NAMES, NAMES[:1]]))
    return Machine(supplies, labels, names, draw(st.sampled_from([(), (), QUEUES[1:]])))


def holds_of(rule_: LabelRule, labels: dict[str, str]) -> bool:
    """Tell whether a rule holds: once more, and otherwise than placement asks it."""
    has = labels.get(rule_.label)
    match rule_.operator:
        case "exists" | "absent":
            return (has is not None) == (rule_.operator == "exists")
        case "=" | "in":
            return has in rule_.values
        case "!=" | "not in":
            return has not in rule_.values
        case comparison:
            try:
                number, bound = float(has or ""), float(rule_.values[0])
            except ValueError:
                return False
            return {"<": number < bound, "<=": number <= bound, ">": number > bound, ">=": number >= bound}[comparison]


def could_hold(machine: Machine, request: Request) -> bool:
    """Tell whether a machine that is idle has what is asked for."""
    for need in request.needs:
        amount, kinds = machine.amount(need.name), machine.kinds(need.name)
        fitting = [item for item, kind in kinds.items() if need.kind in {"", kind}]
        wanted = amount if need.amount == ALL else need.amount
        if not amount or wanted > amount or not set(need.items) <= set(kinds):
            return False
        if (need.kind or need.items) and -(-wanted // 1_000) > len(need.items or fitting):
            return False
    return True


def could_run(agent: FakeAgent, machine: Machine, spec: TaskSpec) -> bool:
    """Tell whether an agent that is idle could run a task."""
    if spec.name not in machine.names or (machine.queues and spec.queue not in machine.queues):
        return False
    where = spec.rules.where or Where()
    if not all(holds_of(each, {**machine.labels, "taskd.agent": agent.name}) for each in where.labels):
        return False
    return not where.requests or any(could_hold(machine, request) for request in where.requests)


class Placement(RuleBasedStateMachine):
    """Agents of all sorts, and tasks that ask for all sorts of things."""

    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell()
        self.machines: dict[str, Machine] = {}
        self.agents: dict[str, FakeAgent] = {}
        self.credit: Counter[str] = Counter()
        self.outside: dict[str, tuple[int, int]] = {}
        self.submitted_ms: dict[bytes, int] = {}
        self.away: set[str] = set()

    @initialize(some=st.lists(machines(), min_size=1, max_size=3), twin=st.booleans())
    def begin(self, some: list[Machine], twin: bool) -> None:  # noqa: FBT001 - drawn by name
        for number, machine in enumerate(some + some[:twin]):
            self.machines[f"a{number}"] = machine
            self._join(f"a{number}", boot=0)

    def _join(self, name: str, boot: int) -> None:
        machine = self.machines[name]
        held = self.agents[name].held if name in self.agents and not boot else {}
        number = self.agents[name].boot_id if name in self.agents else b"boot"
        agent = self.agents[name] = FakeAgent(
            self.shell,
            name,
            machine.names,
            queues=machine.queues,
            boot_id=number + b"+" * boot,
            supplies=machine.supplies,
            labels=machine.labels,
        )
        agent.held.update(held)
        self.away.discard(name)
        self.credit[name], self.outside[name] = 0, (0, 0)
        agent.join()

    # -- what happens ------------------------------------------------------------------------

    @rule(
        where=st.one_of(st.none(), wheres),
        count=st.sampled_from([1, 1, 3, 9]),
        name=st.sampled_from(NAMES),
        queue=st.sampled_from(QUEUES),
        priority=st.integers(-1, 1),
        sticky=st.sampled_from(["", "w"]),
    )
    def submit(  # noqa: PLR0917 - drawn by name
        self, where: Where | None, count: int, name: str, queue: str, priority: int, sticky: str
    ) -> None:
        where = None if where == Where() else where
        specs = [
            self.shell.spec(name, queue=queue, priority=priority, where=where, sticky=sticky, retry=Retry(50))
            for _ in range(count)
        ]
        self.submitted_ms |= {spec.id: self.shell.mono_ms for spec in specs}
        self.shell.submit(*specs)

    @rule(which=st.integers(0, 3), leases=st.integers(0, 9))
    def give_credit(self, which: int, leases: int) -> None:
        agent = self._one(which)
        self.credit[agent.name] = self.credit[agent.name] + leases if leases else 0
        self.shell.do(agent.credit(leases))

    @rule(which=st.integers(0, 3), number=st.integers(0, 9), ends=st.sampled_from(["done", "done", "failed", "oom"]))
    def end(self, which: int, number: int, ends: str) -> None:
        agent = self._one(which)
        assume(agent.held)
        grant = list(agent.held.values())[number % len(agent.held)]
        self._end(agent, grant, ends)

    def _end(self, agent: FakeAgent, grant: Grant, ends: str = "done") -> None:
        del agent.held[grant.token]
        match ends:
            case "done":
                self.shell.do(agent.ack(grant))
            case "failed":
                self.shell.do(agent.nack(grant, retry_after_ms=0))
            case _:
                self.shell.do(agent.nack(grant, failure=OUT_OF_MEMORY, retry_after_ms=0))

    @rule(which=st.integers(0, 3), cpu=st.sampled_from([0, 30, 60, 100]), memory=st.sampled_from([0, 0, GIB]))
    def use(self, which: int, cpu: int, memory: int) -> None:
        """Have others use an agent's machine."""
        agent = self._one(which)
        outside = self.machines[agent.name].amount("cpu") * cpu // 100
        self.outside[agent.name] = outside, memory
        self.shell.do(msgspec.structs.replace(agent.beat(cpu_outside=outside), memory_outside=memory))

    @rule(ms=st.sampled_from([10, 600, 4_000]))
    def wait(self, ms: int) -> None:
        self.shell.pass_ms(ms)
        self._beat()

    @rule(which=st.integers(0, 3))
    def leave(self, which: int) -> None:
        """Have an agent be out of touch for a while."""
        agent = self._one(which)
        self.shell.do(agent.lose())
        self.away.add(agent.name)

    @rule(which=st.integers(0, 3), machine=st.one_of(st.none(), machines()), boot=st.integers(0, 1))
    def come_back(self, which: int, machine: Machine | None, boot: int) -> None:
        """Have an agent come again, perhaps as another life, or with another machine."""
        agent = list(self.agents.values())[which % len(self.agents)]
        self.shell.do(agent.lose())
        if machine is not None and boot:
            self.machines[agent.name] = machine
        self._join(agent.name, boot)

    @rule(kept=st.integers(0, 3))
    def crash(self, kept: int) -> None:
        self.shell.crash(kept=min(kept, self.shell.staged_count))
        for name in self.agents:
            self._join(name, boot=0)

    # -- what holds --------------------------------------------------------------------------

    @invariant()
    def nothing_is_granted_that_may_not_be(self) -> None:
        for agent in self.agents.values():
            for grant in agent.receive():
                self._check(agent, grant)
        self.shell.settle()  # what a pass has given up in its midst is looked at by the next one
        for agent in self.agents.values():
            for grant in agent.receive():
                self._check(agent, grant)
        check_invariants(self.shell.working)
        check_placed(self.shell.working, [], self.shell.now)

    def teardown(self) -> None:
        """What has work and room for it moves, so that in the end nothing waits that any machine could run."""
        if self.agents:
            self._come_to_rest()

    def _come_to_rest(self) -> None:
        for name in sorted(self.away):
            self._join(name, boot=0)
        self.outside = dict.fromkeys(self.agents, (0, 0))
        for _ in range(len(self.submitted_ms) + 12):
            for agent in self.agents.values():
                self.credit[agent.name] += 9
                self.shell.do(agent.credit(9))
            self._beat()
            self.nothing_is_granted_that_may_not_be()
            for agent in self.agents.values():
                for grant in list(agent.held.values()):
                    self._end(agent, grant)
                    self.nothing_is_granted_that_may_not_be()
            self.shell.pass_ms(MS_PER_BEAT)
        states = check_disk(self.shell.disk)
        specs = self.shell.disk.of(SPEC, SpecRecord)
        left = [specs[task_id].spec for task_id, state in states.items() if state == State.READY]
        assert all(state in {State.READY, State.SUCCEEDED, State.DEAD} for state in states.values())
        for spec in left:
            able = [a.name for a in self.agents.values() if could_run(a, self.machines[a.name], spec)]
            assert not able, f"{spec.rules.where} waits, and {able} could run it"

    # -- the ledger --------------------------------------------------------------------------

    def _check(self, agent: FakeAgent, grant: Grant) -> None:
        machine, spec = self.machines[agent.name], grant.spec
        where = spec.rules.where or Where()
        others = [each for each in agent.held.values() if each.token != grant.token]
        assert spec.name in machine.names
        assert not machine.queues or spec.queue in machine.queues
        assert all(holds_of(each, {**machine.labels, "taskd.agent": agent.name}) for each in where.labels)
        self.credit[agent.name] -= 1
        assert self.credit[agent.name] >= 0, "no more is granted than was asked for"
        assert not any(each.spec.rules.where and each.spec.rules.where.exclusive_host for each in others)
        assert not (where.exclusive_host and others), "it is alone"
        assert not where.apart or where.apart not in [
            each.spec.rules.where.apart for each in others if each.spec.rules.where
        ]
        if grant.granted is None:
            assert not where.requests
            assert not where.exclusive_host
            return
        self._check_holds(agent.name, machine, grant, where)

    def _check_holds(self, name: str, machine: Machine, grant: Grant, where: Where) -> None:
        assert grant.granted is not None
        used: Counter[str] = Counter()
        parts: Counter[tuple[str, str]] = Counter()
        for each in self.agents[name].held.values():
            for hold in each.granted.holds if each.granted else ():
                used[hold.name] += hold.amount
                parts.update({(hold.name, item): min(hold.amount, 1_000) for item in hold.items})
        for hold in grant.granted.holds:
            assert used[hold.name] <= machine.amount(hold.name), "no agent is over-committed"
            assert set(hold.items) <= machine.kinds(hold.name).keys()
            assert all(parts[hold.name, item] <= 1_000 for item in hold.items), "no item is given twice"
        if where.exclusive_host:
            assert {hold.name: hold.amount for hold in grant.granted.holds} == {
                s.name: s.amount for s in machine.supplies
            }
            return
        if not where.requests:
            assert not grant.granted.holds
            return
        held = {hold.name: hold for hold in grant.granted.holds}
        for need in where.requests[grant.granted.alternative].needs:
            hold = held.pop(need.name)
            least = machine.amount(need.name) if need.amount == ALL else need.amount
            assert hold.amount == least or (need.name == "memory" and hold.amount > least), "it gets what it asks for"
            kinds = machine.kinds(need.name)
            assert len(hold.items) == (-(-hold.amount // 1_000) if kinds else 0)
            assert not need.kind or {kinds[item] for item in hold.items} == {need.kind}
            assert not need.items or hold.items == need.items
        assert not held
        self._check_outside(name, machine, grant, used)

    def _check_outside(self, name: str, machine: Machine, grant: Grant, used: Counter[str]) -> None:
        """What others use is not granted, but for the CPUs of one task that has waited long enough."""
        assert grant.granted is not None
        cpu, memory = self.outside[name]
        for hold in grant.granted.holds:
            if hold.name == "memory":
                assert used["memory"] + memory <= machine.amount("memory"), "memory that others use is not granted"
            if hold.name == "cpu" and cpu > machine.amount("cpu") // 2 and used["cpu"] + cpu > machine.amount("cpu"):
                assert used["cpu"] == hold.amount, "one at a time"
                assert self.shell.mono_ms - self.submitted_ms[grant.spec.id] >= PRESSED_AFTER_MS

    def _beat(self) -> None:
        for agent in [agent for agent in self.agents.values() if agent.name not in self.away]:
            cpu, memory = self.outside[agent.name]
            self.shell.do(msgspec.structs.replace(agent.beat(cpu_outside=cpu), memory_outside=memory))

    def _one(self, which: int) -> FakeAgent:
        """Return one that is there."""
        there = [agent for agent in self.agents.values() if agent.name not in self.away]
        assume(there)
        return there[which % len(there)]


Placement.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_placement_keeps_its_promises = Placement.TestCase
