"""Attempts: each that did not succeed is kept; two budgets; and what may have started."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.agent_commands import ReportsRecorded, StartsRecorded
from taskd.core.attempts import ATTEMPTS_KEPT, KEPT_TEXT_CHARS, attempt_of, kept_ids
from taskd.core.commands import Answer, CancelTasks, RetryTasks
from taskd.core.effects import TasksEnded
from taskd.core.lifecycle import State
from taskd.core.records import AttemptRecord, LeaseRecord, StateRecord
from taskd.core.working import Settings
from taskd_protocol.errors import BadRequest
from taskd_protocol.task import Failure, Grant, Retry, TaskSpec

SILENCE_MS = 15_000
KILLED = Failure("worker.killed", "SIGSEGV ended the worker process", exit_code=-11)
AGAIN = Retry(9, base_ms=0)


@pytest.fixture
def agent(shell: Shell) -> FakeAgent:
    return FakeAgent(shell).join(credit=100)


def lease(agent: FakeAgent, spec: TaskSpec | None = None, *, retry: Retry = AGAIN) -> Grant:
    """Have the agent run a new task."""
    agent.shell.submit(spec or agent.shell.spec(retry=retry))
    [grant] = agent.receive()
    return grant


def again(agent: FakeAgent) -> Grant:
    """Have the agent run the next attempt of the only task."""
    agent.shell.jump_ms(1)
    [grant] = agent.receive()
    return grant


def lose(shell: Shell, agent: FakeAgent) -> None:
    """Have the agent, and all that it holds, be gone; then let a new process of it take part."""
    shell.do(agent.lose())
    agent.held.clear()
    shell.pass_ms(SILENCE_MS)
    agent.boot_id += b"+"
    agent.join(credit=100)


def state_of(shell: Shell, task_id: bytes) -> StateRecord:
    return shell.disk.get(records.STATE, task_id, StateRecord)


def outcomes(shell: Shell) -> list[str]:
    return [record.outcome for record in shell.disk.of(records.ATTEMPT, AttemptRecord).values()]


# -- what is kept ---------------------------------------------------------------------------


def test_an_attempt_that_did_not_succeed_is_kept_with_all_that_is_known_of_it(shell: Shell, agent: FakeAgent) -> None:
    first = lease(agent)
    granted_at_ms = shell.wall_ms
    shell.jump_ms(70)
    shell.do(agent.nack(first))
    second = again(agent)
    shell.do(agent.nack(second, outcome="crashed", failure=KILLED))
    kept = shell.disk.of(records.ATTEMPT, AttemptRecord)
    failure = agent.nack(first).reports[0].failure
    assert list(kept.values()) == [
        AttemptRecord(first.token, "a1", 1, granted_at_ms + 70, "failed", failure),
        AttemptRecord(second.token, "a1", 1, shell.wall_ms, "crashed", KILLED),
    ]
    assert list(kept) == list(kept_ids(first.spec.id, 2, state_of(shell, first.spec.id).past))


def test_a_success_at_the_first_try_leaves_no_attempt(shell: Shell, agent: FakeAgent) -> None:
    """The state record tells all of it: the plain task pays for nothing."""
    shell.do(agent.ack(lease(agent)))
    assert outcomes(shell) == []
    assert [state.past for state in shell.disk.of(records.STATE, StateRecord).values()] == [None]


def test_the_newest_attempts_are_kept(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    for _ in range(ATTEMPTS_KEPT + 3):
        shell.do(agent.credit(1))
        shell.do(agent.nack(grant, outcome="released"))
        [grant] = agent.receive()
    kept = shell.disk.of(records.ATTEMPT, AttemptRecord)
    assert [int.from_bytes(attempt_id[16:], "big") for attempt_id in kept] == list(range(4, ATTEMPTS_KEPT + 4))
    check_disk(shell.disk)


def test_what_came_back_before_it_started_is_no_attempt_that_is_kept(shell: Shell, agent: FakeAgent) -> None:
    """It costs a number, by which later ones are still known."""
    first = lease(agent)
    shell.do(agent.give_back(first))
    [second] = agent.receive()
    shell.do(agent.nack(second))
    third = again(agent)
    shell.do(agent.give_back(third))
    [fourth] = agent.receive()
    shell.do(agent.nack(fourth))
    shell.do(agent.ack(again(agent)))
    kept = shell.disk.of(records.ATTEMPT, AttemptRecord)
    told = [(attempt_of(attempt_id, record), record.outcome) for attempt_id, record in kept.items()]
    assert told == [(2, "failed"), (4, "failed")]
    assert state_of(shell, first.spec.id).attempt == 5
    check_disk(shell.disk)


def test_releases_push_no_attempt_out(shell: Shell, agent: FakeAgent) -> None:
    first = lease(agent)
    shell.do(agent.nack(first))
    grant = again(agent)
    for _ in range(ATTEMPTS_KEPT + 3):
        shell.do(agent.give_back(grant))
        shell.do(agent.credit(1))
        [grant] = agent.receive()
    shell.do(agent.nack(grant))
    kept = shell.disk.of(records.ATTEMPT, AttemptRecord)
    assert [attempt_of(attempt_id, record) for attempt_id, record in kept.items()] == [1, ATTEMPTS_KEPT + 5]
    check_disk(shell.disk)


def test_texts_of_an_attempt_are_cut_and_weigh(shell: Shell, agent: FakeAgent) -> None:
    """The task itself keeps all of the last failure; its history costs retention what it costs the disk."""
    long = Failure("task.raised", "m" * 20_000, "T", "x" * 20_000 + "its end")
    grant = lease(agent)
    shell.do(agent.nack(grant, failure=long))
    state = state_of(shell, grant.spec.id)
    [kept] = shell.disk.of(records.ATTEMPT, AttemptRecord).values()
    assert state.failure == long
    assert kept.failure is not None
    assert [len(kept.failure.message), len(kept.failure.traceback)] == [KEPT_TEXT_CHARS, KEPT_TEXT_CHARS]
    assert kept.failure.traceback.endswith("its end")
    assert state.log_bytes > 2 * KEPT_TEXT_CHARS


def test_attempts_go_with_their_task() -> None:
    shell = Shell(settings=Settings(retention_age_ms=60_000))
    agent = FakeAgent(shell).join(credit=9)
    shell.do(agent.nack(lease(agent)))
    shell.do(agent.ack(again(agent)))
    assert outcomes(shell) == ["failed"]
    shell.pass_ms(90_000)
    assert {kind for kind, _ in shell.disk.values} == {records.META}


def test_a_cancelled_attempt_is_kept(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    shell.do(CancelTasks([grant.spec.id]))
    shell.do(agent.nack(grant))
    assert check_disk(shell.disk) == {grant.spec.id: State.CANCELLED}
    assert outcomes(shell) == ["cancelled"]


# -- budgets ----------------------------------------------------------------------------------


def test_crashes_have_a_budget_of_their_own(shell: Shell, agent: FakeAgent) -> None:
    """Two failures and two crashes are within two budgets of three; the third crash is not."""
    grant = lease(agent, retry=Retry(3, base_ms=0, crash_limit=3))
    for outcome in ("failed", "crashed", "failed", "crashed"):
        shell.do(agent.nack(grant, outcome=outcome))
        grant = again(agent)
    shell.do(agent.nack(grant, outcome="crashed", failure=KILLED))
    state = state_of(shell, grant.spec.id)
    assert (state.state, state.attempt, state.failures, state.failure) == (State.DEAD, 5, 2, KILLED)
    assert state.past is not None
    assert state.past.crashes == 3


def test_who_may_be_tried_once_crashes_once(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent, retry=Retry(1, crash_limit=3))
    shell.do(agent.nack(grant, outcome="crashed", failure=KILLED))
    assert check_disk(shell.disk) == {grant.spec.id: State.DEAD}


def test_both_kinds_back_off_as_one(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent, retry=Retry(9, base_ms=100, factor=2.0, jitter=0.0))
    waits = []
    for outcome in ("failed", "crashed", "failed"):
        shell.do(agent.nack(grant, outcome=outcome))
        waits.append(state_of(shell, grant.spec.id).due_at_ms - shell.wall_ms)
        shell.pass_ms(waits[-1])
        [grant] = agent.receive()
    assert waits == [100, 200, 400]


def test_a_final_failure_is_the_last(shell: Shell, agent: FakeAgent) -> None:
    """The agent says so, as the task's code or its policy said; the server obeys."""
    grant = lease(agent)
    shell.do(agent.nack(grant, final=True))
    state = state_of(shell, grant.spec.id)
    assert (state.state, state.failures) == (State.DEAD, 1)


