"""Quarantine: an agent that fails everything it takes is granted nothing more, and its failures cost nobody."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import CancelTasks, OrderAgent
from taskd.core.effects import AgentQuarantined, AgentReadmitted
from taskd.core.events import READY, TasksMoved
from taskd.core.lifecycle import State
from taskd.core.records import LeaseRecord, StateRecord
from taskd_protocol.errors import AgentUnknown
from taskd_protocol.task import Grant, Retry

SLOW = Retry(3, base_ms=600_000)


def agents(shell: Shell) -> tuple[FakeAgent, FakeAgent]:
    """Have a broken agent with much room, and a healthy one with none yet."""
    return FakeAgent(shell, "broken").join(credit=50), FakeAgent(shell, "healthy").join()


def fail(shell: Shell, agent: FakeAgent, count: int, retry: Retry = SLOW, name: str = "m.f") -> list[Grant]:
    """Have an agent fail new tasks, one report each."""
    shell.submit(*[shell.spec(name, retry=retry) for _ in range(count)])
    grants = agent.receive()
    assert len(grants) == count
    for grant in grants:
        shell.do(agent.nack(grant))
    check_disk(shell.disk)
    return grants


def failures(shell: Shell, grants: list[Grant]) -> list[int]:
    return [shell.disk.get(records.STATE, grant.spec.id, StateRecord).failures for grant in grants]


def is_quarantined(shell: Shell, name: str = "broken") -> bool:
    return shell.working.agents[name].quarantined


def test_an_agent_that_fails_eight_in_a_row_is_granted_nothing_more(shell: Shell) -> None:
    """Its failures are taken back, and the log is told; the healthy one gets the rest."""
    broken, healthy = agents(shell)
    grants = fail(shell, broken, 7)
    assert not is_quarantined(shell)
    assert failures(shell, grants) == [1] * 7
    grants += fail(shell, broken, 1)
    assert is_quarantined(shell)
    assert shell.take_told(AgentQuarantined) == [AgentQuarantined("broken", 8, 8)]
    assert failures(shell, grants) == [0] * 8
    shell.submit(shell.spec())
    assert broken.receive() == []
    shell.do(healthy.credit(1))
    assert len(healthy.receive()) == 1


def test_those_that_died_of_it_stay_dead(shell: Shell) -> None:
    """That was told. What the verdict found on its way to die goes on."""
    broken, healthy = agents(shell)
    grants = fail(shell, broken, 6, Retry(1))
    shell.submit(*[shell.spec(retry=Retry(1, base_ms=0)) for _ in range(2)])
    last = broken.receive()
    shell.do(broken.nack(*last))
    assert is_quarantined(shell)
    shell.pass_ms(500)
    states = check_disk(shell.disk)
    assert {states[grant.spec.id] for grant in grants} == {State.DEAD}
    shell.do(healthy.credit(9))
    assert sorted(grant.spec.id for grant in healthy.receive()) == sorted(grant.spec.id for grant in last)
    assert failures(shell, grants) == [1] * 6


def test_what_it_still_held_goes_on_whatever_it_was_worth(shell: Shell) -> None:
    """Hundreds may have waited there, to be tried once; each keeps its try."""
    broken, _ = agents(shell)
    shell.submit(*[shell.spec(retry=SLOW) for _ in range(8)], *[shell.spec(retry=Retry(1)) for _ in range(20)])
    grants = broken.receive()
    for grant in grants:
        shell.do(broken.nack(grant))
    assert State.DEAD not in check_disk(shell.disk).values()
    assert failures(shell, grants) == [0] * 28


def test_what_happened_to_a_task_meanwhile_stands(shell: Shell) -> None:
    """Leased to another, ready, or cancelled: each gets back what is due, or is left alone."""
    broken, healthy = agents(shell)
    first = fail(shell, broken, 3, Retry(3, base_ms=0))
    shell.do(OrderAgent("broken", drain=True))
    shell.pass_ms(500)
    shell.do(healthy.credit(1))
    [elsewhere] = healthy.receive()
    shell.do(CancelTasks([first[2].spec.id]))
    shell.do(OrderAgent("broken", drain=False))
    again = broken.receive()
    assert len(again) == 1
    shell.do(broken.nack(*again))
    shell.pass_ms(500)
    again = broken.receive()
    shell.do(broken.nack(*again))
    shell.do(broken.credit(50))
    fail(shell, broken, 3)
    check_disk(shell.disk)
    assert is_quarantined(shell)
    assert shell.disk.get(records.LEASE, elsewhere.spec.id, LeaseRecord).failures == 0
    assert failures(shell, [first[2]]) == [1]
    assert shell.disk.get(records.STATE, first[2].spec.id, StateRecord).state == State.CANCELLED


def test_one_bad_task_says_nothing_about_the_agent(shell: Shell) -> None:
    """Nor do three, however often they fail."""
    broken, healthy = agents(shell)
    shell.submit(*[shell.spec(retry=Retry(50, base_ms=0)) for _ in range(3)])
    for _ in range(6):
        for grant in broken.receive():
            shell.do(broken.nack(grant))
        shell.pass_ms(500)
        shell.do(broken.beat())
        shell.do(healthy.beat())
    assert not is_quarantined(shell)


def test_a_success_begins_a_new_streak(shell: Shell) -> None:
    """An agent that gets some things done is no black hole."""
    broken, _ = agents(shell)
    fail(shell, broken, 7)
    shell.submit(shell.spec())
    shell.do(broken.ack(*broken.receive()))
    fail(shell, broken, 7)
    assert not is_quarantined(shell)


@pytest.mark.parametrize("why", ["alone", "other task", "other queue", "drained", "fails too"])
def test_without_a_witness_nobody_is_put_away(shell: Shell, why: str) -> None:
    """Another agent must be able to run the tasks, be granted to, and not fail the same."""
    broken = FakeAgent(shell, "broken").join(credit=50)
    match why:
        case "other task":
            FakeAgent(shell, "other", ["m.g"]).join()
        case "other queue":
            FakeAgent(shell, "other", queues=["else"]).join()
        case "drained":
            FakeAgent(shell, "other").join()
            shell.do(OrderAgent("other", drain=True))
        case "fails too":
            shell.do(OrderAgent("broken", drain=True))
            fail(shell, FakeAgent(shell, "other").join(credit=1), 1)
            shell.do(OrderAgent("broken", drain=False))
        case _:
            pass
    fail(shell, broken, 20)
    assert not is_quarantined(shell)


def test_tasks_that_fail_elsewhere_too_speak_for_the_agent(shell: Shell) -> None:
    """After four of them it is let in again, with a clean slate."""
    broken, healthy = agents(shell)
    fail(shell, broken, 8, Retry(9, base_ms=0))
    assert is_quarantined(shell)
    shell.do(healthy.credit(4))
    shell.pass_ms(500)
    grants = healthy.receive()
    for grant in grants[:3]:
        shell.do(healthy.nack(grant))
    assert is_quarantined(shell)
    shell.do(healthy.nack(grants[3]))
    assert not is_quarantined(shell)
    assert shell.take_told(AgentReadmitted) == [AgentReadmitted("broken")]
    assert broken.receive() != []


def test_what_fails_wherever_it_runs_is_dead_in_the_end(shell: Shell) -> None:
    """Two agents that are given all of a broken release's tasks in turn do not put each other away over them."""
    one, other = FakeAgent(shell, "one").join(credit=8), FakeAgent(shell, "other").join()
    shell.submit(*[shell.spec(retry=Retry(3, base_ms=0)) for _ in range(8)])
    for _ in range(4):
        for agent, next_one in ((one, other), (other, one)):
            shell.do(agent.nack(*agent.receive()))
            shell.do(next_one.credit(8))
            shell.pass_ms(500)
    assert set(check_disk(shell.disk).values()) == {State.DEAD}


