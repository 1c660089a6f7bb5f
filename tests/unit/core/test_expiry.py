"""Expiry: a task that waits too long ends, whatever it waits for, and no restart forgets that."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import CancelTasks, RetryTasks
from taskd.core.effects import TasksEnded
from taskd.core.lifecycle import State
from taskd.core.records import StateRecord
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Grant, Outcome, Retry, TaskSpec


def state_of(shell: Shell, spec: TaskSpec) -> StateRecord:
    return shell.disk.get(records.STATE, spec.id, StateRecord)


def code_of(state: StateRecord) -> str:
    return state.failure.code if state.failure else ""


def lease(shell: Shell, spec: TaskSpec, agent: FakeAgent) -> Grant:
    """Have the agent run a new task."""
    shell.submit(spec)
    [grant] = agent.receive()
    return grant


@pytest.fixture
def agent(shell: Shell) -> FakeAgent:
    return FakeAgent(shell).join(credit=100)


def test_a_task_that_is_not_leased_within_its_time_to_live_is_expired(shell: Shell) -> None:
    spec = shell.spec(ttl_ms=2_000)
    shell.submit(spec)
    shell.pass_ms(1_999)
    assert check_disk(shell.disk)[spec.id] == State.READY
    shell.pass_ms(1)
    state = state_of(shell, spec)
    assert (state.state, code_of(state)) == (State.EXPIRED, TaskCodes.EXPIRED)
    assert shell.take_told(TasksEnded)[-1].ended == [Outcome(spec.id, State.EXPIRED, 0, failure=state.failure)]
    assert FakeAgent(shell).join(credit=1).receive() == []


def test_a_time_to_live_ends_with_the_first_lease(shell: Shell, agent: FakeAgent) -> None:
    """A task that has begun may take as long as it likes, also over a lost agent."""
    grant = lease(shell, shell.spec(ttl_ms=2_000), agent)
    assert not shell.disk.scan(records.TIMER)
    assert grant.deadline_in_ms == 0
    shell.do(agent.nack(grant, outcome="released"))
    [again] = agent.receive() or FakeAgent(shell, "a2").join(credit=1).receive()
    assert again.attempt == 2
    shell.do(agent.nack(again, outcome="released"))
    shell.pass_ms(10_000)
    assert check_disk(shell.disk)[grant.spec.id] in {State.READY, State.RUNNING}


def test_a_deadline_that_passes_in_line_is_told_as_such(shell: Shell) -> None:
    spec = shell.spec(deadline_ms=2_000, ttl_ms=60_000)
    shell.submit(spec)
    shell.pass_ms(2_000)
    state = state_of(shell, spec)
    assert (state.state, code_of(state)) == (State.EXPIRED, TaskCodes.DEADLINE)


def test_a_grant_tells_what_is_left_until_the_deadline(shell: Shell) -> None:
    shell.submit(shell.spec(deadline_ms=9_000, delay_ms=4_000))
    shell.pass_ms(5_000)
    [grant] = FakeAgent(shell).join(credit=1).receive()
    assert grant.deadline_in_ms == 4_000


def test_no_attempt_has_longer_than_the_whole_deadline(shell: Shell, agent: FakeAgent) -> None:
    """Be it that the wall clock was put back by an hour since the submit."""
    spec = shell.spec(deadline_ms=9_000)
    shell.do(agent.credit(0))
    shell.submit(spec)
    shell.wall_ms -= 3_600_000
    shell.do(agent.credit(1))
    [grant] = agent.receive()
    assert grant.deadline_in_ms == 9_000


def test_an_attempt_ended_at_the_deadline_is_the_last(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(shell, shell.spec(deadline_ms=9_000), agent)
    shell.do(agent.nack(grant, failure=Failure(TaskCodes.DEADLINE, "too late")))
    assert (state_of(shell, grant.spec).state, code_of(state_of(shell, grant.spec))) == (State.DEAD, TaskCodes.DEADLINE)


def test_an_attempt_that_could_only_begin_after_the_deadline_is_not_waited_for(shell: Shell, agent: FakeAgent) -> None:
    """It is dead at once, of its own failure."""
    grant = lease(shell, shell.spec(deadline_ms=9_000, retry=Retry(5, base_ms=9_000, jitter=0.0)), agent)
    shell.do(agent.nack(grant))
    assert (state_of(shell, grant.spec).state, code_of(state_of(shell, grant.spec))) == (State.DEAD, "task.raised")
    assert not shell.disk.scan(records.TIMER)


def test_a_task_that_has_begun_and_waits_at_its_deadline_is_dead(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(shell, shell.spec(deadline_ms=9_000, retry=Retry(5, base_ms=100)), agent)
    shell.do(agent.nack(grant))
    shell.do(agent.lose())
    shell.pass_ms(9_000)
    state = state_of(shell, grant.spec)
    assert (state.state, code_of(state), state.attempt) == (State.DEAD, TaskCodes.DEADLINE, 1)


def test_a_task_of_a_lost_agent_is_dead_if_its_deadline_has_passed(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(shell, shell.spec(deadline_ms=9_000), agent)
    shell.do(agent.lose())
    shell.pass_ms(16_000)
    assert (state_of(shell, grant.spec).state, code_of(state_of(shell, grant.spec))) == (State.DEAD, TaskCodes.DEADLINE)


@pytest.mark.parametrize("delay_ms", [0, 1_000])
def test_a_cancelled_task_leaves_no_timer(shell: Shell, delay_ms: int) -> None:
    spec = shell.spec(ttl_ms=5_000, deadline_ms=9_000, delay_ms=delay_ms)
    shell.submit(spec)
    shell.do(CancelTasks([spec.id]))
    assert not shell.disk.scan(records.TIMER)
    assert not shell.working.timers.near


def test_a_restart_forgets_no_limit(shell: Shell) -> None:
    """Time that passed while the server was down counts."""
    short, long = shell.spec(ttl_ms=3_000), shell.spec(ttl_ms=30_000)
    shell.submit(short, long)
    shell.mono_ms, shell.wall_ms = 0, shell.wall_ms + 4_000
    shell.crash()
    shell.tick()
    assert check_disk(shell.disk) == {short.id: State.EXPIRED, long.id: State.READY}
    shell.pass_ms(30_000)
    assert check_disk(shell.disk)[long.id] == State.EXPIRED


def test_a_plain_task_writes_no_timer(shell: Shell) -> None:
    shell.submit(shell.spec())
    assert not shell.disk.scan(records.TIMER)


def test_a_delay_and_a_limit_that_come_due_together_are_one_end(shell: Shell) -> None:
    """A server that was held up looks once, and takes the last word."""
    spec = shell.spec(delay_ms=700, deadline_ms=2_500)
    shell.submit(spec)
    shell.tick()
    shell.jump_ms(9_000)
    assert state_of(shell, spec).state == State.EXPIRED


def test_a_retry_begins_the_limits_anew(shell: Shell) -> None:
    """Of a task that expired, its time to live; of one that had begun, its deadline."""
    spec = shell.spec(ttl_ms=2_000, deadline_ms=9_000)
    shell.submit(spec)
    shell.pass_ms(2_000)
    shell.do(RetryTasks([spec.id]))
    assert check_disk(shell.disk)[spec.id] == State.READY
    shell.crash()
    shell.tick()
    shell.pass_ms(500)
    agent = FakeAgent(shell).join(credit=1)
    [grant] = agent.receive()
    assert grant.deadline_in_ms == 7_500
    shell.do(agent.nack(grant, failure=Failure(TaskCodes.DEADLINE, "too late")))
    shell.do(RetryTasks([spec.id]))
    shell.pass_ms(8_999)
    assert check_disk(shell.disk)[spec.id] == State.READY
    shell.pass_ms(1)
    assert (state_of(shell, spec).state, code_of(state_of(shell, spec))) == (State.DEAD, TaskCodes.DEADLINE)