def test_a_wait_that_was_asked_for_takes_the_place_of_the_policys(shell: Shell, agent: FakeAgent) -> None:
    """It is charged all the same, and moved by no jitter."""
    grant = lease(agent, retry=Retry(2, base_ms=100, jitter=1.0))
    shell.do(agent.nack(grant, retry_after_ms=7_000))
    state = state_of(shell, grant.spec.id)
    assert (state.state, state.failures, state.due_at_ms) == (State.SCHEDULED, 1, shell.wall_ms + 7_000)
    shell.pass_ms(7_000)
    [grant] = agent.receive()
    shell.do(agent.nack(grant, retry_after_ms=7_000))
    assert check_disk(shell.disk) == {grant.spec.id: State.DEAD}


@pytest.mark.parametrize("wait_ms", [-1, 1 << 60])
def test_a_wait_without_sense_refuses_the_message(shell: Shell, agent: FakeAgent, wait_ms: int) -> None:
    with pytest.raises(BadRequest, match="ten years"):
        shell.do(agent.nack(lease(agent), retry_after_ms=wait_ms))


def test_a_retry_by_hand_begins_the_budgets_anew_and_keeps_the_history(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent, retry=Retry(3, base_ms=0, crash_limit=1))
    shell.do(agent.nack(grant, outcome="crashed"))
    shell.do(RetryTasks([grant.spec.id]))
    [second] = agent.receive()
    assert second.attempt == 2
    shell.do(agent.nack(second))
    assert check_disk(shell.disk) == {grant.spec.id: State.SCHEDULED}
    assert outcomes(shell) == ["crashed", "failed"]


