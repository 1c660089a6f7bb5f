"""Many tasks at once: counted first, asked for, done, and told; and what tasks died of."""

import json

import pytest

from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import format_task_id, task_id_unix_ms
from taskd_protocol.messages import (
    DeadGroupView,
    DeadPage,
    JobList,
    JobPage,
    JobStart,
    JobView,
    TaskCount,
    TaskCounted,
    TaskList,
    TaskPage,
    TaskView,
    TaskViews,
)
from taskd_protocol.task import Failure
from unit.cli.fake_client import FakeClient, Taskd

ONE = bytes.fromhex("0197c1a07d3c7c4e9f000123456789ab")
JOB = bytes.fromhex("0197c1a07d3c7c4e9f000123456789ff")
GROUP = DeadGroupView(bytes(range(16)), "app.Bad", "tasks.py:fetch", "no\nrow 1", 1_204, 0, 86_400_000)
OTHER = DeadGroupView(b"\xff" * 16, "", "", "failures of more kinds than are told apart", 2, 0, 1)
DIED = TaskView(
    id=ONE,
    name="app.fetch",
    queue="web",
    state="dead",
    priority=0,
    attempt=3,
    failures=3,
    max_attempts=3,
    agent="ash",
    created_at_ms=0,
    due_at_ms=None,
    started_at_ms=1,
    finished_at_ms=86_400_000,
    payload=b"\x92\x90\x80",
    result=None,
    failure=Failure("task.raised", "no row 1", "app.Bad", "Traceback: tasks.py"),
    key="",
    traceparent="",
    waits_for="",
)


def job(action: str, changed: int, finished_at_ms: int | None) -> JobPage:
    return JobPage(0, [JobView(JOB, action, TaskFilter(), 0, changed, changed, finished_at_ms)])


def test_a_dry_run_counts_and_changes_nothing(taskd: Taskd, client: FakeClient) -> None:
    """Step by step, until the server has gone through all tasks."""
    client.replies = [TaskCounted(0, 1_000, 4_000, b"c"), TaskCounted(0, 204, 300, b"")]
    ended = taskd("task", "retry", "--queue", "web", "--name", "app.f*", "--error", "row", "--dry-run")
    assert (ended.code, ended.out) == (0, "would retry 1,204 tasks\n")
    wanted = TaskFilter("dead", "web", "app.f*", "row")
    assert client.asked == [TaskCount(0, "retry", wanted), TaskCount(0, "retry", wanted, b"c")]


def test_a_filter_says_which(taskd: Taskd, client: FakeClient) -> None:
    """As one word or several, with options beside; the same one for every command."""
    wanted = TaskFilter("ready", "web", error="timed out", priority_min=6, agent="ash")
    for command, words in (
        ("cancel", ['queue:web error:"timed out" priority:>5', "agent:ash", "--state", "ready"]),
        ("retry", ["queue:web", 'error:"timed out"', "priority:>5 agent:ash state:ready"]),
    ):
        client.replies = [TaskCounted(0, 3, 9, b"")]
        ended = taskd("task", command, *words, "--dry-run")
        assert (ended.code, ended.out) == (0, f"would {command} 3 tasks\n")
        assert client.asked.pop() == TaskCount(0, command, wanted)
    client.replies = [TaskCounted(0, 3, 9, b"")]
    assert taskd("dead", "purge", "queue:web", "before:2026-01-01", "--dry-run").code == 0
    assert client.asked.pop() == TaskCount(0, "purge", TaskFilter("dead", "web", before_ms=1_767_225_600_000))


def test_a_filter_that_is_not_understood_is_pointed_at(taskd: Taskd, client: FakeClient) -> None:
    """Nothing is asked of the server."""
    ended = taskd("task", "ls", "queue:web", "stat:dead")
    assert ended.code == 2
    assert "column 11: 'stat' is no key; did you mean state?" in ended.complaint
    assert taskd("task", "cancel", "queue:web", str(ONE.hex()), "--dry-run").code == 2
    assert not client.asked


def test_with_yes_the_job_is_started_and_followed(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskCounted(0, 7, 9, b""), job("cancel", 3, None), job("cancel", 7, 5)]
    ended = taskd("task", "cancel", "--state", "ready", "--since", "1h", "--yes", "--json")
    assert json.loads(ended.out)["changed"] == 7
    started = client.asked[1]
    assert isinstance(started, JobStart)
    assert started.filter == TaskFilter("ready", since_ms=task_id_unix_ms(client.make_ids(1)[0]) - 3_600_000)
    assert client.asked[2] == JobList(0, [JOB], 3)


