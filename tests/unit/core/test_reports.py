"""Reports: counted once, if they are of the lease that stands; failures and what follows."""

import msgspec
import pytest

from harness.agent import RAISED, FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.agent_commands import AckAttempts, AppendLogs, LogsKept, NackAttempts, ReportsRecorded
from taskd.core.attempts import backoff_ms
from taskd.core.commands import Command
from taskd.core.effects import LogsAppended, TasksEnded
from taskd.core.lifecycle import State
from taskd.core.records import LeaseRecord, LogRecord, StateRecord
from taskd.core.reports import FAILURE_TEXT_CHARS_MAX, LOG_CUT, LOG_ENTRY_BYTES, log_id
from taskd.core.working import Settings
from taskd_protocol.errors import BadRequest, PayloadTooLarge
from taskd_protocol.limits import MAX_ATTEMPTS_MAX
from taskd_protocol.task import Failure, FailureReport, Grant, LogPiece, Outcome, Report, Retry


@pytest.fixture
def agent(shell: Shell) -> FakeAgent:
    return FakeAgent(shell).join(credit=100)


def lease(agent: FakeAgent, retry: Retry | None = None) -> Grant:
    """Have the agent run a new task."""
    agent.shell.submit(agent.shell.spec(retry=retry))
    [grant] = agent.receive()
    return grant


def state_of(shell: Shell, grant: Grant) -> StateRecord:
    return shell.disk.get(records.STATE, grant.spec.id, StateRecord)


def reported(shell: Shell, command: Command) -> ReportsRecorded:
    answer = shell.do(command)
    assert isinstance(answer, ReportsRecorded)
    return answer


def changes_nothing(shell: Shell, command: Command) -> ReportsRecorded:
    before = dict(shell.disk.values)
    answer = reported(shell, command)
    assert shell.disk.values == before
    assert not shell.take_told(TasksEnded)
    return answer


# -- success -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 512, 513])
def test_an_ack_ends_the_task_with_its_result(shell: Shell, agent: FakeAgent, size: int) -> None:
    """Small results stand in the state record, larger ones beside it."""
    grant, result = lease(agent), bytes(size)
    assert reported(shell, agent.ack(grant, result=result)) == ([grant.token], [])
    [told] = shell.take_told(TasksEnded)
    assert told.ended == [Outcome(grant.spec.id, State.SUCCEEDED, 1, result)]
    state = state_of(shell, grant)
    assert (state.attempt, state.started_at_ms, state.finished_at_ms) == (1, 1, shell.wall_ms)
    stored = shell.disk.raw(records.RESULT, grant.spec.id) if state.result_apart else state.result
    assert stored == result
    assert state.result_apart == (size > 512)
    assert check_disk(shell.disk) == {grant.spec.id: State.SUCCEEDED}


def test_a_result_over_the_limit_refuses_the_message() -> None:
    shell = Shell(settings=Settings(payload_bytes_max=10))
    agent = FakeAgent(shell).join(credit=9)
    grant = lease(agent)
    with pytest.raises(PayloadTooLarge):
        shell.do(agent.ack(grant, result=bytes(11)))
    assert check_disk(shell.disk) == {grant.spec.id: State.RUNNING}


# -- what counts ----------------------------------------------------------------------------


