"""Limits: nothing is ended early, everything in time, each thing once."""

import pytest

from taskd.agent.core import AgentCore, Kill
from taskd.agent.limits import Breach, How, Limits
from taskd.agent.progress import MESSAGE_BYTES, Progress
from taskd.agent.wire import Raised
from taskd_protocol.agent_messages import Checkpoints, LeaseCredit, Nack, Offered, Recorded, Revoke
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Checkpoint, Failure, FailureReport, Grant, Pool, Rules, TaskSpec
from unit.agent.making import grant, lease, task_id, welcome
from unit.agent.workshop import limited

FOREVER = 1 << 60


def look(limits: Limits, now_ms: int, *, touch_until_ms: int = FOREVER) -> list[tuple[How, str, bool]]:
    return [
        (b.how, b.failure.code if b.failure else "", b.show)
        for b in limits.look(lambda token: token == 1, now_ms, touch_until_ms)
    ]


def due(in_ms: int) -> Grant:
    """A lease that has a deadline."""
    return Grant(1, 1, TaskSpec(task_id(1), "m.f", given=Rules(deadline_ms=60_000)), in_ms)


def watching(given: Grant, *, runs: bool = True) -> Limits:
    """Limits that hold the lease, and looked when it began to run, at 1 s."""
    limits = Limits()
    limits.hold(0, given)
    if runs:
        limits.started(given.token)
    assert look(limits, 1_000) == []
    return limits


def test_a_plain_lease_is_not_watched() -> None:
    core = connected()
    core.receive(lease(1, [grant(1), limited(grant(2), timeout_ms=5_000)]))
    assert core.limits.timed([grant(1), grant(2)]) == [2]
    core.failed(0, Raised(2, Failure("task.raised", "no"), 0, 1.0))
    core.look(1_000)
    core.started(1)
    core.beat(0, 1, b"")
    core.limits.waits(1)
    assert not core.watches


def test_told_at_the_soft_timeout_and_forced_at_the_hard_one() -> None:
    """Its stacks are kept the first time."""
    limits = watching(limited(grant(1), soft_ms=2_000, timeout_ms=5_000))
    assert look(limits, 2_999) == []
    assert look(limits, 3_000) == [(How.TELL, TaskCodes.TIMED_OUT, True)]
    assert look(limits, 5_999) == []
    assert look(limits, 6_000) == [(How.FORCE, TaskCodes.TIMED_OUT, False)]
    assert look(limits, 60_000) == []


def test_a_lease_that_waits_has_no_timeout() -> None:
    limits = watching(limited(grant(1), timeout_ms=500, heartbeat_ms=500), runs=False)
    assert look(limits, 9_000) == []
    limits.started(1)
    assert look(limits, 10_000) == []
    assert look(limits, 10_500) == [(How.FORCE, TaskCodes.TIMED_OUT, True)]


def test_a_lease_that_waits_has_a_deadline() -> None:
    """From its arrival: it is then ended without having begun."""
    limits = watching(due(4_000), runs=False)
    assert look(limits, 4_999) == []
    assert look(limits, 5_000) == [(How.FORCE, TaskCodes.DEADLINE, False)]


def test_a_sign_puts_off_a_stall_and_no_timeout() -> None:
    limits = watching(limited(grant(1), heartbeat_ms=1_000, timeout_ms=4_000))
    for now_ms in (1_900, 2_800, 3_700):
        limits.beat(1)
        assert look(limits, now_ms) == []
    assert look(limits, 4_700) == []
    assert look(limits, 4_701) == [(How.FORCE, TaskCodes.STALLED, True)]


def test_an_attempt_that_is_run_again_begins_its_time_anew() -> None:
    limits = watching(limited(grant(1), timeout_ms=1_000))
    limits.waits(1)
    assert look(limits, 9_000) == []
    limits.started(1)
    assert look(limits, 9_500) == []
    assert look(limits, 10_500) == [(How.FORCE, TaskCodes.TIMED_OUT, True)]


def test_an_exclusive_attempt_is_killed_when_touch_is_lost() -> None:
    limits = watching(limited(grant(1), exclusive=True))
    assert limits.exclusive
    assert look(limits, 6_999, touch_until_ms=7_000) == []
    assert look(limits, 7_000, touch_until_ms=7_000) == [(How.KILL, "", False)]
    assert look(limits, 8_000, touch_until_ms=7_000) == []


def test_what_is_no_longer_held_is_forgotten() -> None:
    limits = watching(limited(grant(1), timeout_ms=1_000))
    assert limits.look(lambda _: False, 9_000, FOREVER) == []
    assert not limits


# -- in the core ------------------------------------------------------------------------


