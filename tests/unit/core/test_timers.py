"""Timers: nothing before its time, nothing forgotten, and not all of them in memory."""

import random

import pytest

from harness.agent import FakeAgent
from harness.core import TICK_MS, Shell
from harness.fsck import check_beside, check_disk
from harness.specs import changed
from taskd.core import records
from taskd.core.commands import CancelTasks, SubmitTasks
from taskd.core.lifecycle import State
from taskd.core.records import StateRecord
from taskd.core.timers import DUE_TASKS, HORIZON_MS, REFILL_MS


def ready(shell: Shell) -> list[bytes]:
    return [task_id for task_id, state in check_disk(shell.disk).items() if state == State.READY]


def test_a_delayed_task_is_ready_when_its_time_has_come(shell: Shell) -> None:
    spec = shell.spec(delay_ms=2_000)
    shell.submit(spec)
    assert shell.disk.get(records.STATE, spec.id, StateRecord).due_at_ms == shell.wall_ms + 2_000
    shell.pass_ms(1_999)
    assert ready(shell) == []
    shell.pass_ms(1)
    assert ready(shell) == [spec.id]
    assert not shell.disk.scan(records.TIMER)
    [grant] = FakeAgent(shell).join(credit=1).receive()
    assert (grant.spec, grant.attempt) == (spec, 1)


def test_a_delayed_task_is_placed_as_if_it_came_when_it_is_due(shell: Shell) -> None:
    """And not as if it had waited for its turn all the while."""
    delayed, before = shell.spec(delay_ms=600), shell.spec()
    shell.submit(delayed, before)
    shell.pass_ms(599)
    early, late = shell.spec(), shell.spec()
    shell.submit(early)
    shell.pass_ms(2)
    shell.submit(late)
    grants = FakeAgent(shell).join(credit=4).receive()
    assert [grant.spec for grant in grants] == [before, early, delayed, late]


def test_a_delay_to_an_instant_is_no_longer_for_a_submit_that_comes_late(shell: Shell) -> None:
    """As when it is sent again after an outage; in line it stands where it would have stood."""
    due_ms = shell.wall_ms + 2_000
    soon, late, future = (changed(shell.spec(delay_ms=2_000), due_ms=due_ms + more) for more in (0, 0, 60_000))
    shell.pass_ms(1_500)
    shell.submit(soon, future)
    assert shell.disk.get(records.STATE, soon.id, StateRecord).due_at_ms == due_ms
    assert shell.disk.get(records.STATE, future.id, StateRecord).due_at_ms == shell.wall_ms + 2_000
    before = shell.spec()
    shell.pass_ms(500)
    shell.submit(before)
    shell.pass_ms(1)
    shell.submit(late, shell.spec("m.other"))
    assert (records.STATE, late.id) not in shell.disk.values, "its time is past: it is ready"
    assert [state.due_at_ms for state in shell.disk.of(records.STATE, StateRecord).values() if state.due_at_ms] == [
        shell.wall_ms + 1_499
    ]
    shell.crash()
    shell.settle()
    grants = FakeAgent(shell).join(credit=3).receive()
    assert [grant.spec for grant in grants if grant.spec.name == "m.f"] == [soon, before, late]


def test_the_next_deadline_is_the_first_timers(shell: Shell) -> None:
    shell.tick()
    shell.submit(shell.spec(delay_ms=1_234), shell.spec(delay_ms=5_000))
    assert shell.coordinator.next_deadline_mono_ms() == shell.mono_ms + 1_234


def test_a_timer_beyond_the_horizon_comes_in_time(shell: Shell) -> None:
    shell.tick()
    far = shell.spec(delay_ms=HORIZON_MS + REFILL_MS * 2)
    shell.submit(far)
    assert not shell.working.timers.near
    shell.pass_ms(HORIZON_MS + REFILL_MS * 2 - TICK_MS)
    assert ready(shell) == []
    shell.pass_ms(TICK_MS)
    assert ready(shell) == [far.id]


def test_a_wait_goes_on_over_a_restart(shell: Shell) -> None:
    """Time that passed while the server was down counts."""
    spec = shell.spec(delay_ms=10_000)
    shell.submit(spec)
    shell.pass_ms(4_000)
    shell.crash()
    shell.pass_ms(5_500 - 1_000)
    assert ready(shell) == []
    shell.pass_ms(500)
    assert ready(shell) == [spec.id]


@pytest.mark.parametrize("step_ms", [-86_400_000, 86_400_000])
def test_a_wall_clock_that_steps_moves_no_wait_that_is_near(shell: Shell, step_ms: int) -> None:
    shell.tick()
    spec = shell.spec(delay_ms=10_000)
    shell.submit(spec)
    shell.wall_ms += step_ms
    shell.pass_ms(9_999)
    assert ready(shell) == []
    shell.pass_ms(1)
    assert ready(shell) == [spec.id]


