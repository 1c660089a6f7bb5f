"""Firings: time zones and their changes, rules for gaps and folds, intervals, exclusions, counts."""

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from harness.firing_model import instant
from taskd.core.firings import Firing, Plan, plan
from taskd_protocol.errors import BadRequest
from taskd_protocol.schedule import Timing

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

CHANGES: dict[str, list[tuple[str, int, int]]] = {
    "Europe/Oslo": [
        ("2026-03-29T01:00Z", 60, 120),
        ("2026-10-25T01:00Z", 120, 60),
        ("2027-03-28T01:00Z", 60, 120),
        ("2027-10-31T01:00Z", 120, 60),
    ],
    "America/New_York": [
        ("2026-03-08T07:00Z", -300, -240),
        ("2026-11-01T06:00Z", -240, -300),
        ("2027-03-14T07:00Z", -300, -240),
        ("2027-11-07T06:00Z", -240, -300),
    ],
    "America/Santiago": [
        ("2026-04-05T03:00Z", -180, -240),
        ("2026-09-06T04:00Z", -240, -180),
        ("2027-04-04T03:00Z", -180, -240),
        ("2027-09-05T04:00Z", -240, -180),
    ],
    "America/Havana": [
        ("2026-03-08T05:00Z", -300, -240),
        ("2026-11-01T05:00Z", -240, -300),
        ("2027-03-14T05:00Z", -300, -240),
        ("2027-11-07T05:00Z", -240, -300),
    ],
    "America/Nuuk": [
        ("2026-03-29T01:00Z", -120, -60),
        ("2026-10-25T01:00Z", -60, -120),
        ("2027-03-28T01:00Z", -120, -60),
        ("2027-10-31T01:00Z", -60, -120),
    ],
    "America/St_Johns": [
        ("2026-03-08T05:30Z", -210, -150),
        ("2026-11-01T04:30Z", -150, -210),
        ("2027-03-14T05:30Z", -210, -150),
        ("2027-11-07T04:30Z", -150, -210),
    ],
    "Africa/Casablanca": [
        ("2026-02-15T02:00Z", 60, 0),
        ("2026-03-22T02:00Z", 0, 60),
        ("2027-02-07T02:00Z", 60, 0),
        ("2027-03-14T02:00Z", 0, 60),
    ],
    "Asia/Beirut": [
        ("2026-03-28T22:00Z", 120, 180),
        ("2026-10-24T21:00Z", 180, 120),
        ("2027-03-27T22:00Z", 120, 180),
        ("2027-10-30T21:00Z", 180, 120),
    ],
    "Asia/Kolkata": [],
    "Australia/Lord_Howe": [
        ("2026-04-04T15:00Z", 660, 630),
        ("2026-10-03T15:30Z", 630, 660),
        ("2027-04-03T15:00Z", 660, 630),
        ("2027-10-02T15:30Z", 630, 660),
    ],
    "Pacific/Chatham": [
        ("2026-04-04T14:00Z", 825, 765),
        ("2026-09-26T14:00Z", 765, 825),
        ("2027-04-03T14:00Z", 825, 765),
        ("2027-09-25T14:00Z", 765, 825),
    ],
    "Antarctica/Troll": [
        ("2026-03-29T01:00Z", 0, 120),
        ("2026-10-25T01:00Z", 120, 0),
        ("2027-03-28T01:00Z", 0, 120),
        ("2027-10-31T01:00Z", 120, 0),
    ],
}
"""Twelve zones, and each time that their clocks are set in two years: UTC, minutes from UTC before and after."""


def fired(timing: Timing, first: str, end: str, anchor_ms: int = 0) -> list[str]:
    """Return the firings from ``first`` on and before ``end`` as texts, UTC."""
    found = plan(timing, anchor_ms).after(instant(first) - 1, instant(end) - 1)
    return [dt.datetime.fromtimestamp(each.at_ms / 1000, dt.UTC).strftime("%m-%dT%H:%M") for each in found]


def minutes(timing: Timing, first_ms: int, end_ms: int) -> list[int]:
    return [each.at_ms for each in plan(timing, 0).after(first_ms - 1, end_ms - 1)]


