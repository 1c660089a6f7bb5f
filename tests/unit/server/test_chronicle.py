"""What the server's log says of tasks: bad ends always, but never a flood; everything where that is wanted."""

import pytest
import trio
from structlog.testing import capture_logs

from harness.server import Server, leased, report
from taskd.server.certificates import Certificates
from taskd_protocol.agent_messages import Ack, Nack, Recorded
from taskd_protocol.ids import format_task_id
from taskd_protocol.task import Failure, FailureReport, Retry

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
NO = Failure("task.raised", "no")
KILLED = Failure("worker.killed", "killed")


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    """A server that keeps what happens."""
    return await Server(nursery, ca, watched=True).start()


async def test_a_dead_task_is_told_with_its_trace(server: Server) -> None:
    client = await server.client()
    [spec] = await server.submit(client, 1, traceparent=PARENT, retry=Retry(max_attempts=1))
    agent = await server.agent(credit=1)
    [grant] = await leased(agent, 1)
    with capture_logs() as lines:
        await agent.send(Nack([FailureReport(grant.token, spec.id, 1, "failed", NO)]))
        await agent.take(Recorded)
    assert lines == [
        {
            "event": "task_dead",
            "log_level": "warning",
            "task": format_task_id(spec.id),
            "trace_id": TRACE,
            "name": "m.f",
            "queue": spec.queue,
            "agent": "a1",
            "attempt": 1,
            "code": "task.raised",
            "others": 0,
        }
    ]


async def test_many_are_a_line_a_second_of_each_sort(server: Server) -> None:
    """With the count of the others; nothing is said of what goes well, or is tried again."""
    client = await server.client()
    await server.submit(client, 30, traceparent=PARENT, retry=Retry(max_attempts=2, base_ms=0))
    agent = await server.agent(credit=30)
    grants = await leased(agent, 30)
    with capture_logs() as lines:
        await agent.send(Nack([FailureReport(g.token, g.spec.id, 1, "crashed", KILLED) for g in grants[:20]]))
        await agent.take(Recorded)
        await agent.send(Nack([FailureReport(g.token, g.spec.id, 1, "failed", NO) for g in grants[20:25]]))
        await agent.take(Recorded)
        await agent.send(Ack([report(grant) for grant in grants[25:]]))
        await agent.take(Recorded)
    assert [(line["event"], line["others"]) for line in lines] == [("attempt_crashed", 0)]
    await trio.sleep(2)
    second = await server.agent("a2", credit=1)
    [again] = await leased(second, 1)
    with capture_logs() as lines:
        other = FailureReport(again.token, again.spec.id, again.attempt, "crashed", KILLED)
        await second.send(Nack([other]))
        await second.take(Recorded)
    crashed = [line for line in lines if line["event"] == "attempt_crashed"]
    assert [line["others"] for line in crashed] == [19]


async def test_a_lost_attempt_is_told(server: Server) -> None:
    client = await server.client()
    await server.submit(client, 1, traceparent=PARENT)
    await leased(await server.agent(credit=1, beats=False), 1)
    with capture_logs() as lines:
        await trio.sleep(60)
    assert [line["trace_id"] for line in lines if line["event"] == "attempt_lost"] == [TRACE]


async def test_where_all_is_wanted_every_step_of_every_task_is_told(server: Server) -> None:
    """Under one trace id, also of tasks that share an event, and of those whose end alone does."""
    assert server.watch is not None
    server.watch.chronicle.tells_all = True
    client = await server.client()
    with capture_logs() as lines:
        specs = await server.submit(client, 2, traceparent=PARENT, retry=Retry(max_attempts=2, base_ms=0))
        agent = await server.agent(credit=4)
        one, two = await leased(agent, 2)
        await agent.send(Ack([report(one)]))
        await agent.send(Nack([FailureReport(two.token, two.spec.id, 1, "failed", NO)]))
        [two] = await leased(agent, 1)
        await agent.send(Ack([report(two)]))
        for _ in range(3):
            await agent.take(Recorded)
    told = [line for line in lines if "task" in line]
    assert {line["trace_id"] for line in told} == {TRACE}
    steps = {
        format_task_id(spec.id): [line["event"] for line in told if line["task"] == format_task_id(spec.id)]
        for spec in specs
    }
    again = ["attempt_failed", "task_scheduled", "task_ready", "task_running"]
    assert steps == {
        format_task_id(one.spec.id): ["task_submitted", "task_running", "task_succeeded"],
        format_task_id(two.spec.id): ["task_submitted", "task_running", *again, "task_succeeded"],
    }
