"""`taskd limit` and `taskd queue pause`: what is asked of the server, and what is told of it."""

import json
import sys
from pathlib import Path

import pytest

from taskd_protocol.connection_messages import Done
from taskd_protocol.house_messages import AgentPage, QueuePage, QueueView
from taskd_protocol.limit_messages import (
    LimitChanges,
    LimitList,
    LimitPage,
    LimitRemove,
    LimitSet,
    LimitSync,
    LimitView,
    QueuePause,
)
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
    client.replies = [LimitPage(0, []), Done(0), LimitPage(0, []), Done(0)]
    taskd("limit", "set", "task:m.f", "--rate", "10/m", "--burst", "3", "--concurrency", "4")
    taskd("limit", "rm", "task:m.f")
    asked = [each for each in client.asked if not isinstance(each, LimitList)]
    assert asked == [LimitSet(0, Limit("task:m.f", 4, 10, 60_000, 3)), LimitRemove(0, "task:m.f")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("queue:images",), "limits nothing"),
        (("queue:images", "--rate", "often"), "100/s, 10/m or 5/2h"),
        (
            ("queue:images", "--rate", "1/s", "--burst", "0"),
            "a limit's burst goes from 1 to 1,000,000, not 0; leave it",
        ),
        (
            ("queue:images", "--rate", "1/s", "--concurrency", "0"),
            "a limit's concurrency goes from 1 to 1,000,000, not 0",
        ),
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


CODE = """
from taskd import App, Limit
app = App()

@app.task(concurrency=3, limits=[Limit("card", key="{customer}", rate="10/m")])
def charge(customer): ...
"""


def test_what_code_says_is_made_known_module_by_module(
    taskd: Taskd, client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_limits.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    client.replies = [LimitChanges(0, ["card"], [], ["task:shop_limits.charge"])]
    run = taskd("limit", "sync", "shop_limits", "--python", sys.executable)
    assert run.out == "shop_limits: 1 changed, 0 removed\n"
    assert "task:shop_limits.charge stays as a person, or another module, has said" in run.err
    said = [Limit("task:shop_limits.charge", 3), Limit("card", 0, 10, 60_000)]
    assert client.asked == [LimitSync(0, "shop_limits", said)]


def test_a_hand_on_what_code_says_is_told_of_the_code(taskd: Taskd, client: FakeClient) -> None:
    page = LimitPage(0, [LimitView(IMAGES, 7, 3)])
    client.replies = [page, Done(0), page, Done(0)]
    assert "the code of shop defines it otherwise" in taskd("limit", "set", "queue:images", "--concurrency", "4").err
    assert "it comes back with the next agent" in taskd("limit", "rm", "queue:images").err
