"""Cancel: in every state a task may be in."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from harness.specs import changed
from taskd.core import records
from taskd.core.commands import CancelStates, CancelTasks
from taskd.core.effects import AgentLost, SendRevoke, TasksEnded
from taskd.core.lifecycle import State
from taskd.core.records import LeaseRecord, StateRecord
from taskd.core.working import Settings
from taskd_protocol.task import Grant, Retry, TaskSpec


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.lines.WINDOW_TASKS_MAX", 4)
    monkeypatch.setattr("taskd.core.lines.WINDOW_LOW", 2)


def cancel(shell: Shell, *ids: bytes) -> list[str]:
    answer = shell.do(CancelTasks(ids))
    assert isinstance(answer, CancelStates)
    check_disk(shell.disk)
    return answer.states


def ended(shell: Shell) -> list[tuple[bytes, str]]:
    return [(end.id, end.state) for told in shell.take_told(TasksEnded) for end in told.ended]


def run(shell: Shell, agent: FakeAgent, retry: Retry | None = None) -> Grant:
    shell.submit(shell.spec(retry=retry))
    [grant] = agent.receive()
    return grant


def test_a_task_that_waits_ends_at_once_in_the_window_and_beyond(shell: Shell) -> None:
    specs = [shell.spec() for _ in range(9)]
    shell.submit(*specs)
    ids = [spec.id for spec in specs]
    assert cancel(shell, ids[1], ids[7]) == ["cancelled", "cancelled"]
    assert ended(shell) == [(ids[1], "cancelled"), (ids[7], "cancelled")]
    rest = [task_id for index, task_id in enumerate(ids) if index not in (1, 7)]
    assert [grant.spec.id for grant in FakeAgent(shell).join(credit=20).receive()] == rest


def test_the_last_tasks_of_a_line_take_the_line_with_them(shell: Shell) -> None:
    specs = [shell.spec() for _ in range(6)]
    shell.submit(*specs)
    cancel(shell, *[spec.id for spec in specs])
    assert not shell.working.lines
    assert not shell.disk.scan(records.LINE)
    later = shell.spec()
    shell.submit(later)
    assert [grant.spec.id for grant in FakeAgent(shell).join(credit=20).receive()] == [later.id]


def test_a_task_that_is_cancelled_while_its_line_is_read_stays_so(shell: Shell) -> None:
    """The read found it before; what it brings back is no longer there."""
    specs = [shell.spec() for _ in range(9)]
    shell.submit(*specs)
    agent = FakeAgent(shell).join()
    shell.ask(agent.credit(4))
    shell.turn()
    [read] = shell.reads
    shell.step(read)  # scanned
    shell.ask(CancelTasks([specs[6].id]))
    shell.feed(shell.waiting[0])
    shell.turn()
    shell.settle()
    assert cancel(shell, specs[6].id) == ["cancelled"]
    shell.do(agent.credit(20))
    assert specs[6] not in [grant.spec for grant in agent.receive()]
    check_disk(shell.disk)


def test_a_scheduled_task_ends_at_once(shell: Shell) -> None:
    near, far = shell.spec(delay_ms=900), shell.spec(delay_ms=3_600_000)
    shell.submit(near, far)
    assert cancel(shell, near.id, far.id) == ["cancelled", "cancelled"]
    assert not shell.disk.scan(records.TIMER)
    shell.pass_ms(2_000)
    assert set(check_disk(shell.disk).values()) == {State.CANCELLED}


def test_a_task_whose_time_has_come_is_cancelled_before_it_is_released(shell: Shell) -> None:
    """The release was under way and waited for records."""
    spec = shell.spec(delay_ms=500)
    shell.tick()
    shell.submit(spec)
    shell.mono_ms += 500
    shell.wall_ms += 500
    shell.coordinator.tick(shell.now)
    shell.turn()
    [release] = shell.waiting
    shell.ask(CancelTasks([spec.id]))
    shell.feed(shell.waiting[-1])
    shell.feed(release)
    shell.settle()
    assert check_disk(shell.disk) == {spec.id: State.CANCELLED}


def test_a_task_between_attempts_is_cancelled_with_its_history(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grant = run(shell, agent, Retry(3, base_ms=60_000))
    shell.do(agent.logs(grant, b"x"))
    shell.do(agent.nack(grant))
    assert cancel(shell, grant.spec.id) == ["cancelled"]
    state = shell.disk.get(records.STATE, grant.spec.id, StateRecord)
    assert (state.attempt, state.failures, state.token, state.agent, state.logs) == (1, 1, grant.token, "a1", 1)
    assert state.failure is not None


def test_a_task_that_is_ready_again_is_cancelled_with_its_last_attempt(shell: Shell) -> None:
    """Who had it, since when and under which token: the same whether it stands in the window or not."""
    agent = FakeAgent(shell).join(credit=9)
    retried, released = run(shell, agent, Retry(3, base_ms=1_000)), run(shell, agent)
    shell.do(agent.drain())
    shell.do(agent.nack(retried))
    shell.do(agent.nack(released, outcome="released"))
    for _ in range(4):
        shell.pass_ms(1_000)
        shell.do(agent.beat())
    before = [shell.disk.get(records.STATE, grant.spec.id, StateRecord) for grant in (retried, released)]
    assert [state.state for state in before] == [State.READY, State.READY]
    assert all(grant.spec.id in shell.working.tasks for grant in (retried, released))
    assert cancel(shell, retried.spec.id, released.spec.id) == ["cancelled", "cancelled"]
    after = [shell.disk.get(records.STATE, grant.spec.id, StateRecord) for grant in (retried, released)]
    assert [(s.agent, s.started_at_ms, s.token) for s in after] == [(s.agent, s.started_at_ms, s.token) for s in before]
    assert after[0].token == retried.token


# -- leased --------------------------------------------------------------------------------


def test_a_running_task_is_cancelling_until_its_agent_says_that_its_work_is_gone(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grant = run(shell, agent)
    assert cancel(shell, grant.spec.id) == ["cancelling"]
    assert ended(shell) == []
    agent.receive()
    assert agent.revoked == {grant.token}
    assert check_disk(shell.disk) == {grant.spec.id: State.CANCELLING}
    shell.do(agent.nack(grant, outcome="cancelled"))
    assert ended(shell) == [(grant.spec.id, "cancelled")]


@pytest.mark.parametrize("outcome", ["failed", "released", "cancelled"])
def test_a_cancelling_task_is_not_tried_again_however_it_ends(shell: Shell, outcome: str) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grant = run(shell, agent)
    cancel(shell, grant.spec.id)
    shell.do(agent.nack(grant, outcome=outcome))
    assert check_disk(shell.disk) == {grant.spec.id: State.CANCELLED}


def test_work_that_was_done_before_the_cancel_reached_it_has_succeeded(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grant = run(shell, agent)
    cancel(shell, grant.spec.id)
    shell.do(agent.ack(grant))
    assert ended(shell) == [(grant.spec.id, "succeeded")]
    assert check_disk(shell.disk) == {grant.spec.id: State.SUCCEEDED}


def test_cancelling_twice_revokes_once(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grant = run(shell, agent)
    assert cancel(shell, grant.spec.id, grant.spec.id) == ["cancelling", "cancelling"]
    assert cancel(shell, grant.spec.id) == ["cancelling"]
    assert len(shell.take_told(SendRevoke)) == 1


@pytest.mark.parametrize("restarts", [False, True])
def test_an_agent_that_was_away_hears_of_the_cancel_when_it_is_back(shell: Shell, restarts: bool) -> None:  # noqa: FBT001 - a parameter
    agent = FakeAgent(shell).join(credit=9)
    grant = run(shell, agent)
    shell.do(agent.lose())
    assert cancel(shell, grant.spec.id) == ["cancelling"]
    if restarts:
        shell.crash()
    agent.join()
    agent.receive()
    assert agent.revoked == {grant.token}
    assert shell.disk.get(records.LEASE, grant.spec.id, LeaseRecord).cancelling


def lose_cancelling(shell: Shell, spec: TaskSpec | None = None) -> tuple[FakeAgent, Grant]:
    """Have an agent fall silent while it runs what is to be cancelled."""
    agent = FakeAgent(shell).join(credit=9)
    shell.submit(spec or shell.spec())
    [grant] = agent.receive()
    assert cancel(shell, grant.spec.id) == ["cancelling"]
    shell.pass_ms(shell.settings.silence_ms + 1_000)
    return agent, grant


def test_a_cancelling_task_of_a_lost_agent_is_not_cancelled_before_that_is_proven(shell: Shell) -> None:
    """It may still run where nobody can reach it."""
    agent, grant = lose_cancelling(shell)
    shell.pass_ms(60_000)
    assert ended(shell) == []
    assert check_disk(shell.disk) == {grant.spec.id: State.CANCELLING}
    assert shell.do(agent.offer()) == ([],), "it is the agent's own still"
    agent.receive()
    assert agent.revoked == {grant.token}
    shell.do(agent.nack(grant, outcome="cancelled"))
    assert ended(shell) == [(grant.spec.id, "cancelled")]


def test_what_else_a_lost_agent_had_goes_to_others(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    shell.submit(shell.spec(), shell.spec())
    stays, goes = agent.receive()
    cancel(shell, stays.spec.id)
    shell.pass_ms(shell.settings.silence_ms + 1_000)
    assert shell.take_told(AgentLost) == [AgentLost("a1", 1)]
    assert [grant.spec for grant in FakeAgent(shell, "a2").join(credit=9).receive()] == [goes.spec]
    assert shell.do(agent.offer()) == ([goes.token],)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_new_life_of_the_agent_is_proof(shell: Shell, restarts: bool) -> None:  # noqa: FBT001 - a parameter
    """An agent's work ends with its process."""
    agent, grant = lose_cancelling(shell)
    if restarts:
        shell.crash()
        shell.pass_ms(shell.settings.silence_ms + 1_000)
    agent.held.clear()
    agent.boot_id = b"boot-2"
    agent.join()
    assert check_disk(shell.disk) == {grant.spec.id: State.CANCELLED}


