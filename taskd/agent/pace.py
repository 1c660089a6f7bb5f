"""Pace: how long tasks run, and so how many are worth holding ahead of a free slot.

A task of microseconds costs more to fetch than to run, so hundreds are held; a
task of seconds that waits here could be running on another agent, so none is.

Pure: run times are handed in.
"""

PREFETCH_MAX = 4_000
"""Leases of one pool held beyond its slots: what the fastest tasks use up while a server makes two commits, the one
that is under way when more is asked for and the one that grants it. With 2,000, agents ran dry between two: 5 % of the
throughput."""

PREFETCH_PER_SAMPLE = 8
"""Held ahead at most so many times what was seen to run: an unknown pace is approached in a few batches."""

AHEAD_US = 50_000.0
"""Work that each slot holds ahead. A task that takes longer than this is not held ahead at all."""

OVERHEAD_US = 10.0
"""What a task costs when its function does nothing: no pace is taken to be faster."""

_WEIGHT = 1 / 16
"""Of one run in the mean. Means follow the long runs at once and forget them slowly, which errs to the safe side."""


class Pace:
    """The moving mean of run times, of one task name or of all that a pool runs.

    Attributes:
        mean_us: Microseconds, exponentially weighted; at least ``OVERHEAD_US`` once anything ran.
        samples: Runs seen.
    """

    __slots__ = ("mean_us", "samples")

    def __init__(self) -> None:
        self.mean_us = OVERHEAD_US
        self.samples = 0

    def add(self, run_us: float, runs: int = 1) -> None:
        """Take in ``runs`` runs that took ``run_us`` on average."""
        weight = 1.0 if not self.samples else 1 - (1 - _WEIGHT) ** runs
        self.mean_us += (max(run_us, OVERHEAD_US) - self.mean_us) * weight
        self.samples += runs

    def ahead(self, slots: int) -> int:
        """Return how many leases are worth holding beyond ``slots`` that all run."""
        if not self.samples or self.mean_us >= AHEAD_US:
            return 0
        return min(PREFETCH_MAX, PREFETCH_PER_SAMPLE * self.samples, int(slots * AHEAD_US / self.mean_us))
