"""The bus: hands what has happened to those who look on, while it happens.

A reader is a place in the journal and a filter. While it keeps up, what is new is looked through once for all of them,
some times a second, and each is handed what it wants; one that does not keep up is handed nothing more, and reads the
journal from its own place on. So a slow reader costs others nothing, and when nobody looks on, nothing is done.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import trio

from taskd.core.events import Noted, TasksMoved
from taskd.server.journal import Journal, Numbered
from taskd.server.tally import Tally
from taskd_protocol.event_messages import EventView
from taskd_protocol.workflow import STEM_BYTES

GATHER_SECONDS: Final = 0.1
"""What is new is handed out together, so often at most."""

PENDING_MAX: Final = 1_000
"""Events that wait for one reader."""

PAGE_IDS_MAX: Final = 20_000
"""Tasks that one page tells of, roughly: some 400 kB."""


class Wanted(NamedTuple):
    """What a reader wants to be told; empty: it does not mind."""

    topics: tuple[str, ...] = ()
    queue: str = ""
    name: str = ""
    ids: frozenset[bytes] = frozenset()
    workflow: bytes = b""


class Page(NamedTuple):
    """What a reader is told."""

    after: int
    """Its place from now on."""
    events: list[EventView]
    missed: bool
    """Some before these are not kept any more, or were lost with the end of a history."""


def pick(wanted: Wanted, one: Numbered) -> list[EventView]:
    """Return what a record tells that is wanted."""
    number, record = one
    views: list[EventView] = []
    for event in record.moved:
        if _fits(wanted, event):
            kept = _narrowed(wanted, event)
            if kept is not None:
                ids, spans_ms = kept
                views.append(
                    EventView(
                        number,
                        record.at_ms,
                        event.what,
                        event.name,
                        event.queue,
                        event.agent,
                        event.attempt,
                        ids,
                        spans_ms,
                        event.code,
                        event.trace_id,
                    )
                )
    views += [
        EventView(number, record.at_ms, noted.what, noted.name, ids=[noted.id] if noted.id else [])
        for noted in record.noted
        if _is_wanted(wanted, noted)
    ]
    return views


def _is_told(wanted: Wanted, what: str) -> bool:
    return not wanted.topics or what.startswith(wanted.topics)


def _fits(wanted: Wanted, event: TasksMoved) -> bool:
    if (wanted.queue and event.queue != wanted.queue) or not _is_told(wanted, event.what):
        return False
    if wanted.name.endswith("*"):
        return event.name.startswith(wanted.name[:-1])
    return not wanted.name or event.name == wanted.name


def _narrowed(wanted: Wanted, event: TasksMoved) -> tuple[list[bytes], list[int]] | None:
    """Return the ids of an event that are wanted, with their spans; None: none is."""
    if not wanted.ids and not wanted.workflow:
        return event.ids, event.spans_ms
    stem = wanted.workflow[:STEM_BYTES]
    kept = [
        index
        for index, task_id in enumerate(event.ids)
        if (task_id in wanted.ids if wanted.ids else task_id.startswith(stem))
    ]
    if not kept:
        return None
    return [event.ids[i] for i in kept], [event.spans_ms[i] for i in kept] if event.spans_ms else []


def _is_wanted(wanted: Wanted, noted: Noted) -> bool:
    if wanted.ids or not _is_told(wanted, noted.what):
        return False
    if wanted.workflow:
        return noted.id == wanted.workflow
    if wanted.queue:
        return noted.what.startswith("queue.") and noted.name == wanted.queue
    return not wanted.name


class Reader:
    """One who looks on; ``Bus.read`` makes them.

    Attributes:
        after: Its place: the number of the last event that it has seen.
    """

    def __init__(self, journal: Journal, tally: Tally, wanted: Wanted, after: int) -> None:
        self._journal = journal
        self._tally = tally
        self.wanted = wanted
        self.after = after
        self._keeps_up = False
        self._pending: deque[EventView] = deque()
        self._handed = after  # the last record that was looked through for it while it kept up
        self._news = trio.Event()

    async def page(self) -> Page:
        """Return what is next, when there is something.

        Raises:
            StoreCorrupt: A record of the journal is not what was written.
        """
        while True:
            if self._keeps_up:
                page = self._take()
                if page is not None:
                    return page
                self._news = trio.Event()
                await self._news.wait()
                continue
            page = await self._catch_up()
            if page is not None:
                return page

    def _take(self) -> Page | None:
        if not self._pending:
            return None
        events = list(self._pending)
        self._pending.clear()
        self.after = self._handed
        return Page(self.after, events, missed=False)

    async def _catch_up(self) -> Page | None:
        journal = self._journal
        told = journal.told
        # Ahead of all that is told: it has seen what a restored store has lost.
        missed = self.after > told or (self.after + 1 < journal.oldest and told > 0)
        self.after = min(max(self.after, journal.oldest - 1), told)
        read = await journal.read(self.after)
        if self.after >= journal.told:
            self._keeps_up = True
            self._handed = self.after
        if not read:
            return Page(self.after, [], missed=True) if missed else None
        events: list[EventView] = []
        ids_count = 0
        for one in read:
            views = pick(self.wanted, one)
            events += views
            ids_count += sum([len(view.ids) for view in views])
            self.after = one.number
            if ids_count > PAGE_IDS_MAX:
                break
        await trio.lowlevel.checkpoint()
        return Page(self.after, events, missed) if events or missed else None

    def hand(self, new: Sequence[Numbered], picked: Iterable[EventView]) -> None:
        """Hand over what was looked through for it; what it has seen is left out."""
        if not self._keeps_up:
            return
        fresh = [view for view in picked if view.number > self._handed]
        self._handed = max(self._handed, new[-1].number)
        if not fresh and not self._pending:
            self.after = self._handed
            return
        self._pending += fresh
        if len(self._pending) > PENDING_MAX:
            self._tally.dropped["events"] = self._tally.dropped.get("events", 0) + 1
            self.fall_behind()
        else:
            self._news.set()

    def fall_behind(self) -> None:
        """Read the journal from here on, until it has caught up."""
        self._pending.clear()
        self._keeps_up = False
        self._news.set()


Look = Callable[[Sequence[Numbered]], None]
"""Is shown what is new."""


class Bus:
    """See the module's docstring."""

    def __init__(self, journal: Journal, tally: Tally) -> None:
        self.journal = journal
        self._tally = tally
        self._readers: dict[Reader, None] = {}
        self._looks: dict[Look, None] = {}
        self._news = trio.Event()
        self._seen = 0
        self._followed: frozenset[bytes] | None = None  # tasks that some reader wants; None: they are to be counted

    def note(self) -> None:
        """More is durable."""
        if self.is_watched:
            self._news.set()

    @property
    def is_watched(self) -> bool:
        """Somebody looks on."""
        return bool(self._readers or self._looks)

    @contextmanager
    def read(self, wanted: Wanted, after: int) -> Iterator[Reader]:
        """Have a reader while the body runs.

        Args:
            wanted: What it wants to be told.
            after: The number of the last event that it has seen; -1: from now on.
        """
        reader = Reader(self.journal, self._tally, wanted, self.journal.told if after < 0 else after)
        self._begin()
        self._readers[reader] = None
        self._followed = None
        try:
            yield reader
        finally:
            del self._readers[reader]
            self._followed = None

    @contextmanager
    def look(self, look: Look) -> Iterator[None]:
        """Have what is new shown to somebody, some times a second, while the body runs."""
        self._begin()
        self._looks[look] = None
        try:
            yield
        finally:
            del self._looks[look]

    def _begin(self) -> None:
        if not self.is_watched:
            self._seen = self.journal.told

    async def run(self) -> None:
        """Hand out what is new, until cancelled."""
        while True:
            await self._news.wait()
            self._hand_out()
            await trio.sleep(GATHER_SECONDS)

    def _hand_out(self) -> None:
        self._news = trio.Event()
        new = self.journal.since(self._seen)
        if not new:
            return
        if new[0].number > self._seen + 1:  # so much has happened that it is not in memory any more
            for reader in self._readers:
                reader.fall_behind()
        self._seen = new[-1].number
        for look in list(self._looks):
            look(new)
        if self._followed is None:
            self._followed = frozenset[bytes]().union(*[reader.wanted.ids for reader in self._readers])
        picked = _Picked(new, self._followed)
        for reader in list(self._readers):
            reader.hand(new, picked.for_(reader.wanted))


class _Picked:
    """What is new, looked through once for all who want the same, and once for all who want some tasks."""

    def __init__(self, new: Sequence[Numbered], followed: frozenset[bytes]) -> None:
        self._new = new
        self._known: dict[Wanted, list[EventView]] = {}
        self._with: dict[bytes, dict[int, None]] = {}  # by task that somebody follows, which of ``new`` tell of it
        for index, one in enumerate(new if followed else ()):
            for event in one.record.moved:
                for task_id in followed.intersection(event.ids):
                    self._with.setdefault(task_id, {})[index] = None

    def for_(self, wanted: Wanted) -> list[EventView]:
        found = self._known.get(wanted)
        if found is None:
            among = self._among(wanted.ids) if wanted.ids else self._new
            found = self._known[wanted] = [view for one in among for view in pick(wanted, one)]
        return found

    def _among(self, ids: frozenset[bytes]) -> list[Numbered]:
        """Return the records that tell of some of these tasks."""
        indexes = {index for task_id in ids if task_id in self._with for index in self._with[task_id]}
        return [self._new[index] for index in sorted(indexes)]