@pytest.mark.parametrize("zone", CHANGES)
def test_the_zone_changes_as_the_table_says(zone: str) -> None:
    """Every minute of two years has the offset that the table gives, so what follows rests on what it shows."""
    clock = ZoneInfo(zone)
    offset_min: int | None = None
    seen: list[tuple[str, int, int]] = []
    at, end = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2028, 1, 1, tzinfo=dt.UTC)
    quarter = dt.timedelta(minutes=15)
    while at < end:
        offset = at.astimezone(clock).utcoffset()
        assert offset is not None
        now_min = round(offset / dt.timedelta(minutes=1))
        if offset_min is not None and now_min != offset_min:
            seen.append((at.strftime("%Y-%m-%dT%H:%MZ"), offset_min, now_min))
        offset_min, at = now_min, at + quarter
    assert seen == CHANGES[zone]


@pytest.mark.parametrize("zone", CHANGES)
def test_every_minute_around_a_change_fires_once_an_instant(zone: str) -> None:
    """A line of every minute fires each minute there is, under ``both`` and any rule for gaps."""
    for change, _, _ in CHANGES[zone]:
        first_ms, end_ms = instant(change) - 26 * HOUR_MS, instant(change) + 26 * HOUR_MS
        for gap in ("next", "skip", "shift"):
            timing = Timing(cron=("* * * * *",), zone=zone, gap=gap, fold="both")
            assert minutes(timing, first_ms, end_ms) == list(range(first_ms, end_ms, 60_000))


@pytest.mark.parametrize("zone", CHANGES)
def test_a_time_that_comes_twice_fires_by_its_rule(zone: str) -> None:
    """Each minute of a fold, asked for by a line of its own, fires at the first, the second or both instants."""
    for change, before_min, after_min in CHANGES[zone]:
        length_min = before_min - after_min
        for minute in range(0, length_min, 7):
            first_ms = instant(change) + (minute - length_min) * 60_000
            second_ms = instant(change) + minute * 60_000
            wall = dt.datetime.fromtimestamp(first_ms / 1000 + before_min * 60, dt.UTC)
            line = f"{wall.minute} {wall.hour} {wall.day} {wall.month} *"
            for fold, wanted in (
                ("first", [first_ms]),
                ("second", [second_ms]),
                ("both", [first_ms, second_ms]),
                ("auto", [first_ms]),
            ):
                timing = Timing(cron=(line,), zone=zone, fold=fold)
                found = list(plan(timing, 0).after(instant(change) - 3 * DAY_MS, instant(change) + 3 * DAY_MS))
                assert [each.at_ms for each in found] == wanted
                assert all(wall.strftime("%H:%M comes twice: the ") in each.note for each in found)


@pytest.mark.parametrize("zone", CHANGES)
def test_a_time_that_does_not_exist_fires_by_its_rule(zone: str) -> None:
    """Each minute of a gap fires at the gap's end, not at all, or later by the gap's length."""
    for change, before_min, after_min in CHANGES[zone]:
        for minute in range(0, after_min - before_min, 7):
            change_ms = instant(change)
            wall = dt.datetime.fromtimestamp(change_ms / 1000 + (before_min + minute) * 60, dt.UTC)
            line = f"{wall.minute} {wall.hour} {wall.day} {wall.month} *"
            for gap, wanted in (("next", [change_ms]), ("skip", []), ("shift", [change_ms + minute * 60_000])):
                timing = Timing(cron=(line,), zone=zone, gap=gap)
                found = list(plan(timing, 0).after(change_ms - 3 * DAY_MS, change_ms + 3 * DAY_MS))
                assert [each.at_ms for each in found] == wanted
                assert all(wall.strftime("%H:%M does not exist") in each.note for each in found)


@pytest.mark.parametrize("zone", CHANGES)
def test_a_preview_tells_what_a_gap_keeps_from_firing(zone: str) -> None:
    """Each gap once, with the times of all lines in it, unless excluded; and nothing behind the last firing."""
    gaps = [(instant(at), before, after) for at, before, after in CHANGES[zone] if after > before]
    for change_ms, before_min, after_min in gaps:
        first = dt.datetime.fromtimestamp(change_ms / 1000 + before_min * 60, dt.UTC)
        last = first + dt.timedelta(minutes=after_min - before_min - 1)
        timing = Timing(cron=("* * * * *", "0 0 * * *"), zone=zone, gap="skip")
        found, skipped = plan(timing, 0).preview(change_ms - 5 * 60_000, 10)
        assert len(found) == 10
        count = after_min - before_min
        note = f"{first:%H:%M} to {last:%H:%M} do not exist: {count} times do not fire"
        assert skipped == [Firing(change_ms, note)]
        assert plan(timing, 0).preview(change_ms - 10 * 60_000, 10)[1] == [], "it is behind the last"
        assert plan(replace(timing, gap="next"), 0).preview(change_ms - 5 * 60_000, 10)[1] == []
        line = f"{first.minute} {first.hour} {first.day} {first.month} *"
        alone = Timing(cron=(line,), zone=zone, gap="skip", end_ms=change_ms + DAY_MS)
        note = f"{first:%H:%M} does not exist: it does not fire"
        assert plan(alone, 0).preview(change_ms - DAY_MS, 3) == ([], [Firing(change_ms, note)])
        for excluded in (replace(alone, not_dates=(f"{first:%Y-%m-%d}",)), replace(alone, not_cron=(line,))):
            assert plan(excluded, 0).preview(change_ms - DAY_MS, 3) == ([], [])


