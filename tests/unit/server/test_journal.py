"""The journal: events under numbers without a gap, up to a size and an age, told when durable, kept over a restart."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from harness.peer import Peer
from harness.server import Server, leased, report
from taskd.core import records
from taskd.core.commands import Now
from taskd.core.events import Event, Noted, TasksMoved
from taskd.server.certificates import Certificates
from taskd.server.journal import AGE_MS, RECENT_TASKS_MAX, REMOVED_MAX, STRETCH_MS, STRETCHES, Journal, Numbered
from taskd.store import codec
from taskd.store.memory import MemoryStore
from taskd_protocol.agent_messages import Ack, Recorded

WALL_MS = 1_763_760_000_000


async def _at_once() -> None:
    pass


def tasks(count: int, what: str = "task.submitted") -> TasksMoved:
    return TasksMoved(what, "images", "m.f", "", 0, [number.to_bytes(16, "big") for number in range(count)], [])


class Kept:
    """A journal over a store, and the clock that it is told."""

    def __init__(self, **bounds: int) -> None:
        self.store = MemoryStore(lineage=bytes(16), sync=_at_once)
        self.journal = Journal(self.store, **bounds)
        self.wall_ms = WALL_MS

    async def write(self, *events: Event, times: int = 1) -> None:
        for _ in range(times):
            mutations = self.journal.write(events, Now(0, self.wall_ms))
            self.store.stage(codec.encode(mutations))
            await self.store.flush()
            self.journal.release(self.journal.newest)

    async def restart(self, **bounds: int) -> None:
        self.journal = Journal(self.store, **bounds)
        await self.journal.open()

    async def read_all(self, after: int = 0) -> list[Numbered]:
        found: list[Numbered] = []
        while page := await self.journal.read(after):
            found += page
            after = page[-1].number
        return found

    async def numbers(self, after: int = 0) -> list[int]:
        return [each.number for each in await self.read_all(after)]

    async def stored(self) -> int:
        return len(await self.store.scan(records.EVENTS, limit=100_000))


async def test_what_was_told_is_read_from_any_place_on() -> None:
    kept = Kept()
    for count in range(1, 6):
        await kept.write(tasks(count), Noted("agent.lost", "a1"))
    assert await kept.numbers() == [1, 2, 3, 4, 5]
    assert await kept.numbers(after=3) == [4, 5]
    assert await kept.numbers(after=5) == []
    assert (await kept.read_all(after=4))[0].record.moved == [tasks(5)]
    assert (await kept.read_all(after=4))[0].record.noted == [Noted("agent.lost", "a1")]


async def test_a_turn_that_changed_nothing_writes_nothing() -> None:
    kept = Kept()
    await kept.write()
    assert kept.journal.write([], Now(0, WALL_MS)) == []
    assert await kept.stored() == 0


async def test_nothing_is_told_before_it_is_durable() -> None:
    kept = Kept()
    await kept.write(tasks(1))
    kept.store.stage(codec.encode(kept.journal.write([tasks(2)], Now(0, WALL_MS))))
    assert await kept.numbers() == [1]
    assert kept.journal.told == 1
    kept.journal.release(2)
    assert await kept.numbers() == [1, 2]


async def test_a_restart_finds_what_was_kept_and_goes_on() -> None:
    kept = Kept()
    await kept.write(tasks(3), times=7)
    before = await kept.read_all()
    await kept.restart()
    assert await kept.read_all() == before
    await kept.write(tasks(1))
    assert await kept.numbers(after=6) == [7, 8]


async def test_what_is_not_in_memory_is_read_from_the_disk() -> None:
    kept = Kept()
    half = RECENT_TASKS_MAX // 2
    await kept.write(tasks(half), times=5)
    assert len(kept.journal.recent) < 3
    assert await kept.numbers() == [1, 2, 3, 4, 5]


async def test_the_oldest_go_when_there_is_too_much() -> None:
    """What is left has no gap, weighs no more than it may, and what is gone is known."""
    kept = Kept(bytes_max=STRETCHES * 10_000)
    await kept.write(tasks(40), times=STRETCHES * 15)
    left = await kept.numbers()
    assert left == list(range(kept.journal.oldest, STRETCHES * 15 + 1))
    assert kept.journal.oldest > 1
    assert await kept.stored() == len(left)
    weight = sum([len(value) for _, value in await kept.store.scan(records.EVENTS, limit=100_000)])
    assert STRETCHES * 10_000 // 2 < weight < STRETCHES * 10_000
    await kept.restart(bytes_max=STRETCHES * 10_000)
    assert await kept.numbers() == left


async def test_the_old_go_with_time_also_when_nothing_happens() -> None:
    kept = Kept()
    await kept.write(tasks(1), times=3)
    kept.wall_ms += STRETCH_MS + 1
    await kept.write(tasks(1), times=2)
    kept.wall_ms += AGE_MS - STRETCH_MS
    await kept.write()
    assert await kept.numbers() == [1, 2, 3, 4, 5]
    kept.wall_ms += STRETCH_MS + 1
    await kept.write()
    assert await kept.numbers() == [4, 5]
    kept.wall_ms += AGE_MS
    await kept.write()
    assert await kept.numbers() == []
    assert await kept.stored() == 0
    await kept.write(tasks(1))
    assert await kept.numbers() == [6]


async def test_what_goes_goes_some_at_a_time() -> None:
    kept = Kept()
    await kept.write(tasks(1), times=REMOVED_MAX * 3)
    kept.wall_ms += AGE_MS + 2 * STRETCH_MS
    most = max([len(kept.journal.write([], Now(0, kept.wall_ms))) for _ in range(9)])
    assert most <= REMOVED_MAX + 1
    assert kept.journal.oldest == REMOVED_MAX * 3 + 1


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    """A server that keeps what happens."""
    return await Server(nursery, ca, watched=True).start()


def journal_of(server: Server) -> Journal:
    assert server.watch is not None
    return server.watch.journal


def whats(read: Sequence[Numbered]) -> list[str]:
    return [
        what for each in read for what in [*[e.what for e in each.record.moved], *[e.what for e in each.record.noted]]
    ]


async def work(server: Server, client: Peer) -> None:
    agent = await server.agent(credit=2)
    await server.submit(client, 2)
    await agent.send(Ack([report(grant) for grant in await leased(agent, 2)]))
    await agent.take(Recorded)


async def test_a_server_keeps_what_its_turns_tell(server: Server) -> None:
    await work(server, await server.client())
    told = await journal_of(server).read(0)
    assert whats(told) == ["agent.connected", "task.submitted", "task.running", "task.succeeded"]


async def test_a_flush_that_does_not_come_back_lets_nobody_know(server: Server) -> None:
    client = await server.client()
    with server.disk.held():
        server.nursery.start_soon(server.submit, client, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert server.working.counters.by_queue
        assert await journal_of(server).read(0) == []
    await trio.testing.wait_all_tasks_blocked()
    assert whats(await journal_of(server).read(0)) == ["task.submitted"]


async def test_after_a_crash_the_journal_says_what_the_disk_says(server: Server) -> None:
    client = await server.client()
    await work(server, client)
    told = await journal_of(server).read(0)
    again = await server.crash()
    assert await journal_of(again).read(0) == told
