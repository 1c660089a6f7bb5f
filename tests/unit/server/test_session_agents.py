"""Agents' sessions: leases, reports and life, as an agent on the wire meets them."""

import msgspec
import pytest
import structlog
import trio
from trio.testing import lockstep_stream_pair

from harness.peer import Agent, Peer, hello
from harness.server import Server, leased, report
from taskd.core.granting import LEASE_BYTES
from taskd_protocol.agent_messages import (
    Ack,
    Drain,
    Heartbeat,
    HeartbeatSeen,
    HostStats,
    Lease,
    LeaseCredit,
    Nack,
    Offer,
    Offered,
    Recorded,
    Revoke,
)
from taskd_protocol.connection import peer_side
from taskd_protocol.connection_messages import Done, Error, Welcome
from taskd_protocol.house_messages import AgentDrain, AgentList, AgentPage, AgentView, QueueDrain, QueueList, QueuePage
from taskd_protocol.limits import HEARTBEAT_MS, HEARTBEATS_MISSED
from taskd_protocol.messages import Cancel, Cancelled, Outcomes, Submit, Wait
from taskd_protocol.task import Failure, FailureReport, Grant, Held, Pool, Retry

SILENCE_SECONDS = HEARTBEAT_MS * HEARTBEATS_MISSED / 1_000


async def views(client: Peer) -> list[AgentView]:
    """Return the agents as a client is shown them."""
    return (await client.ask(AgentList(client.number()), AgentPage)).agents


def held(grant: Grant) -> Held:
    """A lease as its agent reports it."""
    return Held(grant.token, grant.spec.id, grant.attempt)


async def test_leases_come_under_credit(server: Server) -> None:
    """As many as were asked for, numbered, with rising tokens."""
    client, agent = await server.client(), await server.agent(credit=3)
    await server.submit(client, 10)
    first = await agent.take(Lease)
    await agent.settle()
    assert agent.told(Lease) == []
    assert (first.number, len(first.grants)) == (1, 3)
    await agent.send(LeaseCredit(0, 2), LeaseCredit(0, 1))
    second = await agent.take(Lease)
    tokens = [grant.token for grant in [*first.grants, *second.grants]]
    assert second.number == 2
    assert tokens == sorted(set(tokens))
    assert tokens[0] >> 31 == server.working.epoch


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (LeaseCredit(1, 1), "request.invalid"),
        (LeaseCredit(0, -1), "request.invalid"),
        (LeaseCredit(0, 1 << 30), "request.invalid"),
        (Offer([Pool("process", 0, ["m.f"])]), "request.invalid"),
        (Nack([FailureReport(1, bytes(16), 1, "vanished")]), "request.invalid"),
    ],
)
async def test_nonsense_from_an_agent_ends_its_connection(
    server: Server, message: Offer | LeaseCredit | Nack, code: str
) -> None:
    """With the reason, since there is no request to refuse."""
    agent = await server.agent()
    await agent.send(message)
    assert (await agent.end()).code == code


async def test_a_second_live_agent_of_a_name_is_refused(server: Server) -> None:
    """The first one keeps its leases and goes on; the name is free when it has gone."""
    client, first = await server.client(), await server.agent(credit=1, boot_id=b"1" * 16)
    await server.submit(client)
    (grant,) = await leased(first, 1)
    second = server.connect()
    await second.send(hello("agent", server.tokens["agent"], "a1", b"2" * 16))
    await second.take(Welcome)
    await second.send(Offer([Pool("process", 8, ["m.f"])]))
    why = await second.end()
    assert why.code == "agent.duplicate"
    assert "--name" in why.message
    await first.send(Ack([report(grant)]))
    assert (await first.take(Recorded)).tokens == [grant.token]
    await first.close()
    await client.settle()
    await server.agent(boot_id=b"2" * 16)


async def test_an_agent_that_is_back_replaces_its_old_connection(server: Server) -> None:
    """Half-open or not: what it holds goes on, what never arrived goes back in line, uncharged."""
    client, old = await server.client(), await server.agent(credit=2, beats=False)
    await server.submit(client, 2)
    one, two = await leased(old, 2)
    new = await server.agent(holding=[held(one)], credit=1)
    assert (await old.end()).code == "connection.lost"
    (again,) = await leased(new, 1)
    assert (again.spec.id, again.attempt) == (two.spec.id, 2)
    assert again.token > two.token
    await new.send(Ack([report(one), report(two), report(again)]))
    recorded = await new.take(Recorded)
    assert sorted(recorded.tokens) == sorted([one.token, again.token])
    assert recorded.stale == [two.token]
    assert server.working.counters.ended == {"succeeded": 2}


