"""Tasks that wait for a time, and are to run now."""

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core.commands import CancelTasks, HastenStates, HastenTasks
from taskd.core.lifecycle import State
from taskd_protocol.task import Failure, Retry

HOUR_MS = 3_600_000


def test_what_waits_goes_to_its_place_in_line(shell: Shell) -> None:
    """Its delay is over; what else there is stays as it was."""
    early, late = shell.spec(delay_ms=HOUR_MS), shell.spec()
    gone = shell.spec(delay_ms=HOUR_MS)
    shell.submit(early)
    shell.submit(late)
    shell.submit(gone)
    shell.do(CancelTasks([gone.id]))
    answer = shell.do(HastenTasks([late.id, early.id, gone.id, bytes(16), early.id]))
    assert answer == HastenStates([State.READY, State.READY, State.CANCELLED, "unknown", State.READY])
    check_disk(shell.disk)
    agent = FakeAgent(shell).join(credit=2)
    assert [grant.spec.id for grant in agent.receive()] == [early.id, late.id]
    assert shell.do(HastenTasks([early.id])) == HastenStates([State.RUNNING])


def test_it_stands_in_line_as_if_it_came_now(shell: Shell) -> None:
    """Behind what is there, and not behind what comes later; over a restart, too."""
    delayed, keyed = shell.spec(delay_ms=HOUR_MS), shell.spec(delay_ms=HOUR_MS, fair_key="k")
    shell.submit(delayed, keyed)
    before, after = shell.spec(), shell.spec()
    shell.submit(before)
    shell.pass_ms(10)
    shell.do(HastenTasks([delayed.id, keyed.id]))
    shell.pass_ms(10)
    shell.submit(after)
    shell.crash()
    check_disk(shell.disk)
    plain = [grant.spec.id for grant in FakeAgent(shell).join(credit=4).receive() if not grant.spec.rules.fair_key]
    assert plain == [before.id, delayed.id, after.id]


def test_the_wait_before_another_attempt_is_over_once(shell: Shell) -> None:
    """Its timer is gone: when it would have been due nothing happens."""
    agent = FakeAgent(shell).join(credit=1)
    shell.submit(shell.spec(retry=Retry(max_attempts=3, base_ms=HOUR_MS, max_ms=HOUR_MS)))
    [grant] = agent.receive()
    shell.do(agent.nack(grant, failure=Failure("task.raised", "no row")))
    assert shell.do(HastenTasks([grant.spec.id])) == HastenStates([State.READY])
    shell.do(agent.credit(1))
    [again] = agent.receive()
    assert again.attempt == 2
    shell.pass_ms(2 * HOUR_MS)
    check_disk(shell.disk)


def test_limits_to_waiting_stay(shell: Shell) -> None:
    """A task that is put in line early has no longer to live."""
    spec = shell.spec(delay_ms=HOUR_MS, ttl_ms=2 * HOUR_MS)
    shell.submit(spec)
    shell.do(HastenTasks([spec.id]))
    shell.pass_ms(2 * HOUR_MS + 1)
    assert list(check_disk(shell.disk).values()) == [State.EXPIRED]
