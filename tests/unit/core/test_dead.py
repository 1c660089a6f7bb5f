"""Dead letters: listed by what they died of, and given another chance."""

from collections.abc import Sequence

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import CancelTasks, RetryStates, RetryTasks
from taskd.core.dead import OTHERS
from taskd.core.effects import TasksEnded
from taskd.core.lifecycle import State
from taskd.core.records import DeadGroupRecord, FinishedRecord, SpecRecord, StateRecord
from taskd.core.retention import CHECK_MS
from taskd.core.working import Settings
from taskd_protocol.task import Failure, Grant, Retry, TaskSpec

ONCE = Retry(1)


def bad(message: str = "no row 1") -> Failure:
    return Failure("task.raised", message, "app.Bad", '  File "/srv/app.py", line 3, in f\n')


def die(shell: Shell, agent: FakeAgent, *messages: str) -> list[Grant]:
    """Have tasks die, one of each message."""
    shell.submit(*[shell.spec(retry=ONCE) for _ in messages])
    grants = agent.receive()
    for grant, message in zip(grants, messages, strict=True):
        shell.do(agent.nack(grant, failure=bad(message)))
    check_disk(shell.disk)
    return grants


def retry(shell: Shell, *ids: bytes) -> list[str]:
    answer = shell.do(RetryTasks(ids))
    assert isinstance(answer, RetryStates)
    check_disk(shell.disk)
    return answer.states


def groups(shell: Shell) -> list[DeadGroupRecord]:
    on_disk = shell.disk.of(records.DEAD_GROUP, DeadGroupRecord)
    assert on_disk == dict(sorted(shell.working.dead_groups.items()))
    return list(on_disk.values())


def state(shell: Shell, task_id: bytes) -> StateRecord:
    return shell.disk.get(records.STATE, task_id, StateRecord)


def orders(shell: Shell, ids: Sequence[bytes]) -> list[int]:
    return [shell.disk.get(records.SPEC, task_id, SpecRecord).order for task_id in ids]


def test_tasks_that_died_of_the_same_are_one_group(shell: Shell) -> None:
    """The group tells type, place, the first message, how many, and when."""
    agent = FakeAgent(shell).join(credit=9)
    die(shell, agent, "no row 1")
    first_at_ms = shell.wall_ms
    shell.pass_ms(1_000)
    die(shell, agent, "no row 2", "no column")
    by_count = sorted(groups(shell), key=lambda group: -group.count)
    assert by_count[0] == DeadGroupRecord("app.Bad", "app.py:f", "no row 1", 2, first_at_ms, first_at_ms + 1_000)
    assert by_count[1].message == "no column"
    shell.crash()
    assert sorted(group.count for group in groups(shell)) == [1, 2]


