"""Verdict: is what a task raised worth another attempt, and when?

Decided here, where the exception's class is: the server knows names only.
"""

from typing import NamedTuple

from taskd.client.raising import NonRetryable, RetryAfter
from taskd_protocol.task import Retry


class Verdict(NamedTuple):
    """What is to follow a failure."""

    final: bool = False
    """Nothing."""
    retry_after_ms: int | None = None
    """The next attempt, so much later; None: as the policy says."""


AS_THE_POLICY_SAYS = Verdict()
FINAL = Verdict(final=True)


def judge(error: BaseException, retry: Retry | None) -> Verdict:
    """Tell what is to follow what a task raised."""
    if isinstance(error, NonRetryable):
        return FINAL
    if isinstance(error, RetryAfter):
        return Verdict(retry_after_ms=round(error.seconds * 1_000))
    if retry is None or not (retry.on or retry.not_on):
        return AS_THE_POLICY_SAYS
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    unwanted = not names.isdisjoint(retry.not_on) or (bool(retry.on) and names.isdisjoint(retry.on))
    return FINAL if unwanted else AS_THE_POLICY_SAYS
