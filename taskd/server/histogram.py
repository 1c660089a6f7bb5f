"""Histograms: how many of a great many numbers lie where, in plain lists of integers.

Knows nothing of what the numbers mean.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final


class Histogram:
    """Counts of whole numbers up to each bound.

    Attributes:
        bounds: Rising; a number belongs to the first that is no less.
        counts: One more than there are bounds: the last is of what is over all of them.
        total: The sum of the numbers.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def note(self, number: int, times: int = 1) -> None:
        """Count a number; one below 0 counts as 0."""
        number = max(number, 0)
        self.counts[bisect_left(self.bounds, number)] += times
        self.total += number * times

    def copy(self) -> "Histogram":
        """Return one that goes on by itself."""
        same = Histogram(self.bounds)
        same.counts, same.total = list(self.counts), self.total
        return same


def fine_bounds(largest: int, parts: int = 8) -> list[int]:
    """Return bounds whose neighbours are a part of a doubling apart: what lies between is known to some per cent."""
    bounds: list[int] = list(range(parts))
    octave = parts
    while bounds[-1] < largest:
        bounds += [octave + octave * part // parts for part in range(parts)]
        octave *= 2
    return bounds


def quantile(bounds: Sequence[int], counts: Sequence[int], share: float) -> int:
    """Return a number that so many of those counted do not exceed, as near as their bounds tell; -1: there are none.

    Args:
        bounds: Of the histogram.
        counts: Of it, or what it has counted between two instants.
        share: 0 to 1.
    """
    wanted = share * sum(counts)
    if not wanted:
        return -1
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= wanted and count:
            return bounds[min(index, len(bounds) - 1)]
    return bounds[-1]


COARSE_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 15_000, 60_000, 300_000, 1_800_000)
"""For metrics: sixteen, since each queue has two such rows."""

FINE_MS: Final = tuple(fine_bounds(7 * 24 * 3600 * 1000))
"""For quantiles of all queues together, up to a week."""
