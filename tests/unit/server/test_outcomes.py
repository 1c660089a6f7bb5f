"""Outcomes: told once, under the client's credit, and never more than its outbox can hold."""

import pytest
from trio.testing import lockstep_stream_pair

from harness.peer import Peer, hello
from harness.server import Server, leased, report
from taskd.core import records
from taskd.server import outcomes as outcomes_module
from taskd_protocol.agent_messages import Ack, LeaseCredit, Nack, Recorded
from taskd_protocol.connection_messages import Done, Error, Welcome
from taskd_protocol.limits import MESSAGE_BYTES_MAX, OUTBOX_BYTES_MAX, OUTCOME_CREDIT
from taskd_protocol.messages import Cancel, Cancelled, OutcomeCredit, Outcomes, Submit, TaskRetried, TaskRetry, Wait
from taskd_protocol.task import Failure, FailureReport, Outcome, Retry, TaskSpec


async def outcomes(client: Peer, count: int) -> list[Outcome]:
    """Return the next outcomes that a client is told, exactly so many."""
    told: list[Outcome] = []
    while len(told) < count:
        told += (await client.take(Outcomes)).outcomes
    assert len(told) == count
    return told


async def finish(server: Server, client: Peer, agent: Peer, count: int, result: bytes = b"\xc0") -> list[TaskSpec]:
    """Have so many tasks submitted and done."""
    specs = await server.submit(client, count)
    await agent.send(Ack([report(grant, result) for grant in await leased(agent, count)]))
    await agent.take(Recorded)
    return specs


async def test_a_wait_tells_what_ends_later(server: Server) -> None:
    """Answered DONE at once, then an outcome for each as it ends, whatever the end."""
    client, agent = await server.client(), await server.agent(credit=3)
    good, bad, gone = await server.submit(client, 3, retry=Retry(max_attempts=1))
    one, two, three = await leased(agent, 3)
    await client.ask(Wait(9, [good.id, bad.id, gone.id]), Done)
    await agent.send(Ack([report(one, b"\x01")]))
    assert await outcomes(client, 1) == [Outcome(good.id, "succeeded", 1, b"\x01")]
    failure = Failure("task.raised", "boom", "builtins.ValueError", "Traceback: ...")
    await agent.send(Nack([FailureReport(two.token, bad.id, 1, "failed", failure)]))
    assert await outcomes(client, 1) == [Outcome(bad.id, "dead", 1, b"", failure)]
    await client.ask(Cancel(10, [gone.id]), Cancelled)
    await agent.send(Nack([FailureReport(three.token, gone.id, 1, "cancelled")]))
    (outcome,) = await outcomes(client, 1)
    assert (outcome.id, outcome.state) == (gone.id, "cancelled")


