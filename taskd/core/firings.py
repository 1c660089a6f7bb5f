"""Firings: the instants at which a timing fires, and what daylight saving does to them.

A pure function of the timing, its anchor and the zone data. A zone's time is a row of stretches
of one offset each. A stretch that begins later than the one before ended, by the clock on the
wall, leaves a gap; one that begins earlier shows some times again, a fold. Everything else is plain.
Instants are UTC milliseconds; what falls on the same one fires once.
"""

import datetime as dt
import heapq
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice, pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from taskd.core.cron import DAY_S, Line, parse
from taskd_protocol.errors import BadRequest
from taskd_protocol.schedule import INSTANT_MS_MAX, Timing, check_timing

SEARCH_DAYS: Final = 12 * 366
"""How far ahead a firing is looked for: the 29th of February may be eight years away."""

_EPOCH_ORDINAL: Final = dt.date(1970, 1, 1).toordinal()
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAYS_MAX: Final = 100_000
"""Days from 1970 of which a zone is asked: before the year 2244."""
_PIECE_S: Final = 3_600
_EXCLUDED_MAX: Final = 50_000
"""Excluded times that one question looks at, days that are excluded as a whole aside: half a second of work."""
_DAY_MS: Final = DAY_S * 1000


class Firing(NamedTuple):
    """One instant at which a timing fires."""

    at_ms: int
    note: str = ""
    """What is odd about it; empty: nothing."""


class Change(NamedTuple):
    """The clock of a zone is set."""

    at_s: int
    """The first UTC second of the new offset."""
    before_s: int
    after_s: int


class Due(NamedTuple):
    """What fires between two instants, and what is next."""

    after_ms: int
    until_ms: int
    firings: tuple[Firing, ...]
    next_ms: int | None
    """The first behind ``until_ms``; None: there is none within twelve years."""

    def is_of(self, after_ms: int, until_ms: int) -> bool:
        """Tell whether the same fires between these two instants, and the same is next."""
        if self.next_ms is None:
            return False
        first_ms = self.firings[0].at_ms if self.firings else self.next_ms
        return self.after_ms <= after_ms < first_ms and self.until_ms <= until_ms < self.next_ms