@pytest.mark.parametrize("wrong", ["token", "attempt", "id", "agent", "task"])
async def test_a_report_that_is_not_what_is_stored_changes_nothing(server: Server, wrong: str) -> None:
    """Stale, foreign or invented: answered, so that it is not sent again."""
    client, agent = await server.client(), await server.agent(credit=2)
    await server.submit(client, 2)
    grant, other = await leased(agent, 2)
    good = report(grant)
    stranger = await server.agent("a2", boot_id=b"2" * 16)
    told = {
        "token": msgspec.structs.replace(good, token=good.token + 1_000),
        "attempt": msgspec.structs.replace(good, attempt=2),
        "id": msgspec.structs.replace(good, id=server.specs()[0].id),
        "agent": good,
        "task": msgspec.structs.replace(good, id=other.spec.id),
    }[wrong]
    before = dict(server.disk._values)
    sender = stranger if wrong == "agent" else agent
    await sender.send(Ack([told]))
    assert (await sender.take(Recorded)).stale == [told.token]
    assert server.disk._values == before
    assert await server.state(client, grant.spec.id) == "running"
    await agent.send(Ack([good]))
    assert (await agent.take(Recorded)).tokens == [good.token]


async def test_a_report_sent_twice_is_recorded_twice(server: Server) -> None:
    """By whoever holds the lease, over whatever connection; another result changes nothing any more."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    await agent.send(Ack([report(grant, b"\x01")]))
    await agent.take(Recorded)
    await agent.close()
    again = await server.agent(holding=[held(grant)])
    await again.send(Ack([report(grant, b"\x02")]), Nack([FailureReport(grant.token, spec.id, 1, "released")]))
    for _ in range(2):
        assert (await again.take(Recorded)).tokens == [grant.token]
    assert (await server.view(client, spec.id)).result == b"\x01"


async def test_what_an_agent_holds_and_no_longer_owns_it_is_told(server: Server) -> None:
    """It kills and forgets it."""
    client, agent = await server.client(), await server.agent(credit=1)
    await server.submit(client)
    (grant,) = await leased(agent, 1)
    await agent.close()
    again = server.connect()
    await again.send(hello("agent", server.tokens["agent"], "a1", bytes(16)))
    await again.take(Welcome)
    await again.send(Offer([Pool("process", 1, ["m.f"])], holding=[held(grant), Held(77, bytes(16), 1)]))
    assert (await again.take(Offered)).stale == [77]


async def test_a_silent_agent_is_given_up(server: Server) -> None:
    """After three periods its tasks run elsewhere, uncharged; it may come back, and is told what it lost."""
    client = await server.client()
    silent, other = await server.agent(credit=1, beats=False), await server.agent("a2", boot_id=b"2" * 16)
    (spec,) = await server.submit(client)
    (grant,) = await leased(silent, 1)
    before = trio.current_time()
    why = await silent.end()
    assert trio.current_time() - before == pytest.approx(SILENCE_SECONDS, abs=0.6)
    assert (why.code, why.retryable) == ("connection.lost", True)
    await other.send(LeaseCredit(0, 1))
    (again,) = await leased(other, 1)
    assert (again.spec.id, again.attempt) == (spec.id, 2)
    back = server.connect()
    await back.send(hello("agent", server.tokens["agent"], "a1", bytes(16)))
    await back.take(Welcome)
    await back.send(Offer([Pool("process", 1, ["m.f"])], holding=[held(grant)]))
    assert (await back.take(Offered)).stale == [grant.token]
    await back.send(Ack([report(grant)]))
    assert (await back.take(Recorded)).stale == [grant.token]
    view = await server.view(client, spec.id)
    assert (view.state, view.agent, view.failures) == ("running", "a2", 0)


async def test_any_byte_is_life(server: Server) -> None:
    """A result that takes a minute to come through keeps its agent alive all the while."""
    client, agent = await server.client(), await server.agent(credit=1, beats=False)
    await server.submit(client)
    (grant,) = await leased(agent, 1)
    wire = peer_side()
    wire.send(Ack([report(grant, bytes(200_000))]))
    data = wire.data_to_send()
    for start in range(0, len(data), 10_000):
        await agent.send_bytes(data[start : start + 10_000])
        await trio.sleep(3)
    assert (await agent.take(Recorded)).tokens == [grant.token]
    assert (await agent.end()).code == "connection.lost"  # it fell silent then


async def test_a_lost_connection_is_no_lost_agent(server: Server) -> None:
    """It has its time to come back; meanwhile it is shown as lost, and grants nothing away."""
    client, agent = await server.client(), await server.agent(credit=1)
    await server.submit(client)
    (grant,) = await leased(agent, 1)
    await agent.close()
    await trio.sleep(SILENCE_SECONDS - 6)
    (view,) = await views(client)
    assert (view.state, view.running) == ("lost", 1)
    back = await server.agent(holding=[held(grant)])
    await back.send(Ack([report(grant)]))
    assert (await back.take(Recorded)).tokens == [grant.token]


async def test_an_agent_is_forgotten_when_it_holds_nothing(server: Server) -> None:
    """And what its host measured with it."""
    client, agent = await server.client(), await server.agent()
    await agent.send(Heartbeat(1, 0, [], HostStats(50.0, 1.5, 100, 200)))
    await agent.take(HeartbeatSeen)
    (view,) = await views(client)
    assert (view.name, view.state, view.slots, view.host.memory_total) == ("a1", "live", 8, 200)
    await agent.close()
    await client.settle()
    assert await views(client) == []
    assert server.hub.hosts == {}


async def test_what_no_host_can_have_measured_is_cut_down_counted_and_logged_once(server: Server) -> None:
    """Nobody is shown it, nothing is placed by it, and somebody is told of it."""
    client, agent = await server.client(), await server.agent()
    with structlog.testing.capture_logs() as lines:
        for number, said in enumerate(
            (HostStats(50.0, 1.5, 100, 200, 300, 400), HostStats(-3.0, float("nan"), -1, 200))
        ):
            await agent.send(Heartbeat(number, 0, [], said))
            await agent.take(HeartbeatSeen)
        await agent.send(Heartbeat(3, 0, [], HostStats(float("inf"), 1.5, 100, 1 << 63, -5, -6)))
        await agent.take(HeartbeatSeen)
    (view,) = await views(client)
    assert view.host == HostStats(100.0, 1.5, 100, 1 << 53)
    assert server.loop.tally.noted["agent.implausible"] == 2
    assert [line["agent"] for line in lines if "cannot be" in line["event"]] == ["a1"]


async def test_a_lease_that_never_arrived_is_granted_again(server: Server) -> None:
    """A heartbeat that echoes its number and does not hold it says so."""
    client, agent = await server.client(), await server.agent(credit=2, beats=False)
    await server.submit(client, 2)
    one, two = await leased(agent, 2)
    await agent.send(Heartbeat(1, 0, []))  # as it was before the LEASE came
    await agent.take(HeartbeatSeen)
    assert server.working.counters.by_queue["default"] == {"ready": 0, "running": 2}
    await agent.send(Heartbeat(2, 1, [one.token]), LeaseCredit(0, 1))
    (again,) = await leased(agent, 1)
    assert (again.spec.id, again.attempt) == (two.spec.id, 2)


async def test_a_cancel_revokes_what_runs(server: Server) -> None:
    """It has ended when the agent says that its work is gone, whatever else it says; or had been done before."""
    client, agent = await server.client(), await server.agent(credit=3)
    specs = await server.submit(client, 3)
    ids = [spec.id for spec in specs]
    grants = await leased(agent, 3)
    cancelled = await client.ask(Cancel(9, ids), Cancelled)
    assert cancelled.states == ["cancelling"] * 3
    assert (await agent.take(Revoke)).tokens == [grant.token for grant in grants]
    await client.send(Wait(10, ids))
    one, two, three = grants
    await agent.send(Ack([report(one)]))
    await agent.send(Nack([FailureReport(two.token, ids[1], 1, "cancelled"), _released(three)]))
    ends: dict[bytes, str] = {}
    while len(ends) < 3:
        ends |= {outcome.id: outcome.state for outcome in (await client.take(Outcomes)).outcomes}
    assert [ends[task_id] for task_id in ids] == ["succeeded", "cancelled", "cancelled"]


def _released(grant: Grant) -> FailureReport:
    return FailureReport(grant.token, grant.spec.id, grant.attempt, "released")


async def test_a_cancel_reaches_an_agent_that_was_away(server: Server) -> None:
    """It is told again when it is back."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    (grant,) = await leased(agent, 1)
    await agent.close()
    assert (await client.ask(Cancel(9, [spec.id]), Cancelled)).states == ["cancelling"]
    back = await server.agent(holding=[held(grant)])
    assert (await back.take(Revoke)).tokens == [grant.token]


