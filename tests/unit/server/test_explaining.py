"""Explaining on the wire: of tasks in every state, and of nodes that are no tasks yet."""

import pytest

from harness.peer import Peer
from harness.server import Server, leased, report
from harness.workflows import Graph
from taskd_protocol import messages as m
from taskd_protocol import workflow_messages as wm
from taskd_protocol.agent_messages import Ack, LeaseCredit, Recorded
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import BadRequest
from taskd_protocol.explanation import Explanation, Misfit, Reason, Reasons
from taskd_protocol.resources import Need, Request, Where
from taskd_protocol.workflow import WorkflowSpec, make_workflow_id, member_id

ID = make_workflow_id(1_763_760_000_000, b"\x01\x02\x03\x04\x05")


async def explain(client: Peer, task_id: bytes) -> Explanation | None:
    return (await client.ask(m.TaskExplain(client.number(), task_id), m.TaskExplained)).explanation


async def told(client: Peer, task_id: bytes) -> Explanation:
    explanation = await explain(client, task_id)
    assert explanation is not None
    return explanation


async def test_a_task_is_explained_from_its_submit_to_its_end(server: Server) -> None:
    client, viewer = await server.client(), await server.client("viewer")
    (spec,) = await server.submit(client)
    assert (await told(viewer, spec.id)).reason == Reason(Reasons.NO_AGENT)
    agent = await server.agent()
    waiting = await told(viewer, spec.id)
    assert waiting.reason == Reason("agent.busy")
    assert [each.agent for each in waiting.agents] == ["a1"]
    await agent.send(LeaseCredit(0, 1))
    (grant,) = await leased(agent, 1)
    running = await told(viewer, spec.id)
    assert (running.state, running.agent, running.reason) == ("running", "a1", None)
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    assert (await told(viewer, spec.id)).state == "succeeded"


async def test_what_no_agent_could_run_is_told(server: Server) -> None:
    client = await server.client()
    await server.agent(credit=1)
    where = Where([Request([Need("gpu", 1_000)])])
    (spec,) = await server.submit(client, where=where)
    explanation = await told(client, spec.id)
    assert explanation.impossible
    assert explanation.reason == Reason("agent.too_small", "gpu", 1_000)
    assert (await server.view(client, spec.id)).waits_for == "waits for gpu: needs 1, there is none"


async def test_a_submit_is_warned_of_what_no_agent_could_run(server: Server) -> None:
    client = await server.client()
    await server.agent()
    [spec] = server.specs(1, where=Where([Request([Need("gpu", 1_000)])]))
    accepted = await client.ask(m.Submit(client.number(), [spec]), m.Accepted)
    assert accepted.warnings == [Misfit(0, Reason("agent.too_small", "gpu", 1_000))]


async def test_a_node_that_is_no_task_yet_is_explained(server: Server) -> None:
    """With the names of those before it that have not ended; after a restart, too, when nothing of it is in memory."""
    client = await server.client()
    graph = Graph().add("first").add("gate", kind="signal", signal="go").add("last", "first", after=["gate"])
    message = wm.WorkflowSubmit(client.number(), WorkflowSpec(ID, "report", len(graph.nodes)), 0, graph.nodes)
    await client.ask(message, wm.WorkflowAccepted)
    node = await told(client, member_id(ID, 2))
    assert (node.state, node.name) == ("blocked", "m.f")
    assert node.reason == Reason(Reasons.NODES, total=2, count=2, named=["first", "gate"])
    assert (await told(client, member_id(ID, 1))).reason == Reason(Reasons.SIGNAL, "go")
    assert (await told(client, member_id(ID, 0))).state == "ready", "that is a task"
    agent = await server.agent(credit=1)
    (grant,) = await leased(agent, 1)
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    assert (await told(client, member_id(ID, 2))).reason == Reason(Reasons.NODES, total=2, count=1, named=["gate"])


@pytest.mark.parametrize("unknown", [bytes(15) + b"\x01", member_id(ID, 7), ID])
async def test_what_is_not_stored_is_nothing(server: Server, unknown: bytes) -> None:
    client = await server.client()
    message = wm.WorkflowSubmit(client.number(), WorkflowSpec(ID, "report", 1), 0, Graph().add("a").nodes)
    await client.ask(message, wm.WorkflowAccepted)
    assert await explain(client, unknown) is None


async def test_what_is_no_id_is_refused(server: Server) -> None:
    client = await server.client()
    error = await client.ask(m.TaskExplain(client.number(), b"short"), Error)
    assert error.code == BadRequest.code