async def test_a_retried_task_is_told_of_when_it_ends_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that was to be read again, for want of room, and was undone meanwhile is not told; the next one is."""
    monkeypatch.setattr(outcomes_module, "WAITING_BYTES_MAX", 1)
    monkeypatch.setattr(outcomes_module, "OUTCOME_CREDIT", 0)
    client, agent = await server.client(), await server.agent(credit=3)
    first, second = await server.submit(client, 2, retry=Retry(max_attempts=1))
    await client.ask(Wait(9, [first.id, second.id]), Done)
    failure = Failure("task.raised", "boom")
    for grant in await leased(agent, 2):
        await agent.send(Nack([FailureReport(grant.token, grant.spec.id, 1, "failed", failure)]))
        await agent.take(Recorded)
    retried = await client.ask(TaskRetry(10, [second.id, first.id, bytes(16)]), TaskRetried)
    assert retried.states == ["ready", "ready", "unknown"]
    await client.send(OutcomeCredit(9))
    assert [outcome.state for outcome in await outcomes(client, 1)] == ["dead"]
    await agent.send(LeaseCredit(0, 2))
    await agent.send(Ack([report(grant, b"\x07") for grant in await leased(agent, 2)]))
    assert await outcomes(client, 1) == [Outcome(second.id, "succeeded", 2, b"\x07")]


@pytest.mark.parametrize("result", [b"\x01", bytes(5_000)], ids=["inline", "apart"])
async def test_a_wait_tells_what_has_ended(server: Server, result: bytes) -> None:
    """At once, with its result, wherever that is stored."""
    client, agent = await server.client(), await server.agent(credit=2)
    specs = await finish(server, client, agent, 2, result)
    await client.ask(Wait(9, [spec.id for spec in specs]), Done)
    told = await outcomes(client, 2)
    assert {outcome.id for outcome in told} == {spec.id for spec in specs}
    assert {(outcome.state, outcome.result) for outcome in told} == {("succeeded", result)}


async def test_a_task_that_is_not_stored_is_unknown(server: Server) -> None:
    """And said so, rather than waited for."""
    client = await server.client()
    (never,) = server.specs()
    (real,) = await server.submit(client)
    await client.send(Wait(9, [never.id, real.id]))
    (outcome,) = await outcomes(client, 1)
    assert (outcome.id, outcome.state) == (never.id, "unknown")
    assert outcome.failure is not None
    assert outcome.failure.code == "task.unknown"


async def test_each_waiter_is_told_once_for_each_wait(server: Server) -> None:
    """Twice in one message is once; asked again afterwards, told again."""
    first, second, agent = await server.client(), await server.client("viewer"), await server.agent(credit=1)
    (spec,) = await server.submit(first)
    (grant,) = await leased(agent, 1)
    await first.send(Wait(9, [spec.id, spec.id]), Wait(10, [spec.id]))
    await second.send(Wait(1, [spec.id]))
    await second.settle()
    await agent.send(Ack([report(grant)]))
    await agent.take(Recorded)
    assert len(await outcomes(first, 1)) == len(await outcomes(second, 1)) == 1
    await first.settle()
    assert first.told(Outcomes) == []
    await first.send(Wait(11, [spec.id]))
    assert (await outcomes(first, 1))[0].state == "succeeded"
    assert server.hub._waiters == {}


async def test_an_end_during_the_look_up_is_told_once(server: Server) -> None:
    """The look-up found it running, or found its end: one of the two tells."""
    client, agent = await server.client(), await server.agent(credit=2)
    specs = await server.submit(client, 2)
    one, two = await leased(agent, 2)
    await agent.send(Ack([report(one)]))
    await agent.take(Recorded)
    with server.disk.reads_held():
        await client.send(Wait(9, [spec.id for spec in specs]))
        await client.settle()
        await agent.send(Ack([report(two)]))
        await agent.take(Recorded)
        await client.settle()
    assert {outcome.id for outcome in await outcomes(client, 2)} == {spec.id for spec in specs}
    await client.settle()
    assert client.told(Outcomes) == []
    assert server.hub._waiters == {}


async def test_credit_bounds_what_is_pushed(server: Server) -> None:
    """What is over it waits for more, and comes in the order in which it ended."""
    client, agent = await server.client(), await server.agent(credit=OUTCOME_CREDIT + 20)
    specs = await server.submit(client, 10_000) + await server.submit(client, OUTCOME_CREDIT + 10 - 10_000)
    ids = [spec.id for spec in specs]
    await client.ask(Wait(9_001, ids[:10_000]), Done)
    await client.ask(Wait(9_002, ids[10_000:]), Done)
    grants = await leased(agent, len(ids))
    await agent.send(Ack([report(grant) for grant in grants]))
    await agent.take(Recorded)
    told = await outcomes(client, OUTCOME_CREDIT)
    await client.settle()
    assert client.told(Outcomes) == []
    await client.send(OutcomeCredit(3))
    told += await outcomes(client, 3)
    await client.send(OutcomeCredit(100))
    told += await outcomes(client, 7)
    assert [outcome.id for outcome in told] == ids


async def test_results_that_cannot_be_told_yet_wait_on_disk(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory there are only so many; all of them come in the end, whole."""
    monkeypatch.setattr(outcomes_module, "WAITING_BYTES_MAX", 20_000)
    monkeypatch.setattr(outcomes_module, "OUTCOME_CREDIT", 1)
    client, agent = await server.client(), await server.agent(credit=100)
    specs = await server.submit(client, 100)
    await client.ask(Wait(9, [spec.id for spec in specs]), Done)
    grants = await leased(agent, 100)
    results = {grant.spec.id: bytes([number]) * 1_500 for number, grant in enumerate(grants)}
    await agent.send(Ack([report(grant, results[grant.spec.id]) for grant in grants]))
    await agent.take(Recorded)
    told = await outcomes(client, 1)
    role = next(peer for peer in server.hub._peers.values() if peer.connection == 1)._role  # type: ignore[attr-defined]
    assert len(role._outcomes._ready) < 15
    while len(told) < 100:
        await client.send(OutcomeCredit(9))
        told += await outcomes(client, 9)
    assert {outcome.id: outcome.result for outcome in told} == results
    assert len(told) == len(results)


