"""Workflows on the wire: what clients ask, how they are shown them, and what agents are given."""

import msgspec
import pytest
import trio

from harness.peer import Peer
from harness.server import Server, report
from harness.workflows import Graph
from taskd_protocol import messages as m
from taskd_protocol import workflow_messages as wm
from taskd_protocol.agent_messages import Ack, Lease, LeaseCredit, Recorded
from taskd_protocol.connection_messages import Done, Error
from taskd_protocol.house_messages import QueueList, QueuePage
from taskd_protocol.payload import pack, unpack
from taskd_protocol.task import Grant
from taskd_protocol.workflow import WorkflowSpec, make_workflow_id, member_id

ID = make_workflow_id(1_763_760_000_000, b"\x01\x02\x03\x04\x05")


async def submit(client: Peer, graph: Graph, workflow: bytes = ID) -> bytes:
    """Submit a workflow whole."""
    spec = WorkflowSpec(workflow, "report", len(graph.nodes))
    message = wm.WorkflowSubmit(client.number(), spec, 0, graph.nodes)
    accepted = await client.ask(message, wm.WorkflowAccepted)
    assert accepted.nodes == len(graph.nodes)
    return workflow


async def work(agent: Peer, results: dict[bytes, bytes]) -> dict[bytes, Grant]:
    """Have an agent work off all that it has got."""
    grants = {grant.spec.id: grant for lease in agent.told(Lease) for grant in lease.grants}
    if grants:
        await agent.send(Ack([report(grant, results.get(i, b"\xc0")) for i, grant in grants.items()]))
        await agent.take(Recorded)
        await agent.settle()
    return grants


async def outcomes(client: Peer, ids: list[bytes]) -> dict[bytes, str]:
    """Wait for these; return how they ended."""
    await client.ask(m.Wait(client.number(), ids), Done)
    found: dict[bytes, str] = {}
    while len(found) < len(ids):
        found.update({outcome.id: outcome.state for outcome in (await client.take(m.Outcomes)).outcomes})
    return found


def pipeline() -> Graph:
    graph = Graph().add("find").add("each", "find", kind="map", over=0).add("total", "each")
    return graph.add("never", "total", when="one_failed")


async def test_waiting_for_nodes_and_for_the_whole(server: Server) -> None:
    """Before they have begun, or after they have ended, of tasks and of other nodes."""
    client, agent = await server.client(), await server.agent(credit=10)
    await submit(client, pipeline())
    ids = [ID, *(member_id(ID, node) for node in range(4)), member_id(ID, 1, 1)]
    await client.ask(m.Wait(client.number(), ids), Done)
    assert not client.told(m.Outcomes)
    await work(agent, {member_id(ID, 0): pack(["a", "b"])})
    await work(agent, {member_id(ID, 1, 0): pack(1), member_id(ID, 1, 1): pack(bytes(10_000))})
    await work(agent, {member_id(ID, 2): pack("sum")})
    late = await server.client()
    told = [await outcomes(late, ids)]
    told.append({o.id: o.state for page in client.told(m.Outcomes) for o in page.outcomes})
    for found in told:
        states = [found[i] for i in ids]
        assert states == ["succeeded", "succeeded", "succeeded", "succeeded", "skipped", "succeeded"]
    assert await outcomes(late, [member_id(ID, 4), member_id(ID[:9] + b"\x09\x09" + bytes(5), 0)]) == {
        member_id(ID, 4): "unknown",
        member_id(ID[:9] + b"\x09\x09" + bytes(5), 0): "unknown",
    }


async def test_waiting_for_a_child_that_was_never_begun(server: Server) -> None:
    """Its workflow was cancelled before its turn came: who waits for it is told so."""
    client, agent = await server.client(), await server.agent(credit=10)
    graph = Graph().add("items", kind="value", packed=pack([1, 2])).add("each", "items", kind="map", over=0)
    graph.nodes[1] = msgspec.structs.replace(graph.nodes[1], in_flight_max=1)
    await submit(client, graph)
    await client.ask(wm.WorkflowOrder(client.number(), ID, "cancel"), Done)
    [grant] = [grant for lease in agent.told(Lease) for grant in lease.grants]
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    await agent.settle()
    ids = [ID, member_id(ID, 1, 0), member_id(ID, 1, 1)]
    assert await outcomes(client, ids) == dict(zip(ids, ["cancelled", "succeeded", "skipped"], strict=True))