def test_failures_of_too_many_kinds_share_one_group(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory stays bounded, whatever tasks die of."""
    monkeypatch.setattr("taskd.core.dead.GROUPS_MAX", 2)
    die(shell, FakeAgent(shell).join(credit=9), "a", "b", "c", "d", "a")
    assert sorted(group.count for group in groups(shell)) == [1, 2, 2]
    assert shell.working.dead_groups[OTHERS].count == 2


def test_a_retried_task_goes_to_its_own_place_with_a_new_budget(shell: Shell) -> None:
    """It runs before what was submitted after it; attempts are numbered on, failures begin anew, its error is kept."""
    agent = FakeAgent(shell).join(credit=1)
    [grant] = die(shell, agent, "no row 1")
    later = shell.spec()
    shell.submit(later)
    assert retry(shell, grant.spec.id) == ["ready"]
    assert groups(shell) == []
    ready = state(shell, grant.spec.id)
    assert (ready.state, ready.attempt, ready.failures, ready.finished_at_ms) == ("ready", 1, 0, 0)
    assert ready.failure == bad()
    shell.do(agent.credit(1))
    [again] = agent.receive()
    assert (again.spec.id, again.attempt) == (grant.spec.id, 2)
    assert again.token > grant.token
    shell.do(agent.ack(again))
    assert state(shell, grant.spec.id).state == "succeeded"
    assert orders(shell, [grant.spec.id]) < orders(shell, [later.id])


def test_a_task_that_was_cancelled_is_retried_and_others_are_left_alone(shell: Shell) -> None:
    """The answer tells each task's state: only what ended without success goes back."""
    agent = FakeAgent(shell).join(credit=2)
    shell.submit(shell.spec(), shell.spec())
    done, running = agent.receive()
    shell.do(agent.ack(done))
    waits, cancelled = shell.spec(), shell.spec(delay_ms=1_000)
    shell.submit(waits, cancelled)
    shell.do(CancelTasks([cancelled.id]))
    ids = [done.spec.id, running.spec.id, waits.id, cancelled.id, bytes(16), cancelled.id]
    assert retry(shell, *ids) == ["succeeded", "running", "ready", "ready", "unknown", "ready"]
    assert retry(shell, cancelled.id) == ["ready"]
    assert shell.working.counters.ended[State.CANCELLED] == 0


def test_a_report_of_the_attempt_before_is_still_known_for_recorded(shell: Shell) -> None:
    """An agent whose report was recorded and not answered hears so, and changes nothing, after a retry too."""
    agent = FakeAgent(shell).join(credit=1)
    [grant] = die(shell, agent, "no row 1")
    retry(shell, grant.spec.id)
    before = dict(shell.disk.values)
    shell.do(agent.nack(grant, failure=bad()))
    assert shell.disk.values == before


def test_retention_passes_over_a_task_that_was_retried() -> None:
    """The entry of its first end takes nothing away; the entry of its second does."""
    shell = Shell(settings=Settings(retention_age_ms=60_000))
    [grant] = die(shell, FakeAgent(shell).join(credit=1), "no row 1")
    shell.pass_ms(50_000)
    retry(shell, grant.spec.id)
    agent = FakeAgent(shell).join(credit=1)
    [again] = agent.receive()
    shell.do(agent.ack(again))
    assert len(shell.disk.of(records.FINISHED, FinishedRecord)) == 2
    shell.pass_ms(10_000 + 2 * CHECK_MS)
    assert check_disk(shell.disk) == {grant.spec.id: State.SUCCEEDED}
    assert len(shell.disk.of(records.FINISHED, FinishedRecord)) == 1
    shell.pass_ms(40_000 + CHECK_MS)
    assert check_disk(shell.disk) == {}
    assert shell.working.counters.finished_bytes == 0


def test_a_wall_clock_that_steps_back_takes_no_retried_task_away() -> None:
    """Which entry is a task's is told by their order, not by the clock."""
    shell = Shell(settings=Settings(retention_age_ms=60_000))
    agent = FakeAgent(shell).join(credit=1)
    [grant] = die(shell, agent, "no row 1")
    shell.pass_ms(1_000)
    shell.wall_ms -= 30_000
    retry(shell, grant.spec.id)
    shell.do(CancelTasks([grant.spec.id]))
    check_disk(shell.disk)
    shell.pass_ms(100_000)
    assert check_disk(shell.disk) == {}


def test_an_end_that_is_undone_in_the_same_turn_was_never_there(shell: Shell) -> None:
    """Cancelled, retried and cancelled again before the turn ends: told once, weighed once."""
    spec: TaskSpec = shell.spec()
    shell.submit(spec)
    shell.take_told(TasksEnded)
    for command in (CancelTasks([spec.id]), RetryTasks([spec.id]), CancelTasks([spec.id])):
        keys = [(records.SPEC, spec.id), (records.STATE, spec.id)]
        shell.coordinator.apply(command, shell.now, shell.load(keys))
    shell.settle()
    [told] = shell.take_told(TasksEnded)
    assert [end.id for end in told.ended] == [spec.id]
    assert check_disk(shell.disk) == {spec.id: State.CANCELLED}


def test_retention_takes_a_dead_task_off_its_list() -> None:
    """When the last of a group goes, so does the group."""
    shell = Shell(settings=Settings(retention_age_ms=60_000))
    die(shell, FakeAgent(shell).join(credit=2), "no row 1", "no row 2")
    shell.pass_ms(60_000 + 2 * CHECK_MS)
    assert check_disk(shell.disk) == {}
    assert groups(shell) == []
