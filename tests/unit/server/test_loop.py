"""The commit loop: nothing is told before it is durable, and everything in the order in which it was decided."""

import pytest
import trio

from harness.peer import Peer
from harness.server import Disk, Server, leased, report
from taskd.core.agent_commands import AckAttempts, AppendLogs, BeatHeart, MarkStarted, NackAttempts
from taskd.core.commands import (
    CancelTasks,
    Command,
    DropLapsed,
    PurgeFinished,
    RefillTimers,
    ReleaseDue,
    RetryTasks,
    SubmitTasks,
)
from taskd.core.working import FINISHED_IDS_MAX
from taskd.server import intake
from taskd.server.certificates import Certificates
from taskd_protocol.agent_messages import Ack, Heartbeat, HeartbeatSeen, Lease, Logs, LogsRecorded, Nack, Recorded
from taskd_protocol.connection_messages import Error, Ping, Pong
from taskd_protocol.errors import ServerBusy, StoreFailed
from taskd_protocol.house_messages import QueueList, QueuePage, StatsQuery
from taskd_protocol.messages import Accepted, Cancel, Cancelled, Outcomes, Submit, TaskQuery, TaskViews, Wait
from taskd_protocol.task import Failure, FailureReport, LogPiece, Report, TaskSpec


@pytest.fixture(params=["beside the turns", "on the spot"])
async def server(nursery: trio.Nursery, ca: Certificates, request: pytest.FixtureRequest) -> Server:
    """A server that flushes beside its turns, or, where a flush is not held, on the spot."""
    disk = Disk()
    disk.thought_quick = request.param == "on the spot"
    return await Server(nursery, ca, disk=disk).start()


async def nothing_is_told(*peers: Peer) -> None:
    """Let everything happen that can; nobody was told anything."""
    await peers[0].settle()
    assert [peer.inbox for peer in peers] == [[] for _ in peers]


# -- what waits for a flush -----------------------------------------------------------------


async def test_a_submit_is_accepted_when_a_flush_covers_it(server: Server) -> None:
    """Not when it is decided, nor when it is staged."""
    client = await server.client()
    submit = Submit(client.number(), server.specs(3))
    with server.disk.held():
        await client.send(submit)
        await nothing_is_told(client)
        assert server.working.counters.by_queue == {"default": {"ready": 3}}
    accepted = await client.answer(submit, Accepted)
    assert accepted.existing == []
    assert accepted.mark.sequence == server.disk.durable_sequence == server.disk.staged_sequence


async def test_a_duplicate_waits_for_the_flush_of_the_first(server: Server) -> None:
    """What it was found to be a duplicate of may still be lost."""
    first, second = await server.client(), await server.client()
    specs = server.specs()
    with server.disk.held():
        await first.send(Submit(1, specs))
        await nothing_is_told(first, second)
        await second.send(Submit(1, specs))
        await nothing_is_told(first, second)
    assert (await first.take(Accepted)).existing == []
    assert (await second.take(Accepted)).existing == [(0, specs[0].id)]


async def test_a_refusal_waits_for_what_it_saw(server: Server) -> None:
    """A conflict tells that the other task is stored."""
    client = await server.client()
    with server.disk.held():
        await client.send(Submit(1, server.specs(key="k", payload=b"1")))
        await client.settle()
        await client.send(Submit(2, server.specs(key="k", payload=b"2")))
        await nothing_is_told(client)
    assert (await client.take(Accepted)).request_id == 1
    refused = await client.take(Error)
    assert (refused.request_id, refused.code) == (2, "submit.conflict")


async def test_a_query_waits_for_what_it_saw(server: Server) -> None:
    """Counts, single tasks, and what a wait finds."""
    client, viewer = await server.client(), await server.client("viewer")
    with server.disk.held():
        submitted = server.specs()
        await client.send(Submit(1, submitted))
        await client.settle()
        await viewer.send(QueueList(1), TaskQuery(2, [submitted[0].id]), StatsQuery(3))
        await nothing_is_told(client, viewer)
    page = await viewer.take(QueuePage)
    assert [(queue.name, queue.ready) for queue in page.queues] == [("default", 1)]
    assert (await viewer.take(TaskViews)).views[0] is not None


async def test_a_lease_leaves_when_it_is_durable(server: Server) -> None:
    """The agent would else run what the server may forget."""
    client, agent = await server.client(), await server.agent(credit=8)
    with server.disk.held():
        await client.send(Submit(1, server.specs(2)))
        await nothing_is_told(client, agent)
        assert server.working.counters.by_queue["default"] == {"ready": 0, "running": 2}
    lease = await agent.take(Lease)
    assert (lease.number, lease.pool, len(lease.grants)) == (1, 0, 2)


