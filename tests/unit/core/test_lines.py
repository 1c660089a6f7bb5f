"""A line and its window: an exact prefix of what is on disk, whatever happens meanwhile."""

import random
from bisect import insort

import pytest

from taskd.core.lines import AGEING_MS, RANK_BYTES, Line, Task, line_id, place_of, rank_in, rank_of
from taskd.core.records import SpecRecord
from taskd_protocol.limits import PRIORITY_MAX
from taskd_protocol.task import TaskSpec


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound, value in {
        "WINDOW_TASKS_MAX": 8,
        "WINDOW_LOW": 3,
        "LEAN_TASKS": 4,
        "REFILL_TASKS": 64,
        "WINDOW_BYTES_MAX": 100,
        "WINDOW_BYTES_LOW": 40,
    }.items():
        monkeypatch.setattr(f"taskd.core.lines.{bound}", value)


def task(rank: int, size: int = 1) -> Task:
    return Task(TaskSpec(rank.to_bytes(16, "big"), "f", bytes(size)), rank, 0, "", fresh=True)


def ranks(tasks: list[Task]) -> list[int]:
    return [each.rank for each in tasks]


def wants_refill(line: Line) -> bool:
    return line.wanted(lean=False) > 0


def filled(*of: int) -> Line:
    line = Line("q", "f")
    for rank in of:
        line.add(task(rank))
    return line


def placed(enqueued_ms: int, priority: int, delay_ms: int = 0) -> int:
    return place_of(enqueued_ms, TaskSpec(bytes(16), "f", priority=priority, delay_ms=delay_ms), 1_000)


def test_of_one_place_the_first_submitted_is_first() -> None:
    assert rank_of(5, 1) < rank_of(5, 2)
    assert rank_of(4, (1 << 64) - 1) < rank_of(5, 0)
    assert rank_of((1 << 64) - 1, (1 << 64) - 1) < 1 << 8 * RANK_BYTES


def test_a_priority_is_worth_so_much_waiting() -> None:
    """Two more get ahead of what came within two steps before, and of nothing that has waited for longer."""
    assert placed(9_999, 2) < placed(8_000, 0)
    assert placed(10_001, 2) > placed(8_000, 0)
    assert placed(10_000, 2) == placed(8_000, 0), "the order of submits decides"
    assert placed(0, PRIORITY_MAX) == 0


def test_a_delayed_task_ages_from_when_it_is_due() -> None:
    assert placed(5_000, 0, delay_ms=700) == placed(5_700, 0)


def test_a_task_of_an_older_store_is_placed_by_its_records() -> None:
    """By the instant of its submit, and its priority."""
    spec = TaskSpec(bytes(16), "f", priority=-3, delay_ms=7)
    assert rank_in(SpecRecord(9, 50, "", spec)) == rank_of(place_of(50, spec, AGEING_MS), 9)
    assert rank_in(SpecRecord(9, 50, "", spec, 77)) == rank_of(77, 9)


def test_line_ids_do_not_mix_queue_and_name() -> None:
    assert line_id("ab", "c") != line_id("a", "bc")
    assert line_id("a", "b") == line_id("a", "b")


def test_a_short_line_is_in_memory_whole() -> None:
    line = filled(5, 3, 9, 4)
    assert (ranks(line.window()), line.complete, line.ready) == ([3, 4, 5, 9], True, 4)
    assert ranks(line.take(2, 1 << 80)) == [3, 4]
    assert ranks(line.take(9, 9)) == [5]
    assert (line.ready, line.window_bytes, line.head_rank()) == (1, 1, 9)


def test_beyond_a_full_window_tasks_are_on_disk_only() -> None:
    line = filled(*range(1, 9))
    assert not line.add(task(9))
    assert line.add(task(0))
    assert (line.complete, line.tail, line.ready, line.window_count) == (False, 8, 10, 9)


def test_a_task_that_comes_back_to_the_very_end_of_the_window_is_in_it() -> None:
    """A refill reads beyond the tail, so nobody else would find it."""
    line = filled(*range(9))
    back = line.take(8, 1 << 80)[-1]
    assert back.rank == line.tail
    assert line.add(back)
    assert ranks(line.window()) == [7]


def test_a_window_that_is_overtaken_is_cut() -> None:
    line = filled(*range(100, 109))
    spilled: list[int] = []
    for rank in range(20):
        line.add(task(rank))
        if line.overfull:
            spilled += ranks(line.spill())
    assert line.window_count <= 10
    assert sorted(spilled) == spilled or len(set(spilled)) == len(spilled)
    assert ranks(line.window()) == list(range(line.window_count))
    assert line.tail == line.window()[-1].rank
    assert (line.ready, line.complete) == (29, False)


