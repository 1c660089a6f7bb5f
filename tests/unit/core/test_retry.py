"""Retries by hand beside what is in memory."""

import pytest

from harness.core import Shell
from harness.fsck import check_disk
from harness.world import shrink
from taskd.core.commands import CancelTasks, RetryStates, RetryTasks
from taskd.core.lifecycle import State


def test_one_that_goes_back_in_line_may_push_the_next_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for at once, all are answered, and all stand in line."""
    shrink(monkeypatch)
    shell = Shell()
    ended = [shell.spec(priority=9) for _ in range(3)]
    shell.submit(*ended)
    shell.do(CancelTasks([spec.id for spec in ended]))
    shell.submit(*[shell.spec() for _ in range(10)])
    [line] = shell.working.lines.values()
    last_in_memory = line.window()[-1].spec.id
    answer = shell.do(RetryTasks([*[spec.id for spec in ended], last_in_memory]))
    assert answer == RetryStates([State.READY] * 4)
    assert set(check_disk(shell.disk).values()) == {State.READY}
