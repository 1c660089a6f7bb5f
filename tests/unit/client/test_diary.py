"""What a program's own log says of its tasks: what it submitted, how that ended, each with its trace id."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from taskd import App, TaskFailed
from taskd_protocol.connection import UnknownMessage
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import BadRequest
from taskd_protocol.messages import Submit, ToServer
from taskd_protocol.task import Failure, Outcome, TaskSpec
from unit.client.fake_server import FakeServer, Peer


def double(number: int) -> int:
    return 2 * number


def test_submit_and_result_are_told_at_level_debug(app: App, caplog: pytest.LogCaptureFixture) -> None:
    task = app.task(double)
    with caplog.at_level(logging.DEBUG, "taskd.client"):
        handle = task.submit(2)
        assert handle.result() == 2  # the server of these tests gives back what it got
        many = task.map([1, 2])
        assert [each.result() for each in many] == [1, 2]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == [
        f"task {handle.id} ({task.name}) submitted; trace {handle.trace_id}",
        f"task {handle.id} succeeded; trace {handle.trace_id}",
    ]
    for each in many:
        assert [each.trace_id in line for line in lines if each.id in line] == [True, True]
    assert vars(caplog.records[0])["trace_id"] == handle.trace_id
    assert len({each.trace_id for each in (handle, *many)}) == 3


def test_failures_are_told_at_level_warning(server: FakeServer, app: App, caplog: pytest.LogCaptureFixture) -> None:
    server.run = lambda spec: Outcome(spec.id, "dead", 1, failure=Failure("task.raised", "no", "builtins.ValueError"))
    with caplog.at_level(logging.WARNING, "taskd.client"):
        handle = app.task(double).submit(2)
        with pytest.raises(TaskFailed):
            handle.result()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "ValueError: no" in record.getMessage()
    assert handle.trace_id in record.getMessage()


def test_a_refused_submit_is_told_with_the_trace_it_would_have_had(
    server: FakeServer, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[TaskSpec] = []

    def refuse(peer: Peer, message: ToServer | UnknownMessage) -> bool:
        if not isinstance(message, Submit):
            return False
        refused.extend(message.tasks)
        peer.send(Error(message.request_id, BadRequest.code, "not here"))
        return True

    server.intercept = refuse
    with caplog.at_level(logging.WARNING, "taskd.client"), pytest.raises(BadRequest):
        app.task(double).map([1, 2, 3])
    [record] = caplog.records
    assert "not submitted: not here" in record.getMessage()
    assert "and 2 more" in record.getMessage()
    assert refused[0].trace_id in record.getMessage()


def test_a_handle_of_an_id_alone_knows_no_trace(app: App) -> None:
    handle = app.task(double).submit(2)
    assert app.handle(handle.id).trace_id == ""


SCRIPT = """
import sys
from taskd.client import diary
from taskd_protocol.task import Failure, Outcome
{imports}
diary.ended(Outcome(bytes(16), "dead", 1, failure=Failure("task.raised", "no")), "00-" + "ab" * 16)
print("logging" in sys.modules)
"""


@pytest.mark.parametrize(("imports", "shown"), [("", ""), ("import logging", "")])
def test_a_program_that_set_up_no_log_sees_nothing(imports: str, shown: str, tmp_path: Path) -> None:
    """Not even Python's last resort for warnings; and who did not import logging is spared it."""
    script = tmp_path / "program.py"
    script.write_text(SCRIPT.format(imports=imports))
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == shown
    assert ended.stdout.strip() == str(bool(imports))
