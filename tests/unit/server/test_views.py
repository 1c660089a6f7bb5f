"""Views: a task, the lists, the counts: as they stand, and no more than a message holds."""

from harness.server import Server, leased, report
from taskd_protocol.agent_messages import Ack, Nack, Recorded, Started, StartRecorded
from taskd_protocol.connection_messages import Error
from taskd_protocol.house_messages import QueueList, QueuePage, Stats, StatsQuery
from taskd_protocol.limits import PAYLOAD_BYTES_MAX
from taskd_protocol.messages import Cancel, Cancelled, TaskList, TaskPage, TaskQuery, TaskView, TaskViews
from taskd_protocol.task import Failure, FailureReport, Retry


async def test_a_task_is_shown_in_every_state(server: Server) -> None:
    """With what is known of it then, and why it waits."""
    client, agent = await server.client(), await server.agent()
    (spec,) = await server.submit(
        client, payload=b"args", queue="q", priority=7, key="k", retry=Retry(max_attempts=2, base_ms=9_000, jitter=0.0)
    )
    view = await server.view(client, spec.id)
    assert (view.name, view.queue, view.priority, view.key, view.payload) == ("m.f", "q", 7, "k", b"args")
    assert (view.state, view.attempt, view.failures, view.max_attempts, view.agent) == ("ready", 0, 0, 2, "")
    assert view.created_at_ms == server.clock.wall_ms()
    assert (view.due_at_ms, view.started_at_ms, view.finished_at_ms) == (None, None, None)
    assert "busy" in view.waits_for
    other = await server.agent("a2", boot_id=b"2" * 16, credit=2)
    (grant,) = await leased(other, 1)
    view = await server.view(client, spec.id)
    assert (view.state, view.attempt, view.agent, view.waits_for) == ("running", 1, "a2", "")
    failure = Failure("task.raised", "boom", "builtins.ValueError", "Traceback: ...")
    await other.send(Nack([FailureReport(grant.token, spec.id, 1, "failed", failure, 5)]))
    await other.take(Recorded)
    view = await server.view(client, spec.id)
    assert (view.state, view.attempt, view.failures, view.failure) == ("scheduled", 1, 1, failure)
    assert view.due_at_ms == server.clock.wall_ms() + 9_000
    (grant,) = await leased(other, 1)
    view = await server.view(client, spec.id)
    assert (view.state, view.attempt, view.failures, view.failure) == ("running", 2, 1, failure)
    await client.ask(Cancel(60, [spec.id]), Cancelled)
    view = await server.view(client, spec.id)
    assert (view.state, view.agent) == ("cancelling", "a2")
    assert "waits for its agent" in view.waits_for
    await other.send(Ack([report(grant, b"\x2a")]))
    await other.take(Recorded)
    view = await server.view(client, spec.id)
    assert (view.state, view.attempt, view.result, view.waits_for) == ("succeeded", 2, b"\x2a", "")
    assert view.finished_at_ms == server.clock.wall_ms()
    first, second = view.attempts
    assert (first.attempt, first.agent, first.started_at_ms, first.outcome, first.failure) == (
        1,
        "a2",
        5,
        "failed",
        failure,
    )
    assert (second.attempt, second.agent, second.outcome, second.ended_at_ms) == (
        2,
        "a2",
        "succeeded",
        view.finished_at_ms,
    )
    page = await client.ask(TaskList(70), TaskPage)
    assert [listed.attempts for listed in page.views] == [[]], "a listing goes without"
    del agent


async def test_attempts_are_shown_while_a_task_goes_on(server: Server) -> None:
    """Running again, in line again, dead: each time those that have ended."""
    client, agent = await server.client(), await server.agent(credit=9)
    (spec,) = await server.submit(client, retry=Retry(max_attempts=2, base_ms=0, crash_limit=1))
    (grant,) = await leased(agent, 1)
    assert (await server.view(client, spec.id)).attempts == []
    await agent.send(Nack([FailureReport(grant.token, spec.id, 1, "released")]))
    await agent.take(Recorded)
    (grant,) = await leased(agent, 1)
    assert [ended.outcome for ended in (await server.view(client, spec.id)).attempts] == ["released"]
    crash = Failure("worker.exited", "exit code 3", exit_code=3)
    await agent.send(Nack([FailureReport(grant.token, spec.id, 2, "crashed", crash)]))
    await agent.take(Recorded)
    view = await server.view(client, spec.id)
    assert (view.state, view.failures, view.crashes, view.failure) == ("dead", 0, 1, crash)
    assert [(ended.attempt, ended.outcome) for ended in view.attempts] == [(1, "released"), (2, "crashed")]


