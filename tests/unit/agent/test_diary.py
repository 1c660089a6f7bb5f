"""What the agent's log says of attempts: each failure when they are few, one line a second when they are many."""

from functools import partial

from structlog.testing import capture_logs

from taskd.agent.diary import Diary
from taskd.agent.reports import Reports
from taskd_protocol.agent_messages import Ack, Lease, Nack
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Failure, FailureReport, Grant, Report, TaskSpec
from unit.agent.making import task_id

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def failed(number: int, message: str = "no") -> FailureReport:
    return FailureReport(number, task_id(number), 1, "failed", Failure("task.raised", message, "builtins.ValueError"))


def reports(*, traces_all: bool = False) -> Reports:
    made = Reports()
    made.traces = {1: TRACE, 2: TRACE}
    made.traces_all = traces_all
    return made


def test_a_failure_is_told_once_with_what_finds_the_task() -> None:
    with capture_logs() as lines:
        Diary(reports()).sent(Nack([failed(1)]), lambda: 0.0)
    assert lines == [
        {
            "event": "attempt_failed",
            "log_level": "warning",
            "task": format_task_id(task_id(1)),
            "attempt": 1,
            "trace_id": TRACE,
            "error": "ValueError: no",
            "others": 0,
        }
    ]


def test_many_failures_are_a_line_a_second() -> None:
    """The count of those in between is told with the next."""
    diary = Diary(reports())
    with capture_logs() as lines:
        for tenth in range(25):
            diary.sent(Nack([failed(tenth), failed(tenth + 100)]), partial(float, tenth / 10))
    assert [line["others"] for line in lines] == [1, 19, 19]


def test_what_was_cancelled_or_given_back_did_not_fail() -> None:
    given_back = FailureReport(1, task_id(1), 1, "released")
    with capture_logs() as lines:
        Diary(reports()).sent(Nack([given_back, FailureReport(2, task_id(2), 1, "cancelled")]), lambda: 0.0)
    assert lines == []


def test_a_long_message_is_cut() -> None:
    with capture_logs() as lines:
        Diary(reports()).sent(Nack([failed(1, "x" * 10_000)]), lambda: 0.0)
    assert len(lines[0]["error"]) == 200


def test_what_goes_well_is_no_line() -> None:
    diary = Diary(reports())
    with capture_logs() as lines:
        diary.received(Lease(1, 0, [Grant(1, 1, TaskSpec(task_id(1), "m.f", traceparent=PARENT))]))
        diary.sent(Ack([Report(1, task_id(1), 1, b"")]), lambda: 0.0)
    assert lines == []


def test_where_all_is_wanted_each_attempt_is_told_as_it_comes_and_goes() -> None:
    """However it ended; with the trace of its task."""
    diary = Diary(reports(traces_all=True))
    with capture_logs() as lines:
        diary.received(Lease(1, 0, [Grant(1, 1, TaskSpec(task_id(1), "m.f", traceparent=PARENT))]))
        diary.sent(Ack([Report(1, task_id(1), 1, b"")]), lambda: 0.0)
        diary.sent(Nack([failed(2), FailureReport(1, task_id(1), 1, "released")]), lambda: 0.0)
        diary.sent(Nack([failed(2)]), lambda: 0.0)
    told = ["attempt_leased", "attempt_succeeded", "attempt_failed", "attempt_given_back", "attempt_failed"]
    assert [line["event"] for line in lines] == told
    assert {line["trace_id"] for line in lines} == {TRACE}
    assert lines[0]["task"] == format_task_id(task_id(1))
