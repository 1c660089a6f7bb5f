"""`taskd limit` and `taskd queue pause`: what is asked of the server, and what is told of it."""

import json

import pytest

from taskd_protocol.connection_messages import Done
from taskd_protocol.house_messages import AgentPage, QueuePage, QueueView
from taskd_protocol.limit_messages import LimitList, LimitPage, LimitRemove, LimitSet, LimitView, QueuePause
from taskd_protocol.limiting import Limit
from unit.cli.fake_client import FakeClient, Taskd

IMAGES = Limit("queue:images", 10, 100, 60_000, 5, "shop")


def test_limits_for_people_and_for_scripts(taskd: Taskd, client: FakeClient) -> None:
    by_key = [LimitView(Limit("card", 0, 10, 60_000, 3), 0), LimitView(Limit("desk", 2), 0)]
    page = LimitPage(0, [LimitView(IMAGES, 7, 3), LimitView(Limit("task:m.f", 2), 2), *by_key])
    client.replies = [page, page]
    rows = [line.split() for line in taskd("limit", "ls").out.splitlines()[1:]]
    assert rows == [
        ["queue:images", "7", "of", "10", "100/m", "3", "of", "5", "defined", "in", "code", "by", "shop"],
        ["task:m.f", "2", "of", "2", "-", "-", "a", "person"],
        ["card", "-", "10/m", "3", "for", "each", "key", "a", "person"],
        ["desk", "2", "of", "each", "key", "-", "-", "a", "person"],
    ]
    [images, name, card, _] = json.loads(taskd("limit", "ls", "--json").out)
    assert images == {
        "name": "queue:images",
        "concurrency": 10,
        "running": 7,
        "rate": "100/m",
        "burst": 5,
        "left": 3,
        "source": "shop",
    }
    assert (name["rate"], name["burst"], name["left"]) == (None, None, None)
    assert (card["rate"], card["burst"], card["left"]) == ("10/m", 3, None)
    assert client.asked == [LimitList(0), LimitList(0)]


def test_a_limit_is_set_and_removed(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [Done(0), Done(0)]
    taskd("limit", "set", "task:m.f", "--rate", "10/m", "--burst", "3", "--concurrency", "4")
    taskd("limit", "rm", "task:m.f")
    assert client.asked == [LimitSet(0, Limit("task:m.f", 4, 10, 60_000, 3)), LimitRemove(0, "task:m.f")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("queue:images",), "limits nothing"),
        (("queue:images", "--rate", "often"), "100/s, 10/m or 5/2h"),
        (("queue:images", "--concurrency", "-1"), "a limit's concurrency goes from 1 to 1,000,000, not -1"),
    ],
)
def test_a_bad_limit_is_refused_in_a_line_before_the_server_is_asked(
    taskd: Taskd, client: FakeClient, words: tuple[str, ...], told: str
) -> None:
    run = taskd("limit", "set", *words)
    assert run.code == 2
    assert told in run.err
    assert len(run.err.splitlines()) == 1
    assert client.asked == []


def test_a_queue_is_paused(taskd: Taskd, client: FakeClient) -> None:
    """A name that nobody uses may be a slip of the pen."""
    client.replies = [Done(0), QueuePage(0, [QueueView("images", 0, 0, 0, paused=True)]), AgentPage(0, [])]
    run = taskd("queue", "pause", "images")
    assert "taskd queue resume images" in run.out
    assert "is that what it is called?" in run.err
    assert client.asked[0] == QueuePause(0, "images")
    client.replies = [QueuePage(0, [QueueView("images", 1, 0, 0, paused=True, draining=True)])]
    assert taskd("queue", "ls").out.splitlines()[1].split() == ["images", "1", "0", "0", "1", "paused,", "draining"]
