"""Events on the wire: in order, from any place on, none left out; and who reads slowly holds up nobody."""

from collections.abc import Sequence

import pytest
import trio

from harness.peer import Peer
from harness.server import Server, leased, report
from taskd.core.events import EventsRecord, Noted, TasksMoved
from taskd.server import bus
from taskd.server.certificates import Certificates
from taskd.server.journal import Journal, Numbered
from taskd_protocol.agent_messages import Ack, Recorded
from taskd_protocol.connection_messages import Error
from taskd_protocol.event_messages import (
    EventPage,
    EventsFollow,
    EventsMore,
    EventView,
    OverviewPage,
    OverviewQuery,
)
from taskd_protocol.house_messages import QueueDrain
from taskd_protocol.limits import WAIT_IDS_MAX
from taskd_protocol.workflow import make_workflow_id, member_id


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    """A server that keeps what happens."""
    return await Server(nursery, ca, watched=True).start()


def journal_of(server: Server) -> Journal:
    assert server.watch is not None
    return server.watch.journal


class Follower:
    """A client that follows, and takes pages when it likes."""

    def __init__(self, peer: Peer, request_id: int) -> None:
        self.peer = peer
        self.request_id = request_id
        self.after = -1
        self.owes = False

    async def page(self) -> EventPage:
        if self.owes:
            await self.peer.send(EventsMore(self.request_id))
        self.owes = True
        page = await self.peer.take(EventPage)
        self.after = page.after
        return page

    async def events(self, count: int) -> list[EventView]:
        found: list[EventView] = []
        while len(found) < count:
            found += (await self.page()).events
        return found


async def follow(server: Server, **wanted: object) -> Follower:
    peer = await server.client("viewer")
    request_id = peer.number()
    await peer.send(EventsFollow(request_id, **wanted))  # type: ignore[arg-type]  # as each test says
    await peer.settle()
    follower = Follower(peer, request_id)
    if not any(isinstance(message, Error) for message in peer.inbox):
        assert (await follower.page()).events == []
    return follower


async def work(server: Server, client: Peer, agent: Peer, count: int = 2, **fields: object) -> list[bytes]:
    specs = await server.submit(client, count, **fields)
    await agent.send(Ack([report(grant) for grant in await leased(agent, count)]))
    await agent.take(Recorded)
    return [spec.id for spec in specs]


def told(events: Sequence[EventView]) -> list[tuple[str, list[bytes]]]:
    return [(event.what, event.ids) for event in events]


LIFE = ("task.submitted", "task.running", "task.succeeded")


async def test_what_happens_is_told_as_it_happens(server: Server) -> None:
    client, agent = await server.client(), await server.agent(credit=9)
    follower = await follow(server)
    ids = await work(server, client, agent, queue="images")
    events = await follower.events(3)
    assert told(events) == [(what, ids) for what in LIFE]
    assert {(event.queue, event.name) for event in events} == {("images", "m.f")}
    assert [event.agent for event in events] == ["", "a1", "a1"]
    assert [len(event.spans_ms) for event in events] == [0, 2, 2]
    assert [event.number for event in events] == sorted([event.number for event in events])
    await (await server.client("operator")).send(QueueDrain(1, "images"))
    assert told(await follower.events(1)) == [("queue.changed", [])]


@pytest.mark.parametrize("after", [0, -1])
async def test_a_reader_begins_where_it_says(server: Server, after: int) -> None:
    client, agent = await server.client(), await server.agent(credit=9)
    first = await work(server, client, agent)
    follower = await follow(server, after=after, topics=["task.submitted"])
    second = await work(server, client, agent)
    events = await follower.events(1 if after else 2)
    assert told(events) == [("task.submitted", ids) for ids in ([first] if not after else []) + [second]]


async def test_a_reader_goes_on_after_a_lost_connection_and_a_crash(server: Server) -> None:
    """Nothing is told twice, and nothing is left out."""
    client, agent = await server.client(), await server.agent(credit=9)
    follower = await follow(server)
    await work(server, client, agent)
    seen = await follower.events(3)
    await follower.peer.close()
    missed = await work(server, client, agent)
    again = await server.crash()
    follower = await follow(again, after=follower.after, topics=["task."])
    later = await again.submit(await again.client(), 1)
    events = await follower.events(4)
    assert told(events) == [*((what, missed) for what in LIFE), ("task.submitted", [later[0].id])]
    assert events[0].number == seen[-1].number + 1


async def test_filters_narrow_what_is_told(server: Server) -> None:
    client, agent = await server.client(), await server.agent(credit=9)
    images = await work(server, client, agent, queue="images")
    other = await work(server, client, agent, queue="mail", name="m.f")
    cases: list[tuple[dict[str, object], list[tuple[str, list[bytes]]]]] = [
        ({"queue": "mail"}, [(what, other) for what in LIFE]),
        ({"ids": [images[1]]}, [(what, [images[1]]) for what in LIFE]),
        ({"topics": ["task.succeeded"]}, [("task.succeeded", images), ("task.succeeded", other)]),
        ({"topics": ["agent."]}, [("agent.connected", [])]),
        ({"name": "m.*", "topics": ["task.running"]}, [("task.running", images), ("task.running", other)]),
        ({"name": "m.f", "queue": "mail", "topics": ["task.running"]}, [("task.running", other)]),
    ]
    for wanted, expected in cases:
        follower = await follow(server, after=0, **wanted)
        assert told(await follower.events(len(expected))) == expected
        await follower.peer.settle()
        assert follower.peer.told(EventPage) == []


