"""Spans of tasks: of what happened, under the parent that the submit named, and of sampled traces alone."""

import pytest
import trio
from msgspec.structs import replace

from harness.server import Server, leased, report
from taskd.client.trace import make_traceparents
from taskd.server import tracing
from taskd.server.certificates import Certificates
from taskd.server.tracing import Span, Tracer
from taskd_protocol.agent_messages import Ack, Nack, Recorded
from taskd_protocol.messages import Accepted, Submit
from taskd_protocol.task import Failure, FailureReport, Retry
from taskd_protocol.tracing import read_traceparent, span_id_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    """A server that keeps what happens."""
    return await Server(nursery, ca, watched=True).start()


def traced(server: Server, ratio: float = 1.0) -> list[Span]:
    spans: list[Span] = []
    assert server.watch is not None
    server.watch.tracer = Tracer(server.working, ratio, spans.append)
    return spans


async def test_a_trace_that_begins_with_a_submit_has_no_span_above_it(server: Server) -> None:
    spans = traced(server)
    client, agent = await server.client(), await server.agent(credit=1)
    [spec] = server.specs(1)
    [trace] = make_traceparents([spec.id])
    await client.ask(Submit(client.number(), [replace(spec, traceparent=trace)]), Accepted)
    await leased(agent, 1)
    assert [span.parent_id for span in spans if span.name == "taskd.submit"] == [0]


async def test_a_task_is_told_from_submit_to_end(server: Server) -> None:
    spans = traced(server)
    client = await server.client()
    [spec] = await server.submit(client, 1, queue="images", traceparent=PARENT)
    await trio.sleep(2)
    agent = await server.agent(credit=1)
    [grant] = await leased(agent, 1)
    await trio.sleep(3)
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    found = {span.name: span for span in spans}
    assert [*found] == ["taskd.submit", "taskd.queue", "taskd.place", "taskd.commit", "taskd.attempt"]
    trace = read_traceparent(PARENT)
    assert trace is not None
    assert {span.trace_id for span in spans} == {trace.trace_id}
    assert found["taskd.submit"].parent_id == trace.span_id
    assert {span.parent_id for span in spans[1:]} == {found["taskd.submit"].span_id}
    assert len({span.span_id for span in spans}) == 5
    assert found["taskd.attempt"].span_id == span_id_of(spec.id, "attempt", 1)
    waited = found["taskd.queue"]
    assert waited.end_ns - waited.start_ns == pytest.approx(2e9, abs=1e7)
    assert all(span.start_ns <= span.end_ns for span in spans)
    assert waited.attributes == {
        "taskd.task.id": found["taskd.attempt"].attributes["taskd.task.id"],
        "taskd.task.name": "m.f",
        "taskd.queue": "images",
        "taskd.agent": "a1",
        "taskd.attempt": 1,
    }


async def test_each_attempt_is_a_span_and_a_failure_says_why(server: Server) -> None:
    spans = traced(server)
    client, agent = await server.client(), await server.agent(credit=1)
    await server.submit(client, 1, retry=Retry(2, base_ms=100), traceparent=PARENT)
    [grant] = await leased(agent, 1)
    failure = Failure("task.raised", "boom", "builtins.ValueError", "Traceback", None)
    await agent.send(Nack([FailureReport(grant.token, grant.spec.id, 1, "failed", failure, 1)]))
    await agent.take(Recorded)
    again = await server.agent("a2", credit=1)
    [grant] = await leased(again, 1)
    await again.send(Ack([report(grant)]))
    await again.take(Recorded)
    attempts = [(span.attributes["taskd.attempt"], span.error) for span in spans if span.name == "taskd.attempt"]
    assert attempts == [(1, "task.raised"), (2, "")]
    assert [span.name for span in spans].count("taskd.submit") == 1


@pytest.mark.parametrize("parent", ["", PARENT[:-1] + "0"])
async def test_what_is_not_to_be_traced_is_not(server: Server, parent: str) -> None:
    spans = traced(server)
    client, agent = await server.client(), await server.agent(credit=1)
    await server.submit(client, 1, traceparent=parent)
    await leased(agent, 1)
    assert spans == []


async def test_a_share_of_traces_is_told(server: Server) -> None:
    spans = traced(server, 0.5)
    client, agent = await server.client(), await server.agent(credit=2)
    for digit in ("1", "f"):
        await server.submit(client, 1, traceparent=f"00-{'0' * 16}{digit * 16}-b7ad6b7169203331-01")
        await leased(agent, 1)
    assert {f"{span.trace_id:x}"[0] for span in spans} == {"1"}


async def test_what_is_open_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "OPEN_MAX", 2)
    spans = traced(server)
    client, agent = await server.client(), await server.agent(credit=5)
    await server.submit(client, 5, traceparent=PARENT)
    await leased(agent, 5)
    assert [span.name for span in spans].count("taskd.submit") == 2
