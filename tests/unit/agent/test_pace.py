from taskd.agent.pace import OVERHEAD_US, PREFETCH_MAX, Pace


def paced(run_us: float, runs: int) -> Pace:
    pace = Pace()
    pace.add(run_us, runs)
    return pace


def test_nothing_is_held_ahead_of_an_unknown_pace() -> None:
    assert Pace().ahead(8) == 0


def test_tasks_of_microseconds_are_held_in_thousands_and_tasks_of_50_ms_not_at_all() -> None:
    """Throughput for the small, no waiting behind the large."""
    assert paced(5, 10_000).ahead(2) == PREFETCH_MAX
    assert paced(1_000, 10_000).ahead(2) == 100
    assert paced(49_000, 10_000).ahead(4) == 4
    assert paced(50_000, 10_000).ahead(4) == 0
    assert paced(3_600e6, 1).ahead(4) == 0


def test_an_unknown_pace_is_approached_in_a_few_batches() -> None:
    """From the first result of a microsecond task to full prefetch within five rounds, and never by a leap."""
    pace, rounds, ahead = Pace(), 0, 2
    while ahead < PREFETCH_MAX:
        pace.add(1, ahead)
        rounds += 1
        assert pace.ahead(2) <= 9 * ahead + 16
        ahead = 2 + pace.ahead(2)
    assert rounds <= 5


def test_one_long_run_among_many_short_ones_ends_the_prefetch() -> None:
    pace = paced(10, 10_000)
    pace.add(2_000_000)
    assert pace.ahead(4) == 0
    for _ in range(60):
        pace.add(10)
    assert pace.ahead(4) > 0, "and it comes back when they are short again"


def test_a_batch_counts_as_its_runs_do_one_by_one() -> None:
    together, apart = paced(1_000, 5), paced(1_000, 5)
    together.add(3_000, 20)
    for _ in range(20):
        apart.add(3_000)
    assert abs(together.mean_us - apart.mean_us) < 1e-6
    assert together.samples == apart.samples


def test_no_task_is_taken_to_cost_nothing() -> None:
    assert paced(0, 100).mean_us == OVERHEAD_US
