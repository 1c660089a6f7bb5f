import json

import msgspec
import pytest

from taskd_protocol import streams
from taskd_protocol.errors import ResultGone, TimedOut
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import format_task_id, make_task_ids
from taskd_protocol.messages import (
    AttemptView,
    Cancel,
    Cancelled,
    LogEntry,
    TaskHasten,
    TaskHastened,
    TaskList,
    TaskPage,
    TaskQuery,
    TaskRetried,
    TaskRetry,
    TaskView,
    TaskViews,
)
from taskd_protocol.payload import pack, pack_arguments
from taskd_protocol.streams import CutLine, LogLine, ValueLine, encode_line
from taskd_protocol.task import Failure, Outcome
from taskd_protocol.workflow import make_workflow_id
from taskd_protocol.workflow_messages import WorkflowList, WorkflowPage, WorkflowView
from unit.cli.fake_client import FakeClient, Taskd

ONE, TWO = make_task_ids(2, 1_800_000_000_000, bytes(range(20)))
ID = format_task_id(ONE)

RAISED = Failure(
    "task.raised", "no such page", "builtins.LookupError", "Traceback:\n  line 7\nLookupError: no such page"
)

VIEW = TaskView(
    id=ONE,
    name="app.fetch",
    queue="web",
    state="succeeded",
    priority=3,
    attempt=2,
    failures=1,
    max_attempts=5,
    agent="ash",
    created_at_ms=1_795_305_599_123,
    due_at_ms=None,
    started_at_ms=1_795_305_600_000,
    finished_at_ms=1_795_305_601_001,
    payload=pack_arguments(["https://example.org/"], {"depth": 2}),
    result=pack({"pages": (1, 2), "raw": b"\x00\xff"}),
    failure=None,
    key="front",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    waits_for="",
)
WAITING = msgspec.structs.replace(
    VIEW,
    state="ready",
    attempt=0,
    failures=0,
    agent="",
    started_at_ms=None,
    finished_at_ms=None,
    result=None,
    traceparent="",
    waits_for="no agent that is connected has app.fetch",
)
DEAD = msgspec.structs.replace(VIEW, state="dead", result=None, failure=RAISED)

DOCUMENT = {
    "id": ID,
    "name": "app.fetch",
    "queue": "web",
    "state": "succeeded",
    "priority": 3,
    "attempt": 2,
    "max_attempts": 5,
    "agent": "ash",
    "created_at": "2026-11-21T23:59:59.123Z",
    "started_at": "2026-11-22T00:00:00.000Z",
    "finished_at": "2026-11-22T00:00:01.001Z",
    "result": {"pages": [1, 2], "raw": "AP8="},
    "error": None,
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
}

DETAIL = {
    **DOCUMENT,
    "attempts": [],
    "arguments": {
        "text": '{"args": ["https://example.org/"], "kwargs": {"depth": 2}}',
        "bytes": 31,
        "plain": True,
        "whole": True,
    },
    "result_value": {"text": '{"pages": [1, 2], "raw": "AP8="}', "bytes": 21, "plain": False, "whole": True},
    "waits_for": None,
    "due_at": None,
    "failures": 1,
    "crashes": 0,
    "crash_limit": 0,
    "key": "front",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


def test_show_as_json_has_exactly_the_fixed_fields(taskd: Taskd, client: FakeClient) -> None:
    """In their order, with times in UTC and null for what is not."""
    client.replies = [TaskViews(0, [VIEW])]
    ended = taskd("task", "show", ID, "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == DETAIL
    assert list(json.loads(ended.out)) == list(DETAIL)
    assert client.asked == [TaskQuery(0, [ONE])]
    assert client.closed


def test_show_as_json_of_a_task_that_waits(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [WAITING])]
    shown = json.loads(taskd("task", "show", ID, "--json").out)
    assert [shown[name] for name in ("agent", "started_at", "finished_at", "result", "error", "trace_id")] == [None] * 6


def test_show_as_json_of_a_task_that_failed(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [DEAD])]
    assert json.loads(taskd("task", "show", ID, "--json").out)["error"] == {
        "type": "builtins.LookupError",
        "message": "no such page",
        "traceback": RAISED.traceback,
        "code": "task.raised",
    }


TRIED = msgspec.structs.replace(
    VIEW,
    crashes=1,
    crash_limit=3,
    attempts=[
        AttemptView(1, "elm", 1_795_305_600_000, 1_795_305_600_500, "crashed", Failure("worker.killed", "SIGSEGV")),
        AttemptView(2, "ash", 1_795_305_600_750, 1_795_305_601_001, "succeeded"),
    ],
)


