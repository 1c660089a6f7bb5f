"""Submits: what is kept, what is known already, what is refused."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import lapses, records, retention
from taskd.core.commands import DropLapsed, SubmitTasks
from taskd.core.effects import WantLapsed
from taskd.core.lifecycle import State
from taskd.core.recent import RecentIds
from taskd.core.records import LineRecord
from taskd.core.submit import FUTURE_MS_MAX
from taskd.core.working import Settings
from taskd_protocol.errors import BadRequest, PayloadTooLarge, SubmitConflict, SubmitTooNew, SubmitTooOld, TaskdError
from taskd_protocol.ids import make_task_ids
from taskd_protocol.task import TaskSpec


def refused(shell: Shell, *specs: TaskSpec, owner: str = "client") -> TaskdError:
    """Return why a submit was refused; it must have changed nothing."""
    shell.settle()
    before = dict(shell.disk.values)
    with pytest.raises(TaskdError) as caught:
        shell.do(SubmitTasks(owner, specs))
    shell.settle()
    assert shell.disk.values == before
    return caught.value


def test_new_tasks_are_ready_in_their_line(shell: Shell) -> None:
    specs = [shell.spec("m.f"), shell.spec("m.f"), shell.spec("m.g", queue="other"), shell.spec(delay_ms=9)]
    assert shell.submit(*specs).existing == []
    states = check_disk(shell.disk)
    assert [states[spec.id] for spec in specs] == [State.READY] * 3 + [State.SCHEDULED]
    lines = shell.disk.of(records.LINE, LineRecord).values()
    assert sorted((line.queue, line.name, line.ready) for line in lines) == [
        ("default", "m.f", 2),
        ("other", "m.g", 1),
    ]


def test_a_resend_finds_the_first_tasks(shell: Shell) -> None:
    """Also after the task has gone on, and after a restart."""
    first, second = shell.spec(), shell.spec()
    shell.submit(first)
    assert shell.submit(first, second).existing == [(0, first.id)]
    agent = FakeAgent(shell).join(credit=1)
    shell.do(agent.ack(*agent.receive()))
    assert shell.submit(second, first).existing == [(0, second.id), (1, first.id)]
    shell.crash()
    assert shell.submit(first, second).existing == [(0, first.id), (1, second.id)]
    assert len(check_disk(shell.disk)) == 2


def test_a_resend_of_what_was_not_durable_is_kept(shell: Shell) -> None:
    spec = shell.spec()
    shell.ask(SubmitTasks("client", [spec]))
    shell.turn()
    shell.crash(kept=0)
    assert shell.submit(spec).existing == []
    assert check_disk(shell.disk) == {spec.id: State.READY}


def test_the_same_id_for_other_work_is_a_conflict(shell: Shell) -> None:
    spec = shell.spec()
    shell.submit(spec)
    other = msgspec.structs.replace(spec, payload=b"\x91\x01")
    assert isinstance(refused(shell, shell.spec(), other), SubmitConflict)
    assert isinstance(refused(shell, spec, owner="another"), SubmitConflict)


def test_an_id_that_stands_twice_in_one_submit_is_refused(shell: Shell) -> None:
    spec = shell.spec()
    assert isinstance(refused(shell, spec, spec), BadRequest)


def test_an_id_from_the_future_is_refused(shell: Shell) -> None:
    for ahead_ms, is_refused in [(FUTURE_MS_MAX, False), (FUTURE_MS_MAX + 1, True)]:
        [task_id] = make_task_ids(1, shell.wall_ms + ahead_ms, b"0123456789")
        spec = TaskSpec(task_id, "m.f")
        if is_refused:
            assert isinstance(refused(shell, spec), SubmitTooNew)
        else:
            assert shell.submit(spec).existing == []


def finish_and_purge(shell: Shell, spec: TaskSpec) -> None:
    agent = FakeAgent(shell).join(credit=1)
    [grant] = agent.receive()
    assert grant.spec == spec
    shell.do(agent.ack(grant))
    shell.do(agent.lose())
    shell.jump_ms(shell.settings.retention_age_ms + 60_000)
    assert spec.id not in check_disk(shell.disk)


@pytest.mark.parametrize("restarts", [False, True])
def test_an_id_that_may_have_run_and_was_purged_is_too_old(shell: Shell, restarts: bool) -> None:  # noqa: FBT001 - a parameter
    """Also when the purged task was the newest of all, and only its trace is left at a start."""
    waits = shell.spec("m.unknown")
    shell.submit(waits)
    shell.wall_ms += 10
    purged = shell.spec()
    shell.submit(purged)
    finish_and_purge(shell, purged)
    if restarts:
        shell.crash()
    assert isinstance(refused(shell, shell.spec(), purged), SubmitTooOld)
    assert shell.submit(waits).existing == [(0, waits.id)], "what is stored is known, however old"
    assert shell.submit(shell.spec()).existing == []


@pytest.mark.parametrize(
    "bad",
    [
        {"id": b"short"},
        {"id": b"\x00" * 16},
        {"name": ""},
        {"name": "a\nb"},
        {"queue": ""},
        {"priority": 101},
        {"delay_ms": -1},
        {"key": "k" * 257},
        {"payload": bytes(65)},
    ],
)
def test_a_spec_out_of_range_refuses_the_whole_submit(bad: dict[str, bytes | str | int]) -> None:
    shell = Shell(settings=Settings(payload_bytes_max=64))
    spec = msgspec.structs.replace(shell.spec(), **bad)
    expected = PayloadTooLarge if "payload" in bad else BadRequest
    assert isinstance(refused(shell, shell.spec(), spec), expected)


# -- keys ----------------------------------------------------------------------------------


def test_a_key_finds_the_first_task_in_one_submit_and_across(shell: Shell) -> None:
    first, twin, later = shell.spec(key="k"), shell.spec(key="k"), shell.spec(key="k", priority=5)
    assert shell.submit(first, shell.spec(), twin).existing == [(2, first.id)]
    assert shell.submit(later).existing == [(0, first.id)]
    shell.crash()
    assert shell.submit(later, shell.spec(key="other")).existing == [(0, first.id)]
    assert shell.submit(first).existing == [(0, first.id)], "a resend is known by its id first"
    assert len(check_disk(shell.disk)) == 3


@pytest.mark.parametrize("other", [{"payload": b"\x91\x01"}, {"queue": "q"}, {"name": "m.g"}])
def test_a_key_for_other_work_is_a_conflict(shell: Shell, other: dict[str, bytes | str]) -> None:
    first = shell.spec(key="k")
    unlike = msgspec.structs.replace(shell.spec(key="k"), **other)
    assert isinstance(refused(shell, first, unlike), SubmitConflict)
    shell.submit(first)
    assert isinstance(refused(shell, shell.spec(), unlike), SubmitConflict)


def test_a_key_is_its_tasks_for_a_day_and_then_free(shell: Shell) -> None:
    """However long the task itself is kept: the day is counted from the submit, over restarts."""
    first = shell.spec(key="k")
    shell.submit(first)
    shell.wall_ms += shell.settings.key_retention_ms - 1
    shell.crash(kept=shell.staged_count)
    shell.wall_ms -= 1_000  # the restart took that
    assert shell.submit(shell.spec(key="k")).existing == [(0, first.id)]
    shell.wall_ms += 1
    again = shell.spec(key="k", payload=b"\x91\x02")
    assert shell.submit(again).existing == []
    assert shell.submit(shell.spec(key="k", payload=b"\x91\x02")).existing == [(0, again.id)]
    assert list(check_disk(shell.disk)) == [first.id, again.id]


def test_a_key_knows_its_task_when_that_was_purged(monkeypatch: pytest.MonkeyPatch) -> None:
    """By size: the key is not forgotten with it, also not for a resend under the same id."""
    shell = Shell(settings=Settings(retention_bytes=1))
    first = shell.spec(key="k")
    shell.submit(first)
    agent = FakeAgent(shell).join(credit=1)
    shell.do(agent.ack(*agent.receive()))
    shell.pass_ms(retention.CHECK_MS)
    assert not check_disk(shell.disk)
    assert shell.submit(shell.spec(key="k")).existing == [(0, first.id)]
    assert shell.submit(first).existing == [(0, first.id)]
    assert isinstance(refused(shell, shell.spec(key="k", payload=b"\x91\x02")), SubmitConflict)
    shell.wall_ms += shell.settings.key_retention_ms
    assert isinstance(refused(shell, first), SubmitTooOld)
    monkeypatch.setattr("taskd.core.lapses.STEP", 1)
    shell.pass_ms(lapses.CHECK_MS)
    assert not {records.KEY, records.LAPSE} & {kind for kind, _ in shell.disk.values}


def test_lapsed_keys_go_by_steps_and_others_stay(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over restarts; a key that was taken anew is none of them."""
    monkeypatch.setattr("taskd.core.lapses.STEP", 2)
    shell.submit(*[shell.spec(key=f"k{n}") for n in range(5)])
    shell.wall_ms += shell.settings.key_retention_ms
    shell.submit(shell.spec(key="k0"))
    shell.mono_ms += lapses.CHECK_MS
    shell.coordinator.tick(shell.now)
    shell.turn()
    [read] = [read for read in shell.reads if isinstance(read.wanted, WantLapsed)]
    while read in shell.reads:
        shell.step(read)
    shell.feed(shell.waiting[0])
    shell.turn()
    shell.crash(kept=shell.staged_count)
    assert shell.disk.scan(records.KEY) == [b"k0", b"k3", b"k4"]
    shell.pass_ms(lapses.CHECK_MS + 2 * lapses.AGAIN_MS)
    assert shell.disk.scan(records.KEY) == [b"k0"]
    check_disk(shell.disk)