def connected() -> AgentCore:
    core = AgentCore([Pool("process", 4, ["m.f"])])
    core.welcome(welcome(), 0)
    core.receive(Offered())
    core.messages()
    return core


def held(core: AgentCore, *given: Grant) -> None:
    core.receive(lease(1, list(given)))
    assert core.look(1_000) == []


def nacks(core: AgentCore) -> list[FailureReport]:
    return [each for message in core.messages() if isinstance(message, Nack) for each in message.failures]


def test_what_was_raised_after_a_limit_is_told_as_the_limit() -> None:
    """With the place where it was raised."""
    core = connected()
    held(core, limited(grant(1), soft_ms=500))
    core.started(1)
    assert core.look(2_000) == []
    assert core.look(2_500) == [Kill(0, [1], How.TELL, show=True)]
    core.failed(0, Raised(1, Failure("task.raised", "stop", "m.Stop", "Traceback"), 5, 1.0, final=True))
    [report] = nacks(core)
    assert (report.outcome, report.started_at_ms, report.final) == ("failed", 5, False)
    assert report.failure is not None
    assert (report.failure.code, report.failure.type, report.failure.traceback) == (
        TaskCodes.TIMED_OUT,
        "m.Stop",
        "Traceback",
    )


def test_a_cancel_comes_before_a_limit() -> None:
    core = connected()
    held(core, limited(grant(1), timeout_ms=500))
    core.started(1)
    core.look(2_000)
    core.receive(Revoke([1]))
    assert core.look(2_500) == [Kill(0, [1], How.FORCE, show=True)]
    core.crashed(0, 1, Failure("worker.killed", "killed"))
    assert [report.outcome for report in nacks(core)] == ["cancelled"]


@pytest.mark.parametrize(("heartbeat_ms", "until_ms"), [(5_000, 7_000), (500, 700)])
def test_touch_is_counted_from_the_sending_of_what_was_answered(heartbeat_ms: int, until_ms: int) -> None:
    """Less than a heartbeat and a fifth is left then of the time after which the lease would be given away."""
    core = AgentCore([Pool("process", 4, ["m.f"])])
    core.welcome(welcome(heartbeat_ms=heartbeat_ms), 0)
    core.receive(Offered())
    core.answered(10_000)
    core.receive(lease(1, [limited(grant(1), exclusive=True)]))
    assert core.look(10_000 + until_ms - 1) == []
    core.answered(9_000)  # that answer was late
    assert core.look(10_000 + until_ms) == [Kill(0, [1], How.KILL)]
    core.dropped(0, 1)
    assert [report.outcome for report in nacks(core)] == ["released"]


def test_a_report_follows_its_stacks_and_its_progress() -> None:
    core = connected()
    held(core, grant(1))
    core.beat(0, 1, b"\x01")
    core.beat(0, 1, b"\x02")
    core.said(core.pools[0].held[1], 3, b"stacks", 7, 7)
    core.failed(0, Raised(1, Failure("task.raised", "no"), 0, 1.0))
    kinds = [type(message) for message in core.messages()]
    assert [kind.__name__ for kind in kinds if kind is not LeaseCredit] == ["Checkpoints", "Logs", "Nack"]


def test_progress_is_sent_again_until_its_report_is_recorded() -> None:
    """The latest only."""
    core = connected()
    held(core, grant(1))
    core.beat(0, 1, b"\x01")
    assert core.messages() == []
    core.look(1_200)
    assert core.messages() == [Checkpoints([Checkpoint(1, task_id(1), b"\x01")])]
    core.failed(0, Raised(1, Failure("task.raised", "no"), 0, 1.0))
    core.welcome(welcome(), 0)
    core.receive(Offered())
    first, *_ = [message for message in core.messages() if isinstance(message, Checkpoints | Nack)]
    assert first == Checkpoints([Checkpoint(1, task_id(1), b"\x01")])
    core.receive(Recorded([1]))
    core.look(1_400)
    core.welcome(welcome(), 0)
    core.receive(Offered())
    assert not [message for message in core.messages() if isinstance(message, Checkpoints)]
    assert not core.watches


def test_a_message_of_progress_fits_a_frame() -> None:
    progress = Progress()
    for token in range(1, 9):
        progress.tell(Checkpoint(token, task_id(token), bytes(MESSAGE_BYTES // 3)))
    progress.look(lambda _: True, {})
    assert [len(message.checkpoints) for message in progress.messages()] == [3, 3, 2]
    assert progress.messages() == []


def test_a_breach_names_its_pool() -> None:
    limits = Limits()
    limits.hold(2, due(1))
    [] = limits.look(lambda token: token == 1, 0, FOREVER)
    [breach] = limits.look(lambda token: token == 1, 1, FOREVER)
    assert isinstance(breach, Breach)
    assert (breach.pool, breach.token) == (2, 1)