def test_an_exclusive_task_is_gone_when_its_agent_is_lost(shell: Shell) -> None:
    """The agent ends it before that, connected or not, running or stopped."""
    _, grant = lose_cancelling(shell, changed(shell.spec(), exclusive=True))
    assert ended(shell) == [(grant.spec.id, "cancelled")]


def test_a_person_may_say_that_it_is_gone(shell: Shell) -> None:
    """Not of an agent that is there."""
    agent, grant = lose_cancelling(shell)
    shell.submit(shell.spec())
    [other] = FakeAgent(shell, "a2").join(credit=1).receive()
    answer = shell.do(CancelTasks([grant.spec.id, other.spec.id], force=True))
    assert answer == CancelStates(["cancelled", "cancelling"])
    assert ended(shell) == [(grant.spec.id, "cancelled")]
    assert "a1" not in shell.working.agents
    assert shell.do(agent.offer()) == ([grant.token],)


def test_an_agent_of_which_nobody_hears_for_long_is_gone() -> None:
    shell = Shell(settings=Settings(gone_ms=60_000))
    _, grant = lose_cancelling(shell)
    shell.pass_ms(40_000)
    assert ended(shell) == []
    shell.pass_ms(10_000)
    assert ended(shell) == [(grant.spec.id, "cancelled")]
    assert shell.working.agents == {}


