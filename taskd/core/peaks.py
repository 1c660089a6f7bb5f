"""Peaks: how much memory attempts of a task name have come to hold, and what that proposes for the next.

A histogram in steps of a fifth, in which older peaks count for less and less.
"""

import math
from typing import Final

from taskd.core.records import PeaksRecord

STEP: Final = 1.2
"""Each step of a histogram is so many times the one before."""

SHARE: Final = 0.95
"""Of the attempts, that a proposal would have been enough for."""

MARGIN: Final = 1.25
"""What is proposed above that."""

SAMPLES_MAX: Final = 1_000
"""Peaks of one name; then all counts are halved, so that a change of the work shows within some hundred."""

UNKNOWN_BYTES: Final = 512 << 20
"""Asked for by a task of which nothing is known yet."""

PROPOSED_BYTES_MIN: Final = 16 << 20
"""An interpreter alone takes more."""


def proposal(peaks: PeaksRecord | None) -> int:
    """Return the bytes to ask for."""
    if peaks is None or not peaks.counts:
        return UNKNOWN_BYTES
    enough = math.ceil(sum(peaks.counts.values()) * SHARE)
    for step, count in sorted(peaks.counts.items()):
        enough -= count
        if enough <= 0:
            return max(PROPOSED_BYTES_MIN, math.ceil(STEP ** (step + 1) * MARGIN))
    raise AssertionError("the counts add up to their sum")


def added(peaks: PeaksRecord | None, peak: int) -> PeaksRecord:
    """Return them with one more, of so many bytes, at least 1."""
    counts = dict(peaks.counts) if peaks is not None else {}
    step = int(math.log(peak, STEP))
    counts[step] = counts.get(step, 0) + 1
    if sum(counts.values()) > SAMPLES_MAX:
        counts = {at: count // 2 for at, count in counts.items() if count > 1}
    return PeaksRecord(counts, max(peak, peaks.highest if peaks is not None else 0))
