"""`taskd watch`, `top` and `workflow watch`: what is asked, and what people read."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from taskd.cli.flow_watch import progress_text
from taskd.cli.top import draw, sparkline
from taskd.cli.watch import read_filter
from taskd_protocol.agent_messages import HostStats
from taskd_protocol.errors import BadRequest
from taskd_protocol.event_messages import EventsFollow
from taskd_protocol.house_messages import AgentView, QueueView
from taskd_protocol.ids import TaskId, format_task_id
from taskd_protocol.point import Point, Shares
from taskd_protocol.workflow_messages import WorkflowView

TASK_ID = TaskId(bytes.fromhex("0197c1a07d3c7c4e9f000123456789ab"))


def test_a_filter_is_words() -> None:
    words = ["what:agent.", "state:dead", "queue:images", "name:thumb*", f"task:{format_task_id(TASK_ID)}"]
    assert read_filter(words, 7) == EventsFollow(
        0, after=7, topics=["agent.", "task.dead"], queue="images", name="thumb*", ids=[TASK_ID]
    )
    assert read_filter([], None) == EventsFollow(0)
    assert read_filter([" ".join(words)], 7) == read_filter(words, 7)
    assert read_filter(["queue:my images"], None).queue == "my images"


@pytest.mark.parametrize("word", ["images", "colour:red", "queue:", "queue:a queue:b", "task:7"])
def test_a_word_that_is_none_is_named(word: str) -> None:
    with pytest.raises(BadRequest, match=word.rpartition(" ")[2].partition(":")[0 if word != "task:7" else 2]):
        read_filter(word.split(), None)


def test_each_word_of_an_argument_is_looked_at() -> None:
    with pytest.raises(BadRequest, match="stat:dead"):
        read_filter(["queue:images stat:dead"], None)


def test_bars_are_as_high_as_their_share() -> None:
    assert sparkline([0.0, 4.0, 8.0], 60) == " ▄█"
    assert sparkline([0.0, 0.0], 60) == "  "
    assert sparkline([], 60) == ""
    assert len(sparkline([1.0] * 450, 60)) <= 60
    assert len(sparkline([1.0] * 450, 8)) <= 8


def point(at_ms: int, succeeded: int, p50: int) -> Point:
    return Point(
        *(at_ms, 2_000, 5, 5, succeeded, 1, 0, 2, 1_200, 7, 0, 3, 1),
        waits_ms=Shares(p50, p50, p50),
        runs_ms=Shares(-1, -1, -1),
        queues=[],
    )


def test_top_shows_how_things_stand() -> None:
    queues = [QueueView(f"q{number}", ready=number, scheduled=0, running=0) for number in range(20)]
    agents = [AgentView("[bold]a1", b"", "live", 4, 3, HostStats(42.0, 0.1, 1 << 30, 4 << 30), {}, [], [], "", 0)]
    text = drawn([point(1, 10, 5), point(2, 40, 12_000)], queues, agents, 120, 40)
    assert "20.0/s" in text
    assert "1,200 ready, 7 scheduled, 0 blocked, 3 running" in text
    assert "12 s" in text
    assert "q19" in text
    assert "q0 " not in text
    assert "and 8 more" in text
    assert "[bold]a1" in text
    assert "3 of 4" in text
    assert "42 %" in text


def test_top_of_a_new_server_says_that_it_has_nothing_to_show() -> None:
    assert "no figures yet" in drawn([], [], [], 120, 40)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_top_fits_its_screen(columns: int) -> None:
    """However narrow, low and full: no number is cut, no row is broken, and all lines are seen."""
    queues = [QueueView(f"{'q' * 50}{number}", ready=9_999_999, scheduled=0, running=0) for number in range(20)]
    stats = HostStats(42.0, 0.1, 1 << 30, 4 << 30)
    agents = [AgentView(f"{'a' * 50}{n}", b"", "quarantined", 4, 3, stats, {}, [], [], "", 0) for n in range(20)]
    text = drawn([point(n, 40, 12_000) for n in range(450)], queues, agents, columns, 24)
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= columns
    assert len(lines) <= 24
    assert sum("9,999,999" in line for line in lines) == sum("3 of 4" in line for line in lines) >= 3
    assert text.count("more") == 2
    assert ("█" in text) == (columns >= 80)


def drawn(
    points: Sequence[Point], queues: Sequence[QueueView], agents: Sequence[AgentView], columns: int, lines: int
) -> str:
    """Return what a screen of that size shows."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=columns, height=lines, record=True, file=nowhere)
        console.print(draw(points, queues, agents, address="127.0.0.1:7070", span="in 15m", size=(columns, lines)))
        return console.export_text()


def test_a_workflow_has_come_so_far() -> None:
    view = WorkflowView(bytes(16), "report", "running", 8, {"succeeded": 4}, 0, None, "fail_fast", "")
    assert progress_text(view) == (
        "report  [###############...............]  4 of 8 nodes have ended: 4 succeeded; running"
    )
