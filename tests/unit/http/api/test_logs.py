"""What tasks say, over HTTP: pages that go on behind a cursor, and a stream that can be resumed."""

import pytest

from harness.http import Browser
from harness.peer import Peer
from harness.server import Server, leased, report
from harness.streams import stream
from taskd_protocol.agent_messages import Ack, Logs, LogsRecorded, Recorded
from taskd_protocol.ids import TaskId, format_task_id
from taskd_protocol.payload import pack
from taskd_protocol.streams import (
    CUT,
    LOG,
    PROGRESS,
    STDERR,
    STDOUT,
    VALUES,
    CutLine,
    LogLine,
    ProgressLine,
    ValueLine,
    encode_line,
)
from taskd_protocol.task import Grant, LogPiece

NOW_MS = 1_800_000_000_000
ABOVE = 2**53 + 1
PIECES = [
    (STDOUT, b"one\ntwo\n"),
    (LOG, encode_line(LogLine(NOW_MS + 5, "INFO", "shop", "sold <b>", "00-trace", {"order": "7"}))),
    (STDERR, b"\xff\x1b[2J no newline"),
    (VALUES, encode_line(ValueLine(NOW_MS + 6, pack([ABOVE, b"x"])))),
    (PROGRESS, encode_line(ProgressLine(NOW_MS + 7, 3, 10, "a third"))),
    (CUT, encode_line(CutLine(NOW_MS + 8, 2_000, 20, "rate"))),
    (STDOUT, b"three\nfour\nfive\n"),
]
TEXTS = ["one", "two", "sold <b>", "\\xff\x1b[2J no newline", "three", "four", "five"]


async def begin(server: Server) -> tuple[Peer, Grant, str]:
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    return agent, grant, format_task_id(TaskId(spec.id))


async def say(agent: Peer, grant: Grant, *pieces: tuple[int, bytes], first: int = 0) -> None:
    numbered = enumerate(pieces, first + 1)
    await agent.send(Logs([LogPiece(grant.token, grant.spec.id, s, NOW_MS + n, data, n) for n, (s, data) in numbered]))
    await agent.take(LogsRecorded)


async def end(agent: Peer, grant: Grant) -> None:
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)


async def test_a_page_has_what_people_read_and_more_on_demand(browser: Browser, server: Server) -> None:
    agent, grant, task_id = await begin(server)
    await say(agent, grant, *PIECES)
    page = (await browser.get(f"/tasks/{task_id}/logs")).json
    lines = page["lines"]
    cut = "[taskd: 20 lines, 2,000 bytes were left out here: its agent takes less in a second]"
    assert [line["text"] for line in lines] == [*TEXTS[:4], cut, *TEXTS[4:]]
    assert page["cursor"] is None
    assert lines[2] == {
        "at": "2027-01-15T08:00:00.005Z",
        "attempt": 1,
        "stream": "log",
        "text": "sold <b>",
        "level": "INFO",
        "logger": "shop",
        "fields": {"order": "7"},
        "traceparent": "00-trace",
        "cursor": "1.0",
        "done": None,
        "total": None,
    }
    more = (await browser.get(f"/tasks/{task_id}/logs?streams=value,progress")).json["lines"]
    assert [(line["stream"], line["text"], line["done"], line["total"]) for line in more] == [
        ("value", f'[{ABOVE}, "eA=="]', None, None),
        ("progress", "a third", 3.0, 10.0),
    ]
    assert (await browser.get(f"/tasks/{task_id}/logs?attempt=2")).json == {"lines": [], "cursor": None}
    late = (await browser.get(f"/tasks/{task_id}/logs?since_ms={NOW_MS + 7}")).json["lines"]
    assert [line["text"] for line in late] == TEXTS[4:]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_go_on_behind_the_last_line(browser: Browser, server: Server, limit: int) -> None:
    agent, grant, task_id = await begin(server)
    await say(agent, grant, *[piece for piece in PIECES if piece[0] != CUT])
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await browser.get(f"/tasks/{task_id}/logs?limit={limit}&after={cursor}")).json
        assert len(page["lines"]) <= limit
        found += [line["text"] for line in page["lines"]]
        cursor = page["cursor"]
    assert found == TEXTS


async def test_a_stream_is_live_ends_with_the_task_and_is_resumed_behind_its_last_event(
    browser: Browser, server: Server
) -> None:
    agent, grant, task_id = await begin(server)
    async with stream(browser, f"/tasks/{task_id}/logs", accept="text/event-stream") as live:
        assert (live.status, live.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        await say(agent, grant, PIECES[0])
        first = await live.next()
        assert [line["text"] for line in first.data["lines"]] == ["one", "two"]
        assert first.id == "0.1"
        await say(agent, grant, *PIECES[1:], first=1)
        second = await live.next()
        await end(agent, grant)
        last = await live.next()
        assert (last.kind, last.data) == ("end", {})
    again = Browser(await server.crash())
    path = f"/tasks/{task_id}/logs?after=5.0"
    async with stream(again, path, accept="text/event-stream", last_event_id="0.0") as live:
        lines = (await live.next()).data["lines"]
        assert lines == [*first.data["lines"][1:], *second.data["lines"]]
        assert (await live.next()).kind == "end"


async def test_what_cannot_be_is_refused(browser: Browser) -> None:
    task = "/tasks/0197c1a0-7d3c-7c4e-9f00-0123456789ab/logs"
    assert (await browser.get(task)).status == 404
    assert (await browser.get("/tasks/no-id/logs")).status == 400
    for cursor in ("12", "a.b", "9999999999999999999.0", "9" * 22 + ".0"):
        refused = await browser.get(f"{task}?after={cursor}")
        assert (refused.status, refused.json["error"]["path"]) == (400, "$.after")
    for words, path in (
        ("after=x", "$.after"),
        ("after=1.-2", "$.after"),
        ("after=²", "$.after"),
        ("streams=stdout,all", "$.streams"),
        ("limit=0", "$.limit"),
        ("attempt=-1", "$.attempt"),
        ("colour=red", "$"),
    ):
        answer = await browser.get(f"{task}?{words}")
        assert answer.status == 400, words
        assert path in str(answer.json), words
    assert (await browser.get(task, accept="text/event-stream", last_event_id="7")).status == 400
    assert (await browser.get(task, accept="text/event-stream")).status == 404
