"""Checkpoints: the last one goes with the next attempt, over restarts, and ends with the task."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from taskd.core import records
from taskd.core.commands import CancelTasks
from taskd.core.records import LeaseRecord, StateRecord
from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import DETAILS_BYTES_MAX
from taskd_protocol.task import Grant, Retry


@pytest.fixture
def agent(shell: Shell) -> FakeAgent:
    return FakeAgent(shell).join(credit=100)


def lease(shell: Shell, agent: FakeAgent, *details: bytes) -> Grant:
    """Have the agent run a new task, which tells how far it has come."""
    shell.submit(shell.spec(retry=Retry(5, base_ms=500)))
    [grant] = agent.receive()
    for each in details:
        shell.do(agent.checkpoint(grant, each))
    return grant


def test_the_last_details_go_with_the_next_attempt(shell: Shell, agent: FakeAgent) -> None:
    """After a failure as after a lost agent, and the first attempt has none."""
    grant = lease(shell, agent, b"\x01", b"\x02")
    assert grant.details == b""
    shell.do(agent.nack(grant))
    shell.pass_ms(700)
    [second] = agent.receive()
    assert (second.attempt, second.details) == (2, b"\x02")
    shell.do(agent.checkpoint(second, b"\x03"))
    shell.do(agent.lose())
    shell.pass_ms(16_000)
    [third] = FakeAgent(shell, "a2").join(credit=1).receive()
    assert (third.attempt, third.details) == (3, b"\x03")


def test_details_outlive_a_restart(shell: Shell, agent: FakeAgent) -> None:
    """Of a leased task, and of one that waits and was not in memory."""
    leased, waiting = lease(shell, agent, b"\x01"), lease(shell, agent, b"\x02")
    shell.do(agent.nack(waiting))
    shell.crash()
    shell.tick()
    shell.pass_ms(700)
    shell.crash()
    shell.tick()
    assert shell.working.tasks[leased.spec.id].details == b"\x01"
    [again] = FakeAgent(shell, "a2").join(credit=1).receive()
    assert (again.spec, again.details) == (waiting.spec, b"\x02")


@pytest.mark.parametrize("end", ["ack", "dead", "cancel", "cancel waiting"])
def test_details_end_with_their_task(shell: Shell, agent: FakeAgent, end: str) -> None:
    grant = lease(shell, agent, b"\x01")
    assert shell.disk.get(records.LEASE, grant.spec.id, LeaseRecord).has_details
    if end == "ack":
        shell.do(agent.ack(grant))
    elif end == "cancel":
        shell.do(CancelTasks([grant.spec.id]))
        shell.do(agent.nack(grant, outcome="cancelled"))
    elif end == "cancel waiting":
        shell.do(agent.nack(grant))
        shell.do(CancelTasks([grant.spec.id]))
    else:
        shell.working.tasks[grant.spec.id].failures = 4
        shell.do(agent.nack(grant))
    assert not shell.disk.scan(records.DETAILS)
    assert not shell.disk.get(records.STATE, grant.spec.id, StateRecord).has_details


def test_stale_details_change_nothing(shell: Shell, agent: FakeAgent) -> None:
    grant = lease(shell, agent)
    shell.do(agent.ack(grant))
    before = dict(shell.disk.values)
    shell.do(agent.checkpoint(grant, b"\x01"))
    shell.do(FakeAgent(shell, "a2").join().checkpoint(grant, b"\x01"))
    assert shell.disk.values == before


@pytest.mark.parametrize("details", [b"", bytes(DETAILS_BYTES_MAX + 1)])
def test_details_out_of_range_are_refused(shell: Shell, agent: FakeAgent, details: bytes) -> None:
    grant = lease(shell, agent)
    with pytest.raises(BadRequest, match="details"):
        shell.do(agent.checkpoint(grant, details))