async def test_a_draining_agent_is_granted_nothing_more(server: Server) -> None:
    """And is shown to drain; what it hands back runs elsewhere, uncharged."""
    client, agent = await server.client(), await server.agent(credit=2)
    await server.submit(client, 3)
    one, two = await leased(agent, 2)
    await agent.send(Drain(), LeaseCredit(0, 5), Nack([_released(two)]), Ack([report(one)]))
    for _ in range(2):
        await agent.take(Recorded)
    await agent.settle()
    assert agent.told(Lease) == []
    (view,) = await views(client)
    assert (view.state, view.running) == ("draining", 0)
    other = await server.agent("a2", boot_id=b"2" * 16, credit=2)
    assert {(grant.spec.id, grant.attempt) for grant in await leased(other, 2)} >= {(two.spec.id, 2)}


async def test_large_leases_wait_for_a_slow_agent(server: Server) -> None:
    """Far more than an outbox holds is granted at once: it comes bit by bit, and nobody is cut off."""
    client = await server.client()
    for _ in range(8):
        await server.submit(client, 1, payload=bytes(15_000_000))
    theirs, ours = lockstep_stream_pair()
    server.nursery.start_soon(server._serve, ours)
    agent = Agent(theirs, server.nursery)
    await agent.send(hello("agent", server.tokens["agent"], "a1", bytes(16)))
    await agent.take(Welcome)
    await agent.send(Offer([Pool("process", 8, ["m.f"])]))
    await agent.take(Offered)
    await agent.send(LeaseCredit(0, 8))
    session = server.hub._peers[max(server.hub._peers)]
    numbers = []
    for _ in range(8):
        lease = await agent.take(Lease)
        numbers.append(lease.number)
        assert session.outbox_bytes < 2 * 15_000_000 + LEASE_BYTES  # type: ignore[attr-defined]
        await agent.send(Ack([report(grant) for grant in lease.grants]))
    assert numbers == list(range(1, 9))
    await agent.settle()
    assert server.working.counters.ended == {"succeeded": 8}


