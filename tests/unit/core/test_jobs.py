"""Bulk jobs: one action on all tasks that fit, a bounded piece a turn, over restarts."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import JobStarted, RetryTasks, StartJob, StepJob
from taskd.core.effects import JobsMoved, SendRevoke
from taskd.core.lapses import CHECK_MS, key_of_id
from taskd.core.lifecycle import State
from taskd.core.records import JobRecord
from taskd_protocol.errors import BadRequest, JobLimit, SubmitConflict, SubmitTooOld
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.resources import LabelRule, Where
from taskd_protocol.task import Failure, Retry, TaskSpec

ALL = TaskFilter()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.jobs.STEP_TASKS", 3)


def start(shell: Shell, action: str, wanted: TaskFilter = ALL) -> bytes:
    job_id = shell.new_id()
    assert shell.do(StartJob("client", job_id, action, wanted)) == JobStarted(job_id)
    return job_id


def job(shell: Shell, job_id: bytes) -> JobRecord:
    found = shell.disk.get(records.JOB, job_id, JobRecord)
    assert found == shell.working.jobs[job_id]
    check_disk(shell.disk)
    return found


def states(shell: Shell) -> list[str]:
    return [str(state) for state in check_disk(shell.disk).values()]


def dead(shell: Shell, count: int, message: str = "no row") -> list[TaskSpec]:
    """Have tasks die."""
    agent = FakeAgent(shell, "killer").join(credit=count)
    shell.submit(*[shell.spec(retry=Retry(1)) for _ in range(count)])
    grants = agent.receive()
    shell.do(agent.nack(*grants, failure=Failure("task.raised", message, "app.Bad")))
    shell.do(agent.lose())
    return [grant.spec for grant in grants]


def test_a_cancel_ends_all_that_fits_and_has_not_ended(shell: Shell) -> None:
    """What waits at once, what runs through its agent; what has ended, or does not fit, is left alone."""
    agent = FakeAgent(shell).join(credit=2)
    shell.submit(shell.spec(), shell.spec())
    done, _ = agent.receive()
    shell.do(agent.ack(done))
    shell.submit(*[shell.spec() for _ in range(5)], shell.spec(delay_ms=9_000), shell.spec(queue="other"))
    job_id = start(shell, "cancel", TaskFilter(queue="default"))
    found = job(shell, job_id)
    assert (found.looked_at, found.changed, found.finished_at_ms) == (9, 7, shell.wall_ms)
    assert sorted(states(shell)) == [*["cancelled"] * 6, "cancelling", "ready", "succeeded"]
    assert len(shell.take_told(SendRevoke)) == 1
    assert len(shell.take_told(JobsMoved)) == 4


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (ALL, 7),
        (TaskFilter(state="dead"), 7),
        (TaskFilter(state="cancelled"), 0),
        (TaskFilter(name="m.?"), 7),
        (TaskFilter(name="M.*"), 0),
        (TaskFilter(error="COLUMN"), 2),
        (TaskFilter(error="app.bad"), 7),
        (TaskFilter(error="task.raised", queue="other"), 0),
        (TaskFilter(since_ms=1), 7),
        (TaskFilter(since_ms=1 << 47), 0),
        (TaskFilter(before_ms=1 << 47), 7),
        (TaskFilter(before_ms=1), 0),
        (TaskFilter(priority_max=-1), 0),
        (TaskFilter(priority_min=0, priority_max=0), 7),
        (TaskFilter(agent="killer"), 7),
        (TaskFilter(agent="other"), 0),
        (TaskFilter(key="order-1"), 0),
    ],
)
def test_a_retry_is_for_those_that_fit(shell: Shell, wanted: TaskFilter, count: int) -> None:
    """By state, queue, name, error and the instant of the submit."""
    dead(shell, 5)
    dead(shell, 2, "no column")
    assert job(shell, start(shell, "retry", wanted)).changed == count
    assert states(shell).count("ready") == count


@pytest.mark.parametrize(
    ("label", "count"), [("zone", 3), ("zone=a", 2), ("zone=b", 1), ("zone=c", 0), ("disk", 1), ("disk=x", 0), ("n", 0)]
)
def test_tasks_that_ask_for_a_label_are_found(shell: Shell, label: str, count: int) -> None:
    """By its name, or by a value that would do."""
    rules: tuple[list[LabelRule], ...] = (
        [LabelRule("zone", "=", ["a"])],
        [LabelRule("zone", "in", ["a", "b"])],
        [LabelRule("disk", "exists"), LabelRule("n", "absent"), LabelRule("zone", "!=", ["a"])],
        [],
    )
    shell.submit(*[shell.spec(where=Where(labels=labels)) for labels in rules])
    shell.submit(shell.spec())
    assert job(shell, start(shell, "cancel", TaskFilter(label=label))).changed == count


def test_a_group_is_retried_without_a_look_at_other_tasks(shell: Shell) -> None:
    """And what dies of the same again meanwhile is not met twice."""
    dead(shell, 4)
    dead(shell, 2, "no column")
    [fingerprint] = [i for i, group in shell.working.dead_groups.items() if group.count == 4]
    found = job(shell, start(shell, "retry", TaskFilter(group=fingerprint)))
    assert (found.looked_at, found.changed) == (4, 4)
    assert sorted(states(shell)) == ["dead"] * 2 + ["ready"] * 4
    shell.pass_ms(1_000)
    agent = FakeAgent(shell).join(credit=4)
    grants = agent.receive()
    shell.do(StartJob("client", shell.new_id(), "retry", TaskFilter(group=fingerprint)))
    shell.pass_ms(1_000)
    shell.do(agent.nack(*grants, failure=Failure("task.raised", "no row", "app.Bad")))
    assert states(shell).count("dead") == 6


def test_named_tasks_are_purged_with_all_that_was_kept_of_them(shell: Shell) -> None:
    """Only what is dead; a name that is not stored, or stands twice, counts for nothing."""
    agent = FakeAgent(shell).join(credit=2)
    shell.submit(shell.spec(retry=Retry(1), key="k"), shell.spec())
    dies, runs = agent.receive()
    shell.do(agent.logs(dies, *[b"line\n"] * 5))
    shell.do(agent.nack(dies))
    found = job(shell, start(shell, "purge", TaskFilter(ids=[dies.spec.id, runs.spec.id, bytes(16), dies.spec.id])))
    assert found.changed == 1
    assert check_disk(shell.disk) == {runs.spec.id: State.RUNNING}
    assert not shell.disk.scan(records.LOG)
    assert shell.disk.scan(records.KEY) == [b"k", key_of_id(dies.spec.id)], "keys are kept for their own time"
    assert not shell.working.dead_groups
    assert shell.working.counters.finished_bytes == 0, "what is gone makes nothing go early"


@pytest.mark.parametrize("ms", [0, CHECK_MS + 1_000])
def test_a_task_that_a_person_has_taken_away_never_runs_again(shell: Shell, ms: int) -> None:
    """Even if the wall clock is set forward past the time for which its id is kept: it is refused then."""
    agent = FakeAgent(shell).join(credit=1)
    dies = shell.spec(retry=Retry(1))
    shell.submit(dies)
    shell.do(agent.nack(*agent.receive()))
    job(shell, start(shell, "purge", TaskFilter(ids=[dies.id])))
    shell.wall_ms += shell.settings.key_retention_ms
    shell.pass_ms(ms)
    assert bool(ms) == (not shell.disk.scan(records.KEY))
    for _ in range(2):
        with pytest.raises(SubmitTooOld):
            shell.submit(dies)
        shell.crash()
        shell.settle()
    assert shell.submit(shell.spec()).existing == []


@pytest.mark.parametrize("restarts", [False, True])
def test_a_purge_of_what_died_just_now_makes_no_other_submit_too_old(shell: Shell, restarts: bool) -> None:  # noqa: FBT001 - a parameter
    """And the same submit again is no new work, as long as a client may send it; other work of its id is a conflict."""
    before = shell.spec()
    shell.pass_ms(10)
    agent = FakeAgent(shell).join(credit=1)
    dies = shell.spec(retry=Retry(1))
    shell.submit(dies)
    shell.do(agent.nack(*agent.receive()))
    job(shell, start(shell, "purge", TaskFilter(ids=[dies.id])))
    if restarts:
        shell.crash()
        shell.settle()
    assert shell.submit(before).existing == []
    assert shell.submit(dies).existing == [(0, dies.id)]
    assert check_disk(shell.disk) == {before.id: State.READY}
    with pytest.raises(SubmitConflict):
        shell.submit(msgspec.structs.replace(dies, payload=b"\x91\x01"))


def test_a_purge_or_retry_by_hand_is_taken_off_the_weight_at_once(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=9)
    shell.submit(*[shell.spec(retry=Retry(1)) for _ in range(3)])
    grants = agent.receive()
    shell.do(agent.nack(*grants))
    each = shell.working.counters.finished_bytes // 3
    assert each > 0
    shell.do(RetryTasks([grants[0].spec.id]))
    assert shell.working.counters.finished_bytes == 2 * each
    job(shell, start(shell, "purge"))
    assert shell.working.counters.finished_bytes == 0
    check_disk(shell.disk)


def test_a_purge_of_much_output_takes_several_steps(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step deletes a bounded number of records; the job meets the task again until it is gone."""
    monkeypatch.setattr("taskd.core.retention.RECORDS_MAX", 4)
    agent = FakeAgent(shell).join(credit=3)
    shell.submit(*[shell.spec(retry=Retry(1)) for _ in range(3)])
    for grant in agent.receive():
        shell.do(agent.logs(grant, *[b"line\n"] * 9))
        shell.do(agent.nack(grant))
    found = job(shell, start(shell, "purge"))
    assert (found.looked_at, found.changed) == (3, 3)
    assert check_disk(shell.disk) == {}
    assert len(shell.take_told(JobsMoved)) > 5


