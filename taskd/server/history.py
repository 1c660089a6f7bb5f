"""The history: how the server stood and what it did, from the last seconds to a day, coarser the longer ago.

Each level is a ring of points a fixed time apart, made of what the tally counts: a point is what was counted since the
one before. One ring more tells what agents' machines did over the last while. Rings are kept on disk in pieces under
few, fixed keys, so that they take the same room for ever, and are there again after a restart: all but the last ten
seconds of the finest.

Knows nothing of who shows it.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.events import RUNNING, SCHEDULED, SUBMITTED, TASK
from taskd.core.lifecycle import State
from taskd.core.points import HistoryRecord, Loads
from taskd.core.records import Mutation
from taskd.core.working import Working
from taskd.server.histogram import FINE_MS, quantile
from taskd.server.tally import Tally
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.agent_messages import HostStats
from taskd_protocol.point import Depth, Point, Shares

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS

QUEUES_MAX: Final = 10
"""Of which a point tells one by one."""

PIECE: Final = 10
"""Points in one record."""

SHARES: Final = (0.5, 0.95, 0.99)

AGENTS_MAX: Final = 500
"""Whose loads are kept: 1 MB of memory, and 40 kB written each ten seconds."""

DatedT = TypeVar("DatedT", Point, Loads)


class Level(NamedTuple):
    """One ring."""

    name: str
    """As people ask for it."""
    step_ms: int
    """From one point to the next."""
    range_ms: int
    """From the oldest to the newest."""

    @property
    def pieces(self) -> int:
        """Records that it is kept in; one more than it fills, as the first and the last are in part."""
        return -(-self.range_ms // (self.step_ms * PIECE)) + 1


LEVELS: Final = (
    Level("15m", 2_000, 15 * MINUTE_MS),
    Level("1h", 10_000, HOUR_MS),
    Level("6h", MINUTE_MS, 6 * HOUR_MS),
    Level("24h", 4 * MINUTE_MS, 24 * HOUR_MS),
)
LOADS: Final = Level("agents", 10_000, 15 * MINUTE_MS)


@dataclass(slots=True)
class _Counted:
    """What the tally said when a level's last point was made."""

    at_mono_ms: int
    moved: dict[str, int]
    waits: list[int]
    runs: list[int]


class _Ring(Generic[DatedT]):
    def __init__(self, number: int, level: Level) -> None:
        self.number = number
        self.level = level
        self.points: deque[DatedT] = deque()
        self.since: _Counted | None = None
        self.unwritten = 0

    async def read(self, store: Store) -> list[HistoryRecord]:
        """Read the pieces that are kept."""
        found = await store.scan(records.HISTORY, bytes([self.number]), limit=self.level.pieces)
        return [codec.decode_as(HistoryRecord, records.HISTORY, key, value) for key, value in found]

    def fill(self, points: Sequence[DatedT], now: Now) -> None:
        """Take over what was kept."""
        kept = sorted(points, key=lambda point: point.at_ms)
        self.points = deque(point for point in kept if point.at_ms <= now.wall_ms)
        self.forget(now.wall_ms)

    def add(self, point: DatedT) -> None:
        while self.points and self.points[-1].at_ms >= point.at_ms:  # the clock was put back
            self.points.pop()
        self.points.append(point)
        self.forget(point.at_ms)
        self.unwritten += 1

    def forget(self, now_ms: int) -> None:
        while self.points and not 0 <= now_ms - self.points[0].at_ms <= self.level.range_ms:
            self.points.popleft()

    def place(self, at_ms: int) -> int:
        """Return which piece a point of that instant belongs to."""
        return at_ms // (self.level.step_ms * PIECE)

    def pieces(self) -> list[tuple[bytes, list[DatedT]]]:
        """Return the pieces that hold what was not written yet, with their keys."""
        changed = {self.place(point.at_ms) for point in list(self.points)[-self.unwritten :]}
        self.unwritten = 0
        return [
            (
                bytes([self.number]) + (place % self.level.pieces).to_bytes(4, "big"),
                [point for point in self.points if self.place(point.at_ms) == place],
            )
            for place in sorted(changed)
        ]


