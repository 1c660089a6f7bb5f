"""Cron lines: which seconds of which days one names, by a clock on the wall that nobody ever sets.

croniter reads a line; what it has read is matched here, since asking it for one instant after
another costs fifty microseconds each. Lines are bounded before they are read.

Knows nothing of time zones.
"""

import datetime as dt
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from croniter import croniter
from croniter.croniter import CroniterError

from taskd_protocol.errors import BadRequest
from taskd_protocol.schedule import CRON_ALIASES, check_line_length

DAY_S: Final = 86_400
_HOURS: Final = 24
_MONTHS: Final = 12
_MINUTES: Final = 60

_FIELDS: Final = (5, 6)
_NAMES: Final = ("second", "minute", "hour", "day of the month", "month", "day of the week")
_FIELD: Final = re.compile(r"[0-9*/,\-#?]*(?:(?:[a-z]{3}|l)[0-9*/,\-#?]*)*", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{3,}", re.ASCII)
_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Days(NamedTuple):
    """Which days a line names."""

    months: frozenset[int]
    days: frozenset[int] | None
    """Of the month; None: any."""
    last_day: bool
    """The month's last day, too."""
    weekdays: frozenset[int] | None
    """0 is Sunday; None: any."""
    nth: frozenset[tuple[int, int]]
    """(week day, which of the month): the second Friday is (5, 2), the last one (5, 0)."""

    @property
    def are_all(self) -> bool:
        """Every day is named."""
        return len(self.months) == _MONTHS and self.days is None and not self.last_day and self.weekdays is None

    def match(self, date: dt.date) -> bool:
        """Tell whether the line names this day: if it names days of the month and week days, either is enough."""
        if date.month not in self.months:
            return False
        by_day = self.days is not None or self.last_day
        by_weekday = self.weekdays is not None
        if by_day and by_weekday:
            return self._is_day(date) or self._is_weekday(date)
        if by_day:
            return self._is_day(date)
        return not by_weekday or self._is_weekday(date)

    def _is_day(self, date: dt.date) -> bool:
        if self.days is not None and date.day in self.days:
            return True
        return self.last_day and (date + dt.timedelta(days=1)).day == 1

    def _is_weekday(self, date: dt.date) -> bool:
        weekday = date.isoweekday() % 7
        if self.weekdays is None or weekday not in self.weekdays:
            return False
        wanted = [which for day, which in self.nth if day == weekday]
        if not wanted:
            return True
        is_last = (date + dt.timedelta(days=7)).month != date.month
        return (date.day + 6) // 7 in wanted or (0 in wanted and is_last)


class Line(NamedTuple):
    """A cron line that was read."""

    text: str
    days: Days
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    every_day: bool
    has_seconds: bool
    """It has six fields; one of five means second 0 of a minute."""

    @property
    def is_hourly(self) -> bool:
        """It names every hour of its days: what it is for is an interval, not a time of day."""
        return len(self.hours) == _HOURS

    @property
    def is_all_day(self) -> bool:
        """It names every second of its days, or every minute of them."""
        return (
            self.is_hourly and len(self.minutes) == _MINUTES and (not self.has_seconds or len(self.seconds) == _MINUTES)
        )

    def day_matches(self, ordinal: int) -> bool:
        """Tell whether it names this day; 1 is the first day of year 1."""
        return self.every_day or self.days.match(dt.date.fromordinal(ordinal))

    def within(self, first_s: int, end_s: int) -> Iterator[int]:
        """Give the seconds of a day that it names, from ``first_s`` on and before ``end_s``."""
        for hour in self.hours:
            if (hour + 1) * 3600 <= first_s:
                continue
            for minute in self.minutes:
                at_s = hour * 3600 + minute * 60
                if at_s + 60 <= first_s:
                    continue
                if at_s >= end_s:
                    return
                for second in self.seconds:
                    if first_s <= at_s + second < end_s:
                        yield at_s + second

    def count_within(self, first_s: int, end_s: int) -> int:
        """Return how many ``within`` would give."""
        return self._count_before(end_s) - self._count_before(first_s)

    def matches(self, ordinal: int, second: int) -> bool:
        """Tell whether it names this second of a day; a line of five fields, this minute."""
        hour, rest = divmod(second, 3600)
        minute, second_of_minute = divmod(rest, 60)
        return (
            hour in self.hours
            and minute in self.minutes
            and (not self.has_seconds or second_of_minute in self.seconds)
            and self.day_matches(ordinal)
        )

    def _count_before(self, end_s: int) -> int:
        hour, rest = divmod(min(max(end_s, 0), DAY_S), 3600)
        minute, second = divmod(rest, 60)
        seconds, minutes = len(self.seconds), len(self.minutes)
        count = bisect_left(self.hours, hour) * minutes * seconds
        if hour in self.hours:
            count += bisect_left(self.minutes, minute) * seconds
            if minute in self.minutes:
                count += bisect_left(self.seconds, second)
        return count


@lru_cache(maxsize=4096)
def parse(text: str) -> Line:
    """Read a cron line: five fields, six with the seconds first, or a word such as ``@daily``.

    Raises:
        BadRequest: It is none, or names no day that there is; the message shows what is wrong.
    """
    fields = _checked(text)
    try:
        read = croniter(" ".join(fields), 0.0, second_at_beginning=True)
    except (CroniterError, ValueError, KeyError, IndexError) as error:
        raise BadRequest(f"cron line {text[:64]!r} cannot be read: {_why(fields) or error}") from None
    expanded = read.expanded
    days = Days(
        frozenset(_numbers(expanded[3], 1, 12)),
        None if expanded[2] == ["*"] or expanded[2] == ["l"] else frozenset(_numbers(expanded[2], 1, 31)),
        "l" in expanded[2],
        None if expanded[4] == ["*"] else frozenset(_numbers(expanded[4], 0, 6)),
        frozenset(
            (weekday, 0 if which == "l" else int(which))
            for weekday, several in read.nth_weekday_of_month.items()
            for which in several
        ),
    )
    if days.nth and (days.days is not None or days.last_day):
        raise BadRequest(
            f"cron line {text[:64]!r} names days of the month, and week days by their number in it: write two lines"
        )
    if days.days is not None and days.weekdays is None and not days.last_day:
        longest = max(_DAYS[month - 1] for month in days.months)
        if min(days.days) > longest:
            raise BadRequest(
                f"cron line {text[:64]!r} names no day that there is: none of its months has {min(days.days)} days"
            )
    has_seconds = len(fields) > _FIELDS[0]
    return Line(
        text,
        days,
        tuple(_numbers(expanded[1], 0, 23)),
        tuple(_numbers(expanded[0], 0, 59)),
        tuple(_numbers(expanded[5], 0, 59)) if has_seconds else (0,),
        days.are_all,
        has_seconds,
    )


def _why(fields: list[str]) -> str:
    """Return which field of a line that croniter refuses it refuses alone, in our words; empty: none."""
    names = _NAMES[-len(fields) :]
    for position, (name, field) in enumerate(zip(names, fields, strict=True)):
        alone = ["*"] * len(fields)
        alone[position] = field
        try:
            croniter(" ".join(alone), 0.0, second_at_beginning=True)
        except (CroniterError, ValueError, KeyError, IndexError):
            return f"{field[:32]!r} is no {name} that there is"
    return ""


def _checked(text: str) -> list[str]:
    """Return the fields of a line of bounded length, with nothing in it that croniter would have to search for."""
    check_line_length(text)
    line = text.strip().lower()
    if line.startswith("@"):
        if line not in CRON_ALIASES:
            raise BadRequest(f"cron word {text[:32]!r} is unknown; use one of {', '.join(CRON_ALIASES)}")
        line = CRON_ALIASES[line]
    fields = line.split()
    if len(fields) not in _FIELDS:
        raise BadRequest(
            f"cron line {text[:64]!r} has {len(fields)} fields; it has 5 (minute hour day month weekday),"
            " or 6 with the second first"
        )
    for field in fields:
        if not _FIELD.fullmatch(field) or _NUMBER.search(field):
            raise BadRequest(
                f"cron field {field[:32]!r} of {text[:64]!r} cannot be read; write it as in `0 3 * * mon-fri`"
            )
    return fields


def _numbers(expanded: Sequence[int | str], first: int, last: int) -> list[int]:
    if expanded == ["*"]:
        return list(range(first, last + 1))
    return sorted(each for each in expanded if isinstance(each, int))