class Plan:
    """A timing, ready to be asked."""

    def __init__(self, timing: Timing, anchor_ms: int) -> None:
        """Read a timing that ``check_timing`` has let through.

        Args:
            timing: When.
            anchor_ms: From where intervals count that have no start of their own.

        Raises:
            BadRequest: A cron line, or the zone.
        """
        self._timing = timing
        self._zone = find_zone(timing.zone)
        self._lines = [parse(text) for text in timing.cron]
        lines = [parse(text) for text in timing.not_cron]
        self._excluded = [line for line in lines if not line.is_all_day]
        self._excluded_all_day = [line for line in lines if line.is_all_day]
        self._excluded_days = {dt.date.fromisoformat(text).toordinal() for text in timing.not_dates}
        self._anchor_ms = timing.start_ms or anchor_ms
        self._first_interval = 0 if timing.start_ms else 1
        self._due: Due | None = None

    def after(self, after_ms: int, until_ms: int) -> Iterator[Firing]:
        """Give what fires after the one instant and no later than the other, in order.

        Raises:
            BadRequest: So much is excluded that looking for the rest would take too long.
        """
        excluded = 0
        for firing in self._candidates(after_ms, until_ms):
            if not self._is_excluded(firing.at_ms):
                yield firing
                continue
            excluded += 1
            if excluded > max(_EXCLUDED_MAX // max(len(self._lines), 1), _EXCLUDED_MAX // 10):
                raise BadRequest(f"the schedule excludes {excluded} of its times: have it name fewer to begin with")

    def next_ms(self, after_ms: int) -> int | None:
        """Return the first instant after this one; None: there is none within twelve years."""
        found = next(self.upcoming(after_ms), None)
        return None if found is None else found.at_ms

    def due(self, after_ms: int, until_ms: int) -> Due:
        """Return what fires after the one instant and no later than the other, and what is next.

        Schedules of one timing are due together: what was found for the first is told to the others.

        Raises:
            BadRequest: As of ``after``.
        """
        found = self._due
        if found is None or not found.is_of(after_ms, until_ms):
            firings: list[Firing] = []
            next_ms: int | None = None
            for firing in self.upcoming(after_ms):
                if firing.at_ms > until_ms:
                    next_ms = firing.at_ms
                    break
                firings.append(firing)
            found = self._due = Due(after_ms, until_ms, tuple(firings), next_ms)
        return found

    def upcoming(self, after_ms: int) -> Iterator[Firing]:
        """Give what fires after this instant, in order, as long as no twelve years pass without a firing."""
        timing = self._timing
        while True:
            last_ms = max(timing.at_ms) if timing.at_ms else max(after_ms, timing.start_ms) + SEARCH_DAYS * _DAY_MS
            begun_ms = after_ms
            for firing in self.after(begun_ms, last_ms):
                after_ms = firing.at_ms
                yield firing
            if timing.at_ms or after_ms == begun_ms:
                return

    def newest(self, after_ms: int, until_ms: int, count: int) -> list[Firing]:
        """Return the last so many of what ``after`` would give."""
        span_ms = _DAY_MS // 24
        first_ms = max(until_ms - span_ms, after_ms)
        while True:
            found = list(islice(self._tail(first_ms, until_ms, count), count))
            if len(found) >= count or first_ms <= after_ms:
                return found
            span_ms *= 4
            first_ms = max(until_ms - span_ms, after_ms)

    def tally(self, after_ms: int, until_ms: int, budget: int) -> tuple[int, int]:
        """Count what ``after`` would give, as far as a bounded piece of work goes.

        Returns:
            How many, and up to which instant they were counted: ``until_ms`` if that was all.
        """
        count = 0
        if self._timing.every_ms and not self._excludes:
            return self._count_intervals(after_ms, until_ms), until_ms
        while after_ms < until_ms:
            day_end_ms = min((after_ms + 1) // _DAY_MS * _DAY_MS + _DAY_MS - 1, until_ms)
            counted = self._count_plainly(after_ms, day_end_ms)
            if counted is None:
                for firing in self._candidates(after_ms, day_end_ms):
                    count, budget = count + (not self._is_excluded(firing.at_ms)), budget - 1
                    if not budget:
                        return count, firing.at_ms
            else:
                count, budget = count + counted, budget - 1
            after_ms = day_end_ms
            if budget <= 0:
                break
        return count, after_ms

    def preview(self, from_ms: int, count: int) -> tuple[list[Firing], list[Firing]]:
        """Return the first so many firings from an instant on, and what a gap keeps from firing up to the last of them.

        Raises:
            BadRequest: As of ``after``.
        """
        found = list(islice(self.upcoming(from_ms - 1), count))
        return found, list(self._skipped(from_ms, found[-1].at_ms if len(found) == count else INSTANT_MS_MAX))

    def _skipped(self, from_ms: int, until_ms: int) -> Iterator[Firing]:
        """Give the gaps that times fall into under the rule ``skip``, each by its end, with those times."""
        timing = self._timing
        if timing.gap != "skip" or not self._lines:
            return
        first_s = max(from_ms, timing.start_ms) // 1000
        last_s = min(until_ms, timing.end_ms or until_ms) // 1000
        first_day = first_s // DAY_S
        for day in range(first_day, min(last_s // DAY_S, first_day + SEARCH_DAYS, _DAYS_MAX) + 1):
            change = _change_of(self._zone, day)
            if change is None or not first_s <= change.at_s <= last_s:
                continue
            end_s = change.at_s + change.after_s - change.before_s
            each = {at_s for line in self._lines for at_s in _plain(line, change.before_s, change.at_s, end_s)}
            walls = [wall_s for at_s in sorted(each) if not self._is_wall_excluded(wall_s := at_s + change.before_s)]
            if walls:
                yield Firing(change.at_s * 1000, _note_of_skipped(walls))

    def _tail(self, after_ms: int, until_ms: int, count: int) -> Iterable[Firing]:
        found = list(self.after(after_ms, until_ms))
        return found[-count:]

    def _count_plainly(self, after_ms: int, until_ms: int) -> int | None:
        """Return how many there are within one UTC day, if that takes no look at each; None: it does."""
        timing = self._timing
        if self._excludes or len(self._lines) != 1:
            return None
        first_ms = max(after_ms + 1, timing.start_ms)
        last_ms = min(until_ms, timing.end_ms or until_ms)
        day = first_ms // _DAY_MS
        if first_ms > last_ms or last_ms >= _DAYS_MAX * _DAY_MS:
            return 0
        if _changes_near(self._zone, day):
            return None
        offset_s, line = _offset_s(self._zone, day * DAY_S), self._lines[0]
        start_s, end_s = -(-first_ms // 1000) + offset_s, last_ms // 1000 + 1 + offset_s
        return sum(
            line.count_within(first, end) for ordinal, first, end in _days(start_s, end_s) if line.day_matches(ordinal)
        )

    @property
    def _excludes(self) -> bool:
        return bool(self._excluded or self._excluded_all_day or self._excluded_days)

    def _candidates(self, after_ms: int, until_ms: int) -> Iterator[Firing]:
        """Give what fires if it is not excluded; not all of what is excluded by the day."""
        timing = self._timing
        first_ms = max(after_ms + 1, timing.start_ms, 0)
        last_ms = min(until_ms, timing.end_ms or until_ms, _DAYS_MAX * _DAY_MS)
        if first_ms > last_ms:
            return iter(())
        if timing.at_ms:
            return iter([Firing(at_ms) for at_ms in sorted(set(timing.at_ms)) if first_ms <= at_ms <= last_ms])
        if timing.every_ms:
            return self._intervals(first_ms, last_ms)
        start_s, end_s = -(-first_ms // 1000), last_ms // 1000 + 1
        each = [self._line(line, start_s, end_s) for line in self._lines]
        return each[0] if len(each) == 1 else _once(heapq.merge(*each))

    def _count_intervals(self, after_ms: int, until_ms: int) -> int:
        every_ms, anchor_ms = self._timing.every_ms, self._anchor_ms
        end_ms = min(until_ms, self._timing.end_ms or until_ms)
        first = max((after_ms - anchor_ms) // every_ms + 1, self._first_interval)
        return max((end_ms - anchor_ms) // every_ms - first + 1, 0)

    def _intervals(self, first_ms: int, last_ms: int) -> Iterator[Firing]:
        every_ms, anchor_ms = self._timing.every_ms, self._anchor_ms
        index = max(-(-(first_ms - anchor_ms) // every_ms), self._first_interval)
        while (at_ms := anchor_ms + index * every_ms) <= last_ms:
            hour_s = at_ms // 1000 // _PIECE_S * _PIECE_S
            hour_end_ms = (hour_s + _PIECE_S) * 1000
            end = max(-(-(hour_end_ms - anchor_ms) // every_ms), index + 1)  # the first of a later hour
            if not self._is_stretch_excluded(hour_s, hour_s + _PIECE_S):
                for each_ms in range(at_ms, min(anchor_ms + end * every_ms, last_ms + 1), every_ms):
                    yield Firing(each_ms)
            index = end

    def _line(self, line: Line, start_s: int, end_s: int) -> Iterator[Firing]:
        """Give one line's firings of the seconds from ``start_s`` on, before ``end_s``."""
        for day in range(start_s // DAY_S, (end_s - 1) // DAY_S + 1):
            if not line.every_day and not any(
                line.day_matches(_EPOCH_ORDINAL + near) for near in (day - 1, day, day + 1)
            ):
                continue
            first_s, stop_s = max(start_s, day * DAY_S), min(end_s, (day + 1) * DAY_S)
            changes = _changes_near(self._zone, day)
            if not changes:
                plain = _plain(line, _offset_s(self._zone, first_s), first_s, stop_s, self._is_day_excluded)
                yield from (Firing(at_s * 1000) for at_s in plain)
                continue
            for piece_s in range(first_s, stop_s, _PIECE_S):
                piece_end_s = min(piece_s + _PIECE_S, stop_s)
                if not self._is_stretch_excluded(piece_s, piece_end_s):
                    yield from self._piece(line, changes, piece_s, piece_end_s)

    def _piece(self, line: Line, changes: tuple[Change, ...], start_s: int, end_s: int) -> list[Firing]:
        """Return one line's firings of a stretch of time with a set clock near it."""
        found: dict[int, str] = {}
        bounds = [start_s, *(change.at_s for change in changes if start_s < change.at_s < end_s), end_s]
        for first_s, stop_s in pairwise(bounds):
            for at_s in _plain(line, _offset_s(self._zone, first_s), first_s, stop_s):
                note = self._note_of_fold(line, changes, at_s)
                if note is not None:
                    found[at_s] = note
        for change in changes:
            for at_s, note in self._of_gap(line, change, start_s, end_s):
                found.setdefault(at_s, note)
        return [Firing(at_s * 1000, note) for at_s, note in sorted(found.items())]

    def _note_of_fold(self, line: Line, changes: tuple[Change, ...], at_s: int) -> str | None:
        """Return what is to be said of an instant whose time of day may come twice; None: it does not fire."""
        rule = self._timing.fold
        if rule == "auto":
            rule = "both" if line.is_hourly else "first"
        for change in changes:
            length_s = change.before_s - change.after_s
            if 0 <= change.at_s - at_s - 1 < length_s:
                clock = _clock(at_s + change.before_s)
                return f"{clock} comes twice: the first one" if rule != "second" else None
            if 0 <= at_s - change.at_s < length_s:
                clock = _clock(at_s + change.after_s)
                return f"{clock} comes twice: the second one" if rule != "first" else None
        return ""

    def _of_gap(self, line: Line, change: Change, start_s: int, end_s: int) -> Iterator[tuple[int, str]]:
        """Give the instants of the times of day that a change jumps over."""
        rule, length_s = self._timing.gap, change.after_s - change.before_s
        if length_s <= 0 or rule == "skip":
            return
        if rule == "next":
            if start_s <= change.at_s < end_s:
                missing_s = next(_plain(line, change.before_s, change.at_s, change.at_s + length_s), None)
                if missing_s is not None:
                    missing = _clock(missing_s + change.before_s)
                    yield change.at_s, f"{missing} does not exist: at the first instant after the gap"
            return
        first_s, stop_s = max(start_s, change.at_s), min(end_s, change.at_s + length_s)
        for at_s in _plain(line, change.before_s, first_s, stop_s):
            yield at_s, f"{_clock(at_s + change.before_s)} does not exist: later by {_length(length_s)}"

    def _is_excluded(self, at_ms: int) -> bool:
        if not self._excludes:
            return False
        at_s = at_ms // 1000
        return self._is_wall_excluded(at_s + _offset_s(self._zone, at_s))

    def _is_wall_excluded(self, wall_s: int) -> bool:
        day, second = divmod(wall_s, DAY_S)
        ordinal = day + _EPOCH_ORDINAL
        return self._is_day_excluded(ordinal) or any(line.matches(ordinal, second) for line in self._excluded)

    def _is_day_excluded(self, ordinal: int) -> bool:
        return ordinal in self._excluded_days or any(line.day_matches(ordinal) for line in self._excluded_all_day)

    def _is_stretch_excluded(self, start_s: int, end_s: int) -> bool:
        """Tell whether a stretch of at most an hour lies in days that are excluded, whatever the clock does in it."""
        if not self._excluded_days and not self._excluded_all_day:
            return False
        ends = (start_s, end_s - 1)
        days = {(at_s + _offset_s(self._zone, by_s)) // DAY_S for at_s in ends for by_s in ends}
        return all(self._is_day_excluded(day + _EPOCH_ORDINAL) for day in range(min(days), max(days) + 1))


def plan(timing: Timing, anchor_ms: int) -> Plan:
    """Return the plan of a timing; schedules of one that counts from nothing share it, whenever they were made.

    Raises:
        BadRequest: A field is out of its range, a cron line cannot be read, or the zone is unknown.
    """
    return _plan(timing, anchor_ms if timing.every_ms else 0)


@lru_cache(maxsize=4096)
def _plan(timing: Timing, anchor_ms: int) -> Plan:
    check_timing(timing)
    return Plan(timing, anchor_ms)


def find_zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        BadRequest: There is none of that name.
    """
    try:
        if not name.startswith(("right/", "posix/")):  # the same zones counted otherwise, where a system has them
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise BadRequest(f"time zone {name[:64]!r} is unknown; write an IANA name such as Europe/Oslo or UTC")


def _no_day(_: int) -> bool:
    return False


def _plain(
    line: Line, offset_s: int, start_s: int, end_s: int, is_out: Callable[[int], bool] = _no_day
) -> Iterator[int]:
    """Give the UTC seconds of a stretch at which a clock of that offset shows what the line names, but on days out."""
    for ordinal, first_s, stop_s in _days(start_s + offset_s, end_s + offset_s):
        if line.day_matches(ordinal) and not is_out(ordinal):
            midnight_s = (ordinal - _EPOCH_ORDINAL) * DAY_S - offset_s
            for second in line.within(first_s, stop_s):
                yield midnight_s + second


def _days(start_s: int, end_s: int) -> Iterator[tuple[int, int, int]]:
    """Cut a stretch of seconds on the wall into days: the day's number, and the seconds of it."""
    for day in range(start_s // DAY_S, (end_s - 1) // DAY_S + 1):
        yield day + _EPOCH_ORDINAL, max(start_s - day * DAY_S, 0), min(end_s - day * DAY_S, DAY_S)


def _once(firings: Iterator[Firing]) -> Iterator[Firing]:
    """Give each instant once; of several notes the one that says something."""
    held: Firing | None = None
    for firing in firings:
        if held is not None and firing.at_ms != held.at_ms:
            yield held
        if held is None or firing.at_ms != held.at_ms or not held.note:
            held = firing
    if held is not None:
        yield held


@lru_cache(maxsize=65_536)
def _changes_near(zone: ZoneInfo, day: int) -> tuple[Change, ...]:
    """Return how the clock is set within this UTC day, the one before and the one after."""
    return tuple(change for near in (day - 1, day, day + 1) if (change := _change_of(zone, near)) is not None)


@lru_cache(maxsize=65_536)
def _change_of(zone: ZoneInfo, day: int) -> Change | None:
    """Return how the clock is set within a UTC day. It is set once a day at most, in every zone there is."""
    low_s, high_s = day * DAY_S - 1, (day + 1) * DAY_S - 1
    before_s, after_s = _offset_s(zone, low_s), _offset_s(zone, high_s)
    if before_s == after_s:
        return None
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if _offset_s(zone, middle_s) == before_s:
            low_s = middle_s
        else:
            high_s = middle_s
    return Change(high_s, before_s, after_s)


def _offset_s(zone: ZoneInfo, at_s: int) -> int:
    offset = (_EPOCH + dt.timedelta(seconds=at_s)).astimezone(zone).utcoffset()
    assert offset is not None
    return offset.days * DAY_S + offset.seconds


def _clock(wall_s: int) -> str:
    text = (_EPOCH + dt.timedelta(seconds=wall_s)).strftime("%H:%M:%S")
    return text.removesuffix(":00")


def _note_of_skipped(walls: list[int]) -> str:
    if len(walls) == 1:
        return f"{_clock(walls[0])} does not exist: it does not fire"
    return f"{_clock(walls[0])} to {_clock(walls[-1])} do not exist: {len(walls)} times do not fire"


def _length(seconds: int) -> str:
    return f"{seconds // 3600} h" if seconds % 3600 == 0 else f"{seconds // 60} min"
