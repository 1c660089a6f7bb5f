"""Unique: one task at a time of the same work, for as long as its submit asked."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import lapses, records
from taskd.core.commands import CancelTasks, RetryStates, RetryTasks, StartJob, SubmitTasks
from taskd.core.lifecycle import State
from taskd.core.working import Settings
from taskd_protocol.errors import BadRequest, SubmitTooOld, UniqueHeld
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.task import Retry, TaskSpec, Unique

QUEUED, RUNNING = Unique("queued"), Unique("running")
OTHER = b"\x91\x01"


def submit(shell: Shell, unique: Unique, *, delay_ms: int = 0, ttl_ms: int = 0, priority: int = 0) -> bytes:
    """Submit a task; return the id of the one that stands for it."""
    retry = Retry(2, base_ms=0)
    spec = shell.spec(unique=unique, retry=retry, delay_ms=delay_ms, ttl_ms=ttl_ms, priority=priority)
    existing = dict(shell.submit(spec).existing)
    check_disk(shell.disk)
    return existing.get(0, spec.id)


def is_new(shell: Shell, unique: Unique) -> bool:
    """Tell whether a submit makes a task of its own."""
    shell.wall_ms += 1
    before = len(shell.disk.scan(records.SPEC))
    submit(shell, unique)
    return len(shell.disk.scan(records.SPEC)) > before


@pytest.mark.parametrize("unique", [QUEUED, RUNNING, Unique("window", 60_000)])
@pytest.mark.parametrize("delay_ms", [0, 5_000])
def test_a_second_submit_finds_the_task_that_waits(shell: Shell, unique: Unique, delay_ms: int) -> None:
    """In one submit and across, in line and before its time, over restarts."""
    first = submit(shell, unique, delay_ms=delay_ms)
    assert submit(shell, unique, priority=5) == first
    shell.crash()
    assert submit(shell, unique) == first
    twins = [shell.spec(payload=OTHER, unique=unique) for _ in range(2)]
    assert shell.submit(*twins).existing == [(1, twins[0].id)]
    assert shell.submit(*twins).existing == [(0, twins[0].id), (1, twins[0].id)], "sent again it comes to the same"


def test_work_is_told_apart_by_name_arguments_key_and_mode(shell: Shell) -> None:
    specs = [
        shell.spec(unique=QUEUED),
        shell.spec(unique=QUEUED, payload=OTHER),
        shell.spec("m.g", unique=QUEUED),
        shell.spec(unique=RUNNING),
        shell.spec(unique=Unique("queued", key="k")),
        shell.spec("m.g", unique=Unique("queued", key="k")),
        shell.spec(),
        shell.spec(),
    ]
    assert shell.submit(*specs).existing == []
    same_key = shell.spec(unique=Unique("queued", key="k"), payload=OTHER)
    assert shell.submit(same_key).existing == [(0, specs[4].id)], "a key stands for the arguments"
    check_disk(shell.disk)


def test_queued_ends_with_the_first_lease(shell: Shell) -> None:
    """What goes back to line then takes nothing from the one that was submitted since."""
    agent = FakeAgent(shell).join(credit=1)
    first = submit(shell, QUEUED)
    [grant] = agent.receive()
    second = submit(shell, QUEUED)
    assert second != first
    shell.do(agent.nack(grant, outcome="released"))
    assert check_disk(shell.disk) == {first: State.READY, second: State.READY}
    assert submit(shell, QUEUED) == second
    shell.do(agent.credit(1))
    [grant] = agent.receive()
    assert grant.spec.id == first, "leased again, it ends no other's claim"
    assert submit(shell, QUEUED) == second
    shell.do(agent.nack(grant, outcome="released"))
    shell.do(CancelTasks([first]))
    assert submit(shell, QUEUED) == second
    shell.do(CancelTasks([second]))
    assert is_new(shell, QUEUED)


def test_running_ends_with_the_task(shell: Shell) -> None:
    """Attempts that fail, agents that are lost and restarts in between end nothing."""
    first = submit(shell, RUNNING)
    agent = FakeAgent(shell).join(credit=1)
    shell.do(agent.nack(*agent.receive()))
    assert submit(shell, RUNNING) == first
    shell.crash()
    agent = FakeAgent(shell).join(credit=1)
    assert submit(shell, RUNNING) == first
    shell.do(agent.lose())
    shell.pass_ms(60_000)
    assert check_disk(shell.disk) == {first: State.READY}
    assert submit(shell, RUNNING) == first
    agent = FakeAgent(shell, "a2").join(credit=1)
    [grant] = agent.receive()
    shell.do(CancelTasks([first]))
    assert submit(shell, RUNNING) == first, "its work is not known to be gone"
    shell.do(agent.nack(grant, outcome="cancelled"))
    assert is_new(shell, RUNNING)


@pytest.mark.parametrize("unique", [QUEUED, RUNNING])
def test_an_end_in_line_frees_the_claim(shell: Shell, unique: Unique) -> None:
    submit(shell, unique, ttl_ms=1_000)
    shell.pass_ms(2_000)
    assert is_new(shell, unique)


def test_a_success_frees_the_claim(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=1)
    submit(shell, RUNNING)
    shell.do(agent.ack(*agent.receive()))
    assert is_new(shell, RUNNING)


def test_a_window_counts_from_the_submit_whatever_becomes_of_the_task() -> None:
    shell = Shell(settings=Settings(retention_bytes=1))
    window = Unique("window", 90_000, replace=True)
    agent = FakeAgent(shell).join(credit=1)
    first = submit(shell, window)
    shell.do(agent.ack(*agent.receive()))
    shell.pass_ms(30_000)
    assert not check_disk(shell.disk)
    assert submit(shell, window) == first, "what has ended is not replaced"
    shell.crash(kept=shell.staged_count)
    shell.wall_ms += 58_999
    assert submit(shell, window) == first
    shell.wall_ms += 1
    assert is_new(shell, window)
    shell.wall_ms += 90_000
    shell.pass_ms(lapses.CHECK_MS)
    assert not shell.disk.scan(records.UNIQUE)
    assert not shell.disk.scan(records.LAPSE)


@pytest.mark.parametrize("mode", ["queued", "running", "window"])
@pytest.mark.parametrize("is_cold", [False, True])
def test_replace_cancels_the_one_that_waits(mode: str, is_cold: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a parameter
    """Also one that is on disk only; a resend of either finds what it was."""
    if is_cold:
        monkeypatch.setattr("taskd.core.lines.WINDOW_TASKS_MAX", 1)
        monkeypatch.setattr("taskd.core.lines.WINDOW_LOW", 0)
    shell = Shell()
    shell.submit(shell.spec())
    unique = Unique(mode, 60_000 if mode == "window" else 0, replace=True)
    old, new = shell.spec(unique=unique), shell.spec(unique=unique, priority=-3)
    shell.submit(old)
    assert (old.id in shell.working.tasks) != is_cold
    assert shell.submit(new).existing == []
    states = check_disk(shell.disk)
    assert (states[old.id], states[new.id]) == (State.CANCELLED, State.READY)
    assert shell.submit(old).existing == [(0, old.id)]
    assert shell.submit(new).existing == [(0, new.id)]
    assert submit(shell, msgspec.structs.replace(unique, replace=False)) == new.id


@pytest.mark.parametrize("unique", [Unique("running", replace=True), Unique("window", 60_000, replace=True)])
def test_one_that_runs_is_not_replaced(shell: Shell, unique: Unique) -> None:
    """The new one is kept out, until the first has ended or its time has passed."""
    agent = FakeAgent(shell).join(credit=1)
    first = submit(shell, unique)
    [grant] = agent.receive()
    assert submit(shell, unique) == first
    assert check_disk(shell.disk) == {grant.spec.id: State.RUNNING}


def dead(shell: Shell, unique: Unique) -> TaskSpec:
    """Have a task die."""
    spec = shell.spec(unique=unique, retry=Retry(1))
    shell.submit(spec)
    agent = FakeAgent(shell, "killer").join(credit=1)
    shell.do(agent.nack(*agent.receive()))
    shell.do(agent.lose())
    return spec


@pytest.mark.parametrize("unique", [QUEUED, RUNNING])
def test_a_dead_task_is_retried_unless_another_does_its_work(shell: Shell, unique: Unique) -> None:
    """Retried, it has its claim again; refused, nothing has changed, and the other one is named."""
    first, second = dead(shell, unique), dead(shell, unique)
    waits = submit(shell, unique)
    before = dict(shell.disk.values)
    with pytest.raises(UniqueHeld, match="which task") as caught:
        shell.do(RetryTasks([first.id]))
    assert caught.value.code == "unique.held"
    shell.settle()
    assert shell.disk.values == before
    shell.do(CancelTasks([waits]))
    with pytest.raises(UniqueHeld):
        shell.do(RetryTasks([first.id, second.id]))
    assert shell.do(RetryTasks([first.id, first.id])) == RetryStates(["ready", "ready"])
    assert submit(shell, unique) == first.id
    agent = FakeAgent(shell).join(credit=1)
    agent.receive()
    assert is_new(shell, unique) == (unique is QUEUED)


def test_a_bulk_retry_passes_over_those_whose_work_another_does(shell: Shell) -> None:
    first, second = dead(shell, RUNNING), dead(shell, RUNNING)
    shell.do(StartJob("client", shell.new_id(), "retry", TaskFilter(state="dead")))
    assert sorted(check_disk(shell.disk).values()) == [State.DEAD, State.READY]
    assert check_disk(shell.disk).keys() == {first.id, second.id}
    [job] = shell.working.jobs.values()
    assert (job.looked_at, job.changed) == (2, 1)


def test_a_window_does_not_bind_a_retry(shell: Shell) -> None:
    first = dead(shell, Unique("window", 60_000))
    assert shell.do(RetryTasks([first.id])) == RetryStates(["ready"])
    assert submit(shell, Unique("window", 60_000)) == first.id


def test_an_id_that_was_purged_is_too_old_though_another_does_its_work() -> None:
    """It may have run: to name another task would hide that."""
    shell = Shell(settings=Settings(retention_bytes=1))
    spec = shell.spec(unique=RUNNING)
    shell.submit(spec)
    agent = FakeAgent(shell).join(credit=1)
    shell.do(agent.ack(*agent.receive()))
    shell.pass_ms(20_000)
    submit(shell, RUNNING)
    with pytest.raises(SubmitTooOld):
        shell.do(SubmitTasks("client", [spec]))


@pytest.mark.parametrize(
    ("unique", "told"),
    [
        (Unique("always"), "use queued, running or a time"),
        (Unique("window"), "out of range"),
        (Unique("queued", 5), "only the mode window has a time"),
        (Unique("running", key="\n"), "unique_key"),
    ],
)
def test_nonsense_is_refused(shell: Shell, unique: Unique, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        shell.do(SubmitTasks("client", [shell.spec(unique=unique)]))
    with pytest.raises(BadRequest, match="key and unique exclude each other"):
        shell.do(SubmitTasks("client", [shell.spec(unique=QUEUED, key="k")]))
