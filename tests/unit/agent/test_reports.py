from taskd.agent.reports import MESSAGE_BYTES, Reports
from taskd_protocol.agent_messages import Ack, Logs, Nack
from taskd_protocol.errors import TaskCodes
from taskd_protocol.limits import LOG_BYTES_UNRECORDED_MAX, LOG_DATA_BYTES_MAX
from taskd_protocol.task import Failure, FailureReport, LogPiece, Report
from unit.agent.making import task_id


def ack(token: int, result: bytes = b"") -> Report:
    return Report(token, task_id(token), 1, result)


def nack(token: int) -> FailureReport:
    return FailureReport(token, task_id(token), 1, "failed", Failure(TaskCodes.RAISED, "no"))


def piece(token: int, data: bytes) -> LogPiece:
    return LogPiece(token, task_id(token), 1, 0, data)


def words(messages: list[Ack | Nack | Logs]) -> list[tuple[str, list[object]]]:
    """What was said, in order: kinds with tokens, output with its data."""
    said: list[tuple[str, list[object]]] = []
    for message in messages:
        match message:
            case Ack(reports):
                said.append(("ack", [report.token for report in reports]))
            case Nack(failures):
                said.append(("nack", [report.token for report in failures]))
            case Logs(pieces):
                said.append(("logs", [bytes(piece.data) for piece in pieces]))
    return said


def test_many_reports_are_one_message_and_are_sent_once() -> None:
    reports = Reports()
    reports.add([ack(1), ack(2), nack(3), ack(4)])
    assert words(reports.messages()) == [("ack", [1, 2, 4]), ("nack", [3])]
    assert reports.messages() == []


def test_a_message_fits_its_frame_and_a_large_result_goes_alone() -> None:
    reports = Reports()
    reports.add(
        [ack(1, bytes(MESSAGE_BYTES // 2)), ack(2, bytes(MESSAGE_BYTES // 2)), ack(3, bytes(10 * MESSAGE_BYTES))]
    )
    said = []
    while messages := reports.messages():
        said += words(messages)
    assert said == [("ack", [1]), ("ack", [2]), ("ack", [3])]


def test_what_is_not_recorded_is_sent_again_on_the_next_connection() -> None:
    reports = Reports()
    reports.add([ack(1), nack(2), ack(3)])
    reports.messages()
    reports.recorded([2])
    reports.connect(1_000)
    assert words(reports.messages()) == [("ack", [1, 3])]
    assert [held.token for held in reports.holding()] == [1, 3]
    reports.recorded([1, 3, 99])
    assert not reports.unrecorded
    assert reports.unrecorded_bytes == 0


def test_a_report_that_was_dropped_as_stale_is_not_sent() -> None:
    reports = Reports()
    reports.add([ack(1), ack(2)])
    reports.recorded([1])
    assert words(reports.messages()) == [("ack", [2])]


def test_a_result_that_the_server_no_longer_takes_becomes_a_failure() -> None:
    """Else the connection would be closed over it, again and again."""
    reports = Reports()
    reports.add([ack(1, bytes(2_000))])
    reports.connect(1_000)
    (message,) = reports.messages()
    assert isinstance(message, Nack)
    failure = message.failures[0].failure
    assert failure is not None
    assert failure.code == TaskCodes.RESULT_TOO_LARGE


def test_output_comes_before_the_report_of_its_attempt() -> None:
    reports = Reports()
    reports.add_output(piece(1, b"a"))
    reports.add_output(piece(1, b"b"))
    reports.add_after_output(ack(1))
    assert words(reports.messages()) == [("logs", [b"a", b"b"]), ("ack", [1])]


def test_output_under_way_is_bounded_and_its_report_waits() -> None:
    reports = Reports()
    data = bytes(LOG_DATA_BYTES_MAX)
    count = LOG_BYTES_UNRECORDED_MAX // LOG_DATA_BYTES_MAX
    for _ in range(count + 1):
        reports.add_output(piece(1, data))
    reports.add_after_output(ack(1))
    said = words(reports.messages())
    assert {kind for kind, _ in said} == {"logs"}
    assert sum(len(pieces) for _, pieces in said) == count
    assert reports.output_bytes == (count + 1) * len(data)
    reports.output_recorded(len(data))
    assert words(reports.messages()) == [("logs", [data]), ("ack", [1])]
    reports.output_recorded(count * len(data))
    assert reports.output_bytes == 0


def test_output_that_was_under_way_is_sent_again_before_what_came_later() -> None:
    reports = Reports()
    for data in (b"aa", b"bb", b"cc"):
        reports.add_output(piece(1, data))
    reports.messages()
    reports.output_recorded(3)  # the first, and half of the second: it counts when it is whole
    reports.add_output(piece(1, b"dd"))
    reports.add_after_output(ack(1))
    reports.connect(1_000)
    assert words(reports.messages()) == [("logs", [b"bb", b"cc", b"dd"]), ("ack", [1])]


def test_a_report_that_is_held_up_is_kept_and_sent_when_it_is_let_go() -> None:
    """As what it has turned into; on a new connection before that it still waits."""
    reports = Reports()
    reports.add_held_up(ack(1, b"result"))
    reports.add([ack(2)])
    assert words(reports.messages()) == [("ack", [2])]
    assert [held.token for held in reports.holding()] == [1, 2]
    reports.connect(1_000)
    assert words(reports.messages()) == [("ack", [2])]
    reports.release(1, lambda report: nack(report.token))
    reports.release(1, lambda report: report)
    assert words(reports.messages()) == [("nack", [1])]
    reports.recorded([1, 2])
    assert reports.unrecorded_bytes == 0
    reports.add_held_up(ack(3))
    reports.recorded([3])
    reports.release(3, lambda report: report)
    assert reports.messages() == []
