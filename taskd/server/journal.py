"""The journal: what each turn has told, kept for who looks on, so that a reader finds its place again after a restart.

A turn's events are one record, in the batch that carries what they tell of, under a number that rises by one: where a
reader is, is the number of the last one that it has seen. The newest are in memory as well.

Invariants:
- Numbers have no gap between the oldest that is kept and the newest.
- What is kept weighs no more than ``bytes_max`` and is no older than ``age_ms``, roughly: it goes by stretches.
- ``told`` is durable; nobody is told of anything beyond it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from taskd.core import records
from taskd.core.commands import Now
from taskd.core.events import Event, EventsHeadRecord, EventsRecord, Noted, TasksMoved
from taskd.core.records import Mutation
from taskd.store import codec
from taskd.store.interface import Store

NUMBER_BYTES: Final = 8
HEAD: Final = b"events"

BYTES_MAX: Final = 128 * 1024 * 1024
"""Some two million tasks, from submit to end."""

AGE_MS: Final = 24 * 3600 * 1000

STRETCHES: Final = 64
"""Of which what is kept consists: the record that tells of them stays below two kilobytes."""

STRETCH_MS: Final = 3600 * 1000
"""One is added to for so long at most, so that age is known as well."""

REMOVED_MAX: Final = 200
"""Records taken away in one turn, some 40 us."""

RECENT_TASKS_MAX: Final = 50_000
"""In memory, told of in the newest records: some seconds at full speed, and 8 MB."""

TASK_BYTES: Final = 22
"""What one told of weighs: an id, a span, and what msgpack puts around them."""

GROUP_BYTES: Final = 100
"""What all of one kind in a turn have in common: words, names; or the trace of one."""

PAGE: Final = 200
"""Records read at once."""


class Numbered(NamedTuple):
    """A record and its number."""

    number: int
    record: EventsRecord


@dataclass(slots=True)
class _Stretch:
    first: int
    at_ms: int
    size_bytes: int = 0


class Journal:
    """See the module's docstring.

    Attributes:
        told: The number of the last record that is durable.
        oldest: The number of the first that is kept.
        recent: The newest records that are durable.
    """

    def __init__(self, store: Store, *, bytes_max: int = BYTES_MAX, age_ms: int = AGE_MS) -> None:
        self.told = 0
        self.oldest = 1
        self.recent: deque[Numbered] = deque()
        self._recent_tasks = 0
        self._store = store
        self._bytes_max = bytes_max
        self._age_ms = age_ms
        self._newest = 0
        self._stretches: deque[_Stretch] = deque()
        self._removed_to = 0
        """Records up to this number are gone, or are to go, while ``oldest`` has not come so far."""
        self._written: deque[Numbered] = deque()

    async def open(self) -> None:
        """Find out what is kept.

        Raises:
            StoreCorrupt: A record is not what was written.
        """
        [head] = await self._store.load([(records.META, HEAD)])
        if head is not None:
            record = codec.decode_as(EventsHeadRecord, records.META, HEAD, head)
            self._stretches = deque(_Stretch(*stretch) for stretch in record.stretches)
        newest = await self._store.scan(records.EVENTS, limit=1, reverse=True)
        oldest = await self._store.scan(records.EVENTS, limit=1)
        if newest:
            self._newest = self.told = _number(newest[0][0])
            self.oldest = _number(oldest[0][0])
        self._removed_to = (self._stretches[0].first if self._stretches else self.oldest) - 1
        if self._stretches:  # what the last one weighs, was counted in memory alone
            written = self._newest - self._stretches[-1].first + 1
            self._stretches[-1].size_bytes = written * (TASK_BYTES + GROUP_BYTES)

    # -- writing ------------------------------------------------------------------------

    def write(self, events: Sequence[Event], now: Now) -> list[Mutation]:
        """Return what a turn is to write of its events, and what it is to take away."""
        mutations: list[Mutation] = []
        if events:
            moved = [event for event in events if isinstance(event, TasksMoved)]
            noted = [event for event in events if isinstance(event, Noted)]
            record = EventsRecord(now.wall_ms, moved, noted)
            self._newest += 1
            mutations.append((records.EVENTS, _id(self._newest), record))
            self._written.append(Numbered(self._newest, record))
            weight = TASK_BYTES * sum([len(event.ids) for event in moved]) + GROUP_BYTES * len(events)
            if self._weigh(weight, now):
                mutations.append(self._head())
        if self._stretches and self._is_over(self._stretches[0], now):
            self._stretches.popleft()
            self._removed_to = (self._stretches[0].first if self._stretches else self._newest + 1) - 1
            mutations.append(self._head())
        while self.oldest <= self._removed_to and len(mutations) < REMOVED_MAX:
            mutations.append((records.EVENTS, _id(self.oldest), None))
            self.oldest += 1
        while self.recent and self.recent[0].number < self.oldest:
            self._recent_tasks -= _tasks(self.recent.popleft())
        return mutations

    def release(self, number: int) -> None:
        """Note that the records up to this number are durable."""
        written, recent = self._written, self.recent
        while written and written[0].number <= number:
            one = written.popleft()
            recent.append(one)
            self._recent_tasks += _tasks(one)
            self.told = one.number
        while self._recent_tasks > RECENT_TASKS_MAX and len(recent) > 1:
            self._recent_tasks -= _tasks(recent.popleft())

    @property
    def newest(self) -> int:
        """The number of the last record, durable or not."""
        return self._newest

    def _weigh(self, weight: int, now: Now) -> bool:
        """Count what a record weighs; return whether it began a stretch."""
        last = self._stretches[-1] if self._stretches else None
        begins = last is None or last.size_bytes > self._bytes_max // STRETCHES or now.wall_ms > last.at_ms + STRETCH_MS
        if begins:
            last = _Stretch(self._newest, now.wall_ms)
            self._stretches.append(last)
        assert last is not None
        last.size_bytes += weight
        return begins

    def _is_over(self, first: _Stretch, now: Now) -> bool:
        """Tell whether the oldest stretch has to go; one that is still added to stays."""
        if len(self._stretches) == 1 and now.wall_ms <= first.at_ms + self._age_ms + STRETCH_MS:
            return False
        ends_at_ms = self._stretches[1].at_ms if len(self._stretches) > 1 else first.at_ms
        return (
            ends_at_ms < now.wall_ms - self._age_ms
            or sum([stretch.size_bytes for stretch in self._stretches]) > self._bytes_max
        )

    def _head(self) -> Mutation:
        stretches = [(each.first, each.at_ms, each.size_bytes) for each in self._stretches]
        return records.META, HEAD, EventsHeadRecord(stretches)

    # -- reading ------------------------------------------------------------------------

    async def read(self, after: int) -> list[Numbered]:
        """Return some records beyond a number, oldest first, as far as they are durable; [] means that there are none.

        Raises:
            StoreCorrupt: A record is not what was written.
        """
        if after >= self.told:
            return []
        if self.recent and self.recent[0].number <= after + 1:
            return self.since(after)
        page = await self._store.scan(records.EVENTS, after=_id(max(after, 0)), limit=PAGE)
        read = [
            Numbered(_number(key), codec.decode_as(EventsRecord, records.EVENTS, key, value)) for key, value in page
        ]
        return [each for each in read if each.number <= self.told]

    def since(self, after: int) -> list[Numbered]:
        """Return those in memory beyond a number."""
        found: list[Numbered] = []
        for each in reversed(self.recent):
            if each.number <= after:
                break
            found.append(each)
        found.reverse()
        return found


def _tasks(one: Numbered) -> int:
    return sum([len(event.ids) for event in one.record.moved]) + 1


def _id(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big")


def _number(record_id: bytes) -> int:
    return int.from_bytes(record_id, "big")