async def test_a_revoke_never_passes_the_lease_that_it_ends(server: Server) -> None:
    """Also when the lease waits for room."""
    client = await server.client()
    specs = []
    for _ in range(3):
        specs += await server.submit(client, 1, payload=bytes(15_000_000))
    theirs, ours = lockstep_stream_pair()
    server.nursery.start_soon(server._serve, ours)
    agent = Peer(theirs, server.nursery, reads=False)
    await agent.send(hello("agent", server.tokens["agent"], "a1", bytes(16)))
    while not agent.told(Welcome):
        agent.hear(agent.wire.receive(bytes(await agent.stream.receive_some())))
    await agent.send(Offer([Pool("process", 8, ["m.f"])]))
    await agent.settle()
    await agent.send(LeaseCredit(0, 3))
    await client.settle()
    await client.ask(Cancel(9, [specs[-1].id]), Cancelled)
    server.nursery.start_soon(agent.read)
    await agent.take(Revoke)
    assert len(agent.told(Lease)) == 3


async def test_names_that_no_agent_has_wait_and_say_so(server: Server) -> None:
    """Until one comes that has them."""
    client = await server.client()
    (spec,) = await server.submit(client, name="m.unknown")
    assert "no agent is connected" in (await server.view(client, spec.id)).waits_for
    await server.agent(credit=5)
    assert "m.unknown" in (await server.view(client, spec.id)).waits_for
    knowing = await server.agent("a2", boot_id=b"2" * 16, names=["m.unknown"], credit=1)
    (grant,) = await leased(knowing, 1)
    assert grant.spec.id == spec.id