def test_a_workflow_is_told_of_with_its_tasks() -> None:
    flow = make_workflow_id(5, bytes(5))
    mine, other = member_id(flow, 3), bytes(16)
    moved = TasksMoved("task.running", "q", "m.f", "a1", 1, [other, mine], [7, 9])
    record = Numbered(4, EventsRecord(1, [moved], [Noted("workflow.running", "report", flow)]))
    events = bus.pick(bus.Wanted(workflow=flow), record)
    assert told(events) == [("task.running", [mine]), ("workflow.running", [flow])]
    assert events[0].spans_ms == [9]


async def test_a_slow_reader_holds_up_nobody_and_misses_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept for it is bounded: it falls back to the journal, from its place on."""
    monkeypatch.setattr(bus, "PENDING_MAX", 5)
    client = await server.client()
    slow, quick = await follow(server, topics=["task."]), await follow(server, topics=["task."])
    await slow.peer.send(EventsMore(slow.request_id))  # for one page, of thirty that follow
    await slow.peer.settle()
    slow.owes = False
    ids = []
    for _ in range(30):
        ids += [spec.id for spec in await server.submit(client, 1)]
        assert told(await quick.events(1)) == [("task.submitted", ids[-1:])]
        await trio.sleep(2 * bus.GATHER_SECONDS)
    assert server.loop.tally.dropped == {"events": 1}
    assert [event.ids[0] for event in await slow.events(30)] == ids
    ids = [spec.id for spec in await server.submit(client, 1)]
    assert told(await slow.events(1)) == [("task.submitted", ids)]


async def test_what_is_not_kept_any_more_is_said_to_be_missed(server: Server) -> None:
    client = await server.client()
    for _ in range(4):
        await server.submit(client, 1)
    journal_of(server).oldest = journal_of(server).told
    follower = await follow(server, after=0)
    page = await follower.page()
    assert page.missed
    assert [event.number for event in page.events] == [journal_of(server).told]
    await server.submit(client, 1)
    assert not (await follower.page()).missed


async def test_a_reader_ahead_of_a_restored_store_misses_nothing_from_then_on(server: Server) -> None:
    """A backup was put back: what the reader saw last is a number that has yet to come."""
    client = await server.client()
    await server.submit(client, 1)
    follower = await follow(server, after=journal_of(server).told + 50, topics=["task."])
    page = await follower.page()
    assert (page.missed, page.events, page.after) == (True, [], journal_of(server).told)
    later = await server.submit(client, 1)
    assert told(await follower.events(1)) == [("task.submitted", [later[0].id])]


async def test_nobody_who_looks_on_costs_nothing(server: Server) -> None:
    follower = await follow(server)
    await follower.peer.close()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bus, "pick", None)
        await server.submit(await server.client(), 3)
        await trio.sleep(1)


@pytest.mark.parametrize(
    "wanted",
    [
        {"topics": [""]},
        {"topics": ["task."] * 33},
        {"queue": "q" * 257},
        {"ids": [b"short"]},
        {"ids": [bytes(16)] * WAIT_IDS_MAX},
        {"workflow": b"short"},
    ],
)
async def test_what_cannot_be_meant_is_refused(server: Server, wanted: dict[str, object]) -> None:
    follower = await follow(server, **wanted)
    assert (await follower.peer.take(Error)).code == "request.invalid"


async def test_a_connection_follows_so_many(server: Server) -> None:
    peer = await server.client()
    for _ in range(65):
        await peer.send(EventsFollow(peer.number()))
    assert (await peer.take(Error)).code == "request.invalid"
    await peer.send(EventsFollow(1))
    assert (await peer.take(Error)).code == "request.invalid"


async def test_a_server_that_keeps_nothing_says_so(nursery: trio.Nursery, ca: Certificates) -> None:
    server = await Server(nursery, ca).start()
    peer = await server.client()
    await peer.send(OverviewQuery(peer.number()))
    assert (await peer.take(Error)).code == "request.invalid"


async def test_the_overview_is_told_by_range(server: Server) -> None:
    client, agent = await server.client(), await server.agent(credit=9)
    await work(server, client, agent, 3)
    await trio.sleep(20)
    for asked, least in [("15m", 9), ("1h", 1), ("6h", 0), ("24h", 0)]:
        page = await client.ask(OverviewQuery(client.number(), asked), OverviewPage)
        assert least <= len(page.points) <= 11
        assert sum([point.succeeded for point in page.points]) == (3 if least else 0)
    await client.send(OverviewQuery(client.number(), "1d"))
    assert (await client.take(Error)).code == "request.invalid"