def test_the_same_line_in_oslo_on_the_days_that_matter() -> None:
    """As documented: 02:30 each day, over the nights in which the clock is set."""
    spring, autumn = ("2026-03-28T00:00Z", "2026-03-31T00:00Z"), ("2026-10-24T00:00Z", "2026-10-27T00:00Z")
    for gap, wanted in (
        ("next", ["03-28T01:30", "03-29T01:00", "03-30T00:30"]),
        ("skip", ["03-28T01:30", "03-30T00:30"]),
        ("shift", ["03-28T01:30", "03-29T01:30", "03-30T00:30"]),
    ):
        assert fired(Timing(cron=("30 2 * * *",), zone="Europe/Oslo", gap=gap), *spring) == wanted
    for fold, nights in (
        ("first", ["10-25T00:30"]),
        ("second", ["10-25T01:30"]),
        ("both", ["10-25T00:30", "10-25T01:30"]),
    ):
        timing = Timing(cron=("30 2 * * *",), zone="Europe/Oslo", fold=fold)
        assert fired(timing, *autumn) == ["10-24T00:30", *nights, "10-26T01:30"]


def test_a_quarter_of_an_hour_stays_one_through_both_changes() -> None:
    """By default a line that names every hour fires each fifteen real minutes, whatever the clock shows."""
    timing = Timing(cron=("*/15 * * * *",), zone="Europe/Oslo")
    for change in ("2026-03-29T01:00Z", "2026-10-25T01:00Z"):
        found = minutes(timing, instant(change) - 5 * HOUR_MS, instant(change) + 5 * HOUR_MS)
        assert {later - earlier for earlier, later in pairwise(found)} == {15 * 60_000}
    first = minutes(
        Timing(cron=("*/15 * * * *",), zone="Europe/Oslo", fold="first"),
        instant("2026-10-25T00:00Z"),
        instant("2026-10-25T02:00Z"),
    )
    assert first == [
        instant("2026-10-25T00:00Z") + index * 15 * 60_000 for index in range(4)
    ]  # then an hour of silence


def test_several_lines_fire_once_where_they_meet() -> None:
    timing = Timing(cron=("0 6 * * *", "0 */3 * * *", "*/30 6 * * *"))
    assert fired(timing, "2026-01-01T05:00Z", "2026-01-01T10:00Z") == ["01-01T06:00", "01-01T06:30", "01-01T09:00"]


def test_days_and_times_are_excluded_by_the_clock_of_the_zone() -> None:
    """Christmas in Oslo begins an hour before that of UTC; lunch is by the wall."""
    timing = Timing(
        cron=("0 * * * *",), zone="Europe/Oslo", not_dates=("2026-12-25",), not_cron=("* 12 * * *", "* * 26 12 *")
    )
    found = fired(timing, "2026-12-24T20:00Z", "2026-12-27T14:00Z")
    assert found[:3] == ["12-24T20:00", "12-24T21:00", "12-24T22:00"]
    assert found[3] == "12-26T23:00"
    assert "12-27T10:00" in found
    assert "12-27T11:00" not in found


def test_what_is_shifted_is_excluded_by_where_it_lands() -> None:
    timing = Timing(cron=("30 2 * * *",), zone="Europe/Oslo", gap="shift", not_cron=("* 3 * * *",))
    assert fired(timing, "2026-03-29T00:00Z", "2026-03-30T00:00Z") == []