async def test_waiting_for_children_that_turn_out_never_to_begin(server: Server) -> None:
    """Who waited when that could not be known is told when the workflow ends, and of nothing else."""
    client, other, agent = await server.client(), await server.client(), await server.agent(credit=10)
    graph = Graph().add("items", kind="value", packed=pack([1, 2, 3])).add("each", "items", kind="map", over=0)
    graph.nodes[1] = msgspec.structs.replace(graph.nodes[1], in_flight_max=1)
    await submit(client, graph)
    ids = [member_id(ID, 1, child) for child in range(3)]
    await client.ask(m.Wait(client.number(), ids), Done)
    await other.ask(m.Wait(other.number(), [ids[0], ID]), Done)
    await other.settle()
    await client.ask(wm.WorkflowOrder(client.number(), ID, "cancel"), Done)
    [grant] = [grant for lease in agent.told(Lease) for grant in lease.grants]
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    await agent.settle()
    await client.settle()
    told = [outcome for page in client.told(m.Outcomes) for outcome in page.outcomes]
    assert sorted((outcome.id, outcome.state) for outcome in told) == [
        (ids[0], "succeeded"),
        (ids[1], "skipped"),
        (ids[2], "skipped"),
    ]
    others = [outcome for page in other.told(m.Outcomes) for outcome in page.outcomes]
    assert [(outcome.id, outcome.state) for outcome in others] == [(ids[0], "succeeded"), (ID, "cancelled")]


async def test_who_waits_for_a_node_that_ends_holds_nothing_of_its_workflow(server: Server) -> None:
    client, agent = await server.client(), await server.agent(credit=10)
    await submit(client, pipeline())
    before = dict(server.hub._waiters)
    await client.ask(m.Wait(client.number(), [member_id(ID, 0)]), Done)
    await client.settle()
    await work(agent, {member_id(ID, 0): pack(["a"])})
    await client.settle()
    assert len(client.told(m.Outcomes)) == 1
    assert server.hub._waiters == before


async def test_an_agent_asks_for_what_is_referred_to(server: Server) -> None:
    """A list of results page by page; only what it holds a lease for."""
    client, agent = await server.client(), await server.agent(credit=10)
    await submit(client, pipeline())
    await work(agent, {member_id(ID, 0): pack(["a", "b", "c"])})
    large = pack(bytes(3_000_000))
    await work(agent, {member_id(ID, 1, n): large for n in range(3)})
    [lease] = agent.told(Lease)
    [total] = lease.grants
    page = await agent.ask(wm.InputQuery(7, total.token, 0), wm.InputPage)
    assert (page.parts, page.last) == ([large, large], False)
    rest = await agent.ask(wm.InputQuery(8, total.token, 0, 2), wm.InputPage)
    assert (rest.parts, rest.last) == ([large], True)
    assert (await agent.ask(wm.InputQuery(9, total.token + 1, 0), Error)).code == "lease.stale"
    assert (await agent.ask(wm.InputQuery(10, total.token, 1), Error)).code == "lease.stale"


