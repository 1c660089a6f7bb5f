"""The tally: what has happened since the start, counted by queue, and for all of them.

Plain integers that only rise, added up once a turn for all that happened to the same queue together; whoever shows them
reads them when they are asked for.

Invariants:
- At most ``QUEUES_MAX`` queues have rows of their own, whatever names clients think of; the others share one.
- No row ever counts down: a queue that gets a row of its own begins at nothing there.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from taskd.core.events import RUNNING, Event, TasksMoved
from taskd.server.histogram import COARSE_MS, FINE_MS, Histogram

QUEUES_MAX: Final = 50
"""Some forty series each: what a scrape carries stays within a few hundred kilobytes."""

OTHER: Final = "(other)"
"""A queue that somebody calls so is among the others, and never has a row of its own."""

IDLE_MS: Final = 10 * 60_000
"""A queue in which nothing has happened for so long gives its row to another one that has none."""

LOOK_MS: Final = 1_000
"""Between two looks for such a row: names that nobody has heard of come as often as somebody likes."""


class Row:
    """What is counted of a queue.

    Attributes:
        moved: Tasks by what has happened to them.
        waits_ms: Of attempts that began: how long each had waited in line.
        runs_ms: Of those that ended: how long each had run.
    """

    __slots__ = ("moved", "runs_ms", "touched_ms", "waits_ms")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.moved: dict[str, int] = {}
        self.waits_ms = Histogram(bounds)
        self.runs_ms = Histogram(bounds)
        self.touched_ms = 0

    def note(self, what: str, count: int, spans: dict[int, int]) -> None:
        """Count what has happened to so many tasks, with spans by how often each came."""
        self.moved[what] = self.moved.get(what, 0) + count
        if spans:
            histogram = self.waits_ms if what == RUNNING else self.runs_ms
            for span_ms, times in spans.items():
                histogram.note(span_ms, times)


class Tally:
    """See the module's docstring.

    Attributes:
        rows: By queue; ``OTHER`` for those that have none of their own.
        all: Of all queues, with fine bounds.
        noted: What has happened to what is no task.
        flush_us: How long the store's flushes took.
        turn_us: How long turns took, from what was gathered to what was staged.
        dropped: Of streams: what was left out for somebody who reads slowly, by stream.
        letters: Dead letters of webhooks that are kept.
        lag_us: By how much the loop was late to come back to somebody who had asked for that.
        collector_us: How long collections of garbage took.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {OTHER: Row(COARSE_MS)}
        self.all = Row(FINE_MS)
        self.noted: dict[str, int] = {}
        self.flush_us = Histogram(QUICK_US)
        self.turn_us = Histogram(QUICK_US)
        self.lag_us = Histogram(QUICK_US)
        self.collector_us = Histogram(QUICK_US)
        self.dropped: dict[str, int] = {}
        self.letters = 0
        self._next_look_ms = 0

    def note(self, events: Sequence[Event], mono_ms: int) -> None:
        """Count what a turn has changed."""
        rows = self.rows
        for event in events:
            if isinstance(event, TasksMoved):
                row = rows.get(event.queue)
                if row is None:
                    row = self._row(event.queue, mono_ms)
                row.touched_ms = mono_ms
                spans = event.spans_ms
                counted = Counter(spans) if len(spans) > 1 else {spans[0]: 1} if spans else {}
                count = len(event.ids)
                row.note(event.what, count, counted)
                self.all.note(event.what, count, counted)
            else:
                self.noted[event.what] = self.noted.get(event.what, 0) + 1

    def _row(self, queue: str, mono_ms: int) -> Row:
        """Return the row of a queue that has none of its own yet."""
        if len(self.rows) > QUEUES_MAX:
            if mono_ms < self._next_look_ms:
                return self.rows[OTHER]
            self._next_look_ms = mono_ms + LOOK_MS
            longest = min((name for name in self.rows if name != OTHER), key=lambda name: self.rows[name].touched_ms)
            if self.rows[longest].touched_ms > mono_ms - IDLE_MS:
                return self.rows[OTHER]
            del self.rows[longest]
        row = self.rows[queue] = Row(COARSE_MS)
        return row


QUICK_US: Final = (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 2_000_000)
"""Bounds for what is to be over in milliseconds."""
