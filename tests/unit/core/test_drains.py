"""Drains: an agent that rests and a queue that takes nothing new, until a person says so."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core.commands import OrderAgent, OrderQueue, RetryTasks
from taskd.core.effects import SendDrain
from taskd.core.lifecycle import State
from taskd.core.reasons import why_waiting
from taskd_protocol.errors import AgentUnknown, BadRequest, QueueDraining
from taskd_protocol.task import Retry


def test_a_drained_agent_is_granted_nothing_more(shell: Shell) -> None:
    """It is told to give back what it has not started; what runs counts as ever; resumed, it works on."""
    agent = FakeAgent(shell).join(credit=2)
    shell.submit(shell.spec())
    [grant] = agent.receive()
    shell.do(OrderAgent("a1", drain=True))
    assert shell.take_told(SendDrain) == [SendDrain("a1", agent.connection)]
    waits = shell.spec()
    shell.submit(waits)
    shell.do(agent.ack(grant))
    assert agent.receive() == []
    assert "taskd agents resume" in why_waiting(shell.working, State.READY, "default", "m.f")
    shell.do(OrderAgent("a1", drain=False))
    assert [grant.spec.id for grant in agent.receive()] == [waits.id]


def test_an_agent_stays_drained_over_its_next_life_and_the_servers(shell: Shell) -> None:
    """It is told again when it connects; another agent works meanwhile."""
    FakeAgent(shell).join()
    shell.do(OrderAgent("a1", drain=True))
    shell.crash()
    shell.take_told(SendDrain)
    again = FakeAgent(shell, boot_id=b"boot-2").join(credit=1)
    assert shell.take_told(SendDrain) == [SendDrain("a1", again.connection)]
    shell.submit(shell.spec())
    assert again.receive() == []
    assert len(FakeAgent(shell, "a2").join(credit=1).receive()) == 1
    shell.do(again.lose())
    shell.do(OrderAgent("a1", drain=False))
    shell.submit(shell.spec())
    assert len(FakeAgent(shell, boot_id=b"boot-3").join(credit=1).receive()) == 1


def test_an_order_to_an_agent_that_nobody_knows_is_refused(shell: Shell) -> None:
    """A slip of the pen is not an order for some day."""
    for drain in (True, False):
        with pytest.raises(AgentUnknown, match="taskd agents ls"):
            shell.do(OrderAgent("nobody", drain=drain))


def test_a_drained_queue_refuses_new_tasks_and_runs_what_is_there(shell: Shell) -> None:
    """All of a submit is refused, also over a restart; a resend of what was accepted is answered, a retry goes in."""
    agent = FakeAgent(shell).join()
    there, other = shell.spec(retry=Retry(1)), shell.spec(queue="other")
    shell.submit(there, other)
    shell.do(OrderQueue("default", drain=True))
    shell.do(OrderQueue("default", drain=True))
    shell.crash()
    with pytest.raises(QueueDraining, match="taskd queue resume"):
        shell.submit(shell.spec(queue="other"), shell.spec())
    assert len(shell.submit(there).existing) == 1
    shell.submit(shell.spec(queue="other"))
    agent = FakeAgent(shell, queues=["default"]).join(credit=1)
    [grant] = agent.receive()
    shell.do(agent.nack(grant))
    shell.do(RetryTasks([there.id]))
    shell.do(agent.credit(1))
    assert [grant.spec.id for grant in agent.receive()] == [there.id]
    shell.do(OrderQueue("default", drain=False))
    shell.do(OrderQueue("default", drain=False))
    shell.submit(shell.spec())
    check_disk(shell.disk)


def test_a_queues_name_is_checked(shell: Shell) -> None:
    """As in a submit."""
    with pytest.raises(BadRequest):
        shell.do(OrderQueue("", drain=True))
