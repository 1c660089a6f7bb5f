import io
import signal
from collections.abc import Iterator

import pytest

from taskd_protocol.messages import Cancel, Cancelled, LogEntry, TaskViews
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.resources import LabelRule, Need, Request, Where
from taskd_protocol.task import COMMAND_NAME, Failure, Outcome
from unit.cli.fake_client import FakeClient, Taskd
from unit.cli.test_tasks import ONE, WAITING

DONE = Outcome(ONE, "succeeded", 1, pack(0))


def failed(code: str, exit_code: int | None, message: str = "why") -> Outcome:
    return Outcome(ONE, "dead", 1, b"", Failure(code, message, exit_code=exit_code))


@pytest.fixture(autouse=True)
def _keep_signals() -> Iterator[None]:
    """`taskd run` takes TERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_commands_output_and_exit_code_are_ours(taskd: Taskd, client: FakeClient) -> None:
    """Each stream as it came, byte for byte."""
    client.entries = [
        LogEntry(0, 1, 1, 0, b"one\n"),
        LogEntry(1, 1, 2, 0, b"warning\n"),
        LogEntry(2, 1, 1, 0, "two å\n".encode()),
    ]
    client.outcomes = [failed("command.failed", 7)]
    ended = taskd("run", "--", "make", "test")
    assert (ended.code, ended.out, ended.err) == (7, "one\ntwo å\n", "warning\n")


def test_a_command_that_no_agent_takes_says_so(taskd: Taskd, client: FakeClient) -> None:
    client.late = 1
    client.replies = [TaskViews(0, [WAITING])]
    client.entries = [LogEntry(0, 1, 1, 0, b"at last\n")]
    client.outcomes = [DONE]
    ended = taskd("run", "--", "true")
    assert (ended.code, ended.out, ended.err) == (0, "at last\n", f"taskd: not started yet: {WAITING.waits_for}\n")
    assert client.timeouts[:2] == [3.0, None]


def test_the_command_travels_as_it_was_written(taskd: Taskd, client: FakeClient) -> None:
    """Words that look like our options after the command are the command's."""
    client.outcomes = [DONE]
    assert taskd("run", "--queue", "q", "--cwd", "/srv", "--env", "A=b=c", "ls", "-l", "--json", "--", "x").code == 0
    (spec,) = client.submitted
    assert (spec.name, spec.queue) == (COMMAND_NAME, "q")
    assert spec.retry is not None
    assert spec.retry.max_attempts == 1
    args, kwargs = unpack_arguments(spec.payload)
    assert args == []
    assert kwargs == {"argv": ["ls", "-l", "--json", "--", "x"], "env": {"A": "b=c"}, "cwd": "/srv"}


def test_a_command_ended_by_a_signal_is_told_as_a_shell_tells_it(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [failed("command.failed", -9)]
    assert taskd("run", "sleep", "9").code == 137


def test_a_command_that_cannot_be_started_is_127(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [failed("command.not_started", None, "nosuch: not found on the agent ash")]
    ended = taskd("run", "nosuch")
    assert (ended.code, ended.complaint) == (127, "taskd: nosuch: not found on the agent ash")


def test_a_command_that_somebody_else_cancelled_is_one(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [Outcome(ONE, "cancelled", 1)]
    assert taskd("run", "sleep", "9").code == 1


def test_a_second_attempt_is_told(taskd: Taskd, client: FakeClient) -> None:
    """Whoever reads the output twice learns why."""
    client.entries = [LogEntry(0, 1, 1, 0, b"begin\n"), LogEntry(1, 2, 1, 0, b"begin\n")]
    client.outcomes = [DONE]
    ended = taskd("run", "job")
    assert ended.out == "begin\nbegin\n"
    assert "attempt 2" in ended.complaint


def test_ctrl_c_cancels_and_shows_what_is_still_said(taskd: Taskd, client: FakeClient) -> None:
    client.entries = [LogEntry(0, 1, 1, 0, b"one\n"), KeyboardInterrupt(), LogEntry(1, 1, 1, 0, b"bye\n")]
    client.replies = [Cancelled(0, ["cancelling"])]
    client.outcomes = [Outcome(ONE, "cancelled", 1)]
    ended = taskd("run", "sleep", "9")
    assert (ended.code, ended.out) == (130, "one\nbye\n")
    assert client.asked == [Cancel(0, [client.submitted[0].id])]


def test_ctrl_c_twice_leaves(taskd: Taskd, client: FakeClient) -> None:
    """The agent goes on ending it."""
    client.entries = [KeyboardInterrupt(), KeyboardInterrupt()]
    client.replies = [Cancelled(0, ["cancelling"])]
    ended = taskd("run", "sleep", "9")
    assert ended.code == 130
    assert "taskd task show" in ended.err


def test_a_reader_that_leaves_cancels(taskd: Taskd, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command would end if it ran here."""

    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    client.entries = [LogEntry(0, 1, 1, 0, b"one\n")]
    client.replies = [Cancelled(0, ["cancelling"])]
    real = open  # the program looks at the real standard output's number once it is broken
    with real("/dev/null", "w") as null:
        parts = {"buffer": Gone(), "fileno": null.fileno, "flush": null.flush, "isatty": null.isatty}
        monkeypatch.setattr("sys.stdout", type("Stdout", (), parts)())
        assert taskd("run", "yes").code == 141
    assert client.asked == [Cancel(0, [client.submitted[0].id])]


def test_a_command_may_have_a_time_limit(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [failed("task.timed_out", -15, "it ran for longer than its timeout of 90 s")]
    ended = taskd("run", "--time-limit", "90s", "--", "make")
    assert client.submitted[0].rules.timeout_ms == 90_000
    assert ended.code == 1
    assert "longer than its timeout" in ended.complaint


def test_a_command_says_what_it_needs(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [DONE]
    assert taskd("run", "--cpu", "2", "--memory", "64MiB", "--label", "zone=a", "--", "make", "--cpu").code == 0
    (spec,) = client.submitted
    assert spec.rules.where == Where(
        [Request([Need("cpu", 2000), Need("memory", 64 << 20)])], [LabelRule("zone", "=", ["a"])]
    )
    assert unpack_arguments(spec.payload)[1]["argv"] == ["make", "--cpu"]
