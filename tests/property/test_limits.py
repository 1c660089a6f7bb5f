"""Limits hold over everything: ends, losses, crashes and changes of the limits themselves."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core.commands import OrderAgent, OrderQueue, RemoveLimit, SetLimit
from taskd_protocol.limiting import Limit
from taskd_protocol.task import Retry, TaskSpec, Use

QUEUE = Limit("queue:default", concurrency=3, tokens=20, period_ms=1_000, burst=4)
NAME = Limit("task:m.f", concurrency=2, tokens=5, period_ms=1_000, burst=2)
CARD = Limit("card", tokens=3, period_ms=1_000, burst=2)
USES = [
    (),
    [Use("card", "a")],
    [Use("card", "b")],
    [Use("card", "a", 2)],
    [Use("card", "b", 5)],
    [Use("card", "a"), Use("other")],
]


class Play:
    """A server with both limits, two agents, and what has begun when."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.shell = Shell(seed=seed)
        for limit in (QUEUE, NAME, CARD):
            self.shell.do(SetLimit(limit))
        self.begun: list[tuple[int, TaskSpec]] = []
        self.seen: set[int] = set()
        self.ended: set[bytes] = set()
        self.submitted = 0
        self.agents: list[FakeAgent] = []
        self._connect()

    def _connect(self) -> None:
        self.agents = [FakeAgent(self.shell, f"a{i}", names=["m.f", "m.g"]).join(credit=9) for i in range(2)]

    def note(self) -> None:
        for agent in self.agents:
            for grant in agent.receive():
                assert grant.token not in self.seen
                self.seen.add(grant.token)
                leases = self.shell.working.agents[agent.name].leases
                at_ms = leases[grant.token].granted_at_ms if grant.token in leases else self.shell.wall_ms
                self.begun.append((at_ms, grant.spec))
        leased = [task for agent in self.shell.working.agents.values() for task in agent.leases.values()]
        assert len(leased) <= QUEUE.concurrency
        assert sum(task.spec.name == "m.f" for task in leased) <= NAME.concurrency

    def step(self) -> None:
        shell, chance = self.shell, self.chance
        agent = chance.choice(self.agents)
        match chance.randrange(9):
            case 0 | 1:
                specs = [
                    shell.spec(chance.choice(["m.f", "m.g"]), retry=Retry(9), limits=chance.choice(USES))
                    for _ in range(chance.randrange(1, 6))
                ]
                shell.submit(*specs)
                self.submitted += len(specs)
            case 2 | 3 if agent.held:
                grant = chance.choice(list(agent.held.values()))
                shell.do(agent.ack(grant))
                shell.do(agent.credit(1))
            case 4 if agent.held:
                grant = chance.choice(list(agent.held.values()))
                shell.do(agent.nack(grant, retry_after_ms=chance.randrange(200)))
                shell.do(agent.credit(1))
            case 5:
                shell.crash(kept=chance.randrange(3))
                self._connect()
            case 6:
                limit = chance.choice([QUEUE, NAME, CARD])
                if limit is not CARD and chance.random() < 0.5:
                    shell.do(OrderQueue("default", drain=False, pause=True))  # nothing begins without the limit
                    shell.do(RemoveLimit(limit.name))
                    if chance.random() < 0.5:
                        shell.crash()
                        self._connect()
                    shell.do(SetLimit(limit))
                    shell.do(OrderQueue("default", drain=False))
                shell.do(SetLimit(limit))
            case 7:
                shell.do(OrderQueue("default", drain=False, pause=chance.random() < 0.5))
            case _:
                shell.jump_ms(chance.choice([1, 30, 200, 1_500]))
        self.note()

    def end(self) -> None:
        self.shell.do(OrderQueue("default", drain=False))
        for agent in self.agents:
            self.shell.do(OrderAgent(agent.name, drain=False))  # what it failed may have had it set aside
        for _ in range(self.submitted + 20):
            for agent in self.agents:
                for grant in list(agent.held.values()):
                    self.shell.do(agent.ack(grant))
                    self.shell.do(agent.credit(1))
            self.shell.jump_ms(500)
            for agent in self.agents:
                self.shell.do(agent.beat())
            self.note()
            if sum(self.shell.working.counters.ended.values()) == self.submitted:
                return
        raise AssertionError("something waits for ever")

    def check_rates(self) -> None:
        for limit, taken in (
            (QUEUE, [(at, 1) for at, _ in self.begun]),
            (NAME, [(at, 1) for at, spec in self.begun if spec.name == "m.f"]),
            *[
                (
                    CARD,
                    [
                        (at, min(use.weight, 2))
                        for at, spec in self.begun
                        for use in spec.rules.limits
                        if use.key == key
                    ],
                )
                for key in "ab"
            ],
        ):
            taken.sort()
            for first, (start, _) in enumerate(taken):
                tokens = 0
                for at, weight in taken[first:]:
                    tokens += weight
                    most = limit.burst_tokens + (at - start) * limit.tokens / limit.period_ms
                    assert tokens <= most, "so many begin in no window"


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=40)
def test_no_limit_is_exceeded_and_nothing_waits_for_ever(seed: int) -> None:
    play = Play(seed)
    for _ in range(60):
        play.step()
    play.end()
    play.check_rates()
    check_disk(play.shell.disk)


def test_a_limit_that_is_removed_holds_nothing_back() -> None:
    play = Play(7)
    for limit in (QUEUE, NAME):
        play.shell.do(RemoveLimit(limit.name))
    play.shell.submit(*[play.shell.spec() for _ in range(12)])
    assert sum(len(agent.receive()) for agent in play.agents) == 12
