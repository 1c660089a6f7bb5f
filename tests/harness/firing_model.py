"""Firings by brute force: croniter on a wall that nobody sets, then each time of day looked for in every minute.

Shares nothing with ``taskd.core.firings`` but the library that reads cron lines, and the zone data.
"""

import datetime as dt
from zoneinfo import ZoneInfo

from croniter import croniter

from taskd_protocol.schedule import Timing

MINUTE = dt.timedelta(minutes=1)
MARGIN = dt.timedelta(days=2)


def instant(text: str) -> int:
    """Return UTC milliseconds of ``2026-03-29T01:00Z``."""
    return round(dt.datetime.fromisoformat(text).timestamp() * 1000)


def wall_times(line: str, first: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """Return the times, without a zone, that a line names from ``first`` on and before ``end``."""
    times: list[dt.datetime] = []
    walk = croniter(line, first - dt.timedelta(seconds=1), second_at_beginning=True, max_years_between_matches=9)
    while (at := walk.get_next(dt.datetime)) < end:
        times.append(at)
    return times


def is_hourly(line: str) -> bool:
    """Tell whether each hour is named: ``auto`` asks for it."""
    day = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - of no zone
    fields = {"@hourly": "0 * * * *"}.get(line, line).split()
    if line.startswith("@") and len(fields) == 1:
        return False
    hours = " ".join([*fields[:-3], "*", "*", "*"])
    return len({at.hour for at in wall_times(hours, day, day + dt.timedelta(days=1))}) == 24


def firings(timing: Timing, first: dt.datetime, end: dt.datetime) -> list[int]:
    """Return all instants of cron lines from ``first`` on and before ``end``, both UTC."""
    zone = ZoneInfo(timing.zone)
    found: set[dt.datetime] = set()
    for line in timing.cron:
        fold = timing.fold if timing.fold != "auto" else "both" if is_hourly(line) else "first"
        naive_first = first.replace(tzinfo=None) - MARGIN
        for at in wall_times(line, naive_first, end.replace(tzinfo=None) + MARGIN):
            found.update(_instants_of(at, zone, timing.gap, fold))
    return [
        round(at.timestamp() * 1000) for at in sorted(found) if first <= at < end and not _is_excluded(timing, at, zone)
    ]


def _instants_of(at: dt.datetime, zone: ZoneInfo, gap: str, fold: str) -> list[dt.datetime]:
    """Return when a clock on the wall shows this, or what the rules have in its stead."""
    around = at.replace(tzinfo=dt.UTC)
    one, other = (around - _offset(at.replace(tzinfo=zone, fold=order)) for order in (0, 1))
    shown = sorted({each for each in (one, other) if each.astimezone(zone).replace(tzinfo=None, fold=0) == at})
    if len(shown) == 1:
        return shown
    if len(shown) == 2:
        return {"first": shown[:1], "second": shown[1:], "both": shown}[fold]
    if gap == "skip":
        return []
    if gap == "shift":
        return [max(one, other)]
    minute = (min(one, other) - dt.timedelta(hours=2)).replace(second=0)
    while minute.astimezone(zone).replace(tzinfo=None) <= at:
        minute += MINUTE
    return [minute]


def _offset(at: dt.datetime) -> dt.timedelta:
    offset = at.utcoffset()
    assert offset is not None
    return offset


def _is_excluded(timing: Timing, at: dt.datetime, zone: ZoneInfo) -> bool:
    wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
    if wall.date().isoformat() in timing.not_dates:
        return True
    for line in timing.not_cron:
        shown = wall if len(line.split()) == 6 else wall.replace(second=0)
        if shown in wall_times(line, shown, shown + dt.timedelta(seconds=1)):
            return True
    return False
