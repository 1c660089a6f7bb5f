"""Following: a task's output, page by page, for those who come late as for those who were there."""

import trio

from harness.peer import Peer
from harness.server import Server, leased, report
from taskd.server.following import ENTRIES_MAX, FOLLOWS_MAX, PACE_MAX_S, pace_s
from taskd_protocol.agent_messages import Ack, Logs, LogsRecorded, Nack, Recorded
from taskd_protocol.connection_messages import Error
from taskd_protocol.messages import Follow, FollowMore, FollowStop, LogEntry, LogPage
from taskd_protocol.task import FailureReport, Grant, LogPiece


async def say(agent: Peer, grant: Grant, *lines: bytes, stream: int = 1, at_ms: int = 5) -> None:
    """Have an attempt print something."""
    await agent.send(Logs([LogPiece(grant.token, grant.spec.id, stream, at_ms, line) for line in lines]))
    told = await agent.take(LogsRecorded)
    assert told.data_bytes == sum(map(len, lines))


async def test_output_is_followed_as_it_comes(server: Server) -> None:
    """Each page after the one before was taken, the last one marked."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    await client.send(Follow(50, spec.id))
    await client.settle()
    assert client.inbox == []
    await say(agent, grant, b"one", b"two")
    page = await client.take(LogPage)
    assert page == LogPage(50, [LogEntry(0, 1, 1, 5, b"one"), LogEntry(1, 1, 1, 5, b"two")], next_sequence=2)
    await say(agent, grant, b"three", stream=2)
    await client.settle()
    assert client.inbox == []  # no credit yet
    await client.send(FollowMore(50))
    assert (await client.take(LogPage)).entries == [LogEntry(2, 1, 2, 5, b"three")]
    await client.send(FollowMore(50))
    await client.settle()
    assert client.inbox == []
    await agent.send(Ack([report(grant)]))
    assert await client.take(LogPage) == LogPage(50, [], end=True, next_sequence=3)
    assert server.hub._followers == {}


async def test_who_comes_late_reads_all_of_it(server: Server) -> None:
    """Over several pages, from where it likes, after the end too."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    lines = [b"%d" % number for number in range(2 * ENTRIES_MAX + 30)]
    for start in range(0, len(lines), 50):
        await say(agent, grant, *lines[start : start + 50])
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    for first in (0, 150, 2 * ENTRIES_MAX, len(lines), 10_000):
        request = client.number()
        await client.send(Follow(request, spec.id, first))
        read: list[bytes] = []
        while True:
            page = await client.take(LogPage)
            read += [entry.data for entry in page.entries]
            if page.end:
                break
            assert page.entries
            await client.send(FollowMore(request))
        assert read == lines[first:]


async def test_a_task_that_never_printed_ends_all_the_same(server: Server) -> None:
    """And one that is followed before it starts."""
    client, agent = await server.client(), await server.agent()
    (spec,) = await server.submit(client, name="m.g")
    await client.send(Follow(50, spec.id))
    other = await server.agent("a2", boot_id=b"2" * 16, names=["m.g"], credit=1)
    (grant,) = await leased(other, 1)
    await other.send(Ack([report(grant)]))
    assert await client.take(LogPage) == LogPage(50, [], end=True)
    del agent


async def test_attempts_are_told_apart(server: Server) -> None:
    """The output of an attempt that was handed back stays; what it says late is dropped."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (first,) = await leased(agent, 1)
    await say(agent, first, b"first")
    await agent.send(Nack([FailureReport(first.token, spec.id, 1, "released")]))
    await agent.take(Recorded)
    other = await server.agent("a2", boot_id=b"2" * 16, credit=1)
    (second,) = await leased(other, 1)
    await say(agent, first, b"late")
    await say(other, second, b"second")
    await client.send(Follow(50, spec.id))
    page = await client.take(LogPage)
    assert [(entry.attempt, entry.data) for entry in page.entries] == [(1, b"first"), (2, b"second")]


async def test_nothing_is_shown_before_it_is_durable(server: Server) -> None:
    """A line that a crash takes back was never seen."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    await client.send(Follow(50, spec.id))
    with server.disk.held():
        await agent.send(Logs([LogPiece(grant.token, spec.id, 1, 5, b"x")]))
        await client.settle()
        late = await server.client("viewer")
        await late.send(Follow(1, spec.id))
        await client.settle()
        assert client.inbox == late.inbox == []
    assert (await client.take(LogPage)).entries == (await late.take(LogPage)).entries


async def test_only_what_is_wanted_is_sent_and_a_follower_of_what_is_stored_is_done_with_that(server: Server) -> None:
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    for number in range(30):
        await say(agent, grant, b"%d" % number, stream=1 + number % 7, at_ms=number)

    async def read(**wanted: int | bool | list[int]) -> list[bytes]:
        request, found = client.number(), []
        await client.send(Follow(request, spec.id, stored=True, **wanted))  # type: ignore[arg-type]  # by name
        while True:
            page = await client.take(LogPage)
            found += [entry.data for entry in page.entries]
            if page.end:
                assert page.next_sequence == 30
                return found
            await client.send(FollowMore(request))

    assert await read() == [b"%d" % number for number in range(30)]
    assert await read(streams=[5]) == [b"4", b"11", b"18", b"25"]
    assert await read(streams=[5], since_ms=12) == [b"18", b"25"]
    assert await read(attempt=1, sequence=28) == [b"28", b"29"]
    assert await read(attempt=2) == []
    assert (await client.ask(Follow(client.number(), spec.id, since_ms=-1), Error)).code == "request.invalid"


async def test_who_stops_following_is_told_nothing_more_and_may_follow_others(server: Server) -> None:
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    for number in range(100, 100 + 2 * FOLLOWS_MAX):
        await client.send(Follow(number, spec.id), FollowStop(number))
    await client.send(FollowStop(77))  # of nothing: passed over
    await say(agent, grant, b"one")
    await client.settle()
    assert client.inbox == []
    assert server.hub._followers == {}


async def test_a_follower_that_has_all_is_told_at_a_pace(server: Server) -> None:
    """Many small pieces come together, so that followers cost little however often an attempt speaks."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    await client.send(Follow(50, spec.id))
    pages = 0
    for number in range(100):
        await say(agent, grant, b"%d" % number)
        await trio.sleep(0.01)
        pages += len(client.inbox)
        if client.inbox:
            assert isinstance(await client.take(LogPage), LogPage)
            await client.send(FollowMore(50))
    assert 1 <= pages <= 20
    assert server.hub.follows == 1
    await client.stream.aclose()
    await agent.settle()
    assert server.hub.follows == 0


def test_the_more_follow_the_less_often_each_is_told() -> None:
    assert pace_s(1) < 0.06
    assert pace_s(100) == PACE_MAX_S
    assert max(count / pace_s(count) for count in range(1, 101)) <= 260


async def test_follows_are_bounded(server: Server) -> None:
    """And each has its own request id."""
    client = await server.client()
    (spec,) = await server.submit(client)
    for number in range(100, 100 + FOLLOWS_MAX):
        await client.send(Follow(number, spec.id))
    assert (await client.ask(Follow(999, spec.id), Error)).code == "request.invalid"
    other = await server.client()
    await other.send(Follow(1, spec.id), Follow(1, spec.id))
    assert (await other.take(Error)).code == "request.invalid"
    await other.send(FollowMore(77))  # of nothing: passed over
    await other.settle()
    assert not other.over.is_set()
