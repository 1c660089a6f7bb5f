"""What ended tasks have said goes before them, by an age and a size of its own, and whoever reads later is told."""

from itertools import pairwise

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import RetryTasks
from taskd.core.lifecycle import State
from taskd.core.log_retention import AGAIN_MS, is_swept_mark
from taskd.core.records import CountersRecord, LogRecord, StateRecord
from taskd.core.retention import CHECK_MS
from taskd.core.working import Settings
from taskd_protocol.task import Retry

AGE_MS = 60_000
LINE = b"x" * 936


def ended(shell: Shell, count: int = 1, *, logs: int = 3, fails: bool = False) -> list[bytes]:
    """Have tasks end that said something."""
    agent = FakeAgent(shell).join(credit=count)
    shell.submit(*[shell.spec(retry=Retry(1)) for _ in range(count)])
    grants = agent.receive()
    for grant in grants:
        shell.do(agent.logs(grant, *[LINE] * logs))
    shell.do(agent.nack(*grants) if fails else agent.ack(*grants))
    shell.do(agent.lose())
    return [grant.spec.id for grant in grants]


def said(shell: Shell, task_id: bytes) -> list[tuple[int, bool]]:
    """Return the numbers of a task's entries, and which is a mark."""
    logs = shell.disk.of(records.LOG, LogRecord)
    return [(int.from_bytes(i[16:], "big"), is_swept_mark(logs[i])) for i in sorted(logs) if i[:16] == task_id]


def logs_bytes(shell: Shell) -> int:
    return shell.disk.get(records.META, b"counters", CountersRecord).logs_bytes


@pytest.mark.parametrize("fails", [False, True])
def test_output_goes_by_its_age_and_its_task_stays(*, fails: bool) -> None:
    shell = Shell(settings=Settings(retention_age_ms=3 * AGE_MS, log_retention_age_ms=AGE_MS))
    [old] = ended(shell, fails=fails)
    shell.pass_ms(AGE_MS - CHECK_MS)
    [new] = ended(shell)
    assert said(shell, old) == [(0, False), (1, False), (2, False)]
    shell.pass_ms(2 * CHECK_MS)
    assert said(shell, old) == [(2, True)], "who reads from any place on is told"
    assert said(shell, new) == [(0, False), (1, False), (2, False)]
    assert check_disk(shell.disk) == {old: State.DEAD if fails else State.SUCCEEDED, new: State.SUCCEEDED}
    shell.pass_ms(3 * AGE_MS)
    assert check_disk(shell.disk) == {}
    assert not shell.disk.scan(records.LOG)
    assert logs_bytes(shell) == 0


def test_output_that_is_too_much_goes_oldest_first() -> None:
    shell = Shell(settings=Settings(log_retention_bytes=8_000))
    first, second, third = (ended(shell)[0] for _ in range(3))
    assert logs_bytes(shell) == 9_000
    shell.pass_ms(CHECK_MS)
    assert [len(said(shell, task_id)) for task_id in (first, second, third)] == [1, 3, 3]
    assert logs_bytes(shell) == 6_000
    assert len(check_disk(shell.disk)) == 3


def test_it_goes_by_steps_and_a_crash_at_any_of_them_loses_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.log_retention.ENTRIES_MAX", 4)
    shell = Shell(settings=Settings(log_retention_age_ms=AGE_MS))
    ids = ended(shell, 3, logs=7)
    shell.pass_ms(AGE_MS)
    seen: list[int] = []
    for _ in range(3 * CHECK_MS // AGAIN_MS):
        shell.pass_ms(AGAIN_MS)
        check_disk(shell.disk)
        shell.crash(kept=shell.staged_count)
        seen.append(len(shell.disk.scan(records.LOG)))
    assert seen == sorted(seen, reverse=True)
    assert max(a - b for a, b in pairwise(seen)) <= 4
    assert [said(shell, task_id) for task_id in ids] == [[(6, True)]] * 3
    assert len(check_disk(shell.disk)) == 3


def test_a_task_that_is_retried_speaks_on_behind_the_mark() -> None:
    shell = Shell(settings=Settings(log_retention_age_ms=AGE_MS))
    [task_id] = ended(shell, fails=True)
    shell.pass_ms(AGE_MS + CHECK_MS)
    shell.do(RetryTasks([task_id]))
    agent = FakeAgent(shell).join(credit=1)
    [grant] = agent.receive()
    shell.do(agent.logs(grant, LINE))
    shell.do(agent.ack(grant))
    assert said(shell, task_id) == [(2, True), (3, False)]
    shell.pass_ms(AGE_MS + CHECK_MS)
    assert said(shell, task_id)[-1] == (3, True)
    assert shell.disk.get(records.STATE, task_id, StateRecord).logs == 4
    check_disk(shell.disk)
