"""What the agent's log says of failed attempts: each when they are few, one line a second when they are many."""

from structlog.testing import capture_logs

from taskd.agent.failures import Failures
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Failure, FailureReport
from unit.agent.making import task_id


def failed(number: int, message: str = "no") -> FailureReport:
    return FailureReport(number, task_id(number), 1, "failed", Failure("task.raised", message, "builtins.ValueError"))


def test_a_failure_is_told_once_with_what_finds_the_task() -> None:
    with capture_logs() as lines:
        Failures().see([failed(1)], 0.0)
    assert lines == [
        {
            "event": "attempt_failed",
            "log_level": "warning",
            "task": format_task_id(task_id(1)),
            "attempt": 1,
            "error": "ValueError: no",
            "others": 0,
        }
    ]


def test_many_failures_are_a_line_a_second() -> None:
    """The count of those in between is told with the next."""
    failures = Failures()
    with capture_logs() as lines:
        for tenth in range(25):
            failures.see([failed(tenth), failed(tenth + 100)], tenth / 10)
    assert [line["others"] for line in lines] == [1, 19, 19]


def test_what_was_cancelled_or_given_back_did_not_fail() -> None:
    given_back = FailureReport(1, task_id(1), 1, "released")
    with capture_logs() as lines:
        Failures().see([given_back, FailureReport(2, task_id(2), 1, "cancelled")], 0.0)
    assert lines == []


def test_a_long_message_is_cut() -> None:
    with capture_logs() as lines:
        Failures().see([failed(1, "x" * 10_000)], 0.0)
    assert len(lines[0]["error"]) == 200
