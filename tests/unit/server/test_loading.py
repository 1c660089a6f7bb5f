"""What the core asks to be read comes back as it stands: backlogs, timers and retention, end to end on the loop."""

import itertools

import pytest
import trio

from harness.server import DAY_MS, Server, leased, report
from taskd.core import lines, records, retention, timers
from taskd.core.effects import WantLine
from taskd.core.lines import REFILL_BYTES, line_id
from taskd.core.records import LogRecord
from taskd.core.working import Settings
from taskd.server.certificates import Certificates
from taskd.server.loading import Loader
from taskd.server.selecting import FIRST_ENTRIES
from taskd.store import codec
from taskd_protocol.agent_messages import Ack, Lease, LeaseCredit, Nack, Recorded
from taskd_protocol.messages import (
    Accepted,
    Cancel,
    Cancelled,
    OutcomeCredit,
    Outcomes,
    Submit,
    TaskQuery,
    TaskViews,
    Wait,
)
from taskd_protocol.task import Failure, FailureReport, Held, Retry, TaskSpec

RAISED = Failure("task.raised", "boom")


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of which only a few tasks are in memory."""
    monkeypatch.setattr(lines, "WINDOW_TASKS_MAX", 16)
    monkeypatch.setattr(lines, "WINDOW_LOW", 4)
    monkeypatch.setattr("taskd.core.lines.REFILL_TASKS", 8)


@pytest.mark.usefixtures("small_windows")
async def test_a_backlog_on_disk_is_run_in_order(server: Server) -> None:
    """Page by page, while more is submitted and some of it is cancelled."""
    client = await server.client()
    specs = await server.submit(client, 100)
    assert len(server.working.tasks) <= 20
    gone = {specs[30].id, specs[77].id}
    await client.ask(Cancel(client.number(), sorted(gone)), Cancelled)
    agent = await server.agent(credit=5)
    seen: list[bytes] = []
    late: list[TaskSpec] = []
    while len(seen) < 98 + len(late):
        lease = await agent.take(Lease)
        seen += [grant.spec.id for grant in lease.grants]
        await agent.send(Ack([report(grant) for grant in lease.grants]), LeaseCredit(0, len(lease.grants)))
        if len(seen) == 50:
            late = await server.submit(client, 30)
    assert seen == [spec.id for spec in [*specs, *late] if spec.id not in gone]
    await client.settle()
    assert server.working.lines == {}
    assert server.working.tasks == {}


@pytest.mark.usefixtures("small_windows")
async def test_lines_change_while_they_are_read(server: Server) -> None:
    """What overtakes, leaves or joins beyond the window during a slow read is where it belongs afterwards."""
    client = await server.client()
    specs = await server.submit(client, 60)
    agent = await server.agent(credit=14)
    grants = await leased(agent, 14)
    with server.disk.reads_held():
        await agent.send(Nack([FailureReport(grants[0].token, grants[0].spec.id, 1, "released")]))
        urgent = server.specs(3, priority=5)
        await client.send(Submit(21, urgent))
        await client.settle()
    await client.take(Accepted)
    await agent.take(Recorded)
    await agent.send(LeaseCredit(0, 100))
    rest = await leased(agent, 60 + 3 - 13)
    expected = [s.id for s in urgent] + [grants[0].spec.id] + [s.id for s in specs[14:]]
    assert [grant.spec.id for grant in rest] == expected


async def test_a_refill_stops_at_its_bytes(server: Server) -> None:
    """Large arguments are read a few at a time, and the rest of the line is known to be there."""
    client = await server.client()
    for _ in range(5):
        await server.submit(client, 10, payload=bytes(200_000))
    await server.submit(client, 100, payload=b"small")
    loader = Loader(server.disk, server.working)
    line = line_id("default", "m.f")
    some = await loader.read_line(WantLine(line, -1, 1_000, 4_000_000))
    assert not some.last
    assert FIRST_ENTRIES < len(some.entries) < 30
    rest = await loader.read_line(WantLine(line, some.entries[-1].rank, 1_000, REFILL_BYTES))
    assert rest.last
    assert len(some.entries) + len(rest.entries) == 150
    exact = await loader.read_line(WantLine(line, -1, 150, REFILL_BYTES))
    assert (exact.last, len(exact.entries)) == (False, 150)


async def test_a_delay_is_waited_for(server: Server) -> None:
    """Neither before its time nor long after; the client sees what it waits for."""
    client, agent = await server.client(), await server.agent(credit=8)
    (spec,) = await server.submit(client, delay_ms=90_000)
    view = await server.view(client, spec.id)
    assert (view.state, view.waits_for) == ("scheduled", "waits for its time")
    before = trio.current_time()
    await leased(agent, 1, within=120)
    assert trio.current_time() - before == pytest.approx(90, abs=0.01)


async def test_many_timers_beyond_what_is_in_memory(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them fire, in time, although only some are in memory at once."""
    monkeypatch.setattr(timers, "REFILL_TIMERS", 10)
    monkeypatch.setattr(timers, "NEAR_MAX", 20)
    monkeypatch.setattr(timers, "NEAR_LOW", 5)
    monkeypatch.setattr(timers, "DUE_TASKS", 7)
    client, agent = await server.client(), await server.agent(credit=1_000)
    due = {}
    for delay_ms in range(1_000, 31_000, 500):
        for spec in await server.submit(client, 3, delay_ms=delay_ms):
            due[spec.id] = trio.current_time() + delay_ms / 1_000
    seen: dict[bytes, float] = {}
    while len(seen) < len(due):
        for grant in (await agent.take(Lease)).grants:
            seen[grant.spec.id] = trio.current_time()
    assert {task_id: at - due[task_id] for task_id, at in seen.items() if not 0 <= at - due[task_id] < 0.1} == {}


