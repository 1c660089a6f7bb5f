"""Verdict: is what a task raised worth another attempt, and when?

Decided here, where the exception's class is: the server knows names only.
"""

import math
from typing import NamedTuple

from taskd.client.family import AttemptWaiting
from taskd.client.raising import SECONDS_MAX, NonRetryable, RetryAfter
from taskd_protocol.task import Retry


class Verdict(NamedTuple):
    """What is to follow a failure."""

    final: bool = False
    """Nothing."""
    retry_after_ms: int | None = None
    """The next attempt, so much later; None: as the policy says."""
    waits: bool = False
    """It has not failed: the next attempt comes when what it has spawned has ended."""


AS_THE_POLICY_SAYS = Verdict()
FINAL = Verdict(final=True)
WAITS = Verdict(waits=True)


def judge(error: BaseException, retry: Retry | None) -> Verdict:
    """Tell what is to follow what a task raised."""
    if isinstance(error, AttemptWaiting) or (
        isinstance(error, BaseExceptionGroup) and error.split(AttemptWaiting)[1] is None  # raised within a nursery
    ):
        return WAITS
    if isinstance(error, NonRetryable):
        return FINAL
    if isinstance(error, RetryAfter):
        return Verdict(retry_after_ms=_wait_ms(error))
    if retry is None or not (retry.on or retry.not_on):
        return AS_THE_POLICY_SAYS
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    unwanted = not names.isdisjoint(retry.not_on) or (bool(retry.on) and names.isdisjoint(retry.on))
    return FINAL if unwanted else AS_THE_POLICY_SAYS


def _wait_ms(error: RetryAfter) -> int | None:
    """Return the wait that is asked for; None where a class of the user's own has set it to what is none."""
    seconds: object = getattr(error, "seconds", None)
    if not isinstance(seconds, int | float) or math.isnan(seconds):
        return None
    return round(min(max(seconds, 0), SECONDS_MAX) * 1_000)
