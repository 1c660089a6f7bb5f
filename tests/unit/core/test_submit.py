"""Submits: what is kept, what is known already, what is refused."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import SubmitTasks
from taskd.core.lifecycle import State
from taskd.core.records import LineRecord
from taskd.core.submit import FUTURE_MS_MAX
from taskd.core.working import RecentIds, Settings
from taskd_protocol.errors import BadRequest, PayloadTooLarge, SubmitConflict, SubmitTooOld, TaskdError
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
            assert isinstance(refused(shell, spec), BadRequest)
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


def test_a_key_is_free_again_when_its_task_is_purged(shell: Shell) -> None:
    first = shell.spec(key="k")
    shell.submit(first)
    finish_and_purge(shell, first)
    again = shell.spec(key="k", payload=b"\x91\x02")
    assert shell.submit(again).existing == []
    assert list(check_disk(shell.disk)) == [again.id]


# -- what spares the disk ------------------------------------------------------------------


def test_new_ids_need_no_look_at_the_disk(shell: Shell) -> None:
    shell.submit(shell.spec())
    shell.wall_ms += 1
    shell.ask(SubmitTasks("client", [shell.spec()]))
    assert not shell.waiting
    shell.settle()


def test_recent_ids_know_every_id_above_their_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which ids come, none that is stored passes for new."""
    monkeypatch.setattr("taskd.core.working.RECENT_IDS", 10)
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
    monkeypatch.setattr("taskd.core.working.RECENT_IDS", 2)
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