def test_no_wait_is_longer_than_it_was_meant_when_the_clock_went_back_over_a_restart(shell: Shell) -> None:
    spec = shell.spec(delay_ms=10_000)
    shell.submit(spec)
    shell.crash()
    shell.wall_ms -= 60_000  # within the horizon: the timer is read at once
    shell.tick()
    shell.pass_ms(9_999)
    assert ready(shell) == []
    shell.pass_ms(1)
    assert ready(shell) == [spec.id]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_put_back_by_years_makes_no_wait_last_as_long(shell: Shell, restarts: bool) -> None:  # noqa: FBT001 - a parameter
    """What was begun before is taken up as soon as it would have been, and then lasts no longer than it is long."""
    shell.tick()
    near, far = shell.spec(delay_ms=10_000), shell.spec(delay_ms=HORIZON_MS + 60_000)
    shell.submit(near, far)
    shell.wall_ms -= 3_653 * 86_400_000
    if restarts:
        shell.crash(shell.staged_count)
        shell.tick()
    shell.pass_ms(10_000)
    assert ready(shell) == [near.id]
    shell.pass_ms(60_000 + REFILL_MS + HORIZON_MS + 60_000)
    assert sorted(ready(shell)) == sorted([near.id, far.id])


def test_a_clock_that_was_years_ahead_for_a_while_makes_no_wait_last_as_long_after_a_restart(shell: Shell) -> None:
    """Neither ids nor a start are from then: the timer alone is."""
    spec = shell.spec(delay_ms=10_000)
    shell.tick()
    shell.wall_ms += 3_653 * 86_400_000
    shell.submit(spec)
    shell.wall_ms -= 3_653 * 86_400_000
    shell.crash(shell.staged_count)
    shell.tick()
    shell.pass_ms(10_000)
    assert ready(shell) == [spec.id]


def test_many_that_are_due_at_once_are_released_in_bounded_steps(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DUE_TASKS == 1_000
    monkeypatch.setattr("taskd.core.timers.DUE_TASKS", 10)
    shell.submit(*[shell.spec(delay_ms=700) for _ in range(35)])
    shell.tick()
    shell.mono_ms += 700
    shell.wall_ms += 700
    shell.coordinator.tick(shell.now)
    shell.settle()
    assert len(ready(shell)) == 10
    shell.tick()
    assert len(ready(shell)) == 35


def test_a_timer_that_is_read_after_its_release_is_not_released_again(shell: Shell) -> None:
    """It was started while timers were read, was found by the read, and was due before the read came back."""
    shell.coordinator.tick(shell.now)
    shell.turn()
    [read] = shell.reads
    spec = shell.spec(delay_ms=300)
    shell.ask(SubmitTasks("client", [spec]))
    shell.turn()
    shell.step(read)
    shell.step(read)
    shell.mono_ms += 300
    shell.wall_ms += 300
    shell.coordinator.tick(shell.now)
    shell.turn()
    shell.feed(shell.waiting[0])
    shell.turn()
    assert ready(shell) == [spec.id]
    shell.step(read)
    assert not shell.working.timers.near
    agent = FakeAgent(shell).join(credit=1)
    shell.pass_ms(TICK_MS)
    assert check_disk(shell.disk) == {spec.id: State.RUNNING}
    assert len(agent.receive()) == 1


# -- bounded memory -----------------------------------------------------------------------------


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound, value in {"NEAR_MAX": 8, "NEAR_LOW": 4, "REFILL_TIMERS": 5, "DUE_TASKS": 3}.items():
        monkeypatch.setattr(f"taskd.core.timers.{bound}", value)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("restarts", [False, True])
def test_more_timers_than_memory_holds_all_come_in_time(shell: Shell, restarts: bool) -> None:  # noqa: FBT001 - a parameter
    rng = random.Random(3)
    shell.tick()
    due: dict[bytes, int] = {}
    for _ in range(20):
        specs = [shell.spec(delay_ms=rng.randrange(1, 60) * 1_000) for _ in range(5)]
        shell.submit(*specs)
        due |= {spec.id: shell.wall_ms + spec.delay_ms for spec in specs}
    assert len(shell.working.timers.near) <= 10
    if restarts:
        shell.crash()
    shell.settle()
    while shell.wall_ms < max(due.values()):
        shell.pass_ms(TICK_MS)
        assert len(shell.working.timers.near) <= 10
        assert sorted(ready(shell)) == sorted(task_id for task_id, at_ms in due.items() if at_ms <= shell.wall_ms)
        check_beside(shell)


@pytest.mark.usefixtures("_small")
def test_cancelled_timers_leave_no_trace_in_memory(shell: Shell) -> None:
    shell.tick()
    for _ in range(30):
        spec = shell.spec(delay_ms=30_000)
        shell.submit(spec)
        shell.do(CancelTasks([spec.id]))
    assert not shell.working.timers.near
    assert len(shell.working.timers.heap) <= 10


@pytest.mark.usefixtures("_small")
def test_what_is_started_while_timers_are_read_hides_none_of_those_behind_it(shell: Shell) -> None:
    """More than memory holds, some of them beyond what the read has reached."""
    first = [shell.spec(delay_ms=50_000 + 1_000 * i) for i in range(12)]
    shell.submit(*first)
    shell.coordinator.tick(shell.now)
    shell.turn()
    [read] = shell.reads
    late = [shell.spec(delay_ms=100_000 + 1_000 * i) for i in range(9)]
    shell.ask(SubmitTasks("client", late))
    shell.turn()
    while read in shell.reads:
        shell.step(read)
    shell.submit(shell.spec(delay_ms=10_000))
    check_beside(shell)
    shell.pass_ms(70_000)
    assert len(ready(shell)) == 13
    shell.pass_ms(40_000)
    assert len(ready(shell)) == 22