async def test_a_report_is_recorded_and_told_when_it_is_durable(server: Server) -> None:
    """The agent keeps its result, and the client is told nothing, until then."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    await client.send(Wait(9, [spec.id]))
    await client.settle()
    client.inbox.clear()
    with server.disk.held():
        await agent.send(Ack([report(grant, b"\x07")]))
        await nothing_is_told(client, agent)
        await agent.send(Ack([report(grant, b"\x07")]))  # again, and still nobody knows
        await nothing_is_told(client, agent)
    assert (await agent.take(Recorded)).tokens == [grant.token]
    assert (await agent.take(Recorded)).tokens == [grant.token]
    (outcome,) = (await client.take(Outcomes)).outcomes
    assert (outcome.id, outcome.state, outcome.attempt, outcome.result) == (spec.id, "succeeded", 1, b"\x07")


async def test_cancels_logs_and_tokens_wait_for_their_flush(server: Server) -> None:
    """Every answer to a change."""
    client, agent = await server.client(), await server.agent(credit=1)
    running, waiting = await server.submit(client, 2)
    (grant,) = await leased(agent, 1)
    with server.disk.held():
        await client.send(Cancel(7, [waiting.id, running.id]))
        await agent.send(Logs([LogPiece(grant.token, running.id, 1, 5, b"hello")]))
        await nothing_is_told(client, agent)
    assert (await client.take(Cancelled)).states == ["cancelled", "cancelling"]
    assert (await agent.take(LogsRecorded)).data_bytes == 5


async def test_heartbeats_and_pings_wait_for_nothing(server: Server) -> None:
    """They say that the server is there, not what it holds."""
    client, agent = await server.client(), await server.agent()
    with server.disk.held():
        await client.send(Submit(1, server.specs()))
        await client.send(Ping(5))
        await agent.send(Heartbeat(1, 0, []))
        await agent.settle()
        assert [type(message) for message in client.inbox] == [Pong]
        assert [type(message) for message in agent.inbox] == [HeartbeatSeen]


# -- turns and flushes ------------------------------------------------------------------------


async def test_turns_go_on_during_a_flush_and_share_the_next(server: Server) -> None:
    """Group commit: one flush in flight, the next covers all that was staged meanwhile."""
    client = await server.client()
    before = server.disk.flush_count
    with server.disk.held():
        for number in range(1, 6):
            await client.send(Submit(number, server.specs()))
            await client.settle()
        assert server.disk.flush_count == before + 1
        assert server.working.counters.by_queue["default"]["ready"] == 5
    for number in range(1, 6):
        assert (await client.take(Accepted)).request_id == number
    assert server.disk.flush_count == before + 2


async def test_answers_leave_with_the_flush_that_covers_them(server: Server) -> None:
    """What was staged after a flush began waits for the next one."""
    client = await server.client()
    with server.disk.held() as first_flush:
        await client.send(Submit(1, server.specs()))
        await client.settle()
        await client.send(Submit(2, server.specs()))
        await client.settle()
        with server.disk.held():
            first_flush.set()
            await client.settle()
            assert [message.request_id for message in client.told(Accepted)] == [1]
    assert (await client.take(Accepted)).request_id == 2


async def test_reports_are_decided_before_submits(server: Server) -> None:
    """A flood of submits delays no completion."""
    client, agent = await server.client(), await server.agent(credit=1)
    await server.submit(client)
    (grant,) = await leased(agent, 1)
    told: list[str] = []
    server.loop.ask(SubmitTasks("k", server.specs(100)), lambda _: told.append("submit"))
    server.loop.ask(AckAttempts("a1", [report(grant)]), lambda _: told.append("report"))
    await server.loop.until_settled()
    assert told == ["report", "submit"]


async def test_a_turn_takes_submits_up_to_its_bound(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that reports never wait long behind them; all that was asked is decided in the end."""
    monkeypatch.setattr(intake, "TURN_WEIGHT_MAX", 10)
    batches = len(server.disk.batches)
    answers: list[object] = []
    for _ in range(5):
        server.loop.ask(SubmitTasks("k", server.specs(6)), answers.append)
    await server.loop.until_settled()
    assert len(answers) == 5
    assert len(server.disk.batches) - batches == 3  # two, two, one: the second takes the turn over its bound