def test_show_lists_attempts(taskd: Taskd, client: FakeClient) -> None:
    """Each with its agent, times, outcome and cause."""
    client.replies = [TaskViews(0, [TRIED]), TaskViews(0, [TRIED])]
    lines = taskd("task", "show", ID).out.splitlines()
    assert "attempts   2, failed 1 of at most 5, crashed 1 of at most 3" in lines
    at = lines.index(next(line for line in lines if line.startswith("ATTEMPT")))
    assert [line.split() for line in lines[at + 1 : at + 3]] == [
        [
            "1",
            "crashed",
            "elm",
            "2026-11-22",
            "00:00:00.000",
            "2026-11-22",
            "00:00:00.500",
            "SIGSEGV",
            "(worker.killed)",
        ],
        ["2", "succeeded", "ash", "2026-11-22", "00:00:00.750", "2026-11-22", "00:00:01.001", "-"],
    ]
    first, second = json.loads(taskd("task", "show", ID, "--json").out)["attempts"]
    assert first == {
        "attempt": 1,
        "agent": "elm",
        "outcome": "crashed",
        "started_at": "2026-11-22T00:00:00.000Z",
        "finished_at": "2026-11-22T00:00:00.500Z",
        "error": {"type": None, "message": "SIGSEGV", "traceback": None, "code": "worker.killed"},
    }
    assert (second["outcome"], second["error"]) == ("succeeded", None)


def test_show_says_why_a_task_waits(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [WAITING])]
    shown = taskd("task", "show", ID).out
    assert f"waits      no agent that is connected has app.fetch (more: taskd task explain {ID})\n" in shown
    assert 'arguments  "https://example.org/", depth=2\n' in shown


def test_show_tells_the_remote_traceback(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [DEAD])]
    shown = taskd("task", "show", ID).out
    assert "error      builtins.LookupError: no such page (task.raised)\n" in shown
    assert shown.endswith(f"\n\n{RAISED.traceback}\n")


def test_show_obeys_no_escape_sequence(taskd: Taskd, client: FakeClient) -> None:
    """What a task says is shown, and never drives the terminal."""
    failure = msgspec.structs.replace(RAISED, message="\x1b[2Jgone\x07")
    client.replies = [TaskViews(0, [msgspec.structs.replace(DEAD, failure=failure)])]
    shown = taskd("task", "show", ID).out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[2Jgone" in shown


@pytest.mark.parametrize("word", ["show", "wait", "cancel"])
def test_a_word_that_is_no_id_is_refused_here(word: str, taskd: Taskd, client: FakeClient) -> None:
    """No server is asked."""
    ended = taskd("task", word, "seven")
    assert ended.code == 2
    assert "'seven' is no task id" in ended.complaint or "'seven' is not a task id" in ended.complaint
    assert not client.asked


def test_show_of_an_unknown_task(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [None])]
    ended = taskd("task", "show", ID)
    assert (ended.code, ended.out) == (2, "")
    assert ID in ended.complaint


def test_run_now_tells_the_states(taskd: Taskd, client: FakeClient) -> None:
    """One that is not stored is told as an error, behind the others."""
    client.replies = [TaskHastened(0, ["ready", "unknown"])]
    ended = taskd("task", "run-now", ID, str(TWO.hex()))
    assert client.asked == [TaskHasten(0, [ONE, TWO])]
    assert (ended.code, ended.out.splitlines()[0]) == (2, f"{ID} ready")


def test_ls_as_json_is_an_array(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskPage(0, [VIEW, WAITING], b"")]
    ended = taskd("task", "ls", "--state", "ready", "--queue", "web", "--name", "app.fetch", "--limit", "7", "--json")
    assert [task["state"] for task in json.loads(ended.out)] == ["succeeded", "ready"]
    assert client.asked == [TaskList(0, limit=7, filter=TaskFilter("ready", "web", "app.fetch"))]


def test_ls_asks_for_pages_until_there_are_enough(taskd: Taskd, client: FakeClient) -> None:
    """A page may be short, even empty, and have more behind it."""
    client.replies = [TaskPage(0, [VIEW] * 1000, b"a"), TaskPage(0, [], b"b"), TaskPage(0, [VIEW] * 500, b"c")]
    ended = taskd("task", "ls", "--limit", "1500", "--json")
    assert len(json.loads(ended.out)) == 1500
    assert client.asked == [TaskList(0, limit=n, cursor=c) for n, c in [(1000, b""), (500, b"a"), (500, b"b")]]


