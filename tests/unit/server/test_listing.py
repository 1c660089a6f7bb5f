"""Listings: what fits is found wherever it is looked for, page by page, the newest first."""

from collections.abc import Sequence

import pytest
import trio

from harness.peer import Peer
from harness.server import DAY_MS, Server, leased, report
from taskd_protocol.agent_messages import Ack, Nack, Recorded
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.messages import Cancel, Cancelled, TaskList, TaskPage, TaskView
from taskd_protocol.resources import LabelRule, Where
from taskd_protocol.task import Failure, FailureReport, Retry, Use

STATES = ("ready", "scheduled", "running", "cancelling", "succeeded", "dead", "cancelled", "expired")
ZONED = Where(labels=[LabelRule("zone", "=", ["a"])])


async def one_of_each(server: Server, client: Peer) -> int:
    """Have tasks in each state, in two queues, with time between them; return an instant in their midst."""
    agent = await server.agent(names=("m.f", "m.g"), credit=8)
    for name in ("m.f", "m.g"):
        await server.submit(client, 4, name=name, retry=Retry(max_attempts=1), priority=len(name))
        grants = await leased(agent, 4)
        await agent.send(Ack([report(grant) for grant in grants[:2]]))
        await agent.take(Recorded)
        failure = Failure("task.raised", "No such row", "app.Bad")
        await agent.send(Nack([FailureReport(grants[2].token, grants[2].spec.id, 1, "failed", failure)]))
        await agent.take(Recorded)
        await trio.sleep(1)
        if name == "m.g":
            await client.ask(Cancel(client.number(), [grants[3].spec.id]), Cancelled)
    midst_ms = server.clock.wall_ms()
    await server.submit(client, 2, queue="other", delay_ms=DAY_MS)
    await trio.sleep(1)
    await server.submit(client, 2, name="m.none", queue="other", ttl_ms=500)
    await trio.sleep(1)
    await server.submit(client, 3, name="m.none", where=ZONED)
    await server.submit(client, 1, name="m.none", limits=[Use("api")])
    [gone] = await server.submit(client, 1, name="m.none", key="k")
    await client.ask(Cancel(client.number(), [gone.id]), Cancelled)
    await trio.sleep(1)
    return midst_ms


async def listed(client: Peer, wanted: TaskFilter, limit: int) -> list[TaskView]:
    views: list[TaskView] = []
    cursor, pages = b"", 0
    while cursor or not pages:
        page = await client.ask(TaskList(client.number(), limit=limit, cursor=cursor, filter=wanted), TaskPage)
        assert len(page.views) <= limit
        views, cursor, pages = views + page.views, page.cursor, pages + 1
    return views


def fitting(everything: Sequence[TaskView], wanted: TaskFilter) -> list[bytes]:
    """Look at all there is, one by one."""
    return [
        view.id
        for view in everything
        if wanted.state in {"", view.state}
        and wanted.queue in {"", view.queue}
        and wanted.agent in {"", view.agent}
        and wanted.key in {"", view.key}
        and (not wanted.name or view.name.startswith(wanted.name.rstrip("*")))
        and (not wanted.error or (view.failure is not None and wanted.error in view.failure.message.lower()))
        and view.created_at_ms >= wanted.since_ms
        and (not wanted.before_ms or view.created_at_ms < wanted.before_ms)
        and wanted.priority_min <= view.priority <= wanted.priority_max
    ]


@pytest.mark.parametrize("indexed", [0, 5_000])
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_what_fits_is_found_by_every_way(
    server: Server, monkeypatch: pytest.MonkeyPatch, indexed: int, limit: int
) -> None:
    """By indexes and in memory, by how tasks ended, or by a walk over all of them: it is the same."""
    monkeypatch.setattr("taskd.server.listing.INDEXED_MAX", indexed)
    monkeypatch.setattr("taskd.server.listing.STEP_ROWS", 3)
    client = await server.client()
    midst_ms = await one_of_each(server, client)
    everything = await listed(client, TaskFilter(), limit)
    assert [view.id for view in everything] == sorted([view.id for view in everything], reverse=True)
    assert {view.state for view in everything} == set(STATES)
    for state in ("", *STATES):
        for wanted in (
            TaskFilter(state),
            TaskFilter(state, queue="other"),
            TaskFilter(state, name="m.n*"),
            TaskFilter(state, error="such row"),
            TaskFilter(state, since_ms=midst_ms),
            TaskFilter(state, before_ms=midst_ms),
            TaskFilter(state, priority_min=1),
            TaskFilter(state, agent="a1"),
            TaskFilter(state, key="k"),
        ):
            found = [view.id for view in await listed(client, wanted, limit)]
            assert found == fitting(everything, wanted), wanted
    zoned = [view for view in everything if view.name == "m.none" and view.state == "ready" and view.id]
    assert len(await listed(client, TaskFilter(label="zone=a"), limit)) == 3 < len(zoned)


@pytest.mark.parametrize(
    "wanted", [TaskFilter(queue="none"), TaskFilter(), TaskFilter("succeeded"), TaskFilter("dead")]
)
async def test_a_page_looks_at_so_many_and_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, wanted: TaskFilter
) -> None:
    """A filter that nothing fits must not read the whole store in one answer."""
    monkeypatch.setattr("taskd.server.listing.ROWS_MAX", 4)
    monkeypatch.setattr("taskd.server.listing.INDEXED_MAX", 0)
    client = await server.client()
    await one_of_each(server, client)
    page = await client.ask(TaskList(client.number(), limit=100, filter=wanted), TaskPage)
    assert page.cursor
    assert len(page.views) <= 4
    monkeypatch.setattr("taskd.server.listing.ROWS_MAX", 100_000)
    whole = await client.ask(TaskList(client.number(), limit=100, filter=wanted), TaskPage)
    rest = await client.ask(TaskList(client.number(), limit=100, cursor=page.cursor, filter=wanted), TaskPage)
    assert [view.id for view in [*page.views, *rest.views]] == [view.id for view in whole.views]


async def test_a_page_takes_so_long(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is told as far as it came: others are not held up meanwhile, and nobody waits for long."""
    client = await server.client()
    await server.submit(client, 3_000, name="m.none")
    monkeypatch.setattr("taskd.server.listing.LIST_NS", 1_000_000)  # of the test's clock: the first pause
    page = await client.ask(TaskList(client.number(), limit=1, filter=TaskFilter(queue="none")), TaskPage)
    assert (page.views, bool(page.cursor)) == ([], True)