def test_a_job_goes_on_after_a_crash_where_it_was(shell: Shell) -> None:
    """Its cursor commits with what it changed: each task is counted once."""
    shell.submit(*[shell.spec() for _ in range(10)])
    job_id = shell.new_id()
    shell.ask(StartJob("client", job_id, "cancel", ALL))
    shell.turn()
    shell.flush()
    for crash_after in (1, 2):
        for _ in range(crash_after):
            for read in list(shell.reads):
                while read in shell.reads:
                    shell.step(read)
            for waiting in list(shell.waiting):
                shell.feed(waiting)
            shell.turn()
            shell.flush()
        shell.crash()
    shell.settle()
    found = job(shell, job_id)
    assert (found.looked_at, found.changed) == (10, 10)
    assert set(states(shell)) == {"cancelled"}


def test_tasks_submitted_after_a_job_began_are_not_met(shell: Shell) -> None:
    """It ends, however fast new ones come."""
    shell.submit(*[shell.spec() for _ in range(4)])
    job_id = shell.new_id()
    shell.ask(StartJob("client", job_id, "cancel", ALL))
    shell.turn()
    shell.mono_ms += 1
    shell.wall_ms += 1
    late = shell.spec()
    shell.submit(late)
    assert job(shell, job_id).changed == 4
    assert check_disk(shell.disk)[late.id] == State.READY


