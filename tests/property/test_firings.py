"""Firings against brute force: any cron line, zone and rules, around and away from the days on which clocks are set."""

import datetime as dt
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness import firing_model
from taskd.core.firings import Plan, plan
from taskd_protocol.schedule import FOLDS, GAPS, Timing

ZONES = (
    "UTC",
    "Europe/Oslo",
    "America/New_York",
    "America/Santiago",
    "America/Havana",
    "America/Nuuk",
    "America/St_Johns",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Antarctica/Troll",
)
DAYS = (
    "2026-01-01",
    "2026-02-15",
    "2026-02-28",
    "2026-03-08",
    "2026-03-22",
    "2026-03-28",
    "2026-03-29",
    "2026-04-04",
    "2026-04-05",
    "2026-09-05",
    "2026-09-06",
    "2026-09-26",
    "2026-10-03",
    "2026-10-24",
    "2026-10-25",
    "2026-11-01",
    "2027-02-07",
    "2027-03-14",
    "2027-10-31",
    "2028-02-29",
    "2011-12-29",
    "2011-12-30",  # in Apia there was no such day at all
)


def a_field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(sorted)
    part = st.one_of(
        number.map(str),
        spans.map(lambda pair: f"{pair[0]}-{pair[1]}" if pair[0] != pair[1] else str(pair[0])),
        st.integers(2, high).map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


days = st.one_of(st.just("*"), st.just("*"), a_field(1, 31), st.just("l"))
weekdays = st.one_of(st.just("*"), st.just("*"), a_field(0, 6), st.sampled_from(("sun", "l0", "0#1", "sat-mon", "6#5")))
lines = st.one_of(
    st.builds(" ".join, st.tuples(a_field(0, 59), a_field(0, 23), days, st.just("*"), weekdays)),
    st.builds(" ".join, st.tuples(a_field(0, 59), a_field(0, 4), st.just("*"), st.just("*"), st.just("*"))),
    st.builds(
        " ".join, st.tuples(st.sampled_from(("0", "*/30", "59")), a_field(0, 59), a_field(0, 3), *[st.just("*")] * 3)
    ),
    st.sampled_from(("@hourly", "@daily", "*/15 * * * *", "30 2 * * *", "0 0 * * *", "59 23 * * *")),
)


def is_read(line: str) -> bool:
    """Tell whether a line does not name days of the month beside week days by their number in it: that is refused."""
    return line.startswith("@") or line.split()[-3] == "*" or not set("#l") & set(line.rsplit(maxsplit=1)[-1])


lines = lines.filter(is_read)
timings = st.builds(
    Timing,
    cron=st.lists(lines, min_size=1, max_size=2).map(tuple),
    zone=st.sampled_from(ZONES),
    gap=st.sampled_from(GAPS),
    fold=st.sampled_from(FOLDS),
    not_dates=st.sampled_from(((), ("2026-03-29",), ("2026-10-25", "2026-11-01"))),
    not_cron=st.one_of(st.just(()), st.just(()), st.sampled_from((("* 2 * * *",), ("0 3 * * *",), ("* * * * sun",)))),
)
starts = st.builds(
    lambda day, minutes: dt.datetime.fromisoformat(day + "T00:00Z") + dt.timedelta(minutes=minutes),
    st.sampled_from(DAYS),
    st.integers(-1500, 1500),
)


@given(timing=timings, first=starts, length_min=st.integers(1, 3000))
def test_firings_are_those_of_brute_force(timing: Timing, first: dt.datetime, length_min: int) -> None:
    """The instants, their order, their number, the first and the last of them."""
    end = first + dt.timedelta(minutes=length_min)
    after_ms, until_ms = (round(at.timestamp() * 1000) - 1 for at in (first, end))
    asked = Plan(timing, 0)
    found = [firing.at_ms for firing in asked.after(after_ms, until_ms)]
    assert found == firing_model.firings(timing, first, end)
    assert asked.tally(after_ms, until_ms, 1_000_000) == (len(found), until_ms)
    assert [firing.at_ms for firing in asked.newest(after_ms, until_ms, 5)] == found[-5:]
    if found:
        assert asked.next_ms(after_ms) == found[0]


@given(timing=timings, first=starts, cuts=st.lists(st.integers(0, 2000), max_size=4))
def test_a_stretch_that_is_cut_fires_the_same(timing: Timing, first: dt.datetime, cuts: list[int]) -> None:
    """Wherever a server stops and goes on, no firing falls between two looks, and none into both."""
    start_ms = round(first.timestamp() * 1000)
    bounds = [start_ms, *sorted(start_ms + cut * 60_001 for cut in cuts), start_ms + 2001 * 60_001]
    asked = Plan(timing, 0)
    pieces = [firing for after_ms, until_ms in pairwise(bounds) for firing in asked.after(after_ms, until_ms)]
    assert pieces == list(asked.after(bounds[0], bounds[-1]))


@given(
    timing=st.sampled_from(
        (
            Timing(cron=("* * * * *",)),
            Timing(cron=("30 2 * * *", "*/7 * * * *"), zone="Europe/Oslo", gap="shift", fold="both"),
            Timing(every_ms=11_000),
            Timing(at_ms=(1_774_746_000_000, 1_774_746_060_000)),
        )
    ),
    steps=st.lists(st.tuples(st.integers(-200_000, 200_000), st.integers(0, 200_000)), min_size=1, max_size=30),
)
def test_what_is_due_does_not_depend_on_what_was_asked_before(timing: Timing, steps: list[tuple[int, int]]) -> None:
    """A plan remembers what it has found last: asked again, it tells the same as one that remembers nothing."""
    shared = Plan(timing, 0)
    for step_ms, span_ms in steps:
        after_ms = 1_774_746_000_000 + step_ms
        told = shared.due(after_ms, after_ms + span_ms)
        fresh = Plan(timing, 0).due(after_ms, after_ms + span_ms)
        assert (told.firings, told.next_ms) == (fresh.firings, fresh.next_ms)
        assert told.next_ms is None or told.next_ms > after_ms + span_ms


def test_schedules_of_one_timing_share_its_plan_unless_it_counts_from_when_they_were_made() -> None:
    minutely, each = Timing(cron=("* * * * *",)), Timing(every_ms=60_000)
    assert plan(minutely, 1) is plan(minutely, 2)
    assert plan(each, 1) is not plan(each, 2)