def test_the_same_report_again_is_recorded_and_changes_nothing(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    assert reported(shell, agent.ack(grant, grant)).recorded == [grant.token] * 2
    shell.take_told(TasksEnded)
    assert changes_nothing(shell, agent.ack(grant)) == ([grant.token], [])
    shell.crash()
    shell.settle()
    assert changes_nothing(shell, agent.ack(grant)) == ([grant.token], [])


def test_the_same_failure_again_is_recorded_while_the_task_waits(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    reported(shell, agent.nack(grant))
    assert changes_nothing(shell, agent.nack(grant)) == ([grant.token], [])


def test_reports_of_anything_but_the_lease_that_stands_are_stale(shell: Shell, agent: FakeAgent) -> None:
    """A wrong attempt, another token, another task's id, another agent, and what nobody knows."""
    grant, neighbour = lease(agent), lease(agent)
    other = FakeAgent(shell, "a2").join()
    wrong = [
        msgspec.structs.replace(grant, attempt=2),
        msgspec.structs.replace(grant, token=grant.token + 99),
        msgspec.structs.replace(grant, spec=neighbour.spec),
        msgspec.structs.replace(grant, spec=shell.spec()),
    ]
    for bad in wrong:
        assert changes_nothing(shell, agent.ack(bad)) == ([], [bad.token])
        assert changes_nothing(shell, agent.nack(bad)) == ([], [bad.token])
    assert changes_nothing(shell, other.ack(grant)) == ([], [grant.token])
    reported(shell, agent.ack(grant))
    shell.take_told(TasksEnded)
    assert changes_nothing(shell, other.ack(grant)) == ([], [grant.token])
    for bad in wrong:
        assert changes_nothing(shell, agent.ack(bad)) == ([], [bad.token])


def test_a_late_report_of_an_attempt_before_the_last_is_stale(shell: Shell, agent: FakeAgent) -> None:
    """The late acknowledgement of attempt 1 does not complete attempt 2."""
    first = lease(agent, Retry(3, base_ms=0))
    reported(shell, agent.nack(first))
    shell.jump_ms(1)
    [second] = agent.receive()
    assert (second.attempt, second.spec) == (2, first.spec)
    assert second.token > first.token
    assert changes_nothing(shell, agent.ack(first)) == ([], [first.token])
    reported(shell, agent.ack(second))
    shell.take_told(TasksEnded)
    assert changes_nothing(shell, agent.ack(first)) == ([], [first.token])


def test_good_and_stale_reports_may_stand_in_one_message(shell: Shell, agent: FakeAgent) -> None:
    good, done = lease(agent), lease(agent)
    reported(shell, agent.ack(done))
    bad = msgspec.structs.replace(good, token=5)
    answer = reported(shell, agent.ack(done, bad, good))
    assert (answer.recorded, answer.stale) == ([done.token, good.token], [5])


def test_a_lease_lost_while_records_were_read_asks_for_all_again(shell: Shell, agent: FakeAgent) -> None:
    """So that what was read for the first try is never missing at the third."""
    done, lost = lease(agent), lease(agent)
    reported(shell, agent.ack(done))
    agent.held = {}
    shell.ask(agent.ack(done, lost))
    shell.ask(agent.beat())
    [waiting] = shell.waiting
    shell.feed(waiting)
    [waiting] = shell.waiting
    assert [task_id for _, task_id in waiting.keys] == [done.spec.id, lost.spec.id]
    shell.settle()
    assert check_disk(shell.disk)[done.spec.id] == State.SUCCEEDED


# -- failure ---------------------------------------------------------------------------------


def test_a_failure_is_charged_and_tried_again_after_a_wait(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent, Retry(2, base_ms=700, jitter=0.0))
    reported(shell, agent.nack(grant))
    assert check_disk(shell.disk) == {grant.spec.id: State.SCHEDULED}
    state = state_of(shell, grant)
    assert (state.attempt, state.failures, state.failure, state.due_at_ms) == (1, 1, RAISED, shell.wall_ms + 700)
    shell.jump_ms(699)
    assert agent.receive() == []
    shell.jump_ms(1)
    [second] = agent.receive()
    assert (second.attempt, second.spec) == (2, grant.spec)
    assert shell.disk.get(records.LEASE, grant.spec.id, LeaseRecord).failure == RAISED


def test_the_last_failure_makes_it_dead(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent, Retry(2, base_ms=0))
    reported(shell, agent.nack(grant))
    shell.jump_ms(1)
    [second] = agent.receive()
    crash = Failure("worker.killed", "SIGKILL", "", "", -9)
    reported(shell, agent.nack(second, failure=crash))
    assert check_disk(shell.disk) == {grant.spec.id: State.DEAD}
    state = state_of(shell, grant)
    assert (state.attempt, state.failures, state.failure) == (2, 2, crash)
    [told] = shell.take_told(TasksEnded)
    assert told.ended == [Outcome(grant.spec.id, State.DEAD, 2, b"", crash)]


@pytest.mark.parametrize("outcome", ["released", "cancelled"])
def test_what_never_started_goes_back_to_its_place_uncharged(shell: Shell, agent: FakeAgent, outcome: str) -> None:
    first = lease(agent)
    shell.do(agent.drain())
    shell.submit(shell.spec(), shell.spec(priority=-1))
    reported(shell, agent.nack(first, outcome=outcome))
    state = state_of(shell, first)
    assert (state.state, state.attempt, state.failures, state.token) == (State.READY, 1, 0, 0)
    again = FakeAgent(shell, "a2").join(credit=3).receive()
    assert again[0].spec == first.spec
    assert again[0].attempt == 2
    assert changes_nothing(shell, agent.ack(first)) == ([], [first.token])


@pytest.mark.parametrize("report", [("exploded", None), ("failed", None), ("", RAISED)])
def test_an_outcome_without_sense_refuses_the_message(
    shell: Shell, agent: FakeAgent, report: tuple[str, Failure | None]
) -> None:
    grant = lease(agent)
    outcome, failure = report
    bad = FailureReport(grant.token, grant.spec.id, grant.attempt, outcome, failure)
    with pytest.raises(BadRequest):
        shell.do(NackAttempts("a1", [bad]))
    assert check_disk(shell.disk) == {grant.spec.id: State.RUNNING}


def test_texts_of_a_failure_are_bounded(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    size = FAILURE_TEXT_CHARS_MAX + 5
    long = Failure("c" * size, "m" * size, "t" * size, "x" * size + "its end", None)
    reported(shell, agent.nack(grant, failure=long))
    failure = state_of(shell, grant).failure
    assert failure is not None
    assert [len(failure.code), len(failure.message), len(failure.type), len(failure.traceback)] == [
        256,
        FAILURE_TEXT_CHARS_MAX,
        256,
        FAILURE_TEXT_CHARS_MAX,
    ]
    assert failure.traceback.endswith("its end")


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        (Retry(base_ms=1_000, factor=2.0, max_ms=5_000, jitter=0.0), [1_000, 2_000, 4_000, 5_000, 5_000]),
        (Retry(base_ms=100, factor=1.0, jitter=0.0), [100, 100, 100, 100, 100]),
        (Retry(base_ms=0, factor=1000.0), [0, 0, 0, 0, 0]),
    ],
)
def test_backoff_grows_to_its_limit(retry: Retry, waits: list[int]) -> None:
    assert [backoff_ms(retry, failures, 0.5) for failures in range(1, 6)] == waits


def test_backoff_is_moved_by_its_jitter_at_most() -> None:
    retry = Retry(base_ms=1_000, factor=2.0, jitter=0.25)
    assert [backoff_ms(retry, 1, chance) for chance in (0.0, 0.5, 1.0)] == [750, 1_000, 1_250]
    assert backoff_ms(Retry(jitter=1.0), 1, 0.0) == 0


def test_backoff_knows_no_number_too_large() -> None:
    assert backoff_ms(Retry(max_ms=9_000, jitter=0.0, factor=1000.0), MAX_ATTEMPTS_MAX, 0.5) == 9_000
    assert backoff_ms(Retry(base_ms=0, jitter=0.0, factor=1000.0), MAX_ATTEMPTS_MAX, 0.5) == 0


# -- output ----------------------------------------------------------------------------------


def logs_of(shell: Shell, grant: Grant) -> list[bytes]:
    logs = shell.disk.of(records.LOG, LogRecord)
    return [record.data for log, record in logs.items() if log.startswith(grant.spec.id)]


def test_output_is_kept_in_order_and_told(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    assert shell.do(agent.logs(grant, b"one\n", b"", b"two\n")) == LogsKept(8)
    shell.do(agent.logs(grant, b"three\n"))
    assert logs_of(shell, grant) == [b"one\n", b"two\n", b"three\n"]
    assert [told.ids for told in shell.take_told(LogsAppended)] == [[grant.spec.id]] * 2
    reported(shell, agent.ack(grant))
    assert (state_of(shell, grant).logs, state_of(shell, grant).log_bytes) == (3, 14 + 3 * LOG_ENTRY_BYTES)


def test_output_of_a_lease_that_does_not_stand_is_dropped(shell: Shell, agent: FakeAgent) -> None:
    grant, other = lease(agent), lease(agent)
    reported(shell, agent.ack(grant))
    assert shell.do(agent.logs(grant, b"late\n")) == LogsKept(5)
    assert shell.do(agent.logs(msgspec.structs.replace(other, spec=grant.spec), b"foreign\n")) == LogsKept(8)
    assert shell.do(FakeAgent(shell, "nobody").logs(other, b"x")) == LogsKept(1)
    assert shell.disk.scan(records.LOG) == []


def test_output_over_the_limit_is_cut_once_and_marked(
    shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskd.core.reports.LOG_BYTES_PER_ATTEMPT_MAX", 100 + 2 * LOG_ENTRY_BYTES)
    grant = lease(agent)
    for data in (b"a" * 60, b"b" * 40, b"c", b"d" * 90):
        shell.do(agent.logs(grant, data))
    assert logs_of(shell, grant) == [b"a" * 60, b"b" * 40, LOG_CUT]


def test_output_is_cut_within_a_piece(shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.reports.LOG_BYTES_PER_ATTEMPT_MAX", 70 + LOG_ENTRY_BYTES)
    grant = lease(agent)
    shell.do(agent.logs(grant, b"a" * 60, b"b" * 40, b"c"))
    assert logs_of(shell, grant) == [b"a" * 60, b"b" * 10 + LOG_CUT]


def test_each_attempt_may_print_as_much_also_after_a_restart(
    shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskd.core.reports.LOG_BYTES_PER_ATTEMPT_MAX", 50)
    grant = lease(agent, Retry(5, base_ms=0))
    shell.do(agent.logs(grant, b"1" * 60))
    reported(shell, agent.nack(grant))
    shell.jump_ms(1)
    [second] = agent.receive()
    agent.held = {second.token: second}
    shell.crash()
    agent.join()
    shell.do(agent.logs(second, b"2" * 40))
    assert logs_of(shell, grant) == [b"1" * 50 + LOG_CUT, b"2" * 40]
    attempts = [shell.disk.get(records.LOG, log_id(grant.spec.id, i), LogRecord).attempt for i in range(2)]
    assert attempts == [1, 2]


def test_a_piece_that_is_sent_again_is_kept_once_also_over_a_restart(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)

    def numbered(*numbers: int) -> AppendLogs:
        return AppendLogs(agent.name, [LogPiece(grant.token, grant.spec.id, 1, 5, b"%d" % n, n) for n in numbers])

    assert shell.do(numbered(1, 2)) == LogsKept(2)
    assert shell.do(numbered(1, 2, 3)) == LogsKept(3)
    agent.held = {grant.token: grant}
    shell.crash()
    agent.join()
    assert shell.do(numbered(2, 3, 4)) == LogsKept(3)
    assert logs_of(shell, grant) == [b"1", b"2", b"3", b"4"]
    reported(shell, agent.ack(grant))
    assert state_of(shell, grant).logs == 4


def test_pieces_are_numbered_anew_in_each_attempt(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent, Retry(5, base_ms=0))
    shell.do(AppendLogs(agent.name, [LogPiece(grant.token, grant.spec.id, 1, 5, b"one", 1)]))
    reported(shell, agent.nack(grant))
    shell.jump_ms(1)
    [second] = agent.receive()
    shell.do(AppendLogs(agent.name, [LogPiece(second.token, grant.spec.id, 1, 5, b"two", 1)]))
    assert logs_of(shell, grant) == [b"one", b"two"]


@pytest.mark.parametrize(("stream", "size"), [(0, 1), (8, 1), (1, 64 * 1024 + 1)])
def test_a_piece_out_of_range_refuses_the_message(shell: Shell, agent: FakeAgent, stream: int, size: int) -> None:
    grant = lease(agent)
    good = agent.logs(grant, b"good", bytes(size))
    bad = msgspec.structs.replace(good.pieces[1], stream=stream)
    with pytest.raises(BadRequest):
        shell.do(type(good)("a1", [good.pieces[0], bad]))
    assert shell.disk.scan(records.LOG) == []


# -- life ------------------------------------------------------------------------------------


def test_any_report_is_life(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(agent)
    for command in (
        agent.logs(grant, b"x"),
        AckAttempts("a1", [Report(5, grant.spec.id, 1, b"")]),
        agent.nack(msgspec.structs.replace(grant, token=5)),
    ):
        shell.pass_ms(shell.settings.silence_ms - 1_000)
        shell.do(command)
    assert "a1" in shell.working.agents


def test_what_a_worker_lost_is_lost_as_with_its_agent(shell: Shell) -> None:
    """The first time at no charge, marked from then on; with the start marked it is a crash."""
    agent = FakeAgent(shell).join(credit=9)
    shell.submit(shell.spec(retry=Retry(9, base_ms=0)))
    [first] = agent.receive()
    shell.do(agent.nack(first, outcome="lost"))
    [second] = agent.receive()
    assert (second.attempt, second.mark_start) == (2, True)
    shell.do(agent.start(second))
    shell.do(agent.nack(second, outcome="lost"))
    state = shell.disk.get(records.STATE, first.spec.id, StateRecord)
    assert state.past is not None
    assert (state.failures, state.past.losses, state.past.crashes) == (0, 1, 1)
    assert shell.do(agent.nack(second, outcome="lost")) == ([], [second.token])
    check_disk(shell.disk)
