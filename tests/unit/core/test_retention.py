"""Retention: what has ended is kept for an age and a size, and then nothing of it is left."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import PurgeFinished
from taskd.core.effects import WantFinished
from taskd.core.lifecycle import State
from taskd.core.records import CountersRecord, FinishedRecord
from taskd.core.retention import CHECK_MS
from taskd.core.working import Settings

AGE_MS = 60_000


def finish(shell: Shell, count: int = 1, *, result: bytes = b"\xc0", logs: int = 0, key: str = "") -> list[bytes]:
    """Have tasks succeed."""
    agent = FakeAgent(shell).join(credit=count)
    shell.submit(*[shell.spec(key=key) for _ in range(count)])
    grants = agent.receive()
    for grant in grants:
        if logs:
            shell.do(agent.logs(grant, *[b"line\n"] * logs))
    shell.do(agent.ack(*grants, result=result))
    shell.do(agent.lose())
    return [grant.spec.id for grant in grants]


@pytest.fixture
def aged() -> Shell:
    return Shell(settings=Settings(retention_age_ms=AGE_MS))


def test_what_is_old_is_taken_away_with_all_that_belonged_to_it(aged: Shell) -> None:
    finish(aged, result=bytes(2_000), logs=3, key="k")
    waits = aged.spec("m.unknown")
    aged.submit(waits)
    aged.pass_ms(AGE_MS)
    assert len(check_disk(aged.disk)) == 2
    aged.pass_ms(CHECK_MS + 1_000)
    assert check_disk(aged.disk) == {waits.id: State.READY}
    kinds = {kind for kind, _ in aged.disk.values}
    assert kinds == {
        records.META,
        records.COUNTS,
        records.SPEC,
        records.READY,
        records.LINE,
        records.KEY,
        records.LAPSE,
    }
    assert aged.disk.scan(records.KEY) == [b"k"], "a key is kept for its own time"
    counters = aged.disk.get(records.META, b"counters", CountersRecord)
    assert (counters.ended, counters.finished_bytes) == ({}, 0)


def test_what_is_too_much_goes_oldest_first() -> None:
    shell = Shell(settings=Settings(retention_bytes=5_000))
    old = finish(shell, result=bytes(2_000))
    shell.pass_ms(1_000)
    new = finish(shell, result=bytes(2_000))
    shell.pass_ms(CHECK_MS)
    assert list(check_disk(shell.disk)) == old + new
    newest = finish(shell, result=bytes(2_000))
    shell.pass_ms(CHECK_MS)
    assert list(check_disk(shell.disk)) == new + newest


def test_what_ended_by_a_clock_that_was_wrong_goes_too_when_it_is_too_much() -> None:
    shell = Shell(settings=Settings(retention_bytes=1_000))
    shell.wall_ms += 30 * 365 * 86_400_000
    finish(shell, result=bytes(2_000))
    shell.wall_ms -= 30 * 365 * 86_400_000
    shell.pass_ms(CHECK_MS)
    assert check_disk(shell.disk) == {}


def test_a_purge_of_much_output_goes_by_steps(aged: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.retention.RECORDS_MAX", 4)
    finish(aged, 3, logs=7)
    aged.wall_ms += 2 * AGE_MS
    aged.settle()
    sizes: list[int] = []
    while check_disk(aged.disk):
        [finished] = aged.disk.scan(records.FINISHED)
        before = len(aged.disk.scan(records.LOG))
        aged.ask(PurgeFinished(finished))
        while aged.waiting:
            aged.feed(aged.waiting[0])
        aged.turn()
        sizes.append(before - len(aged.disk.scan(records.LOG)))
        check_disk(aged.disk)
        aged.crash(kept=aged.staged_count)  # at any step
        aged.turn()
    assert sum(sizes) == 21
    assert max(sizes) <= 4


def test_a_crash_between_two_steps_leaves_each_task_whole_or_gone(aged: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.working.FINISHED_IDS_MAX", 2)
    finish(aged, 6)
    aged.mono_ms += 2 * AGE_MS
    aged.wall_ms += 2 * AGE_MS
    aged.coordinator.tick(aged.now)
    aged.turn()
    while aged.reads:
        aged.step(aged.reads[0])
    assert len(aged.waiting) == 3
    first = aged.waiting[0]
    for _ in range(3):
        aged.feed(aged.waiting[0] if aged.waiting[0].command is first.command else aged.waiting[-1])
    aged.crash(kept=0)
    assert len(check_disk(aged.disk)) == 6
    aged.tick()
    aged.pass_ms(CHECK_MS)
    assert check_disk(aged.disk) == {}


def test_a_step_that_is_asked_for_twice_is_done_once(aged: Shell) -> None:
    finish(aged)
    aged.wall_ms += 2 * AGE_MS
    [finished] = aged.disk.scan(records.FINISHED)
    for _ in range(2):
        aged.ask(PurgeFinished(finished))
    aged.settle()
    assert check_disk(aged.disk) == {}


def test_a_step_that_is_no_longer_due_does_nothing() -> None:
    shell = Shell(settings=Settings(retention_bytes=100))
    finish(shell, result=bytes(500))
    finished = shell.disk.scan(records.FINISHED)
    shell.coordinator.working.counters.finished_bytes -= 10_000  # somebody else made room
    for each in finished:
        shell.ask(PurgeFinished(each))
    while shell.waiting:
        shell.feed(shell.waiting[0])
    assert not shell.working.mutations


def test_many_that_end_in_one_turn_are_noted_in_bounded_records(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.working.FINISHED_IDS_MAX", 3)
    finish(shell, 8)
    finished = shell.disk.of(records.FINISHED, FinishedRecord).values()
    assert [len(record.ids) for record in finished] == [3, 3, 2]
    check_disk(shell.disk)


def test_nothing_is_read_while_nothing_has_ended(shell: Shell) -> None:
    shell.submit(shell.spec())
    shell.coordinator.tick(shell.now)
    assert not [effect for effect in shell.working.effects if isinstance(effect, WantFinished)]