def test_a_cancelling_task_that_its_agent_no_longer_holds_is_cancelled(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    grant = run(shell, agent)
    cancel(shell, grant.spec.id)
    agent.held.clear()
    shell.do(agent.beat())
    assert ended(shell) == [(grant.spec.id, "cancelled")]


# -- neither --------------------------------------------------------------------------------


def test_what_has_ended_or_is_unknown_stays_as_it_is(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    done, dead = run(shell, agent), run(shell, agent, Retry(1))
    shell.do(agent.ack(done))
    shell.do(agent.nack(dead))
    waits = shell.spec("m.unknown")
    shell.submit(waits)
    cancel(shell, waits.id)
    before = dict(shell.disk.values)
    ids = [done.spec.id, dead.spec.id, waits.id, shell.new_id()]
    assert cancel(shell, *ids) == ["succeeded", "dead", "cancelled", "unknown"]
    assert shell.disk.values == before


def test_two_cancels_of_one_task_in_one_turn_count_once(shell: Shell) -> None:
    """Both were read before either was decided."""
    specs = [shell.spec() for _ in range(6)]
    shell.submit(*specs)
    shell.ask(CancelTasks([specs[5].id]))
    shell.ask(CancelTasks([specs[5].id, specs[4].id]))
    for waiting in list(shell.waiting):
        shell.feed(waiting)
    shell.settle()
    assert list(check_disk(shell.disk).values()).count(State.CANCELLED) == 2
