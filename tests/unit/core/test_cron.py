"""Cron lines: what is read, what is refused and at what price, and which times are named."""

import datetime as dt
import tracemalloc

import pytest

from harness.firing_model import wall_times
from taskd.core.cron import DAY_S, parse
from taskd_protocol.errors import BadRequest

MONDAY = dt.datetime(2026, 3, 2)  # noqa: DTZ001 - of no zone

LINES = (
    "* * * * *",
    "0 3 * * *",
    "*/15 8-18 * * mon-fri",
    "0 0 1,15 * *",
    "0 0 13 * 5",
    "0 0 l * *",
    "0 12 L,10 * *",
    "0 9 * * 5#2",
    "0 9 * * l5",
    "0 9 * * mon#1,wed#3",
    "30 4 29 2 *",
    "0 0 * jan-mar,dec sun",
    "0 0 * * 7",
    "5/20 22-2 * * *",
    "0 0 ? * 1",
    "*/10 30 6 * * *",
    "0-5,30 * 23 * * 0",
    "@daily",
    "@weekly",
    "@monthly",
    "@yearly",
    "@hourly",
    "@midnight",
    "@annually",
    "0 0 1 * 1-5",
    "0 6 */10 * *",
)


@pytest.mark.parametrize("text", LINES)
def test_a_line_names_what_croniter_says(text: str) -> None:
    """Over four hundred days the days and seconds of each line are croniter's own."""
    line = parse(text)
    end = MONDAY + dt.timedelta(days=40 if len(line.seconds) * len(line.minutes) * len(line.hours) > 24 else 400)
    named = [
        dt.datetime.fromordinal(ordinal) + dt.timedelta(seconds=second)
        for ordinal in range(MONDAY.toordinal(), end.toordinal())
        if line.day_matches(ordinal)
        for second in line.within(0, DAY_S)
    ]
    assert named == wall_times(text, MONDAY, end)


@pytest.mark.parametrize("text", LINES)
def test_counting_and_matching_agree_with_naming(text: str) -> None:
    """How many there are within a part of a day is what naming them gives, for any part."""
    line = parse(text)
    named = list(line.within(0, DAY_S))
    day = next(day for day in range(MONDAY.toordinal(), MONDAY.toordinal() + 1500) if line.day_matches(day))
    for first, end in (
        (0, DAY_S),
        (1, DAY_S - 1),
        (3600 * 6, 3600 * 6 + 31),
        (3600 * 22 + 299, 3600 * 23 + 61),
        (7, 7),
    ):
        within = [second for second in named if first <= second < end]
        assert list(line.within(first, end)) == within
        assert line.count_within(first, end) == len(within)
    assert all(line.matches(day, second) for second in named[:100])
    if line.has_seconds:
        assert not any(line.matches(day, second + 1) for second in named if second + 1 not in named)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 0 1--100000000 * *", "'1--100000000' of '0 0 1--100000000 * *' cannot be read"),
        ("0 0 1-100000000 * *", "'1-100000000'"),
        ("0 0 30 2 *", "names no day that there is: none of its months has 30 days"),
        ("0 0 31 4,6,9,11 *", "names no day that there is: none of its months has 31 days"),
        ("1," * 5_000 + "1 * * * *", "a cron line of 10009 characters; one has at most 256"),
        ("", "has 0 fields; it has 5 (minute hour day month weekday), or 6 with the second first"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * 2026", "has 7 fields"),
        ("60 * * * *", "cannot be read: '60' is no minute that there is"),
        ("* 24 * * *", "'24' is no hour that there is"),
        ("* * 0 * *", "'0' is no day of the month that there is"),
        ("* * * 13 *", "'13' is no month that there is"),
        ("* * * * 8", "'8' is no day of the week that there is"),
        ("*/0 * * * *", "'*/0' is no minute that there is"),
        ("0 0 * * 5#6", "'5#6' is no day of the week that there is"),
        ("@fortnightly", "cron word '@fortnightly' is unknown; use one of @yearly"),
        ("r r * * *", "cron field 'r'"),
        ("h h * * *", "cron field 'h'"),
        ("0 0 15w * *", "cron field '15w'"),
        ("0 0 * * fry", "'fry' is no day of the week that there is"),
        ("61 * * * * *", "'61' is no second that there is"),
        ("0 0 * * \u0661", "cron field '\u0661'"),
        ("0 0 * * 1,,2", "cannot be read"),
        ("- - - - -", "cannot be read"),
        ("0 0 * * mon-", "cannot be read"),
        ("// * * * *", "cannot be read"),
        ("0 0 1 * 5#2", "write two lines"),
        ("0 0 l * l5", "write two lines"),
    ],
)
def test_what_is_no_line_is_refused_with_its_place(text: str, says: str) -> None:
    """Each costs next to nothing, whatever it claims to be."""
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest) as refusal:
            parse(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert says in refusal.value.message
    assert "\n" not in refusal.value.message
    assert len(refusal.value.message) < 400
    assert peak < 1_000_000


def test_a_line_that_names_every_hour_is_for_an_interval() -> None:
    assert parse("*/15 * * * *").is_hourly
    assert parse("0 0-23 * * mon").is_hourly
    assert not parse("*/15 8-18 * * *").is_hourly
    assert not parse("@daily").is_hourly
