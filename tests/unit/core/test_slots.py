"""Slots: where tasks go that ask for nothing, if agents are many and tasks few."""

import random

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from taskd.core import dealing
from taskd.core.slots import Place
from taskd.core.working import Working
from taskd_protocol.resources import Need, Request, Supply, Where
from taskd_protocol.task import TaskSpec


def fleet(shell: Shell, asked: list[int]) -> list[FakeAgent]:
    """Connect agents of eight slots and four CPUs each."""
    supplies = [Supply("cpu", 4_000)]
    return [FakeAgent(shell, f"a{i}", supplies=supplies).join(credit) for i, credit in enumerate(asked)]


def went_to(agents: list[FakeAgent]) -> list[int]:
    return [number for number, agent in enumerate(agents) for _ in agent.receive()]


def one_by_one(shell: Shell, agents: list[FakeAgent], count: int) -> list[int]:
    """Submit tasks; return the number of the agent that each went to."""
    numbers: list[int] = []
    for _ in range(count):
        shell.submit(shell.spec())
        numbers += went_to(agents)
    return numbers


def holding(shell: Shell, cpus: int) -> TaskSpec:
    return shell.spec(where=Where([Request([Need("cpu", cpus * 1_000)])]))


def test_a_task_goes_to_where_most_slots_are_free_and_then_to_where_most_credit_is(shell: Shell) -> None:
    """What has no free slot waits behind what runs, where it is asked for."""
    agents = fleet(shell, [1, 1, 1, 2, 11, 1, 1, 3, 1, 1, 1, 1])
    assert one_by_one(shell, agents, 12) == [4, 4, 4, 4, 4, 4, 7, 4, 7, 3, 4, 9]
    assert sorted(one_by_one(shell, agents, 10)) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
    assert one_by_one(shell, agents, 3) == [4, 4, 4]
    shell.submit(shell.spec())
    assert went_to(agents) == [], "all credit is used"


def test_a_slot_that_becomes_free_is_the_next_one_used(shell: Shell) -> None:
    agents = fleet(shell, [9] * 12)
    for _ in range(96):
        shell.submit(shell.spec())
    shell.do(agents[3].ack(agents[3].receive()[0]))
    for agent in agents:
        agent.receive()
    assert one_by_one(shell, agents, 1) == [3]


def test_an_agent_that_others_keep_busy_gets_none_while_one_is_calm(shell: Shell) -> None:
    agents = fleet(shell, [8] + [1] * 11)
    for _ in range(3):
        shell.do(agents[0].beat(cpu_outside=4_000))
    assert sorted(one_by_one(shell, agents, 11)) == list(range(1, 12))


def test_an_agent_that_is_kept_free_for_a_task_is_there_for_what_comes_before_it(shell: Shell) -> None:
    agents = fleet(shell, [9] * 12)
    shell.submit(*[holding(shell, 3) for _ in agents])
    shell.submit(holding(shell, 4))
    went_to(agents)
    shell.pass_ms(2_500)
    [kept] = [int(name[1:]) for name in shell.working.rooms.held.values()]
    before = one_by_one(shell, agents, 88)
    assert kept not in before, "it is kept free"
    shell.submit(shell.spec(priority=9))
    assert went_to(agents) == [kept]


def test_few_tasks_do_not_have_all_agents_looked_at(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = fleet(shell, [3] * 50)
    looked_at: list[Place] = []
    places = dealing._places

    def noted(w: Working) -> list[Place]:
        looked_at.extend(places(w))
        return looked_at

    monkeypatch.setattr(dealing, "_places", noted)
    for _ in range(40):
        shell.submit(shell.spec(), holding(shell, 1), shell.spec())
    assert len(went_to(agents)) == 120
    assert not looked_at


def anything(rng: random.Random, shell: Shell, agent: FakeAgent) -> None:
    """Do something with an agent, or submit something."""
    match rng.randrange(8):
        case 0 | 1:
            shell.submit(shell.spec())
        case 2:
            shell.submit(holding(shell, rng.choice([1, 3, 4])), shell.spec())
        case 3 | 4 if agent.held:
            shell.do(agent.ack(agent.held.pop(min(agent.held))))
        case 5:
            shell.do(agent.credit(rng.randrange(4)))
        case 6:
            shell.do(agent.beat(cpu_outside=rng.choice([0, 4_000])))
        case 7 if rng.randrange(4):
            shell.pass_ms(1_500)  # what waits for two seconds is kept an agent free for
        case 7:
            shell.do(agent.lose())
            if rng.randrange(2):
                agent.join(rng.randrange(4))
        case _:
            pass


@pytest.mark.parametrize("seed", range(5))
def test_nothing_waits_that_could_be_granted(shell: Shell, seed: int) -> None:
    """Agents come and go, get credit and lose it; the order of places is checked after each command."""
    rng = random.Random(seed)
    agents = fleet(shell, [2] * 12)
    for _ in range(300):
        agent = rng.choice([agent for agent in agents if agent.connection])
        agent.receive()
        anything(rng, shell, agent)
    for agent in agents:
        agent.join(1_000)
        agent.receive()
        for _ in range(3):
            shell.do(agent.beat())
    for _ in range(100):
        for agent in agents:
            agent.receive()
            for grant in list(agent.held.values()):
                shell.do(agent.ack(agent.held.pop(grant.token)))
    assert not shell.working.active