async def test_a_cancelled_timer_never_fires(server: Server) -> None:
    """Also when it is being read at that moment."""
    client, agent = await server.client(), await server.agent(credit=8)
    specs = await server.submit(client, 20, delay_ms=3_000)
    await trio.sleep(2.9)
    with server.disk.reads_held():
        await client.send(Cancel(50, [spec.id for spec in specs[:10]]))
        await trio.sleep(1)
    assert set((await client.take(Cancelled)).states) == {"cancelled"}
    await leased(agent, 8)
    await agent.send(LeaseCredit(0, 8))
    await leased(agent, 2)
    assert server.working.counters.by_queue["default"] == {"scheduled": 0, "ready": 0, "running": 10}


async def test_a_failed_task_is_tried_again_and_then_dead(server: Server) -> None:
    """With its backoff in between, and the last failure told."""
    client, agent = await server.client(), await server.agent(credit=8)
    retry = Retry(max_attempts=3, base_ms=4_000, factor=2.0, jitter=0.0)
    (spec,) = await server.submit(client, retry=retry)
    await client.send(Wait(60, [spec.id]))
    instants = []
    for attempt in (1, 2, 3):
        (grant,) = await leased(agent, 1)
        instants.append(trio.current_time())
        assert grant.attempt == attempt
        await agent.send(Nack([FailureReport(grant.token, spec.id, attempt, "failed", RAISED)]))
    assert [b - a for a, b in itertools.pairwise(instants)] == pytest.approx([4, 8], abs=0.01)
    (outcome,) = (await client.take(Outcomes)).outcomes
    assert (outcome.state, outcome.attempt, outcome.failure) == ("dead", 3, RAISED)


async def test_finished_tasks_go_after_their_age(nursery: trio.Nursery, ca: Certificates) -> None:
    """Their results with them; what is asked for then is gone, and their ids run nothing any more."""
    server = await Server(nursery, ca, settings=Settings(retention_age_ms=60_000)).start()
    client, agent = await server.client(), await server.agent(credit=1_000)
    specs = await server.submit(client, 700, key="")
    large = bytes(1_000)  # apart from the state
    await agent.send(Ack([report(grant, large) for grant in await leased(agent, 700)]))
    await agent.take(Recorded)
    await trio.sleep(50)
    assert await server.state(client, specs[3].id) == "succeeded"
    await trio.sleep(30)
    views = await client.ask(TaskQuery(client.number(), [specs[3].id]), TaskViews)
    assert views.views == [None]
    await client.send(OutcomeCredit(10), Wait(client.number(), [specs[3].id]))
    (outcome,) = (await client.take(Outcomes)).outcomes
    assert outcome.state == "unknown"
    assert outcome.failure is not None
    assert outcome.failure.code == "result.gone"
    await client.send(Submit(client.number(), specs[:1]))
    assert server.working.counters.ended.get("succeeded", 0) == 0
    kinds = {key[1:2] for key in server.disk._values}
    assert kinds == {b"m", b"a"}, "nothing of the tasks is left"