# -- losses -----------------------------------------------------------------------------------


def test_a_first_loss_costs_nothing_and_marks_starts_from_then_on(shell: Shell, agent: FakeAgent) -> None:
    """Of many leases on a lost agent only those that had started can be blamed: from now on that is known."""
    first = lease(agent)
    assert not first.mark_start
    lose(shell, agent)
    [second] = agent.receive()
    assert (second.attempt, second.mark_start) == (2, True)
    lease_record = shell.disk.get(records.LEASE, first.spec.id, LeaseRecord)
    assert (lease_record.failures, lease_record.past) == (0, records.Past(1, 0, 1))
    assert outcomes(shell) == ["lost"]
    [kept] = shell.disk.of(records.ATTEMPT, AttemptRecord).values()
    assert kept.failure is not None
    assert "fell silent" in kept.failure.message, "it says what happened, and costs nothing"


def started(shell: Shell, agent: FakeAgent, *asked: Grant | int) -> Answer:
    return shell.do(agent.start(*asked))


def test_a_mark_is_durable_and_asked_for_again_as_good(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    assert started(shell, agent, grant, 3) == StartsRecorded([grant.token], [3])
    shell.crash()
    assert shell.disk.get(records.LEASE, grant.spec.id, LeaseRecord).started
    agent.join()
    before = dict(shell.disk.values)
    assert started(shell, agent, grant) == StartsRecorded([grant.token], [])
    assert shell.disk.values == before
    assert started(shell, FakeAgent(shell, "stranger"), grant) == StartsRecorded([], [grant.token])


def test_who_is_lost_again_after_its_start_crashed(shell: Shell, agent: FakeAgent) -> None:
    """A poison task that takes its agent down every time ends in the dead letters."""
    grant = lease(agent, retry=Retry(5, base_ms=0, crash_limit=2))
    lose(shell, agent)
    for _ in range(2):
        shell.jump_ms(1)
        [grant] = agent.receive()
        started(shell, agent, grant)
        lose(shell, agent)
    state = state_of(shell, grant.spec.id)
    assert (state.state, state.failures) == (State.DEAD, 0)
    assert state.failure is not None
    assert state.failure.code == "worker.lost"
    assert outcomes(shell) == ["lost", "crashed", "crashed"]


def test_who_is_lost_again_before_its_start_costs_nothing(shell: Shell, agent: FakeAgent) -> None:
    lease(agent, retry=Retry(1))
    for attempt in range(2, 8):
        lose(shell, agent)
        [grant] = agent.receive()
        assert (grant.attempt, grant.mark_start) == (attempt, True)
    assert outcomes(shell) == ["lost"] * 6


def test_who_is_lost_again_on_an_agent_that_marks_no_starts_crashed(shell: Shell, agent: FakeAgent) -> None:
    """Agents of 0.1 pass over ``mark_start``: a poison task would take them down for ever. One that is cancelled is."""
    agent.marks_starts = False
    agent.join(credit=9)
    poison = lease(agent, retry=Retry(5, base_ms=0, crash_limit=2))
    for _ in range(2):
        lose(shell, agent)
        shell.jump_ms(1)
        agent.receive()
    cancelled = lease(agent)
    shell.do(CancelTasks([cancelled.spec.id]))
    lose(shell, agent)
    assert check_disk(shell.disk) == {poison.spec.id: State.DEAD, cancelled.spec.id: State.CANCELLED}
    assert outcomes(shell) == ["lost", "crashed", "crashed", "lost"]


def test_a_result_of_an_attempt_that_was_charged_as_lost_is_stale(shell: Shell, agent: FakeAgent) -> None:
    """The agent may come back with it: it was given up, and must not be told that it is recorded."""
    lease(agent)
    lose(shell, agent)
    [grant] = agent.receive()
    started(shell, agent, grant)
    lose(shell, agent)
    assert shell.do(agent.ack(grant)) == ReportsRecorded([], [grant.token])


def test_what_never_arrived_is_no_loss(shell: Shell, agent: FakeAgent) -> None:
    """A process that comes back without a lease that was on its way never had it."""
    first = lease(agent)
    agent.held.clear()
    agent.join(credit=9)
    [second] = agent.receive()
    assert (second.spec, second.attempt, second.mark_start) == (first.spec, 2, False)
    assert outcomes(shell) == []


# -- at most once -----------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["failed", "crashed", "cancelled"])
def test_what_may_have_started_is_never_leased_again(shell: Shell, agent: FakeAgent, outcome: str) -> None:
    """Whatever its agent says but that it never started, the task has ended; what happened is still told."""
    grant = lease(agent, shell.spec(retry=AGAIN, at_most_once=True))
    shell.do(agent.nack(grant, outcome=outcome, failure=KILLED))
    state = state_of(shell, grant.spec.id)
    assert state.state == State.DEAD
    assert state.failure is not None
    assert state.failure.code == "task.maybe_ran"
    [kept] = shell.disk.of(records.ATTEMPT, AttemptRecord).values()
    assert kept.outcome == outcome
    if outcome != "cancelled":
        assert (state.failure.message, state.failure.exit_code) == (KILLED.message, -11)
        assert kept.failure == KILLED


def test_a_loss_ends_what_may_have_started(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent, shell.spec(at_most_once=True))
    lose(shell, agent)
    assert check_disk(shell.disk) == {grant.spec.id: State.DEAD}
    [told] = shell.take_told(TasksEnded)
    assert told.ended[0].failure is not None
    assert told.ended[0].failure.code == "task.maybe_ran"


def test_a_loss_of_server_and_agent_ends_what_may_have_started(shell: Shell, agent: FakeAgent) -> None:
    """After a start it is not known which process of the agent had the lease."""
    grant = lease(agent, shell.spec(at_most_once=True))
    shell.crash()
    agent.held.clear()
    agent.join(credit=9)
    assert check_disk(shell.disk) == {grant.spec.id: State.DEAD}


def test_what_never_started_is_leased_again(shell: Shell, agent: FakeAgent) -> None:
    """Released by its agent, or never arrived there: it did not run."""
    first = lease(agent, shell.spec(at_most_once=True))
    shell.do(agent.nack(first, outcome="released"))
    [second] = agent.receive()
    agent.held.clear()
    agent.join(credit=9)
    [third] = agent.receive()
    assert (second.attempt, third.attempt, third.spec) == (2, 3, first.spec)
    shell.do(agent.ack(third))
    assert check_disk(shell.disk) == {first.spec.id: State.SUCCEEDED}
