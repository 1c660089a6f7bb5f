"""Questions about many tasks: what fits a filter, how many, and how far bulk jobs have come."""

import pytest
import trio

from harness.peer import Peer
from harness.server import Server, leased, report
from taskd_protocol.agent_messages import Ack, Nack, Recorded
from taskd_protocol.connection_messages import Error
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.messages import (
    DeadList,
    DeadPage,
    JobList,
    JobPage,
    JobStart,
    TaskCount,
    TaskCounted,
    TaskList,
    TaskPage,
)
from taskd_protocol.task import Failure, FailureReport, Retry


async def die(server: Server, client: Peer, agent: Peer, *messages: str) -> list[bytes]:
    """Have tasks die, one of each message."""
    specs = await server.submit(client, len(messages), retry=Retry(max_attempts=1))
    for grant, message in zip(await leased(agent, len(messages)), messages, strict=True):
        failure = Failure("task.raised", message, "app.Bad")
        await agent.send(Nack([FailureReport(grant.token, grant.spec.id, 1, "failed", failure)]))
        await agent.take(Recorded)
    return [spec.id for spec in specs]


async def listed(client: Peer, wanted: TaskFilter, limit: int = 2) -> list[bytes]:
    ids: list[bytes] = []
    cursor = b""
    while True:
        page = await client.ask(TaskList(client.number(), limit=limit, cursor=cursor, filter=wanted), TaskPage)
        ids += [view.id for view in page.views]
        cursor = page.cursor
        if not cursor:
            return ids


async def counted(client: Peer, action: str, wanted: TaskFilter) -> int:
    count, cursor = 0, b""
    while True:
        answer = await client.ask(TaskCount(client.number(), action, wanted, cursor), TaskCounted)
        count, cursor = count + answer.count, answer.cursor
        if not cursor:
            return count


@pytest.mark.parametrize("rows", [3, 4_000])
async def test_what_is_listed_is_what_is_counted_and_done(
    server: Server, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """A filter means the same for a page, a count and a bulk job, however little one step may look at."""
    monkeypatch.setattr("taskd.server.questions.SCAN_ROWS_MAX", rows)
    monkeypatch.setattr("taskd.core.jobs.STEP_TASKS", rows)
    client, agent = await server.client(), await server.agent(credit=20)
    dead = await die(server, client, agent, *["no row 1", "no row 2", "no column", "no row 3"])
    done = await server.submit(client, 2)
    await agent.send(Ack([report(grant) for grant in await leased(agent, 2)]))
    await agent.take(Recorded)
    waits = await server.submit(client, 3, name="m.other")
    everything = [*dead, *[spec.id for spec in done], *[spec.id for spec in waits]]
    assert sorted(await listed(client, TaskFilter())) == sorted(everything)
    assert await counted(client, "", TaskFilter()) == 9
    page = await client.ask(DeadList(client.number()), DeadPage)
    rows_group = next(group for group in page.groups if group.count == 3)
    assert (page.groups_count, page.tasks_count, rows_group.message) == (2, 4, "no row 1")
    for wanted, count in [
        (TaskFilter(group=rows_group.fingerprint), 3),
        (TaskFilter(error="NO ROW"), 3),
        (TaskFilter(ids=[dead[0], bytes(16), dead[2]]), 2),
        (TaskFilter(state="dead", name="m.*"), 4),
        (TaskFilter(state="dead", since_ms=1 << 47), 0),
    ]:
        assert len(await listed(client, wanted)) == await counted(client, "retry", wanted) == count
    assert await counted(client, "cancel", TaskFilter(name="m.oth?r")) == 3
    assert await counted(client, "purge", TaskFilter()) == 4
    job_id = server.specs()[0].id
    wanted = TaskFilter(group=rows_group.fingerprint)
    await client.ask(JobStart(client.number(), job_id, "retry", wanted), JobPage)
    job = (await client.ask(JobList(client.number(), [job_id], 1 << 40), JobPage)).jobs[0]
    assert (job.changed, job.looked_at, job.filter) == (3, 3, wanted)
    assert job.finished_at_ms is not None
    assert await counted(client, "retry", TaskFilter()) == 1


async def test_a_listing_since_an_instant_ends_there(server: Server) -> None:
    """Newest first: what is older is not read; the same filter counts the same from the other end."""
    client = await server.client()
    old = await server.submit(client, 3)
    await trio.sleep(10)
    since_ms = server.clock.wall_ms()
    new = [spec.id for spec in await server.submit(client, 3)]
    assert {spec.id for spec in old}.isdisjoint(new)
    assert sorted(await listed(client, TaskFilter(since_ms=since_ms))) == sorted(new)
    assert await counted(client, "cancel", TaskFilter(since_ms=since_ms)) == 3


async def test_a_viewer_may_look_and_count_but_start_nothing(server: Server) -> None:
    """Its bulk job is refused by its role, as its retry is."""
    viewer = await server.client("viewer")
    await viewer.ask(DeadList(viewer.number()), DeadPage)
    await viewer.ask(JobList(viewer.number()), JobPage)
    assert await counted(viewer, "purge", TaskFilter()) == 0
    refused = await viewer.ask(JobStart(viewer.number(), server.specs()[0].id, "purge", TaskFilter()), Error)
    assert refused.code == "auth.role"