def test_large_arguments_shorten_the_window() -> None:
    line = Line("q", "f")
    kept = [line.add(task(rank, size=60)) for rank in (1, 2, 3, 4)]
    assert kept == [True, True, False, False]
    assert line.window_bytes == 120
    line.add(task(0, size=60))
    assert line.overfull
    assert ranks(line.spill()) == [1, 2]
    assert (line.window_bytes, line.tail, line.complete) == (60, 0, False)
    assert not wants_refill(line)
    line.take(1, 1 << 80)
    assert wants_refill(line)


def test_one_task_larger_than_the_bound_stays() -> None:
    line = Line("q", "f")
    line.add(task(5, size=500))
    assert line.overfull
    assert line.spill() == []
    assert ranks(line.window()) == [5]


def test_a_refill_takes_in_what_changed_while_it_was_read() -> None:
    line = filled(*range(9))
    line.take(8, 1 << 80)
    assert wants_refill(line)
    line.start_refill(4)
    assert not wants_refill(line)
    line.remove(8)  # read, and cancelled meanwhile
    assert not line.add(task(12))  # staged after the scan
    assert not line.add(task(30))
    line.remove(30)
    assert not line.add(task(30))
    added = line.refill([task(8), task(10)], last=True)
    assert ranks(added) == ranks(line.window()) == [10, 12, 30]
    assert line.complete


def test_a_refill_that_does_not_reach_the_end_leaves_late_tasks_beyond_it() -> None:
    line = filled(*range(9))
    line.take(8, 1 << 80)
    line.start_refill(4)
    line.add(task(9))
    line.add(task(12))
    assert ranks(line.refill([task(8), task(10)], last=False)) == [8, 9, 10]
    assert (line.tail, line.complete) == (10, False)


def test_a_refill_that_found_nothing_but_did_not_reach_the_end_changes_nothing() -> None:
    """Every entry it scanned was gone when it was loaded: what lies behind is not known."""
    line = filled(*range(9))
    line.take(8, 1 << 80)
    line.start_refill(4)
    line.add(task(40))
    assert line.refill([], last=False) == []
    assert (line.tail, line.complete, wants_refill(line)) == (7, False, True)


def test_a_line_whose_rest_was_cancelled_is_complete_again() -> None:
    line = filled(*range(10))
    was_complete = []
    for rank in (9, 8):
        assert line.remove(rank) is None
        was_complete.append(line.complete)
    assert was_complete == [False, True]
    cancelled = line.remove(3)
    assert cancelled is not None
    assert cancelled.rank == 3
    assert ranks(line.window()) == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("seed", range(20))
def test_a_window_is_an_exact_prefix_through_any_history(seed: int) -> None:
    """Beside a list that plays the disk: tasks are added, taken, removed; refills are read late and partly."""
    rng = random.Random(seed)
    line, disk = Line("q", "f"), list[int]()
    sizes: dict[int, int] = {}
    read: tuple[list[int], bool] | None = None
    for _ in range(600):
        act = rng.randrange(7)
        if act < 3:
            rank = rng.randrange(400)
            if rank not in disk:
                sizes[rank] = rng.choice([1, 1, 30])
                insort(disk, rank)
                line.add(task(rank, sizes[rank]))
                if line.overfull:
                    line.spill()
        elif act == 3 and line.window_count:
            taken = ranks(line.take(rng.randrange(1, 5), rng.choice([200, 1 << 80])))
            assert taken == disk[: len(taken)]
            del disk[: len(taken)]
        elif act == 4 and disk:
            rank = rng.choice(disk)
            disk.remove(rank)
            line.remove(rank)
        elif act == 5 and wants_refill(line):
            line.start_refill(4)
            beyond = [rank for rank in disk if rank > line.tail]
            read = beyond[:4], len(beyond) < 4
        elif act == 6 and read is not None:
            found, last = read
            line.refill([task(rank, sizes[rank]) for rank in found], last=last)
            read = None
        assert ranks(line.window()) == disk[: line.window_count]
        assert line.ready == len(disk)
        assert line.window_bytes == sum(sizes[rank] for rank in disk[: line.window_count])
        assert not line.complete or line.window_count == line.ready


def test_when_windows_hold_enough_together_a_line_reads_what_was_granted_of_it() -> None:
    """At first a few, then as many as are used: a line that moves has a long window again."""
    line = filled(0, 1, 2)
    assert line.extend([task(3), task(4)], lean=True) == 1
    assert not line.add(task(5), lean=True)
    assert (line.tail, line.complete) == (3, False)
    assert line.wanted(lean=True) == 0, "half of what it may have is there"
    line.take(2, 1 << 128)
    assert line.wanted(lean=True) == 4
    line.note_granted(10, 1)
    assert line.wanted(lean=True) == 10
    line.note_granted(1_000, 2)
    assert line.wanted(lean=True) == line.wanted(lean=False) == 64


def test_a_window_of_few_tasks_stays_whole() -> None:
    """It costs little, and its line needs no reading."""
    line = filled(0, 1, 2)
    assert line.add(task(3), lean=True)
    assert line.complete