async def test_a_size_limit_takes_the_oldest(
    nursery: trio.Nursery, ca: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are too many, no more, step by step."""
    monkeypatch.setattr(retention, "STEPS", 2)
    settings = Settings(retention_age_ms=7 * DAY_MS, retention_bytes=50_000)
    server = await Server(nursery, ca, settings=settings).start()
    client, agent = await server.client(), await server.agent(credit=1_000)
    all_specs = []
    for _ in range(20):
        all_specs += await server.submit(client, 10)
        await agent.send(Ack([report(grant, bytes(400)) for grant in await leased(agent, 10)]))
        await agent.take(Recorded)
    await trio.sleep(60)
    left = [spec.id for spec in all_specs if server.disk._values.get(b"\x00s" + spec.id)]
    assert 0 < len(left) < 100
    # Of the steps that are read at once, the younger may come first.
    assert set(left) >= {spec.id for spec in all_specs[-(len(left) - 10) :]}
    assert 40_000 < server.working.counters.finished_bytes <= 50_000


async def test_large_finished_tasks_go_a_few_at_a_time(server: Server) -> None:
    """A step of the purge reads the arguments of the tasks that it takes away."""
    client, agent = await server.client(), await server.agent(credit=20)
    for _ in range(10):
        await server.submit(client, 2, payload=bytes(3_000_000))
    await agent.send(Ack([report(grant) for grant in await leased(agent, 20)]))
    await agent.take(Recorded)
    finished = [
        codec.decode_as(records.FinishedRecord, records.FINISHED, key, value)
        for key, value in server.disk._values.items()
        if key[1:2] == records.FINISHED
    ]
    assert [len(record.ids) for record in finished] == [2] * 10
    assert sum([record.stored_bytes for record in finished]) == server.working.counters.finished_bytes


async def test_what_was_noted_for_an_earlier_read_is_forgotten(server: Server) -> None:
    """A record changes after the last read was taken, in the same turn: the next read must not see what it was."""
    working, loader = server.working, Loader(server.disk, server.working)
    key = (records.LOG, b"id")
    loader.begin_turn()
    working.put(*key, LogRecord(1, 1, 1, b"old"))
    loader.open([key])
    assert loader.take({key: None}) == {key: LogRecord(1, 1, 1, b"old")}
    working.put(*key, LogRecord(1, 1, 1, b"new"))
    server.disk.stage(codec.encode(working.mutations))
    loader.note(working.mutations)
    working.mutations = []
    assert await loader.read_now([key]) == {key: LogRecord(1, 1, 1, b"new")}


async def test_a_read_that_opens_again_in_a_turn_misses_nothing_of_it(server: Server) -> None:
    """Neither what was decided before the last one was taken, nor after."""
    working, loader = server.working, Loader(server.disk, server.working)
    one, two = (records.LOG, b"1"), (records.LOG, b"2")
    loader.begin_turn()
    loader.open([one])
    working.put(*one, LogRecord(1, 1, 1, b"1"))
    loader.take({one: None})
    loader.open([one, two])
    working.put(*two, LogRecord(1, 1, 1, b"2"))
    loader.note(working.mutations)
    working.mutations = []
    loader.begin_turn()
    assert loader.take({one: None, two: None}) == {one: LogRecord(1, 1, 1, b"1"), two: LogRecord(1, 1, 1, b"2")}
    assert not loader.reading


async def test_only_what_is_read_is_remembered(server: Server) -> None:
    """Reads that overlap for ever must not make the server remember all that happens meanwhile."""
    working, loader = server.working, Loader(server.disk, server.working)
    first, second = (records.LOG, b"1"), (records.LOG, b"2")
    loader.open([first])
    for number in range(100):
        loader.begin_turn()
        working.put(records.LOG, b"other %d" % number, LogRecord(1, 1, 1, b"x"))
        working.put(*second, LogRecord(1, 1, 1, b"%d" % number))
        loader.note(working.mutations)
        working.mutations = []
        if number == 50:
            loader.open([second, first])
    assert set(loader._decided) == {second}
    assert loader.take({first: None}) == {first: None}
    assert loader.take({second: None, first: None})[second] == LogRecord(1, 1, 1, b"99")
    assert (loader.reading, loader._decided) == (False, {})


async def test_a_read_during_a_stall_finds_what_is_not_staged(server: Server) -> None:
    """Also when it comes back after the stall."""
    key = (records.LOG, b"1")
    loader = Loader(server.disk, server.working)
    loader.hold([(*key, LogRecord(1, 1, 1, b"x"))])
    loader.open([key])
    loader.let_go()
    assert loader.take({key: None}) == {key: LogRecord(1, 1, 1, b"x")}


async def test_records_read_now_are_those_that_stand_now(server: Server) -> None:
    """Nothing that a turn decided while the read was slow is missed."""
    client, agent = await server.client(), await server.agent(credit=1)
    (spec,) = await server.submit(client)
    with server.disk.reads_held():
        await client.send(TaskQuery(70, [spec.id]))
        await client.settle()
        (grant,) = await leased(agent, 1)
        await agent.send(Ack([report(grant, b"\x2a")]))
        await agent.take(Recorded)
    view = (await client.take(TaskViews)).views[0]
    assert view is not None
    assert (view.state, view.result) == ("succeeded", b"\x2a")


async def test_a_restart_knows_what_the_last_life_knew(nursery: trio.Nursery, ca: Certificates) -> None:
    """Backlog, timers, leases and ends, whatever was in memory."""
    server = await Server(nursery, ca).start()
    client, agent = await server.client(), await server.agent(credit=1)
    (first, second) = await server.submit(client, 2)
    (delayed,) = await server.submit(client, delay_ms=5_000)
    (grant,) = await leased(agent, 1)
    again = await server.crash()
    assert again.working.epoch > server.working.epoch
    client = await again.client()
    states = [await again.state(client, spec.id) for spec in (first, second, delayed)]
    assert states == ["running", "ready", "scheduled"]
    agent = await again.agent(holding=[Held(grant.token, first.id, 1)], credit=2)
    await agent.send(Ack([report(grant)]))
    assert (await agent.take(Recorded)).tokens == [grant.token]
    more = await leased(agent, 2)
    assert [grant.spec.id for grant in more] == [second.id, delayed.id]
    assert min(grant.token for grant in more) > grant.token
