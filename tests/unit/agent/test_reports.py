from taskd.agent.reports import MESSAGE_BYTES, Reports
from taskd_protocol.agent_messages import Ack, Logs, Nack
from taskd_protocol.errors import TaskCodes
from taskd_protocol.limits import LOG_BYTES_UNRECORDED_MAX, LOG_DATA_BYTES_MAX
from taskd_protocol.task import Failure, FailureReport, Report
from unit.agent.making import task_id


def ack(token: int, result: bytes = b"") -> Report:
    return Report(token, task_id(token), 1, result)


def nack(token: int) -> FailureReport:
    return FailureReport(token, task_id(token), 1, "failed", Failure(TaskCodes.RAISED, "no"))


def say(reports: Reports, token: int, data: bytes, stream: int = 1) -> None:
    reports.streams.add(token, task_id(token), stream, data, at_ms=0, now_ms=0)


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


def all_words(reports: Reports) -> list[tuple[str, list[object]]]:
    said = []
    while messages := reports.messages():
        said += words(messages)
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
    assert all_words(reports) == [("ack", [1]), ("ack", [2]), ("ack", [3])]


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


def test_what_an_attempt_said_comes_before_its_report_and_after_those_of_others() -> None:
    reports = Reports()
    say(reports, 1, b"a\n")
    say(reports, 1, b"b")
    reports.add_after_output(ack(1))
    reports.add([ack(2)])
    assert words(reports.messages()) == [("ack", [2]), ("logs", [b"a\nb"]), ("ack", [1])]


def test_output_under_way_is_bounded_and_only_its_own_report_waits() -> None:
    reports = Reports()
    data = bytes(LOG_DATA_BYTES_MAX)
    count = LOG_BYTES_UNRECORDED_MAX // LOG_DATA_BYTES_MAX
    for _ in range(count + 1):
        say(reports, 1, data)
    reports.add_after_output(ack(1))
    said = all_words(reports)
    assert {kind for kind, _ in said} == {"logs"}
    assert sum(len(pieces) for _, pieces in said) == count
    assert reports.streams.waiting_bytes == (count + 1) * len(data)
    reports.add([ack(2)])
    assert words(reports.messages()) == [("ack", [2])]
    reports.streams.recorded(len(data))
    assert words(reports.messages()) == [("logs", [data]), ("ack", [1])]
    reports.streams.recorded(count * len(data))
    assert reports.streams.waiting_bytes == 0


def test_output_that_was_under_way_is_sent_again_before_what_came_later_and_under_its_numbers() -> None:
    reports = Reports()
    for stream, data in enumerate((b"aa\n", b"bb\n", b"cc\n")):
        say(reports, 1, data, stream + 1)
    reports.streams.look(lambda _: True)
    reports.messages()
    reports.streams.recorded(4)  # the first, and a part of the second: it counts when it is whole
    say(reports, 1, b"dd\n")
    reports.add_after_output(ack(1))
    reports.connect(1_000)
    logs, acks = reports.messages()
    assert isinstance(logs, Logs)
    assert [(piece.data, piece.number) for piece in logs.pieces] == [(b"bb\n", 2), (b"cc\n", 3), (b"dd\n", 4)]
    assert isinstance(acks, Ack)


def test_a_report_that_was_sent_waits_for_its_output_again_on_the_next_connection() -> None:
    reports = Reports()
    say(reports, 1, b"aa\n")
    reports.add_after_output(ack(1))
    assert words(reports.messages()) == [("logs", [b"aa\n"]), ("ack", [1])]
    reports.connect(1_000)
    assert words(reports.messages()) == [("logs", [b"aa\n"]), ("ack", [1])]
    reports.recorded([1])
    reports.connect(1_000)
    assert words(reports.messages()) == [("logs", [b"aa\n"])]
    reports.streams.recorded(3)
    assert not reports.streams.attempts


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