async def test_large_arguments_weigh_as_many_tasks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound in tasks alone would let a turn hold gigabytes."""
    monkeypatch.setattr(intake, "TURN_WEIGHT_MAX", 10)
    batches = len(server.disk.batches)
    for _ in range(3):
        server.loop.ask(SubmitTasks("k", server.specs(payload=bytes(10 * intake.WEIGHT_BYTES))))
    await server.loop.until_settled()
    assert len(server.disk.batches) - batches == 3


async def test_a_turn_takes_reports_up_to_a_bound_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stall left over is not one batch; submits get their share of each turn all the same."""
    monkeypatch.setattr(intake, "URGENT_WEIGHT_MAX", 10)
    client, agent = await server.client(), await server.agent(credit=100)
    await server.submit(client, 40)
    grants = await leased(agent, 40)
    batches, told = len(server.disk.batches), list[str]()
    for start in range(0, 40, 8):
        reports = [report(grant) for grant in grants[start : start + 8]]
        server.loop.ask(AckAttempts("a1", reports), lambda _: told.append("report"))
    server.loop.ask(SubmitTasks("k", server.specs(5)), lambda _: told.append("submit"))
    await server.loop.until_settled()
    assert told == ["report", "report", "submit", "report", "report", "report"]
    assert len(server.disk.batches) - batches == 3


@pytest.mark.parametrize(
    ("command", "weight"),
    [
        (SubmitTasks("k", [TaskSpec(bytes(16), "m.f", bytes(5 * intake.WEIGHT_BYTES))] * 2), 12),
        (AckAttempts("a1", [Report(1, bytes(16), 1, bytes(3 * intake.WEIGHT_BYTES))]), 4),
        (AckAttempts("a1", []), 1),
        (NackAttempts("a1", [FailureReport(1, bytes(16), 1, "released")] * 7), 7),
        (CancelTasks([bytes(16)] * 9), 9),
        (RetryTasks([bytes(16)] * 9), 9),
        (AppendLogs("a1", [LogPiece(1, bytes(16), 1, 1, bytes(2 * intake.WEIGHT_BYTES))]), 3),
        (MarkStarted("a1", [1, 2, 3]), 3),
        (ReleaseDue([bytes(24)] * 6), 6),
        (RefillTimers([(bytes(24), 1)] * 5, last=True), 5),
        (DropLapsed([bytes(24)] * 4), 4),
        (PurgeFinished(bytes(16)), FINISHED_IDS_MAX),
        (BeatHeart("a1", 1, 0, [1, 2, 3]), 1),
    ],
)
def test_a_command_weighs_what_it_concerns_and_carries(command: Command, weight: int) -> None:
    """In tasks."""
    assert intake.weight_of(command) == weight


async def test_an_idle_server_writes_nothing(server: Server) -> None:
    """Ticks alone cost no commit and no flush."""
    before = (server.disk.staged_sequence, server.disk.flush_count)
    turns = server.loop.stages.counts["turns"]
    await trio.sleep(60)
    assert (server.disk.staged_sequence, server.disk.flush_count) == before
    assert 100 < server.loop.stages.counts["turns"] - turns < 300


# -- overload ---------------------------------------------------------------------------------


async def test_a_backlog_that_is_full_refuses_submits_and_nothing_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything has moved, with a time to wait; who comes again then is served."""
    monkeypatch.setattr(intake, "BACKLOG_WEIGHT_MAX", 10)
    client, agent = await server.client(), await server.agent()
    server.disk.stalls = 1_000_000
    await client.send(Submit(1, server.specs()))  # this one is decided, and waits for the store
    await client.settle()
    await client.send(Submit(2, server.specs(8)))
    await client.settle()
    late = server.specs(3)
    await client.send(Submit(3, late))
    refused = await client.take(Error)
    assert (refused.request_id, refused.code, refused.retryable) == (3, "server.busy", True)
    assert refused.retry_after_ms == intake.BUSY_RETRY_MS
    assert "later" in refused.message
    await agent.send(Heartbeat(1, 0, []))
    await agent.take(HeartbeatSeen)
    server.disk.stalls = 0
    assert [(await client.take(Accepted)).request_id for _ in range(2)] == [1, 2]
    assert (await client.ask(Submit(4, late), Accepted)).existing == []


async def test_a_submit_larger_than_the_backlog_is_taken_when_it_is_empty(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be refused for ever."""
    monkeypatch.setattr(intake, "BACKLOG_WEIGHT_MAX", 10)
    client = await server.client()
    await server.submit(client, 50)


