"""What happens over HTTP: a stream that can be resumed, topics that are told when they change, and the last while."""

import pytest
import trio

from harness.http import Browser
from harness.peer import Peer
from harness.server import Server, leased, report
from harness.streams import Sent, Stream, stream
from taskd.http.live import EVERY_SECONDS, TICK_SECONDS
from taskd.server.certificates import Certificates
from taskd_protocol.agent_messages import Ack, Recorded
from taskd_protocol.ids import TaskId, format_task_id

LIFE = ["task.submitted", "task.running", "task.succeeded"]


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    """A server that keeps what happens."""
    return await Server(nursery, ca, watched=True).start()


async def work(server: Server, client: Peer, agent: Peer, count: int = 2) -> list[str]:
    specs = await server.submit(client, count, queue="images")
    await agent.send(Ack([report(grant) for grant in await leased(agent, count)]))
    await agent.take(Recorded)
    return [format_task_id(TaskId(spec.id)) for spec in specs]


async def take(live: Stream, count: int) -> list[Sent]:
    found: list[Sent] = []
    while len(found) < count:
        sent = await live.next()
        found += [sent] if sent.kind != "begin" else []
    return found


# -- events -------------------------------------------------------------------------------------


async def test_events_come_as_they_happen(server: Server, browser: Browser) -> None:
    client, agent = await server.client(), await server.agent(credit=9)
    async with stream(browser, "/events") as live:
        assert (live.status, live.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        ids = await work(server, client, agent)
        events = await take(live, 3)
    assert [(event.kind, event.data["what"], event.data["ids"]) for event in events] == [
        ("message", what, ids) for what in LIFE
    ]
    assert events[0].data["queue"] == "images"
    assert events[0].data["agent"] is None
    assert events[2].data["agent"] == "a1"


async def test_a_page_goes_on_behind_the_last_event_that_it_has_seen(server: Server, browser: Browser) -> None:
    """As a browser does by itself; the place is told with the last event of a turn, so that none is left out."""
    client, agent = await server.client(), await server.agent(credit=9)
    async with stream(browser, "/events") as live:
        await work(server, client, agent)
        events = await take(live, 3)
    assert all(event.id in {"", str(event.data["number"])} for event in events)
    place = events[-1].id
    missed = await work(server, client, agent)
    again = Browser(await server.crash())
    async with stream(again, "/events?topics=task.&after=-1", last_event_id=place) as live:
        events = await take(live, 3)
    assert [(event.data["what"], event.data["ids"]) for event in events] == [(what, missed) for what in LIFE]


async def test_a_filter_is_what_the_query_says(server: Server, browser: Browser) -> None:
    client, agent = await server.client(), await server.agent(credit=9)
    first, second = await work(server, client, agent)
    for query, expected in [
        (f"tasks={second}", [(what, [second]) for what in LIFE]),
        ("topics=task.succeeded,agent.", [("agent.connected", []), ("task.succeeded", [first, second])]),
        ("queue=images&name=m.*&topics=task.submitted", [("task.submitted", [first, second])]),
    ]:
        async with stream(browser, f"/events?after=0&{query}") as live:
            events = await take(live, len(expected))
            assert [(event.data["what"], event.data["ids"]) for event in events] == expected
            assert await live.rest(1) == []


async def test_a_page_that_was_away_for_too_long_is_told_so(server: Server, browser: Browser) -> None:
    client = await server.client()
    for _ in range(3):
        await server.submit(client, 1)
    assert server.watch is not None
    journal = server.watch.journal
    journal.oldest = journal.told
    async with stream(browser, "/events", last_event_id="1") as live:
        missed, event = await take(live, 2)
    assert (missed.kind, missed.id) == ("missed", str(journal.told - 1))
    assert event.data["number"] == journal.told


@pytest.mark.parametrize(
    ("path", "headers", "place"),
    [
        ("/events?after=x", {}, "$.after"),
        ("/events?what=task", {}, "$"),
        ("/events?after=-2", {}, "$.after"),
        (f"/events?after={1 << 63}", {}, "$.after"),
        ("/events?after=99999999999999999999999", {}, "$.after"),
        ("/events", {"last_event_id": "-1"}, "$.Last-Event-ID"),
        ("/events", {"last_event_id": str(1 << 63)}, "$.Last-Event-ID"),
        ("/events?topics=" + ",".join(["task."] * 33), {}, "$.topics"),
        ("/events?topics=" + "t" * 300, {}, "$.topics"),
        ("/overview?range=1d", {}, "$.range"),
        ("/live?topics=", {}, "$.topics"),
        ("/live?topics=overview,nonsense", {}, "$.topics"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    browser: Browser, path: str, headers: dict[str, str], place: str
) -> None:
    answer = await browser.get(path, **headers)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["path"] == place


# -- the overview -------------------------------------------------------------------------------


async def test_the_overview_is_columns(server: Server, browser: Browser) -> None:
    client, agent = await server.client(), await server.agent(credit=9)
    await work(server, client, agent, 3)
    await trio.sleep(9)
    told = (await browser.get("/overview")).json
    assert {len(column) for column in told.values()} == {4}
    assert sum(told["succeeded"]) == 3
    assert told["agents"] == [1] * 4
    assert told["wait_p50_ms"].count(None) == 3
    assert (await browser.get("/overview?range=24h")).json["at_ms"] == []


# -- live topics --------------------------------------------------------------------------------


async def test_a_tab_is_told_what_it_shows_at_once_and_when_it_changes(server: Server, browser: Browser) -> None:
    client = await server.client()
    async with stream(browser, "/live?topics=queues,tasks,dead") as live:
        first = (await live.next()).data["topics"]
        assert first["queues"] == {"kind": "queues", "queues": [], "count": 0}
        assert first["tasks"] == {"kind": "news", "number": 0, "what": "", "at": None}
        await server.submit(client, 2, queue="mail")
        second = (await live.next()).data["topics"]
        assert second.keys() == {"queues", "tasks"}
        assert second["queues"]["queues"][0]["name"] == "mail"
        assert second["tasks"]["what"] == "task.submitted"
        await leased(await server.agent(credit=9), 2)
        assert [*(await live.next()).data["topics"]] == ["queues", "tasks"]
        assert await live.rest(5) == []


async def test_what_is_told_last_is_how_things_stand(server: Server, browser: Browser) -> None:
    """However it was gathered: when it is quiet again, the page is right."""
    client, agent = await server.client(), await server.agent(credit=99)
    async with stream(browser, "/live?topics=overview,queues") as live, stream(browser, "/live?topics=queues") as other:
        for _ in range(20):
            await work(server, client, agent, 3)
            await trio.sleep(0.07)
        await server.submit(client, 1, queue="last", delay_ms=3_600_000)
        shown: dict[str, dict[str, object]] = {}
        for sent in await live.rest(4):
            shown |= sent.data["topics"]
        assert shown["overview"]["tasks"] == {"scheduled": 1, "succeeded": 60}
        assert [each.data["topics"]["queues"]["queues"][-1]["name"] for each in (await other.rest(1))[-1:]] == ["last"]


async def test_a_tab_is_told_no_more_than_four_times_a_second(server: Server, browser: Browser) -> None:
    client = await server.client()
    async with stream(browser, "/live?topics=overview,queues,tasks") as live:
        began_s = trio.current_time()
        for _ in range(100):
            await server.submit(client, 1)
            await trio.sleep(0.05)
        spent_s = trio.current_time() - began_s
        told = await live.rest(0.01)
    assert spent_s / EVERY_SECONDS * 0.6 < len(told) <= spent_s * 4


async def test_cpu_and_time_are_told_without_an_event(browser: Browser) -> None:
    async with stream(browser, "/live?topics=overview") as live:
        await live.next()
        told = await live.rest(10)
    assert 10 / (TICK_SECONDS + EVERY_SECONDS) - 2 <= len(told) <= 10 / TICK_SECONDS
    assert told[-1].data["topics"]["overview"]["newest"]["span_ms"]


async def test_a_task_and_a_workflow_are_news_when_something_happens_to_them(server: Server, browser: Browser) -> None:
    client = await server.client()
    [mine] = await server.submit(client, 1)
    name = format_task_id(TaskId(mine.id))
    async with stream(browser, f"/live?topics=task:{name.upper()}") as live:
        assert (await live.next()).data["topics"] == {
            f"task:{name}": {"kind": "news", "number": 0, "what": "", "at": None}
        }
        await server.submit(client, 5, name="m.other")
        assert await live.rest(2) == []
        agent = await server.agent(credit=1)
        await leased(agent, 1)
        told = (await live.next()).data["topics"][f"task:{name}"]
        assert told["what"] == "task.running"


async def test_nothing_is_done_when_no_tab_is_open(server: Server, browser: Browser) -> None:
    async with stream(browser, "/live?topics=overview") as live:
        await live.next()
    assert server.watch is not None
    assert not server.watch.bus.is_watched


# -- webhooks -----------------------------------------------------------------------------------


async def test_a_webhook_is_made_shown_and_ended(browser: Browser) -> None:
    """Its secret is told once; it is an admin's."""
    hook = {"name": "chat", "url": "https://example.org/hook", "topics": ["task.dead"], "queue": "images"}
    assert (await browser.post("/webhooks", hook, role="operator")).error[:2] == (403, "auth.role")
    assert (await browser.post("/webhooks", hook)).json["secret"].startswith("whsec_")
    assert (await browser.post("/webhooks", hook)).json == {"secret": None}
    [shown] = (await browser.get("/webhooks", role="admin")).json["webhooks"]
    assert {name: shown[name] for name in hook} == hook
    [paused] = (await browser.post("/webhooks/chat/pause")).json["webhooks"]
    assert paused["paused"]
    assert (await browser.post("/webhooks/chat/remove")).json == {"webhooks": []}
    assert (await browser.post("/webhooks/chat/remove")).error[:2] == (400, "request.invalid")
    assert (await browser.post("/webhooks", hook | {"url": "http://"})).error[:2] == (400, "request.invalid")