async def test_a_result_that_is_taken_away_while_it_is_read_is_gone(server: Server) -> None:
    """It is not told as a success with another result."""
    client, agent = await server.client(), await server.agent(credit=1)
    [spec] = await finish(server, client, agent, 1, bytes(2_000))
    pusher = next(peer for peer in server.hub._peers.values() if peer.connection == 1)._role._outcomes  # type: ignore[attr-defined]
    found = await server.loop.loader.read([(records.STATE, spec.id), (records.RESULT, spec.id)])
    assert pusher._outcome(spec.id, found).result == bytes(2_000)
    server.working.counters.purged_to_ms = 1 << 48
    gone = pusher._outcome(spec.id, {**found, (records.RESULT, spec.id): None})
    assert (gone.state, gone.failure.code, gone.result) == ("unknown", "result.gone", b"")


async def test_large_results_are_told_one_at_a_time(server: Server) -> None:
    """No message is larger than one may be, and no outbox fuller than it may be."""
    client, agent = await server.client(), await server.agent(credit=20)
    specs = await server.submit(client, 12)
    large = bytes(10_000_000)
    for grant in await leased(agent, 12):
        await agent.send(Ack([report(grant, large)]))
        await agent.take(Recorded)
    slow = server.connect(lockstep_stream_pair, reads=False)
    await slow.send(hello("client", server.tokens["client"]))
    server.nursery.start_soon(slow.read)
    await slow.take(Welcome)
    await slow.send(Wait(1, [spec.id for spec in specs]))
    session = server.hub._peers[max(server.hub._peers)]
    seen = 0
    while seen < 12:
        message = await slow.take(Outcomes)
        assert len(message.outcomes) == 1
        assert message.outcomes[0].result == large
        assert session.outbox_bytes < OUTBOX_BYTES_MAX  # type: ignore[attr-defined]
        seen += 1
    assert not slow.over.is_set()


async def test_long_failures_are_divided_too(server: Server) -> None:
    """Tracebacks weigh as results do: a thousand of them fit no message."""
    client, agent = await server.client(), await server.agent(credit=300)
    specs = await server.submit(client, 300, retry=Retry(max_attempts=1))
    await client.ask(Wait(9, [spec.id for spec in specs]), Done)
    failure = Failure("task.raised", "m" * 64_000, "builtins.ValueError", "t" * 64_000)
    grants = await leased(agent, 300)
    for start in range(0, 300, 100):
        some = grants[start : start + 100]
        await agent.send(Nack([FailureReport(g.token, g.spec.id, 1, "failed", failure) for g in some]))
        await agent.take(Recorded)
    assert MESSAGE_BYTES_MAX < 300 * 128_000
    told = await outcomes(client, 300)
    assert {outcome.failure for outcome in told} == {failure}


async def test_a_wait_for_a_backlog_reads_little_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks beyond the window have no state: they are told from unknown ones by a look at the spec."""
    monkeypatch.setattr("taskd.core.lines.WINDOW_TASKS_MAX", 10)
    monkeypatch.setattr("taskd.core.lines.WINDOW_LOW", 2)
    client, agent = await server.client(), await server.agent()
    specs = await server.submit(client, 200)
    unknown = server.specs(50)
    await client.send(Wait(9, [spec.id for spec in [*specs, *unknown]]))
    told = await outcomes(client, 50)
    assert {(outcome.id, outcome.state) for outcome in told} == {(spec.id, "unknown") for spec in unknown}
    await agent.send(LeaseCredit(0, 200))
    await agent.send(Ack([report(grant) for grant in await leased(agent, 200)]))
    assert {outcome.state for outcome in await outcomes(client, 200)} == {"succeeded"}


async def test_a_submit_and_a_wait_at_once(server: Server) -> None:
    """Whatever the order in which they are looked at, the wait ends."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = server.specs()
    await client.send(Submit(1, [spec]), Wait(2, [spec.id]))
    (grant,) = await leased(agent, 1)
    await agent.send(Ack([report(grant)]))
    (outcome,) = await outcomes(client, 1)
    assert outcome.state in {"succeeded", "unknown"}


async def test_waits_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with what to do; there is room again when some have ended."""
    monkeypatch.setattr(outcomes_module, "WAITED_MAX", 5)
    client, agent = await server.client(), await server.agent(credit=3)
    specs = await server.submit(client, 6)
    ids = [spec.id for spec in specs]
    await client.ask(Wait(9, ids[:3]), Done)
    refused = await client.ask(Wait(10, ids[3:]), Error)
    assert (refused.code, refused.retryable) == ("server.busy", True)
    await agent.send(Ack([report(grant) for grant in await leased(agent, 3)]))
    await outcomes(client, 3)
    await client.ask(Wait(11, ids[3:]), Done)