async def test_what_is_decided_and_not_durable_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk hangs, submits wait to be decided, and then are refused; reports go on."""
    monkeypatch.setattr(intake, "OWED_WEIGHT_MAX", 10)
    client, agent = await server.client(), await server.agent(credit=1)
    await server.submit(client)
    (grant,) = await leased(agent, 1)
    with server.disk.held():
        for number in range(11, 31):
            await client.send(Submit(number, server.specs()))
            await client.settle()
        assert server.working.counters.by_queue["default"]["ready"] == 10
        turns = server.loop.stages.counts["turns"]
        await agent.send(Ack([report(grant)]))
        await trio.sleep(5)
        assert server.working.counters.ended == {"succeeded": 1}
        assert server.loop.stages.counts["turns"] - turns < 20  # it sleeps meanwhile
    assert [(await client.take(Accepted)).request_id for _ in range(20)] == list(range(11, 31))


# -- a store that stalls, and one that breaks ---------------------------------------------------


async def test_a_stalled_batch_is_staged_again_before_anything_else_is_decided(server: Server) -> None:
    """The order of batches is the order of decisions."""
    client = await server.client()
    turns = server.loop.stages.counts["turns"]
    server.disk.stalls = 50
    await client.send(Submit(1, server.specs(3)))
    await client.settle()
    await client.send(Submit(2, server.specs(5)))
    await client.settle()
    assert server.loop.stages.counts["turns"] == turns + 1
    assert server.working.counters.by_queue["default"]["ready"] == 3
    assert (await client.take(Accepted)).request_id == 1
    assert (await client.take(Accepted)).request_id == 2
    assert server.disk.stalls == 0
    assert server.faults.failed == []


async def test_what_a_stalled_batch_decided_is_shown_to_nobody(server: Server) -> None:
    """It is in memory, and nowhere else, while all that was staged is durable."""
    client, viewer = await server.client(), await server.client("viewer")
    server.disk.stalls = 1_000_000
    spec = server.specs()[0]
    await client.send(Submit(1, [spec]))
    await client.settle()
    assert server.disk.durable_sequence == server.disk.staged_sequence
    await viewer.send(QueueList(1), TaskQuery(2, [spec.id]))
    await nothing_is_told(client, viewer)
    server.disk.stalls = 0
    assert (await viewer.take(QueuePage)).queues[0].ready == 1
    assert (await viewer.take(TaskViews)).views[0] is not None
    await client.take(Accepted)


@pytest.mark.parametrize("where", ["flush", "stage"])
async def test_after_a_storage_error_nothing_leaves(server: Server, where: str) -> None:
    """What the disk holds is unknown; the process is to end, and is asked to once."""
    client, agent = await server.client(), await server.agent(credit=5)
    await server.submit(client)
    (grant,) = await leased(agent, 1)
    if where == "stage":
        server.disk.failure = "the disk of this test is broken"
        await client.send(Submit(7, server.specs()))
    else:
        with server.disk.held():
            await client.send(Submit(7, server.specs()))
            await client.settle()
            server.disk.failure = "the disk of this test is broken"
    await agent.send(Ack([report(grant)]))
    await client.send(QueueList(8), Cancel(9, [grant.spec.id]), Submit(10, server.specs()))
    await trio.sleep(30)
    assert [type(failure) for failure in server.faults.failed] == [StoreFailed]
    assert client.inbox == []
    assert agent.inbox == []


async def test_a_failed_read_for_the_core_ends_the_server_too(server: Server) -> None:
    """A store that cannot read what was written must not be served."""
    client = await server.client()
    (spec,) = await server.submit(client, delay_ms=60_000)

    async def unreadable(*_: object, **__: object) -> list[bytes | None]:
        raise StoreFailed("the disk of this test cannot be read")

    server.disk.load = unreadable  # type: ignore[method-assign]
    await client.send(Cancel(3, [spec.id]))
    await nothing_is_told(client)
    assert [type(failure) for failure in server.faults.failed] == [StoreFailed]


# -- records that the core asks for -------------------------------------------------------------


async def test_two_submits_of_one_key_while_both_are_looked_up(server: Server) -> None:
    """Each was read when there was no such key; the one decided later finds the other all the same."""
    first, second = await server.client(), await server.client()
    with server.disk.reads_held():
        specs = server.specs(2, key="once")
        await first.send(Submit(1, specs[:1]))
        await second.send(Submit(1, specs[1:]))
        await first.settle()
    one, other = await first.take(Accepted), await second.take(Accepted)
    existing = one.existing + other.existing
    assert len(existing) == 1
    assert server.working.counters.by_queue["default"]["ready"] == 1
    assert existing[0][1] in {spec.id for spec in specs}


async def test_a_resend_that_is_looked_up_while_the_first_is_decided(server: Server) -> None:
    """The lookup began before the task was there."""
    client = await server.client()
    specs = server.specs(2)
    await client.ask(Submit(1, specs[1:]), Accepted)  # the older id is below what is known by heart now
    server.working.recent.floor = specs[1].id
    with server.disk.reads_held():
        await client.send(Submit(2, specs[:1]))
        await client.settle()
        server.working.recent.floor = b""
        await client.send(Submit(3, specs[:1]))
        await client.settle()
    accepted = {message.request_id: message.existing for message in [await client.take(Accepted) for _ in range(2)]}
    assert accepted == {2: [(0, specs[0].id)], 3: []}
    assert server.working.counters.by_queue["default"]["ready"] == 2


async def test_a_cancel_that_is_looked_up_while_the_task_becomes_ready(server: Server) -> None:
    """It was read as scheduled, and is leased by the time the cancel is decided: it is revoked, not lost."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client, delay_ms=1_000)
    await trio.sleep(0.9)
    with server.disk.reads_held():
        await client.send(Cancel(5, [spec.id]))
        await client.settle()
        server.disk.pass_new_reads()
        (grant,) = await leased(agent, 1)
        assert client.inbox == []
    assert (await client.take(Cancelled)).states == ["cancelling"]
    await agent.send(Nack([FailureReport(grant.token, spec.id, 1, "cancelled")]))
    await agent.take(Recorded)
    assert await server.state(client, spec.id) == "cancelled"