def test_intervals_count_from_their_anchor_and_never_drift() -> None:
    """Without a start from when the schedule was made, else from the start, which fires too."""
    every = Timing(every_ms=7_000)
    anchor_ms = instant("2026-01-01T00:00Z") + 123
    after_a_year = plan(every, anchor_ms).after(anchor_ms + 365 * DAY_MS, anchor_ms + 366 * DAY_MS)
    assert (next(iter(after_a_year)).at_ms - anchor_ms) % 7_000 == 0
    assert plan(every, anchor_ms).next_ms(anchor_ms - 1) == anchor_ms + 7_000
    start_ms = instant("2026-05-01T00:00Z")
    started = plan(Timing(every_ms=7_000, start_ms=start_ms), anchor_ms)
    assert started.next_ms(0) == start_ms
    assert started.next_ms(start_ms) == start_ms + 7_000


def test_nothing_fires_before_the_start_or_after_the_end() -> None:
    start_ms, end_ms = instant("2026-01-02T00:00Z"), instant("2026-01-03T00:00Z")
    timing = Timing(cron=("@daily",), start_ms=start_ms, end_ms=end_ms)
    assert fired(timing, "2025-12-01T00:00Z", "2026-02-01T00:00Z") == ["01-02T00:00", "01-03T00:00"]
    assert plan(timing, 0).next_ms(end_ms) is None
    instants = Timing(at_ms=(end_ms, start_ms, end_ms))
    assert fired(instants, "2025-12-01T00:00Z", "2026-02-01T00:00Z") == ["01-02T00:00", "01-03T00:00"]


def test_the_29th_of_february_is_found_over_eight_years() -> None:
    leap = plan(Timing(cron=("0 0 29 2 *",)), 0)
    assert leap.next_ms(instant("2096-03-01T00:00Z")) == instant("2104-02-29T00:00Z")
    never = plan(Timing(cron=("0 0 29 2 *",), not_cron=("* * 29 2 *",)), 0)
    assert never.next_ms(instant("2026-01-01T00:00Z")) is None