def test_a_task_is_refunded_three_times_at_most(shell: Shell) -> None:
    """However often its agent is let in again, and put away again."""
    broken, _ = agents(shell)
    grants = fail(shell, broken, 8, Retry(2, base_ms=0))
    for _ in range(5):
        shell.do(OrderAgent("broken", drain=False))
        shell.pass_ms(500)
        shell.do(broken.nack(*broken.receive()))
    states = [shell.disk.get(records.STATE, grant.spec.id, StateRecord) for grant in grants]
    assert {(state.state, state.attempt) for state in states} == {(State.DEAD, 5)}


def test_a_final_failure_is_the_tasks_own(shell: Shell) -> None:
    """No attempt follows it: it says nothing about the agent, and is not refunded with others."""
    broken, _ = agents(shell)
    shell.submit(*[shell.spec(retry=SLOW) for _ in range(8)])
    final = broken.receive()
    shell.do(broken.nack(*final, final=True))
    assert not is_quarantined(shell)
    fail(shell, broken, 8)
    assert is_quarantined(shell)
    assert {shell.disk.get(records.STATE, grant.spec.id, StateRecord).state for grant in final} == {State.DEAD}


def test_a_refund_of_a_task_in_line_is_no_event(shell: Shell) -> None:
    """It was back in line already, and that was told."""
    broken = FakeAgent(shell, "broken").join(credit=8)
    FakeAgent(shell, "healthy").join()
    grants = fail(shell, broken, 7, Retry(3, base_ms=0))
    shell.pass_ms(1)
    fail(shell, broken, 1)
    assert is_quarantined(shell)
    assert failures(shell, grants) == [0] * 7
    moved = [event for event in shell.events if isinstance(event, TasksMoved) and event.what == READY]
    assert sum([len(event.ids) for event in moved]) == 7