async def test_an_agent_that_a_person_drained_is_told_and_shown_so(server: Server) -> None:
    """It gives back what it has not started; what runs is waited for; resumed, it is granted to again."""
    client, agent = await server.client("operator"), await server.agent(credit=2)
    await server.submit(client, 3)
    one, two = await leased(agent, 2)
    await client.ask(AgentDrain(20, "a1"), Done)
    assert (await agent.take(Drain)).stay
    await agent.send(Nack([_released(two)]), LeaseCredit(0, 5))
    await agent.take(Recorded)
    assert [view.state for view in await views(client)] == ["draining"]
    await agent.send(Ack([report(one)]))
    await agent.take(Recorded)
    await agent.settle()
    assert agent.told(Lease) == []
    assert [view.state for view in await views(client)] == ["drained"]
    await client.ask(AgentDrain(21, "a1", resume=True), Done)
    assert len(await leased(agent, 2)) == 2
    assert [view.state for view in await views(client)] == ["live"]


async def test_a_drained_agent_is_shown_also_when_it_is_gone(server: Server) -> None:
    """Until somebody resumes it: it would be granted nothing when it is back."""
    client, agent = await server.client("operator"), await server.agent()
    await client.ask(AgentDrain(20, "a1"), Done)
    await agent.close()
    await client.settle()
    [view] = await views(client)
    assert (view.name, view.state, view.slots, view.seen_at_ms) == ("a1", "drained", 0, 0)
    await client.ask(AgentDrain(21, "a1", resume=True), Done)
    assert await views(client) == []


async def test_an_older_agent_is_not_told_that_it_is_drained(server: Server) -> None:
    """It would go, and be started again, for ever; it is granted nothing all the same."""
    client, agent = await server.client("operator"), await server.agent(credit=2, version_max=1)
    await client.ask(AgentDrain(20, "a1"), Done)
    await server.submit(client)
    await agent.settle()
    assert (agent.told(Drain), agent.told(Lease)) == ([], [])


@pytest.mark.parametrize(("version", "outcomes"), [(1, ["lost", "crashed"]), (2, ["lost", "lost"])])
async def test_a_second_loss_is_charged_to_who_would_mark_no_start(
    server: Server, version: int, outcomes: list[str]
) -> None:
    """An agent of version 1 does not tell whether it had started."""
    client = await server.client()
    [spec] = await server.submit(client)
    for life in (b"1", b"2", b"3"):
        agent = await server.agent(credit=1, boot_id=life * 16, version_max=version)
        [_] = await leased(agent, 1)
        await agent.close()
    view = await server.view(client, spec.id)
    assert [attempt.outcome for attempt in view.attempts] == outcomes


async def test_an_agent_that_fails_all_it_takes_is_shown_in_quarantine(server: Server) -> None:
    """While another one is there for the work; the tasks wait for that one, and their failures are taken back."""
    client, agent = await server.client("operator"), await server.agent(credit=8)
    await server.agent("a2", boot_id=b"2" * 16)
    specs = await server.submit(client, 8, retry=Retry(base_ms=600_000))
    failure = Failure("task.raised", "no GPU")
    for grant in await leased(agent, 8):
        await agent.send(Nack([FailureReport(grant.token, grant.spec.id, 1, "failed", failure)]))
        await agent.take(Recorded)
    await agent.settle()
    assert [view.state for view in await views(client)] == ["quarantined", "live"]
    assert (await server.view(client, specs[0].id)).failures == 0
    await client.ask(AgentDrain(21, "a1", resume=True), Done)
    assert [view.state for view in await views(client)] == ["live", "live"]


async def test_a_drained_queue_refuses_submits_and_is_shown(server: Server) -> None:
    """Though it is empty; until it is resumed."""
    client = await server.client("operator")
    await client.ask(QueueDrain(20, "default"), Done)
    refused = await client.ask(Submit(21, server.specs()), Error)
    assert (refused.code, refused.retryable) == ("queue.draining", False)
    page = await client.ask(QueueList(22), QueuePage)
    assert [(view.name, view.draining) for view in page.queues] == [("default", True)]
    await client.ask(QueueDrain(23, "default", resume=True), Done)
    await server.submit(client)
