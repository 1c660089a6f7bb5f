"""Restore: what is moving is in memory again; what contradicts itself is refused."""

import random

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_beside, check_disk
from taskd.core import records
from taskd.core.agent_commands import AppendLogs
from taskd.core.commands import CancelTasks, Now
from taskd.core.invariants import check_invariants
from taskd.core.lifecycle import State
from taskd.core.lines import line_id
from taskd.core.records import CountsRecord, EpochRecord, LineRecord
from taskd.core.restore import LIVES_MAX, Stored, restore
from taskd.core.working import Settings, Working
from taskd_protocol.errors import StoreCorrupt
from taskd_protocol.task import LogPiece, Retry


def test_an_empty_store_starts(shell: Shell) -> None:
    shell.settle()
    shell.crash()
    shell.settle()
    assert not shell.working.tasks


def test_every_line_is_read_again_in_its_order(shell: Shell) -> None:
    specs = [shell.spec(f"m.{i % 3}", priority=i % 2, queue=f"q{i % 2}") for i in range(30)]
    shell.submit(*specs)
    shell.crash()
    assert not shell.working.active
    shell.settle()
    check_beside(shell)
    grants = FakeAgent(shell, names=["m.0", "m.1", "m.2"]).join(credit=99).receive()
    expected = sorted(specs, key=lambda spec: (-spec.priority, specs.index(spec)))
    for queue in ("q0", "q1"):
        granted = [grant.spec for grant in grants if grant.spec.queue == queue]
        assert granted == [spec for spec in expected if spec.queue == queue]


def test_a_task_keeps_its_history(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=1)
    spec = shell.spec(retry=Retry(5, base_ms=0))
    shell.submit(spec)
    [grant] = agent.receive()
    shell.do(AppendLogs("a1", [LogPiece(grant.token, spec.id, 2, 5, b"oh\n")]))
    shell.do(agent.nack(grant))
    shell.jump_ms(1)
    for _ in range(2):
        shell.crash()
        shell.settle()
        [task] = shell.working.tasks.values()
        assert (task.attempt, task.failures, task.logs, task.fresh, task.token) == (1, 1, 1, False, 0)
        assert task.failure is not None
    check_invariants(shell.working)


def test_an_acknowledged_end_is_there_after_any_crash(shell: Shell) -> None:
    """And one that was not acknowledged is either of the two, never both."""
    agent = FakeAgent(shell).join(credit=2)
    shell.submit(shell.spec(), shell.spec())
    first, second = agent.receive()
    shell.do(agent.ack(first))
    shell.ask(agent.ack(second))
    shell.turn()
    shell.crash(kept=0)
    states = check_disk(shell.disk)
    assert (states[first.spec.id], states[second.spec.id]) == (State.SUCCEEDED, State.RUNNING)
    del agent.held[first.token]
    agent.join()
    assert shell.do(agent.ack(second)) == ([second.token], [])
    assert set(check_disk(shell.disk).values()) == {State.SUCCEEDED}


def test_cancelled_far_behind_the_window_before_the_first_turn(shell: Shell) -> None:
    """Right after a start nothing of a line is in memory; commands come all the same."""
    specs = [shell.spec() for _ in range(5)]
    shell.submit(*specs)
    shell.crash()
    shell.ask(CancelTasks([specs[0].id, specs[4].id]))
    shell.feed(shell.waiting[0])
    shell.settle()
    check_disk(shell.disk)
    check_beside(shell)
    assert [task.spec for task in shell.working.tasks.values()] == specs[1:4]


def test_a_line_under_a_foreign_id_is_refused(shell: Shell) -> None:
    shell.submit(shell.spec())
    shell.disk.values[records.LINE, bytes(16)] = LineRecord("default", "m.f", 1)
    with pytest.raises(StoreCorrupt, match="fsck"):
        shell.crash()


def test_a_line_that_asks_for_nonsense_is_refused(shell: Shell) -> None:
    shell.submit(shell.spec())
    shell.disk.values[records.LINE, line_id("default", "m.f", b"\xc1")] = LineRecord("default", "m.f", 1, b"\xc1")
    with pytest.raises(StoreCorrupt, match="fsck"):
        shell.crash()


def test_a_lease_without_its_spec_is_refused(shell: Shell) -> None:
    FakeAgent(shell).join(credit=1)
    spec = shell.spec()
    shell.submit(spec)
    del shell.disk.values[records.SPEC, spec.id]
    with pytest.raises(StoreCorrupt, match="fsck"):
        shell.crash()


def test_wrong_counters_are_found_by_the_invariants(shell: Shell) -> None:
    """The checker itself: an index that disagrees with the tasks does not pass."""
    shell.submit(shell.spec())
    counted = shell.disk.get(records.COUNTS, b"default", CountsRecord)
    shell.disk.values[records.COUNTS, b"default"] = msgspec.structs.replace(counted, states={"ready": 2})
    shell.crash()
    with pytest.raises(AssertionError):
        shell.settle()


def test_the_store_knows_how_far_each_start_came() -> None:
    """The newest thousand of them, in the record that is durable before anything is told."""
    epoch: EpochRecord | None = None
    for start in range(1, LIVES_MAX + 3):
        w = Working(Settings(), random.Random(0))
        stored = Stored(counters=None, epoch=epoch, tokens=[], lines=[], leases=[], newest_id=b"", sequence=start * 10)
        restore(w, stored, Now(0, 0))
        [(_, _, record)] = w.mutations
        assert isinstance(record, EpochRecord)
        assert record.lives == w.lives
        epoch = record
    assert w.lives[-2:] == [(w.epoch - 1, LIVES_MAX * 10 + 10), (w.epoch, LIVES_MAX * 10 + 20)]
    assert len(w.lives) == LIVES_MAX