def test_a_step_that_was_taken_already_is_void(shell: Shell) -> None:
    """As is one of a job that is not known."""
    [spec] = dead(shell, 1)
    job_id = start(shell, "cancel")
    before = dict(shell.disk.values)
    for known in (job_id, shell.new_id()):
        step = StepJob(job=known, after=b"", found=[(spec.id, spec.id)], looked_at=1, cursor=spec.id, last=False)
        shell.do(step)
    assert shell.disk.values == before


def test_the_same_start_finds_its_job_and_another_is_refused(shell: Shell) -> None:
    """A client that did not hear the answer sends it again."""
    job_id = start(shell, "cancel")
    assert shell.do(StartJob("client", job_id, "cancel", ALL)) == JobStarted(job_id)
    for action, id_, wanted in [("retry", job_id, ALL), ("fly", shell.new_id(), ALL), ("retry", b"short", ALL)]:
        with pytest.raises(BadRequest):
            shell.do(StartJob("client", id_, action, wanted))
    assert len(shell.working.jobs) == 1


def test_few_jobs_run_at_once_and_few_that_ended_are_kept(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused with what to do; the oldest that has ended is forgotten."""
    monkeypatch.setattr("taskd.core.jobs.RUNNING_MAX", 2)
    monkeypatch.setattr("taskd.core.jobs.KEPT", 2)
    ids = [shell.new_id() for _ in range(3)]
    for job_id in ids[:2]:
        shell.ask(StartJob("client", job_id, "cancel", ALL))
    with pytest.raises(JobLimit, match="when one of them has ended"):
        shell.ask(StartJob("client", ids[2], "cancel", ALL))
    shell.settle()
    for _ in range(3):
        shell.pass_ms(1)
        newest = start(shell, "cancel")
    assert len(shell.working.jobs) == 3
    assert newest in shell.working.jobs
    assert ids[0] not in shell.working.jobs
    assert shell.disk.scan(records.JOB) == sorted(shell.working.jobs)