class History:
    """See the module's docstring."""

    def __init__(self, store: Store, working: Working, tally: Tally, hosts: Mapping[int, HostStats]) -> None:
        """Begin one.

        Args:
            store: Where it is kept.
            working: How the server stands.
            tally: What it has counted.
            hosts: What agents measured last, by connection.
        """
        self._store = store
        self._working = working
        self._tally = tally
        self._hosts = hosts
        self._rings = [_Ring[Point](number, level) for number, level in enumerate(LEVELS)]
        self._loads = _Ring[Loads](len(LEVELS), LOADS)
        self._looked_mono_ms = 0

    async def open(self, now: Now) -> None:
        """Read what is kept.

        Raises:
            StoreCorrupt: A record is not what was written.
        """
        for ring in self._rings:
            ring.fill([point for record in await ring.read(self._store) for point in record.points], now)
            ring.since = self._count(now)
        self._loads.fill([loads for record in await self._loads.read(self._store) for loads in record.loads], now)
        self._looked_mono_ms = now.mono_ms

    def look(self, now: Now) -> list[Mutation]:
        """Make the points that are due; return what is to be written of them."""
        made: list[Mutation] = []
        for ring in self._rings:
            since = ring.since
            if since is None or now.mono_ms - since.at_mono_ms >= ring.level.step_ms:
                counted = self._count(now)
                if since is not None:
                    ring.add(self._point(since, counted, now))
                ring.since = counted
            if ring.unwritten >= PIECE // 2 or (ring.unwritten and ring.number):
                made += [(records.HISTORY, key, HistoryRecord(points)) for key, points in ring.pieces()]
        if now.mono_ms - self._looked_mono_ms >= LOADS.step_ms:
            self._looked_mono_ms = now.mono_ms
            if self._working.agents:
                self._loads.add(self._load(now))
                made += [(records.HISTORY, key, HistoryRecord([], loads)) for key, loads in self._loads.pieces()]
        return made

    def points(self, level: str) -> Sequence[Point]:
        """Return a level's points, oldest first.

        Args:
            level: The name of one of ``LEVELS``.
        """
        [ring] = [ring for ring in self._rings if ring.level.name == level]
        return list(ring.points)

    def loads(self) -> Sequence[Loads]:
        """Return what agents' machines did over the last while, oldest first."""
        return list(self._loads.points)

    def _load(self, now: Now) -> Loads:
        agents = [agent for _, agent in islice(sorted(self._working.agents.items()), AGENTS_MAX)]
        hosts = [self._hosts.get(agent.connection, _UNKNOWN) for agent in agents]
        return Loads(
            at_ms=now.wall_ms,
            agents=[agent.name for agent in agents],
            cpu_percent=[round(host.cpu_percent) for host in hosts],
            memory_mib=[host.memory_used >> 20 for host in hosts],
            running=[len(agent.leases) for agent in agents],
        )

    def _count(self, now: Now) -> _Counted:
        row = self._tally.all
        return _Counted(now.mono_ms, dict(row.moved), list(row.waits_ms.counts), list(row.runs_ms.counts))

    def _point(self, since: _Counted, counted: _Counted, now: Now) -> Point:
        def moved(what: str) -> int:
            return counted.moved.get(what, 0) - since.moved.get(what, 0)

        w = self._working
        states = [0, 0, 0, 0]
        queues: list[Depth] = []
        for name, by_state in w.counters.by_queue.items():
            ready, scheduled = by_state.get(State.READY, 0), by_state.get(State.SCHEDULED, 0)
            blocked = by_state.get(State.BLOCKED, 0)
            running = by_state.get(State.RUNNING, 0) + by_state.get(State.CANCELLING, 0)
            states = [a + b for a, b in zip(states, (ready, scheduled, blocked, running), strict=True)]
            if ready or running:
                queues.append(Depth(name, ready, running))
        queues.sort(key=lambda depth: (-depth.ready - depth.running, depth.queue))
        return Point(
            at_ms=now.wall_ms,
            span_ms=counted.at_mono_ms - since.at_mono_ms,
            submitted=moved(SUBMITTED),
            started=moved(RUNNING),
            succeeded=moved(TASK + State.SUCCEEDED),
            failed=moved(TASK + State.DEAD) + moved(TASK + State.EXPIRED),
            cancelled=moved(TASK + State.CANCELLED),
            retried=moved(SCHEDULED),
            ready=states[0],
            scheduled=states[1],
            blocked=states[2],
            running=states[3],
            agents=sum([agent.connection > 0 for agent in w.agents.values()]),
            waits_ms=_shares(since.waits, counted.waits),
            runs_ms=_shares(since.runs, counted.runs),
            queues=queues[:QUEUES_MAX],
        )


_UNKNOWN: Final = HostStats()


def _shares(before: Sequence[int], after: Sequence[int]) -> Shares:
    counts = [b - a for a, b in zip(before, after, strict=True)]
    return Shares(*[quantile(FINE_MS, counts, share) for share in SHARES])
