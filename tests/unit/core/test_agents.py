"""Agents: who is alive, who holds what, and when it is taken back."""

import random

import pytest

from harness.agent import FakeAgent
from harness.core import TICK_MS, Shell
from harness.fsck import check_disk
from taskd.core.agent_commands import AgentAccepted, HearAgent, OfferAgent
from taskd.core.agents import CREDIT_MAX, POOLS_MAX, SLOTS_MAX
from taskd.core.effects import AgentLost, AgentReplaced, SendLease
from taskd.core.lifecycle import State
from taskd_protocol.errors import AgentDuplicate, BadRequest
from taskd_protocol.limits import AMOUNT_MAX
from taskd_protocol.resources import Supply
from taskd_protocol.task import Grant, Pool

SILENCE_MS = 15_000


def run(shell: Shell, agent: FakeAgent, count: int = 1) -> list[Grant]:
    shell.submit(*[shell.spec() for _ in range(count)])
    grants = agent.receive()
    assert len(grants) == count
    return grants


def states(shell: Shell) -> list[State]:
    return list(check_disk(shell.disk).values())


# -- silence --------------------------------------------------------------------------------


def test_a_silent_agent_is_lost_after_three_heartbeats_and_its_tasks_run_elsewhere(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grants = run(shell, agent, 3)
    shell.pass_ms(SILENCE_MS - TICK_MS)
    assert states(shell) == [State.RUNNING] * 3
    shell.pass_ms(TICK_MS)
    assert states(shell) == [State.READY] * 3
    assert shell.take_told(AgentLost) == [AgentLost("a1", 3)]
    assert shell.take_told(AgentReplaced) == [AgentReplaced("a1", agent.connection)]
    again = FakeAgent(shell, "a2").join(credit=9).receive()
    assert [grant.spec for grant in again] == [grant.spec for grant in grants], "in the order that they had"
    assert [grant.attempt for grant in again] == [2, 2, 2]


def test_heartbeats_keep_an_agent(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    for _ in range(10):
        shell.pass_ms(SILENCE_MS - TICK_MS)
        shell.do(agent.beat())
    assert states(shell) == [State.RUNNING]


def test_any_byte_keeps_an_agent_if_it_comes_on_its_connection(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    old = agent.connection
    agent.join(credit=9)
    run(shell, agent)
    shell.pass_ms(SILENCE_MS - TICK_MS)
    shell.do(HearAgent("a1", agent.connection))
    shell.pass_ms(SILENCE_MS - TICK_MS)
    shell.do(HearAgent("a1", old))
    assert states(shell) == [State.RUNNING]
    shell.pass_ms(TICK_MS)
    assert states(shell) == [State.READY]


def test_a_stall_of_the_server_costs_nobody_a_lease(shell: Shell) -> None:
    """It gives the time that it was deaf, and no more than that."""
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    shell.pass_ms(10_000)
    shell.jump_ms(60_000)
    assert states(shell) == [State.RUNNING]
    shell.pass_ms(SILENCE_MS - 10_000 - TICK_MS)
    assert states(shell) == [State.RUNNING]
    shell.pass_ms(TICK_MS)
    assert states(shell) == [State.READY]


def test_a_stall_gives_no_time_to_who_came_after_it(shell: Shell) -> None:
    """An agent that came while the server did not tick has not been unheard for longer than a tick."""
    shell.tick()
    shell.mono_ms += 60_000
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    shell.pass_ms(SILENCE_MS + TICK_MS)
    assert states(shell) == [State.READY]


def test_the_next_deadline_is_the_first_agents_silence(shell: Shell) -> None:
    shell.tick()
    FakeAgent(shell).join()
    shell.pass_ms(9_000)
    FakeAgent(shell, "a2").join()
    assert shell.coordinator.next_deadline_mono_ms() <= shell.mono_ms - 9_000 + SILENCE_MS


def test_each_agent_is_given_up_in_its_own_time(shell: Shell) -> None:
    """However many others are heard meanwhile, or come."""
    rng = random.Random(3)
    heard_ms: dict[FakeAgent, int] = {}
    for step in range(600):
        for agent in list(heard_ms):
            if rng.random() < 0.04:
                shell.do(agent.beat())
                heard_ms[agent] = shell.mono_ms
        if step % 10 == 0:
            heard_ms[FakeAgent(shell, f"a{step}").join()] = shell.mono_ms
        shell.pass_ms(TICK_MS)
        silent = {agent for agent, at_ms in heard_ms.items() if shell.mono_ms - at_ms >= SILENCE_MS}
        assert {lost.agent for lost in shell.take_told(AgentLost)} == {agent.name for agent in silent}
        for agent in silent:
            del heard_ms[agent]
    assert len(heard_ms) < 50, "some were given up"


def test_who_had_used_up_all_credit_is_granted_to_when_there_is_more(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=1)
    run(shell, agent)
    shell.submit(shell.spec(), shell.spec())
    assert not agent.receive()
    shell.do(agent.credit(1))
    assert len(agent.receive()) == 1
    assert len(agent.join(credit=2).receive()) == 1


# -- heartbeats -------------------------------------------------------------------------------


def test_a_lease_that_was_received_and_is_not_held_is_given_up(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    [lost, kept] = run(shell, agent, 2)
    del agent.held[lost.token]
    shell.do(agent.drain())
    shell.do(agent.beat())
    found = check_disk(shell.disk)
    assert (found[lost.spec.id], found[kept.spec.id]) == (State.READY, State.RUNNING)


def test_a_lease_that_is_still_on_its_way_is_not_missed(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    shell.submit(shell.spec())
    shell.do(agent.beat())
    assert states(shell) == [State.RUNNING]
    agent.receive()
    run(shell, agent)
    assert len(agent.held) == 2
    shell.do(agent.beat())
    assert states(shell) == [State.RUNNING] * 2


def test_what_an_old_connection_says_late_is_void(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    beat, credit, lose, drain = agent.beat(), agent.credit(5), agent.lose(), agent.drain()
    agent.join()
    run_before = len(shell.working.agents["a1"].leases)
    shell.submit(shell.spec())
    for late in (credit, beat, drain, lose):
        shell.do(late)
    assert (run_before, states(shell)) == (0, [State.READY])
    shell.do(agent.credit(1))
    assert states(shell) == [State.RUNNING]


# -- names and boots ---------------------------------------------------------------------------


def test_a_second_live_agent_of_a_name_is_refused(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    twin = FakeAgent(shell, boot_id=b"boot-2")
    with pytest.raises(AgentDuplicate):
        shell.do(twin.offer())
    shell.do(twin.lose())
    shell.do(agent.beat())
    run(shell, agent)


def test_the_same_boot_replaces_its_connection(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    before = agent.connection
    grants = run(shell, agent, 2)
    answer = shell.do(agent.offer())
    assert answer == AgentAccepted([])
    assert shell.take_told(AgentReplaced) == [AgentReplaced("a1", before)]
    shell.do(agent.ack(*grants))
    assert states(shell) == [State.SUCCEEDED] * 2


def test_credit_and_numbers_begin_anew_on_a_new_connection(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    agent.join()
    shell.submit(shell.spec())
    assert agent.receive() == []
    shell.do(agent.credit(1))
    assert len(agent.receive()) == 1
    assert agent.lease_number == 1


def test_a_restarted_agent_gives_back_what_its_former_life_held(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    [grant] = run(shell, agent)
    shell.do(agent.lose())
    assert states(shell) == [State.RUNNING]
    reborn = FakeAgent(shell, boot_id=b"boot-2").join(credit=9)
    [again] = reborn.receive()
    assert (again.spec, again.attempt) == (grant.spec, 2)


def test_what_was_leased_and_never_arrived_goes_back_when_the_agent_reconnects(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    [arrived] = run(shell, agent)
    shell.submit(shell.spec())  # its LEASE is lost with the connection
    shell.do(agent.lose())
    shell.do(agent.offer())
    assert sorted(states(shell)) == [State.READY, State.RUNNING]
    assert check_disk(shell.disk)[arrived.spec.id] == State.RUNNING


def test_what_is_no_longer_its_own_is_named(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    [lost] = run(shell, agent)
    shell.pass_ms(SILENCE_MS + TICK_MS)
    other = FakeAgent(shell, "a2").join(credit=9)
    [theirs] = other.receive()
    assert shell.do(agent.offer()) == AgentAccepted([lost.token])
    agent.held = {theirs.token: theirs}
    assert shell.do(agent.offer()) == AgentAccepted([theirs.token])
    shell.do(other.ack(theirs))
    assert states(shell) == [State.SUCCEEDED]


def test_a_later_offer_on_a_connection_takes_no_lease_back(shell: Shell) -> None:
    """It says what the agent has; leases may be on their way to it. Credit begins anew."""
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    shell.submit(shell.spec())  # on its way
    more = OfferAgent(
        agent="a1",
        boot_id=agent.boot_id,
        connection=agent.connection,
        pools=[Pool("process", 8, ["m.f", "m.g"])],
        queues=frozenset(),
    )
    assert shell.do(more) == AgentAccepted([])
    shell.submit(shell.spec("m.g"))
    assert sorted(states(shell)) == [State.READY, State.RUNNING, State.RUNNING]
    shell.do(agent.credit(1))
    assert states(shell) == [State.RUNNING] * 3
    assert [lease.number for lease in shell.take_told(SendLease)] == [2, 3]


@pytest.mark.parametrize(
    "bad",
    [
        {"agent": ""},
        {"agent": "a\nb"},
        {"pools": [Pool("process", 0, [])]},
        {"pools": [Pool("process", SLOTS_MAX + 1, [])]},
        {"pools": [Pool("process", 1, [])] * (POOLS_MAX + 1)},
        {"labels": {str(i): "" for i in range(65)}},
    ],
)
def test_an_offer_out_of_range_is_refused(shell: Shell, bad: dict[str, str]) -> None:
    offer = {"agent": "a1", "boot_id": b"b", "connection": 1, "pools": [], "queues": frozenset[str](), **bad}
    with pytest.raises(BadRequest):
        shell.do(OfferAgent(**offer))  # type: ignore[arg-type]  # the point
    assert not shell.working.agents
    assert CREDIT_MAX > SLOTS_MAX - 1


# -- connections ------------------------------------------------------------------------------


def test_a_connection_that_is_gone_gets_nothing_and_leaves_its_leases(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    shell.do(agent.lose())
    shell.submit(shell.spec())
    assert sorted(states(shell)) == [State.READY, State.RUNNING]
    shell.pass_ms(SILENCE_MS)
    assert states(shell) == [State.READY] * 2


def test_an_agent_that_holds_nothing_is_forgotten_with_its_connection(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    shell.do(agent.lose())
    assert not shell.working.agents
    FakeAgent(shell, boot_id=b"boot-2").join()


# -- a start of the server ----------------------------------------------------------------------


def test_after_a_start_no_task_is_taken_back_before_a_full_period(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent, 2)
    shell.pass_ms(SILENCE_MS - TICK_MS)
    shell.crash()
    shell.settle()
    shell.pass_ms(SILENCE_MS - TICK_MS)
    assert states(shell) == [State.RUNNING] * 2
    shell.pass_ms(TICK_MS)
    assert states(shell) == [State.READY] * 2


def test_an_agent_claims_after_a_start_what_it_still_runs(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grants = run(shell, agent, 3)
    del agent.held[grants[1].token]
    shell.crash()
    assert shell.do(agent.offer()) == AgentAccepted([])
    assert [check_disk(shell.disk)[grant.spec.id] for grant in grants] == [State.RUNNING, State.READY, State.RUNNING]
    shell.do(agent.beat())
    shell.do(agent.ack(grants[0], grants[2]))
    assert sorted(states(shell)) == [State.READY, State.SUCCEEDED, State.SUCCEEDED]


def test_a_slow_start_is_a_stall_too(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    run(shell, agent)
    shell.crash()
    shell.jump_ms(40_000)  # the first tick comes late
    assert states(shell) == [State.RUNNING]


def test_an_offer_that_makes_no_sense_is_cut_down_and_marked(shell: Shell) -> None:
    """Until the agent offers what does; a rule may keep tasks off it."""
    sound = [Supply("cpu", 4_000), Supply("gpu", 2_000, ["0", "1"], ["a100", "a100"])]
    agent = FakeAgent(shell, supplies=sound).join(credit=1)
    assert "taskd.clamped" not in shell.working.agents[agent.name].labels
    agent.supplies = [Supply("cpu", -5), Supply("license", 1 << 62), Supply("gpu", 9_000, ["0", "0"])]
    agent.join(credit=1)
    odd = shell.working.agents[agent.name]
    assert odd.labels["taskd.clamped"] == "yes"
    assert odd.room.total == {"license": AMOUNT_MAX, "gpu": 1_000}
    agent.supplies = sound
    agent.join(credit=1)
    assert "taskd.clamped" not in shell.working.agents[agent.name].labels
