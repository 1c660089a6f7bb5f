"""Reasons: each names what keeps a task waiting, and what would help."""

from harness.agent import FakeAgent
from harness.core import Shell
from taskd.core.commands import CancelTasks
from taskd.core.reasons import why_cancelling, why_waiting


def why(shell: Shell, state: str = "ready", queue: str = "default", name: str = "m.f") -> str:
    return why_waiting(shell.working, state, queue, name)


def test_the_reason_changes_as_what_it_asks_for_is_done(shell: Shell) -> None:
    assert "no agent is connected" in why(shell)
    agent = FakeAgent(shell, names=["m.other"]).join()
    assert "no connected agent has a task named 'm.f'" in why(shell)
    picky = FakeAgent(shell, "a2", queues=["other"]).join()
    assert "serves queue 'default'" in why(shell)
    able = FakeAgent(shell, "a3").join()
    assert why(shell) == "every agent that could run it is busy"
    shell.do(able.credit(1))
    assert why(shell) == "is about to be placed"
    shell.do(able.drain())
    assert why(shell) == "every agent that could run it is draining"
    for each in (agent, picky, able):
        shell.do(each.lose())
    assert "no agent is connected" in why(shell)


def test_only_a_task_that_waits_has_a_reason(shell: Shell) -> None:
    assert why(shell, "scheduled") == "waits for its time"
    assert [why(shell, state) for state in ("running", "succeeded", "dead", "cancelled", "unknown")] == [""] * 5


def test_what_is_to_end_on_an_agent_that_is_away_says_so(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=1)
    spec = shell.spec()
    shell.submit(spec)
    agent.receive()
    shell.do(CancelTasks([spec.id]))
    assert "prove" in why_cancelling(shell.working, "a1")
    shell.do(agent.lose())
    assert "a1 is not connected" in why_cancelling(shell.working, "a1")
    assert "--force" in why_cancelling(shell.working, "a1")