def test_without_yes_and_a_person_nothing_is_done(taskd: Taskd, client: FakeClient) -> None:
    """The complaint tells the number, and what to add."""
    client.replies = [TaskCounted(0, 1, 9, b"")]
    ended = taskd("task", "cancel", "--queue", "web")
    assert (ended.code, ended.out) == (2, "")
    assert "would cancel 1 task; add --yes" in ended.complaint
    assert len(client.asked) == 1


def test_nothing_that_fits_is_no_job(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskCounted(0, 0, 9, b"")]
    ended = taskd("dead", "purge", "--queue", "web")
    assert (ended.code, ended.out) == (0, "no task to purge fits\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["task", "cancel"], "say which tasks"),
        (["task", "retry", format_task_id(ONE), "--queue", "web"], "not by both"),
        (["task", "retry", format_task_id(ONE), "--dry-run"], "--dry-run counts"),
        (["dead", "purge"], "say which"),
        (["dead", "retry", "--state", "ready"], "about dead tasks"),
        (["dead", "retry", "00", "ff"], "one GROUP at a time"),
        (["task", "ls", "--since", "soon"], "is no duration"),
    ],
)
def test_tasks_are_told_one_way(taskd: Taskd, client: FakeClient, words: list[str], complaint: str) -> None:
    ended = taskd(*words)
    assert ended.code == 2
    assert complaint in ended.complaint
    assert not client.asked


def test_groups_for_people_and_scripts(taskd: Taskd, client: FakeClient) -> None:
    """One line a group, also for a message of several lines."""
    client.replies = [DeadPage(0, [GROUP, OTHER], 3, 1_206), DeadPage(0, [GROUP], 1, 1_204)]
    lines = taskd("dead", "ls", "--limit", "2")
    assert lines.out.splitlines()[1].split(maxsplit=4) == [
        "00010203",
        "1,204",
        "1970-01-02",
        "00:00:00",
        "app.Bad: no row 1",
    ]
    assert "2 of 3 groups" in lines.err
    assert json.loads(taskd("dead", "ls", "--json").out) == [
        {
            "group": "000102030405060708090a0b0c0d0e0f",
            "type": "app.Bad",
            "place": "tasks.py:fetch",
            "message": "no\nrow 1",
            "count": 1_204,
            "first_at": "1970-01-01T00:00:00.000Z",
            "last_at": "1970-01-02T00:00:00.000Z",
        }
    ]


def test_a_groups_tasks_are_listed_by_the_beginning_of_its_name(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [DeadPage(0, [GROUP, OTHER], 2, 9), TaskPage(0, [DIED], b"")]
    out = taskd("dead", "ls", "0001").out
    assert format_task_id(ONE) in out
    assert client.asked[1] == TaskList(0, limit=100, filter=TaskFilter(group=GROUP.fingerprint))


def test_a_group_is_shown_with_its_last_error(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [DeadPage(0, [GROUP], 1, 9), TaskPage(0, [DIED], b""), TaskViews(0, [DIED])]
    out = taskd("dead", "show", "0001").out
    assert "tasks.py:fetch" in out
    assert "Traceback: tasks.py" in out


def test_one_dead_task_is_shown_as_any_other(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [DIED]), TaskViews(0, [DIED])]
    assert "app.Bad: no row 1" in taskd("dead", "show", format_task_id(ONE)).out
    assert json.loads(taskd("dead", "show", format_task_id(ONE), "--json").out)["state"] == "dead"


@pytest.mark.parametrize("prefix", ["99", ""])
def test_a_group_that_is_not_there_is_two(taskd: Taskd, client: FakeClient, prefix: str) -> None:
    client.replies = [DeadPage(0, [GROUP], 1, 9)]
    ended = taskd("dead", "ls", prefix)
    assert ended.code == 2
    assert "taskd dead ls" in ended.complaint


def test_a_group_and_named_tasks_are_retried_and_purged(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [DeadPage(0, [GROUP, OTHER], 2, 9), TaskCounted(0, 2, 2, b""), job("retry", 2, 5)]
    assert taskd("dead", "retry", "0001", "--yes").out == "retried 2 tasks\n"
    assert client.asked[1] == TaskCount(0, "retry", TaskFilter("dead", group=GROUP.fingerprint))
    client.replies = [TaskCounted(0, 1, 1, b""), job("purge", 1, 5)]
    assert taskd("dead", "purge", format_task_id(ONE), "--yes").out == "purged 1 task\n"
    assert client.asked[3] == TaskCount(0, "purge", TaskFilter("dead", ids=[ONE]))


def test_jobs_are_listed(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [job("retry", 1_204, None), job("retry", 1_204, 5)]
    assert taskd("task", "jobs").out.splitlines()[1].endswith("under way")
    assert json.loads(taskd("task", "jobs", "--json").out)[0]["finished_at"] == "1970-01-01T00:00:00.005Z"
