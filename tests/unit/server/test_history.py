"""The history: points that agree with what happened, coarser the longer ago, in a room that does not grow, and kept."""

import random

import pytest

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.events import TasksMoved
from taskd.core.fleet import Agent
from taskd.core.points import Loads
from taskd.core.working import Settings, Working
from taskd.server.history import AGENTS_MAX, LEVELS, LOADS, PIECE, History
from taskd.server.tally import Tally
from taskd.store import codec
from taskd.store.memory import MemoryStore
from taskd_protocol.agent_messages import HostStats
from taskd_protocol.point import Depth, Point, Shares

WALL_MS = 1_763_760_000_000
STEP_MS = LEVELS[0].step_ms


async def _at_once() -> None:
    pass


class Watched:
    """A server's history, and what is counted."""

    def __init__(self) -> None:
        self.store = MemoryStore(lineage=bytes(16), sync=_at_once)
        self.working = Working(Settings(), random.Random(0))
        self.mono_ms, self.wall_ms = 5_000, WALL_MS
        self.tally = Tally()
        self.hosts = {7: HostStats(cpu_percent=41.6, memory_used=3 << 30)}
        self.history = History(self.store, self.working, self.tally, self.hosts)
        self.written = 0

    async def start(self) -> "Watched":
        await self.history.open(self.now)
        return self

    async def restart(self, away_ms: int) -> None:
        """As after a crash: what was counted is gone, and the clock that never steps begins anew."""
        self.mono_ms, self.wall_ms = 77, self.wall_ms + away_ms
        self.tally = Tally()
        self.history = History(self.store, self.working, self.tally, self.hosts)
        await self.history.open(self.now)

    @property
    def now(self) -> Now:
        return Now(self.mono_ms, self.wall_ms)

    def happen(self, what: str, count: int, *spans_ms: int) -> None:
        self.tally.note([TasksMoved(what, "q", "m.f", "a1", 1, [bytes(16)] * count, list(spans_ms))], self.mono_ms)

    def pass_ms(self, ms: int) -> None:
        self.mono_ms += ms
        self.wall_ms += ms
        mutations = self.history.look(self.now)
        self.written += bool(mutations)
        self.store.stage(codec.encode(mutations))

    async def stored(self) -> int:
        return len(await self.store.scan(records.HISTORY, limit=10_000))


@pytest.fixture
async def watched() -> Watched:
    return await Watched().start()


async def test_a_point_says_what_was_counted_since_the_one_before(watched: Watched) -> None:
    watched.pass_ms(STEP_MS)
    watched.working.counters.by_queue = {"q": {"ready": 9, "running": 2}, "r": {"scheduled": 4, "cancelling": 1}}
    watched.happen("task.submitted", 5)
    watched.happen("task.running", 3, 10, 10, 400)
    watched.happen("task.succeeded", 2, 7, 7)
    watched.happen("task.dead", 1)
    watched.happen("task.scheduled", 1)
    watched.pass_ms(STEP_MS)
    quiet, busy = watched.history.points("15m")
    assert busy == Point(
        at_ms=WALL_MS + 2 * STEP_MS,
        span_ms=STEP_MS,
        submitted=5,
        started=3,
        succeeded=2,
        failed=1,
        cancelled=0,
        retried=1,
        ready=9,
        scheduled=4,
        blocked=0,
        running=3,
        agents=0,
        waits_ms=Shares(10, 416, 416),
        runs_ms=Shares(7, 7, 7),
        queues=[Depth("q", 9, 2), Depth("r", 0, 1)],
    )
    assert (quiet.submitted, quiet.waits_ms) == (0, Shares(-1, -1, -1))


async def test_every_level_counts_the_same(watched: Watched) -> None:
    """What happened is in each of them once, however coarse it is."""
    for minute in range(60):
        watched.happen("task.succeeded", minute, *[minute] * minute)
        for _ in range(30):
            watched.pass_ms(STEP_MS)
    for level in LEVELS[1:]:
        points = watched.history.points(level.name)
        assert sum([point.succeeded for point in points]) == sum(range(60)), level
        assert len(points) == 60 * 60_000 // level.step_ms
    assert len(watched.history.points("15m")) == LEVELS[0].range_ms // STEP_MS + 1


async def test_its_room_does_not_grow(watched: Watched) -> None:
    for _ in range(40):
        watched.pass_ms(3_600_000)
    for _ in range(2_000):
        watched.pass_ms(STEP_MS)
    most = sum([level.pieces for level in LEVELS])
    assert await watched.stored() <= most
    for level in LEVELS:
        points = watched.history.points(level.name)
        assert points[-1].at_ms - points[0].at_ms <= level.range_ms


async def test_it_is_written_a_few_times_a_minute(watched: Watched) -> None:
    watched.written = 0
    for _ in range(30):
        watched.pass_ms(STEP_MS)
    assert watched.written <= 6 + 6 + 1


async def test_a_crash_loses_ten_seconds_and_the_gap_shows(watched: Watched) -> None:
    for _ in range(100):
        watched.happen("task.succeeded", 1, 3)
        watched.pass_ms(STEP_MS)
    before = {level.name: list(watched.history.points(level.name)) for level in LEVELS}
    await watched.restart(60_000)
    for level in LEVELS:
        points = watched.history.points(level.name)
        assert points == before[level.name][: len(points)]
        assert len(before[level.name]) - len(points) < PIECE // 2
    watched.happen("task.succeeded", 1, 3)
    watched.pass_ms(STEP_MS)
    after = watched.history.points("15m")
    assert after[-1].succeeded == 1
    assert after[-1].at_ms - after[-2].at_ms >= 60_000


async def test_what_is_too_old_is_gone_after_a_restart(watched: Watched) -> None:
    for _ in range(100):
        watched.pass_ms(STEP_MS)
    await watched.restart(3_600_000)
    assert watched.history.points("15m") == []
    assert watched.history.points("6h")


async def test_a_clock_that_was_put_back_leaves_no_point_in_the_future(watched: Watched) -> None:
    for _ in range(20):
        watched.pass_ms(STEP_MS)
    watched.wall_ms -= 30_000
    watched.pass_ms(STEP_MS)
    points = watched.history.points("15m")
    assert points[-1].at_ms == watched.wall_ms
    assert [point.at_ms for point in points] == sorted([point.at_ms for point in points])


async def test_what_agents_did_is_kept_in_a_room_of_its_own(watched: Watched) -> None:
    """Over a restart, too; of agents of which nothing was heard yet, nothing but what they hold."""
    for _ in range(10):
        watched.pass_ms(STEP_MS)
    assert watched.history.loads() == []
    before = await watched.stored()
    watched.working.agents = {"b": Agent(name="b", connection=9), "a": Agent(name="a", connection=7)}
    for _ in range(2_000):
        watched.pass_ms(STEP_MS)
    kept = watched.history.loads()
    assert kept[-1] == Loads(kept[-1].at_ms, ["a", "b"], [42, 0], [3_072, 0], [0, 0])
    assert len(kept) == LOADS.range_ms // LOADS.step_ms + 1
    assert await watched.stored() <= before + sum([level.pieces for level in (*LEVELS, LOADS)])
    await watched.restart(60_000)
    assert watched.history.loads() == kept[6:]
    watched.working.agents = {f"{n:04}": Agent(name=f"{n:04}") for n in range(2 * AGENTS_MAX)}
    watched.pass_ms(LOADS.step_ms)
    assert watched.history.loads()[-1].agents == [f"{n:04}" for n in range(AGENTS_MAX)]
