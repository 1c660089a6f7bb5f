"""The tally: what happened is counted by queue, and names that nobody bounds take no room that nobody bounds."""

import gc
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from harness.server import VirtualClock
from taskd.core.events import Noted, TasksMoved
from taskd.server.clock import SystemClock
from taskd.server.histogram import COARSE_MS, FINE_MS, Histogram, quantile
from taskd.server.lag import EVERY_SECONDS, noting_collections, watch_lag
from taskd.server.tally import IDLE_MS, LOOK_MS, OTHER, QUEUES_MAX, QUICK_US, Tally

ID = bytes(16)


def ran(queue: str, *spans_ms: int) -> TasksMoved:
    return TasksMoved("task.succeeded", queue, "m.f", "a1", 1, [ID] * len(spans_ms), list(spans_ms))


def began(queue: str, *spans_ms: int) -> TasksMoved:
    return TasksMoved("task.running", queue, "m.f", "a1", 1, [ID] * len(spans_ms), list(spans_ms))


def test_what_happened_is_counted_by_queue_and_for_all() -> None:
    tally = Tally()
    tally.note([began("a", 3, 3, 40), ran("a", 7), ran("b", 9), Noted("agent.lost", "x")], 0)
    assert tally.rows["a"].moved == {"task.running": 3, "task.succeeded": 1}
    assert tally.rows["b"].moved == {"task.succeeded": 1}
    assert tally.all.moved == {"task.running": 3, "task.succeeded": 2}
    assert (tally.rows["a"].waits_ms.total, tally.rows["a"].runs_ms.total) == (46, 7)
    assert tally.rows["a"].waits_ms.counts[COARSE_MS.index(5)] == 2
    assert tally.all.runs_ms.total == 16
    assert tally.noted == {"agent.lost": 1}


def test_queues_beyond_the_bound_share_a_row() -> None:
    tally = Tally()
    tally.note([ran(f"q{number}", 1) for number in range(QUEUES_MAX + 7)], 0)
    assert len(tally.rows) == QUEUES_MAX + 1
    assert tally.rows[OTHER].moved == {"task.succeeded": 7}
    assert tally.all.moved == {"task.succeeded": QUEUES_MAX + 7}


def test_the_shared_row_is_given_to_nobody() -> None:
    """Also when all other queues come at one moment, long after the clock began."""
    tally = Tally()
    tally.note([ran(f"q{number}", 1) for number in range(QUEUES_MAX + 7)], 2 * IDLE_MS)
    assert tally.rows[OTHER].moved == {"task.succeeded": 7}


def test_an_idle_queue_gives_its_row_to_one_that_is_not() -> None:
    """No row counts down: the newcomer begins at nothing, and what it did before stays with the others."""
    tally = Tally()
    tally.note([ran(f"q{number}", 1) for number in range(QUEUES_MAX)], 0)
    tally.note([ran("new", 1)], LOOK_MS)
    tally.note([ran(f"q{number}", 1) for number in range(1, QUEUES_MAX)], IDLE_MS)
    tally.note([ran("new", 1)], IDLE_MS + LOOK_MS)
    assert "q0" not in tally.rows
    assert tally.rows["new"].moved == {"task.succeeded": 1}
    assert tally.rows[OTHER].moved == {"task.succeeded": 1}


def test_a_clock_that_was_ahead_counts_as_no_time() -> None:
    tally = Tally()
    tally.note([ran("a", -5_000)], 0)
    assert (tally.all.runs_ms.counts[0], tally.all.runs_ms.total) == (1, 0)


@given(st.lists(st.integers(0, 7 * 24 * 3600 * 1000), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_as_near_as_an_eighth(numbers: Sequence[int], share: float) -> None:
    histogram = Histogram(FINE_MS)
    for number in numbers:
        histogram.note(number)
    ordered = sorted(numbers)
    index = next(i for i in range(len(ordered)) if i + 1 >= share * len(ordered))
    assert ordered[index] <= quantile(FINE_MS, histogram.counts, share) <= ordered[index] * 1.125


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile(FINE_MS, Histogram(FINE_MS).counts, 0.5) == -1


@pytest.mark.parametrize("bounds", [COARSE_MS, FINE_MS])
def test_bounds_rise(bounds: Sequence[int]) -> None:
    assert list(bounds) == sorted(set(bounds))


async def test_a_loop_that_is_held_up_comes_late(autojump_clock: trio.testing.MockClock) -> None:
    """What blocks the loop for a second is seen by who was to be woken meanwhile."""
    lag_us = Histogram(QUICK_US)
    clock = VirtualClock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_lag, lag_us, clock)
        await trio.sleep(EVERY_SECONDS * 3.5)
        assert (lag_us.counts[0], sum(lag_us.counts)) == (3, 3)
        autojump_clock.jump(1.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sum(lag_us.counts) == 4
    assert abs(lag_us.total - 875_000) < 5


def test_collections_of_garbage_are_noted_while_somebody_asks() -> None:
    collector_us = Histogram(QUICK_US)
    with noting_collections(collector_us, SystemClock()):
        gc.collect()
    noted = sum(collector_us.counts)
    assert noted >= 1
    assert collector_us.total > 0
    gc.collect()
    assert sum(collector_us.counts) == noted