@pytest.mark.parametrize(
    "timing",
    [
        Timing(cron=("* * * * *",), zone="Europe/Oslo"),
        Timing(cron=("*/10 */7 9-17 * * mon-fri",), zone="America/Havana", fold="second"),
        Timing(cron=("30 2 * * *", "*/45 * * * *"), zone="Australia/Lord_Howe", gap="shift", fold="both"),
        Timing(cron=("*/20 * * * *",), zone="Asia/Beirut", not_dates=("2026-03-29",), not_cron=("* 4 * * *",)),
        Timing(every_ms=97_000),
        Timing(every_ms=97_000, start_ms=instant("2026-03-20T00:00Z"), end_ms=instant("2026-03-29T12:00Z")),
        Timing(every_ms=61_000, not_cron=("* 4 * * *",)),
        Timing(at_ms=(instant("2026-03-08T00:00Z"), instant("2026-03-29T00:00Z"))),
    ],
)
def test_counts_and_the_newest_are_those_of_the_list(timing: Timing) -> None:
    """Counting in bounded pieces, and reading from the end, come to the same as going through all."""
    asked = Plan(timing, 12_345)
    for first, end in (
        ("2026-03-07T13:13Z", "2026-03-31T00:00Z"),
        ("2026-03-08T04:59Z", "2026-03-08T05:01Z"),
        ("2026-03-29T00:00Z", "2026-03-29T00:00Z"),
    ):
        after_ms, until_ms = instant(first), instant(end)
        whole = list(asked.after(after_ms, until_ms))
        counted = at_ms = 0
        steps = 0
        at_ms = after_ms
        while at_ms < until_ms:
            count, at_ms = asked.tally(at_ms, until_ms, 500)
            counted += count
            steps += 1
        assert counted == len(whole)
        assert steps <= 2 * (len(whole) // 500 + 2)
        for wanted in (1, 3, 2_000):
            assert asked.newest(after_ms, until_ms, wanted) == whole[-wanted:]
        assert asked.next_ms(after_ms) == (whole[0].at_ms if whole else asked.next_ms(until_ms))


@pytest.mark.parametrize(
    "timing",
    [
        Timing(cron=("* * * * * *",), not_cron=tuple(f"* {hour} * * *" for hour in range(24))),
        Timing(
            cron=tuple(f"{n}-59,0-{n} * * * * *" for n in range(32)),
            not_cron=tuple(f"* {hour} * * *" for hour in range(24)),
        ),
        Timing(every_ms=1_000, not_cron=tuple(f"* {hour} * * *" for hour in range(24))),
    ],
)
def test_excluding_nearly_all_is_refused_before_it_takes_long(timing: Timing) -> None:
    asked = Plan(timing, 0)
    with pytest.raises(BadRequest, match=r"excludes \d+ of its times"):
        asked.next_ms(instant("2026-01-01T00:00Z"))
    assert asked.tally(0, instant("2026-01-01T00:00Z"), 1_000)[0] == 0


@pytest.mark.parametrize("timing", [Timing(cron=("* * * * * *",)), Timing(every_ms=1_000)])
def test_whole_days_are_excluded_at_no_price(timing: Timing) -> None:
    """Weekends, also those in which the clock is set, and a month in one go."""
    asked = Plan(replace(timing, zone="Europe/Oslo", not_cron=("* * * * sat,sun", "* * * 4 *")), 0)
    for friday, monday in (
        ("2026-03-27T22:59:59Z", "2026-03-29T22:00Z"),
        ("2026-10-23T21:59:59Z", "2026-10-25T23:00Z"),
    ):
        assert asked.next_ms(instant(friday)) == instant(monday)
    assert asked.next_ms(instant("2026-03-31T21:59:59Z")) == instant("2026-04-30T22:00Z")


def test_a_year_of_seconds_is_counted_in_one_step() -> None:
    """What a long outage has missed is counted by days, not by seconds."""
    first_ms = instant("2026-01-01T00:00Z") - 1
    assert Plan(Timing(cron=("* * * * * *",)), 0).tally(first_ms, first_ms + 365 * DAY_MS, 10_000) == (
        365 * 86_400,
        first_ms + 365 * DAY_MS,
    )


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        (Timing(), "exactly one of the three"),
        (Timing(cron=("@daily",), every_ms=1_000), "exactly one of the three"),
        (Timing(every_ms=999), "interval of 999 ms is out of range; it goes from one second"),
        (Timing(every_ms=-1), "interval of -1 ms is out of range"),
        (Timing(cron=("@daily",), zone="Mars/Olympus"), "time zone 'Mars/Olympus' is unknown"),
        (Timing(cron=("@daily",), zone="America"), "time zone 'America' is unknown"),
        (Timing(cron=("@daily",), zone="../../etc/passwd"), "is no IANA name"),
        (Timing(cron=("@daily",), zone="right/Europe/Oslo"), "is unknown"),
        (Timing(cron=("@daily",), zone="x" * 10_000), "is no IANA name"),
        (Timing(cron=("@daily",), gap="jump"), "gap 'jump' is unknown; use one of next, skip, shift"),
        (Timing(cron=("@daily",), fold="third"), "fold 'third' is unknown; use one of auto, first, second, both"),
        (Timing(cron=("@daily",), start_ms=2, end_ms=1), "ends before it starts"),
        (Timing(cron=("@daily",), start_ms=-1), "UTC milliseconds"),
        (Timing(at_ms=(1 << 60,)), "UTC milliseconds"),
        (Timing(cron=("@daily",), not_dates=("2026-02-30",)), "exclusion date '2026-02-30' is none that there is"),
        (Timing(cron=("@daily",), not_dates=("20260101",)), "write it as 2026-12-24"),
        (Timing(cron=("@daily",), not_cron=("nonsense",)), "has 1 fields"),
        (Timing(cron=("@daily",) * 33), "33 cron lines; a schedule has at most 32"),
        (Timing(cron=("x" * 10_000,)), "10000 characters; one has at most 256"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(timing: Timing, says: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        plan(timing, 0)
    assert says in refusal.value.message


def test_no_zone_sets_its_clock_twice_within_a_day() -> None:
    """What finds the changes looks at both ends of a day: that is enough for the data that is installed."""
    quarter = 900
    first_s, end_s = instant("2026-01-01T00:00Z") // 1000, instant("2028-01-01T00:00Z") // 1000
    for zone, known in CHANGES.items():
        clock = ZoneInfo(zone)
        changes = 0
        for day_s in range(first_s, end_s, 86_400):
            ends = [dt.datetime.fromtimestamp(at_s, clock).utcoffset() for at_s in (day_s, day_s + 86_400)]
            if ends[0] != ends[1]:
                offsets = [
                    dt.datetime.fromtimestamp(at_s, clock).utcoffset()
                    for at_s in range(day_s, day_s + 86_400 + 1, quarter)
                ]
                assert sum(one != other for one, other in pairwise(offsets)) == 1
                changes += 1
        assert changes == len(known)


def test_a_plain_firing_has_nothing_to_say() -> None:
    at_ms = instant("2026-06-01T01:00Z")
    assert list(plan(Timing(cron=("0 3 * * *",), zone="Europe/Oslo"), 0).after(at_ms - 1, at_ms)) == [Firing(at_ms)]