def test_a_refund_moves_no_deadline(shell: Shell) -> None:
    """What failed on the agent goes on until its deadline, and no longer."""
    broken, _ = agents(shell)
    shell.submit(*[shell.spec(retry=Retry(1, base_ms=0), deadline_ms=60_000) for _ in range(8)])
    shell.pass_ms(10_000)
    shell.do(broken.nack(*broken.receive()))
    shell.pass_ms(500)
    assert set(check_disk(shell.disk).values()) == {State.READY}
    shell.pass_ms(51_000)
    assert set(check_disk(shell.disk).values()) == {State.DEAD}


def test_what_it_still_held_is_refunded_as_well(shell: Shell) -> None:
    """Failures that come in after the verdict."""
    broken, _ = agents(shell)
    shell.submit(*[shell.spec(retry=SLOW) for _ in range(12)])
    grants = broken.receive()
    for grant in grants:
        shell.do(broken.nack(grant))
    assert failures(shell, grants) == [0] * 12


def test_a_quarantine_ends_with_the_agents_life_or_at_a_persons_word(shell: Shell) -> None:
    """It outlives a lost connection; a new boot, or `agents resume`, begins anew."""
    broken, _ = agents(shell)
    fail(shell, broken, 8)
    shell.do(broken.lose())
    broken.join()
    assert is_quarantined(shell)
    shell.do(OrderAgent("broken", drain=False))
    assert not is_quarantined(shell)
    shell.do(broken.credit(50))
    fail(shell, broken, 8)
    assert is_quarantined(shell)
    shell.do(broken.lose())
    shell.do(OrderAgent("broken", drain=False))
    with pytest.raises(AgentUnknown):
        shell.do(OrderAgent("broken", drain=False))
    broken.join(credit=50)
    fail(shell, broken, 8)
    shell.do(broken.lose())
    FakeAgent(shell, "broken", boot_id=b"boot-2").join()
    assert not is_quarantined(shell)
