"""Which failures are worth another attempt, and when: what the policy names, and what the task's own code says."""

import pytest

from taskd import NonRetryable, RetryAfter
from taskd.agent import wire
from taskd.agent.worker.verdict import AS_THE_POLICY_SAYS, FINAL, Verdict, judge
from taskd_protocol.task import Grant, Retry, TaskSpec
from unit.agent.conftest import Hire
from unit.agent.workshop import call


class Declined(NonRetryable):
    pass


class Limited(RetryAfter):
    pass


LOOKUPS = Retry(on=["builtins.LookupError"])
NO_KEYS = Retry(not_on=["builtins.KeyError"])
LOOKUPS_BUT_KEYS = Retry(on=["builtins.LookupError"], not_on=["builtins.KeyError"])


@pytest.mark.parametrize(
    ("error", "retry", "verdict"),
    [
        (ValueError(), None, AS_THE_POLICY_SAYS),
        (ValueError(), Retry(), AS_THE_POLICY_SAYS),
        (KeyError(), LOOKUPS, AS_THE_POLICY_SAYS),
        (ValueError(), LOOKUPS, FINAL),
        (KeyError(), NO_KEYS, FINAL),
        (LookupError(), NO_KEYS, AS_THE_POLICY_SAYS),
        (IndexError(), LOOKUPS_BUT_KEYS, AS_THE_POLICY_SAYS),
        (KeyError(), LOOKUPS_BUT_KEYS, FINAL),
        (Declined(), None, FINAL),
        (Declined(), Retry(on=[f"{__name__}.Declined"]), FINAL),
        (RetryAfter(2.5), None, Verdict(retry_after_ms=2_500)),
        (Limited(0, "soon"), LOOKUPS, Verdict(retry_after_ms=0)),
    ],
)
def test_a_failure_is_judged_by_its_classes(error: BaseException, retry: Retry | None, verdict: Verdict) -> None:
    """By all that it derives from; what the code says of itself counts before any policy."""
    assert judge(error, retry) == verdict


def with_policy(grant: Grant, retry: Retry) -> Grant:
    spec = grant.spec
    return Grant(grant.token, grant.attempt, TaskSpec(spec.id, spec.name, spec.payload, spec.queue, retry=retry))


@pytest.mark.parametrize("kind", ["process", "asyncio"])
async def test_a_worker_tells_its_verdict(hire: Hire, kind: str) -> None:
    """Blocking or not, with the failure."""
    bench = await hire(kind)
    prefix = "a" if kind == "asyncio" else ""
    ends: list[tuple[str, bool, int | None]] = []
    for name, policy in [("later", Retry()), ("never", Retry()), ("key", LOOKUPS_BUT_KEYS)]:
        bench.give(with_policy(call(len(ends) + 1, f"{prefix}judged", name), policy))
        end = await bench.next()
        assert isinstance(end, wire.Raised)
        ends.append((end.failure.type, end.final, end.retry_after_ms))
    assert ends == [
        ("taskd.client.raising.RetryAfter", False, 1_500),
        ("taskd.client.raising.NonRetryable", True, None),
        ("builtins.KeyError", True, None),
    ]


@pytest.mark.parametrize(
    ("seconds", "wait_ms"),
    [
        (1.5, 1_500),
        (-1, 0),
        (1e18, 316_224_000_000),
        (float("inf"), 316_224_000_000),
        (float("nan"), None),
        ("5", None),
    ],
)
def test_a_class_that_sets_no_proper_wait_harms_nobody(seconds: object, wait_ms: int | None) -> None:
    """One that derives from `RetryAfter` and skips its checks: the server would refuse it, with its agent."""

    class RateLimited(RetryAfter):
        def __init__(self) -> None:
            self.seconds = seconds  # type: ignore[assignment]

    assert judge(RateLimited(), None) == Verdict(retry_after_ms=wait_ms)


def test_a_class_that_sets_no_wait_at_all_waits_as_the_policy_says() -> None:
    class Later(RetryAfter):
        def __init__(self) -> None:
            """Forget the seconds."""

    assert judge(Later(), None) == Verdict()