def test_ls_for_people_says_when_there_may_be_more(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskPage(0, [VIEW], b"a")]
    ended = taskd("task", "ls", "--limit", "1")
    header, row = ended.out.splitlines()
    assert header.split() == ["ID", "NAME", "QUEUE", "STATE", "ATTEMPT", "AGENT", "CREATED"]
    assert row.split() == [ID, "app.fetch", "web", "succeeded", "2", "ash", "2026-11-21", "23:59:59"]
    assert "--limit" in ended.err


def test_wait_prints_the_result_as_json(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [Outcome(ONE, "succeeded", 1, pack(["å", 1.5]))]
    client.late = 1
    client.replies = [TaskViews(0, [VIEW])]
    ended = taskd("task", "wait", ID, "--timeout", "1.5m")
    assert (ended.code, ended.out, ended.err) == (0, '["å", 1.5]\n', "")
    assert client.timeouts == [3.0, pytest.approx(87.0, abs=5.0)]


def test_wait_for_a_task_that_failed_is_one(taskd: Taskd, client: FakeClient) -> None:
    """One line tells which and why."""
    client.outcomes = [Outcome(ONE, "dead", 3, b"", RAISED)]
    ended = taskd("task", "wait", ID)
    assert (ended.code, ended.out) == (1, "")
    assert ended.complaint == f"taskd: task {ID} failed on attempt 3: LookupError: no such page"


def test_wait_as_json_prints_the_task_also_when_it_failed(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [Outcome(ONE, "dead", 3, b"", RAISED)]
    client.replies = [TaskViews(0, [DEAD])]
    ended = taskd("task", "wait", ID, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["state"] == "dead"


def test_wait_for_a_cancelled_task_is_one(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [Outcome(ONE, "cancelled", 1)]
    assert taskd("task", "wait", ID).code == 1


def test_wait_for_an_unknown_task_is_two(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [Outcome(ONE, "unknown", failure=Failure("task.unknown", "it was never here"))]
    ended = taskd("task", "wait", ID, "--json")
    assert (ended.code, ended.out) == (2, "")


def test_wait_too_long_is_four(taskd: Taskd, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: object) -> None:
        raise TimedOut("the task has not ended within 1 s")

    monkeypatch.setattr(client, "wait", give_up)
    assert taskd("task", "wait", ID, "--timeout", "1").code == 4


def test_a_result_that_is_kept_no_longer_is_two(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [ResultGone("its result was removed")]
    assert taskd("task", "show", ID).code == 2


def test_cancel_prints_each_with_its_state(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [Cancelled(0, ["cancelled", "cancelling"])]
    ended = taskd("task", "cancel", ID, format_task_id(TWO))
    assert (ended.code, ended.out) == (0, f"{ID} cancelled\n{format_task_id(TWO)} cancelling\n")
    assert client.asked == [Cancel(0, [ONE, TWO])]


def test_cancel_of_an_unknown_task_is_two(taskd: Taskd, client: FakeClient) -> None:
    """The others are cancelled all the same, and said so."""
    client.replies = [Cancelled(0, ["unknown", "cancelled"])]
    ended = taskd("task", "cancel", ID, format_task_id(TWO), "--json")
    assert ended.code == 2
    assert [task["state"] for task in json.loads(ended.out)] == ["unknown", "cancelled"]
    assert ID in ended.complaint


def test_retry_prints_each_with_its_state(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskRetried(0, ["ready", "succeeded"])]
    ended = taskd("task", "retry", ID, format_task_id(TWO), "--json")
    assert (ended.code, [task["state"] for task in json.loads(ended.out)]) == (0, ["ready", "succeeded"])
    assert client.asked == [TaskRetry(0, [ONE, TWO])]


def test_times_before_and_after_any_clock_do_not_break_a_listing(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskPage(0, [msgspec.structs.replace(VIEW, created_at_ms=0)], b"")]
    assert json.loads(taskd("task", "ls", "--json").out)[0]["created_at"] == "1970-01-01T00:00:00.000Z"


def test_logs_are_printed_each_to_its_stream(taskd: Taskd, client: FakeClient) -> None:
    """What is no standard output goes where errors go: so do the stacks of an attempt that took too long."""
    client.replies = [TaskViews(0, [VIEW])]
    client.entries = [
        LogEntry(0, 1, 1, 0, b"out\n"),
        LogEntry(1, 1, 3, 0, b"Thread 1\n"),
        LogEntry(2, 2, 1, 0, b"again\n"),
    ]
    ended = taskd("task", "logs", ID)
    assert (ended.code, ended.out) == (0, "out\nagain\n")
    assert ended.err == "Thread 1\ntaskd: attempt 2 begins: the one before failed, or its agent was lost\n"


def test_records_and_cuts_are_written_out_and_values_are_not(taskd: Taskd, client: FakeClient) -> None:
    record = LogLine(1_800_000_000_123, "INFO", "shop", "sold", "00-trace", {"order": "7"})
    client.replies = [TaskViews(0, [VIEW])]
    client.entries = [
        LogEntry(0, 1, streams.LOG, 0, encode_line(record)),
        LogEntry(1, 1, streams.VALUES, 0, encode_line(ValueLine(0, b"\x01"))),
        LogEntry(2, 1, streams.CUT, 0, encode_line(CutLine(0, 2_000, 20, "rate"))),
    ]
    ended = taskd("task", "logs", ID)
    assert ended.err.splitlines() == [
        "08:00:00.123 INFO shop: sold order=7",
        "[taskd: 20 lines, 2,000 bytes were left out here: its agent takes less in a second]",
    ]


def test_lines_are_listed_for_scripts(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [VIEW])] * 2
    record = LogLine(1_800_000_000_123, "INFO", "shop", "sold", "00-trace", {"order": "7"})
    entries = [LogEntry(4, 2, 1, 1_800_000_000_000, b"one\n\xfftwo"), LogEntry(5, 2, 4, 0, encode_line(record))]
    client.entries = [*entries]
    lines = json.loads(taskd("task", "logs", ID, "--json", "--attempt", "2", "--since", "1h").out)
    assert [line["text"] for line in lines] == ["one", "\\xfftwo", "sold"]
    assert lines[0] == {
        "at": "2027-01-15T08:00:00.000Z",
        "attempt": 2,
        "stream": "stdout",
        "text": "one",
        "level": None,
        "logger": None,
        "fields": {},
        "traceparent": None,
        "cursor": "4.0",
        "done": None,
        "total": None,
    }
    assert [line["cursor"] for line in lines] == ["4.0", "4.1", "5.0"]
    assert lines[2]["fields"] == {"order": "7"}
    wanted = client.wanted[0]
    assert (wanted.attempt, wanted.since_ms, wanted.stored) == (2, 1_800_000_000_000 - 3_600_000, True)
    client.entries = [*entries]
    followed = taskd("task", "logs", ID, "--json", "-f").out.splitlines()
    assert [json.loads(line) for line in followed] == lines
    assert not client.wanted[1].stored


def test_logs_of_a_task_that_is_not_stored_are_refused(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [None])]
    assert "no task" in taskd("task", "logs", ID).complaint


def test_a_wait_with_a_limit_outlasts_a_restart_of_the_server(
    taskd: Taskd, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskd.cli.connection._AGAIN_S", 0.0)
    client.unreachable = 3
    client.outcomes = [Outcome(VIEW.id, "succeeded", 1, pack(7))]
    ended = taskd("task", "wait", ID, "--timeout", "1h")
    assert (ended.code, ended.out) == (0, "7\n")


def test_a_wait_with_a_limit_tells_in_the_end_that_nobody_answers(taskd: Taskd, client: FakeClient) -> None:
    client.unreachable = 1
    ended = taskd("task", "wait", ID, "--timeout", "100ms")
    assert (ended.code, "nobody answers" in ended.complaint) == (3, True)


def test_what_is_blocked(taskd: Taskd, client: FakeClient) -> None:
    """Tasks that wait for what they have spawned are listed; nodes of workflows are none yet, and are counted."""
    waits = msgspec.structs.replace(VIEW, state="blocked", result=None)
    flow = make_workflow_id(1_800_000_000_000, bytes(5))
    show = f"taskd workflow show {format_task_id(flow)}"
    counts = {"succeeded": 3, "blocked": 1_200}
    view = WorkflowView(flow, "w", "running", 1_203, counts, 0, None, "", "")
    count = "nodes are no tasks yet, waiting for others"
    everywhere = f"at least 1,201 {count}, in 2 workflows: taskd workflow ls --state running\n"
    for views, more, told in (
        ([], b"", ""),
        ([view], b"", f"1,200 {count}: {show}\n"),
        ([view, msgspec.structs.replace(view, id=bytes(16), counts={"blocked": 1})], b"more", everywhere),
    ):
        client.asked.clear()
        client.replies = [TaskPage(0, [waits], b""), *[WorkflowPage(0, views, more)] * (10 if more else 1)]
        ended = taskd("task", "ls", "--state", "blocked", "--json")
        assert (ended.code, ended.err) == (0, told)
        assert [row["state"] for row in json.loads(ended.out)] == ["blocked"]
        assert client.replies == []
    assert client.asked[-1] == WorkflowList(0, "running", limit=1_000, cursor=b"more")