async def test_ids_that_stand_twice_are_looked_up_once(server: Server) -> None:
    """And what is noted for the look-up is forgotten after it."""
    client = await server.client()
    (spec,) = await server.submit(client, delay_ms=60_000)
    cancelled = await client.ask(Cancel(5, [spec.id, spec.id]), Cancelled)
    assert cancelled.states == ["cancelled", "cancelled"]
    views = await client.ask(TaskQuery(6, [spec.id, spec.id]), TaskViews)
    assert [view and view.state for view in views.views] == ["cancelled", "cancelled"]
    assert not server.loop.loader.reading


async def test_a_late_report_is_looked_up_beside_what_is_decided_meanwhile(server: Server) -> None:
    """A second report of an attempt, read before the first was decided, is recorded and not stale."""
    client, agent = await server.client(), await server.agent(credit=2)
    await server.submit(client, 2)
    one, other = await leased(agent, 2)
    await agent.send(Ack([report(one)]))
    await agent.take(Recorded)
    with server.disk.reads_held():
        await agent.send(Ack([report(one), report(other)]))  # the first of them has to be looked up
        await agent.settle()
        assert agent.inbox == []
        await agent.send(Ack([report(other)]))
        assert (await agent.take(Recorded)).tokens == [other.token]
    recorded = await agent.take(Recorded)
    assert sorted(recorded.tokens) == sorted([one.token, other.token])
    assert recorded.stale == []
    assert server.working.counters.ended == {"succeeded": 2}


async def test_busy_is_raised_to_who_asks_in_process(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks without a session is refused the same way."""
    monkeypatch.setattr(intake, "BACKLOG_WEIGHT_MAX", 1)
    server.loop.ask(SubmitTasks("k", server.specs(2)))
    with pytest.raises(ServerBusy):
        server.loop.ask(SubmitTasks("k", server.specs()))
    server.loop.ask(CancelTasks([]))


async def test_what_happens_is_counted(server: Server) -> None:
    """For benchmarks and people: once, where it becomes durable."""
    client, agent = await server.client(), await server.agent(credit=3)
    specs = await server.submit(client, 3)
    await client.ask(Submit(client.number(), specs), Accepted)  # again
    one, two, three = await leased(agent, 3)
    await agent.send(Ack([report(one), report(two)]))
    failed = Failure("task.raised", "boom")
    await agent.send(Nack([FailureReport(three.token, three.spec.id, 1, "failed", failed)]))
    await agent.take(Recorded)
    await agent.take(Recorded)
    counts = server.loop.stages.counts
    assert (counts["submitted"], counts["leased"], counts["completed"]) == (3, 3, 2)
    assert counts["bytes_in"] > 0
    assert counts["bytes_out"] > 0