def test_a_clock_that_is_set_back_keeps_the_keys(shell: Shell) -> None:
    shell.submit(shell.spec(key="k"))
    [lapse] = shell.disk.scan(records.LAPSE)
    shell.do(DropLapsed([lapse]))
    assert shell.disk.scan(records.KEY) == [b"k"]
    check_disk(shell.disk)


# -- what spares the disk ------------------------------------------------------------------


def test_new_ids_need_no_look_at_the_disk(shell: Shell) -> None:
    shell.submit(shell.spec())
    shell.wall_ms += 1
    shell.ask(SubmitTasks("client", [shell.spec()]))
    assert not shell.waiting
    shell.settle()


def test_recent_ids_know_every_id_above_their_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which ids come, none that is stored passes for new."""
    monkeypatch.setattr("taskd.core.recent.RECENT_IDS", 10)
    shell = Shell()
    recent = RecentIds(b"")
    stored: list[bytes] = []
    for step in range(60):
        shell.wall_ms += shell.ids.randrange(-3, 9)
        ids = [shell.new_id() for _ in range(step % 4)]
        recent.add(ids)
        stored += ids
        assert recent.may_be_stored(stored) == set(stored)
    shell.wall_ms += 100
    assert not recent.may_be_stored([shell.new_id()])


def test_a_command_that_needs_more_when_tried_again_asks_for_all(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what was read for the first try is never missing at the third."""
    monkeypatch.setattr("taskd.core.recent.RECENT_IDS", 2)
    old = shell.spec()
    shell.submit(old)
    shell.wall_ms += 5
    late = shell.spec()
    shell.ask(SubmitTasks("client", [old, late]))
    [waiting] = shell.waiting
    for _ in range(6):
        shell.wall_ms += 5
        shell.ask(SubmitTasks("client", [shell.spec()]))
    shell.feed(waiting)
    [waiting] = shell.waiting
    assert [task_id for _, task_id in waiting.keys] == [old.id, late.id]
    shell.feed(waiting)
    shell.settle()
    assert len(check_disk(shell.disk)) == 8