async def test_how_a_workflow_is_shown(server: Server) -> None:
    """While it runs and after: the whole, its nodes, its children."""
    client, agent = await server.client(), await server.agent(credit=2)
    await submit(client, pipeline())
    await submit(client, Graph().add("nap", kind="sleep", wait_ms=9_000), make_workflow_id(1_763_760_000_001, bytes(5)))
    await work(agent, {member_id(ID, 0): pack(["a", "b", "c"])})
    await agent.send(LeaseCredit(0, 1))
    await agent.settle()
    shown = await client.ask(wm.WorkflowQuery(client.number(), ID), wm.WorkflowNodes)
    assert shown.view is not None
    assert shown.view.counts == {"succeeded": 1, "running": 1, "blocked": 2}
    assert [(n.name, n.kind, n.state, n.children) for n in shown.nodes] == [
        ("find", "task", "succeeded", 0),
        ("each", "map", "running", 3),
        ("total", "task", "blocked", 0),
        ("never", "task", "blocked", 0),
    ]
    page = await client.ask(wm.WorkflowList(client.number(), name="rep*", limit=1), wm.WorkflowPage)
    assert [(view.name, view.state) for view in page.views] == [("report", "running")]
    rest = await client.ask(wm.WorkflowList(client.number(), cursor=page.cursor), wm.WorkflowPage)
    assert [view.id for view in rest.views] == [ID]
    children = await client.ask(wm.ChildrenQuery(client.number(), member_id(ID, 1), 0, 2), wm.ChildrenPage)
    assert (children.total, [o.state for o in children.outcomes]) == (3, ["running", "running"])
    await agent.send(LeaseCredit(0, 9))
    await agent.settle()
    await work(agent, {member_id(ID, 1, n): pack(n) for n in range(3)})
    await work(agent, {})
    children = await client.ask(wm.ChildrenQuery(client.number(), member_id(ID, 1)), wm.ChildrenPage)
    assert [unpack(o.result) for o in children.outcomes] == [0, 1, 2]
    shown = await client.ask(wm.WorkflowQuery(client.number(), ID, 1, 2), wm.WorkflowNodes)
    assert shown.view is not None
    assert (shown.view.state, [n.state for n in shown.nodes]) == ("succeeded", ["succeeded", "succeeded"])
    nothing = await client.ask(wm.WorkflowQuery(client.number(), ID[:9] + b"xx" + bytes(5)), wm.WorkflowNodes)
    assert nothing.view is None


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (wm.WorkflowOrder(5, ID, "cancel"), "workflow.unknown"),
        (wm.WorkflowOrder(5, ID, "stop"), "request.invalid"),
        (wm.WorkflowOrder(5, member_id(ID, 0), "cancel"), "request.invalid"),
        (wm.WorkflowSignal(5, ID, "go"), "workflow.unknown"),
        (wm.WorkflowSignal(5, ID, "go", bytes(100_000)), "request.invalid"),
        (wm.WorkflowQuery(5, b"short"), "request.invalid"),
        (wm.ChildrenQuery(5, b"short"), "request.invalid"),
        (wm.WorkflowSubmit(5, WorkflowSpec(ID, "w", 1), 0, []), "request.invalid"),
        (wm.WorkflowSubmit(5, WorkflowSpec(ID, "w", 0), 0, []), "workflow.invalid"),
    ],
)
async def test_what_is_refused(server: Server, message: m.Message, code: str) -> None:
    client = await server.client()
    assert (await client.ask(message, Error)).code == code
    await client.ask(QueueList(6), QueuePage)


async def test_a_restart_goes_on(server: Server) -> None:
    """Large lists, too: what a map had begun goes on where it was."""
    client, agent = await server.client(), await server.agent(credit=3)
    graph = Graph().add("items", kind="value", packed=pack(list(range(2_000))))
    await submit(client, graph.add("each", "items", kind="map", over=0))
    server = await server.crash()
    client, agent = await server.client(), await server.agent("a2", credit=4_000)
    ran: set[bytes] = set()
    while grants := await work(agent, {}):
        ran.update(grants)
        await agent.settle()
    await trio.sleep(21)  # the agent of before is given up
    while grants := await work(agent, {}):
        ran.update(grants)
    assert await outcomes(client, [ID]) == {ID: "succeeded"}
    assert len(ran) == 2_000


async def test_a_hostile_list(server: Server) -> None:
    """A result that claims to be a list of billions is no list, and nothing is taken for it."""
    client, agent = await server.client(), await server.agent(credit=3)
    await submit(client, Graph().add("find").add("each", "find", kind="map", over=0))
    await work(agent, {member_id(ID, 0): b"\xdd\xff\xff\xff\xff"})
    assert await outcomes(client, [ID]) == {ID: "failed"}
    shown = await client.ask(wm.WorkflowQuery(client.number(), ID), wm.WorkflowNodes)
    assert shown.nodes[1].failure is not None
    assert shown.nodes[1].failure.code == "workflow.not_a_list"
    assert msgspec.structs.asdict(shown.nodes[1])["state"] == "dead"