async def test_a_start_is_marked_for_an_agent(server: Server) -> None:
    """And what is not its own is named."""
    client, agent = await server.client(), await server.agent(credit=9)
    await server.submit(client)
    (grant,) = await leased(agent, 1)
    await agent.send(Started([grant.token, 7]))
    assert await agent.take(StartRecorded) == StartRecorded([grant.token], [7])


async def test_tasks_are_listed_newest_first(server: Server) -> None:
    """Page by page; a filter passes over the others."""
    client, agent = await server.client(), await server.agent(credit=10)
    old = await server.submit(client, 5, queue="a")
    await leased(agent, 5)
    new = await server.submit(client, 25, queue="b", name="m.g", delay_ms=1_000)

    async def listed(**filters: object) -> list[TaskView]:
        views: list[TaskView] = []
        cursor = b""
        while True:
            page = await client.ask(
                TaskList(client.number(), limit=10, cursor=cursor, **filters),  # type: ignore[arg-type]
                TaskPage,
            )
            assert len(page.views) <= 10
            views += page.views
            cursor = page.cursor
            if not cursor:
                return views

    newest_first = sorted([spec.id for spec in [*old, *new]], reverse=True)
    assert [view.id for view in await listed()] == newest_first
    assert {view.id for view in await listed(state="running")} == {spec.id for spec in old}
    assert {view.id for view in await listed(queue="b")} == {spec.id for spec in new}
    assert {view.id for view in await listed(name="m.g", state="scheduled")} == {spec.id for spec in new}
    assert await listed(state="dead") == []


async def test_a_listing_leaves_out_what_is_large(server: Server) -> None:
    """Arguments, results and tracebacks: a thousand rows fit a message."""
    client, agent = await server.client(), await server.agent(credit=400)
    await server.submit(client, 400, payload=bytes(1_000), retry=Retry(max_attempts=1))
    failure = Failure("task.raised", "m" * 60_000, "builtins.ValueError", "t" * 60_000)
    grants = await leased(agent, 400)
    for start in range(0, 400, 100):
        some = grants[start : start + 100]
        await agent.send(Nack([FailureReport(g.token, g.spec.id, 1, "failed", failure) for g in some]))
        await agent.take(Recorded)
    page = await client.ask(TaskList(70, limit=1_000), TaskPage)
    assert len(page.views) == 400
    assert {(view.payload, view.result) for view in page.views} == {(b"", None)}
    shown = page.views[0].failure
    assert shown is not None
    assert (shown.code, shown.type, shown.traceback) == (failure.code, failure.type, "")
    assert 0 < len(shown.message) < 1_000


async def test_more_than_a_message_holds_is_asked_for_in_pieces(server: Server) -> None:
    """The question is refused, and the server goes on; one task alone is always shown."""
    client, agent = await server.client(), await server.agent(credit=4)
    ids = []
    for _ in range(4):
        ids += [spec.id for spec in await server.submit(client, payload=bytes(6_000_000))]
    refused = await client.ask(TaskQuery(80, ids), Error)
    assert refused.code == "protocol.too_large"
    assert "fewer" in refused.message
    views = await client.ask(TaskQuery(81, ids[:2]), TaskViews)
    assert [view.id for view in views.views if view is not None] == ids[:2]
    grants = await leased(agent, 4)
    large = bytes(PAYLOAD_BYTES_MAX)
    await agent.send(Ack([report(grants[0], large)]))
    await agent.take(Recorded)
    view = await server.view(client, ids[0])
    assert (view.payload, view.result) == (b"", large)


async def test_many_tasks_are_shown_in_the_order_asked(server: Server) -> None:
    """With a gap for each that is not stored."""
    client = await server.client()
    specs = await server.submit(client, 50)
    unknown = server.specs()[0].id
    ids = [spec.id for spec in reversed(specs)]
    views = await client.ask(TaskQuery(90, [*ids, unknown]), TaskViews)
    assert [view and view.id for view in views.views] == [*ids, None]


async def test_queues_and_counts(server: Server) -> None:
    """By name, and only those that hold something."""
    client, agent = await server.client(), await server.agent(credit=1)
    await server.submit(client, 3, queue="b")
    await server.submit(client, 2, queue="a", delay_ms=5_000)
    (grant,) = await leased(agent, 1)
    page = await client.ask(QueueList(95), QueuePage)
    rows = [(queue.name, queue.ready, queue.scheduled, queue.running) for queue in page.queues]
    assert rows == [("a", 0, 2, 0), ("b", 2, 0, 1)]
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    stats = await client.ask(StatsQuery(96), Stats)
    assert stats.tasks == {"ready": 2, "scheduled": 2, "succeeded": 1}
    assert set(stats.stages_ns) == {"decode", "decide", "encode", "stage", "send"}
    assert stats.counts["turns"] > 0
