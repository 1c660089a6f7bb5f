"""Events: what a turn tells of what it has changed.

That each move of a task is told, and the last one right, is looked at in every turn of the harness.
"""

from harness.agent import FakeAgent
from harness.core import Shell
from harness.workflows import Graph, Run
from taskd.core.commands import OrderQueue
from taskd.core.events import Event, Noted, TasksMoved
from taskd_protocol.task import Retry


def moves(shell: Shell) -> list[tuple[str, int, list[bytes]]]:
    return [(e.what, e.attempt, e.ids) for e in told(shell) if isinstance(e, TasksMoved)]


def told(shell: Shell) -> list[Event]:
    events, shell.events = shell.events, []
    return events


def notes(shell: Shell) -> list[tuple[str, str]]:
    return [(event.what, event.name) for event in told(shell) if isinstance(event, Noted)]


def test_what_happens_to_tasks_together_is_one_event(shell: Shell) -> None:
    specs = [shell.spec() for _ in range(3)]
    ids = [spec.id for spec in specs]
    shell.submit(*specs)
    shell.jump_ms(40)
    agent = FakeAgent(shell).join(credit=5)
    grants = agent.receive()
    told(shell)
    shell.submit(*[shell.spec() for _ in range(2)])
    more = agent.receive()
    assert moves(shell) == [
        (what, n, [g.spec.id for g in more]) for what, n in (("task.submitted", 0), ("task.running", 1))
    ]
    shell.do(agent.ack(*grants))
    [event] = told(shell)
    assert event == TasksMoved("task.succeeded", specs[0].queue, "m.f", "a1", 1, ids, [shell.wall_ms - 1] * 3)


def test_an_attempt_tells_how_long_it_waited_and_ran(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=5)
    shell.submit(shell.spec(retry=Retry(3, base_ms=100)))
    [grant] = agent.receive()
    told(shell)
    shell.do(agent.nack(grant))
    failed, scheduled = told(shell)
    assert isinstance(failed, TasksMoved)
    assert (failed.what, failed.code, failed.spans_ms) == ("attempt.failed", "task.raised", [shell.wall_ms - 1])
    assert isinstance(scheduled, TasksMoved)
    assert (scheduled.what, scheduled.code, scheduled.spans_ms) == ("task.scheduled", "task.raised", [])
    shell.jump_ms(500)
    assert [what for what, _, _ in moves(shell)] == ["task.ready", "task.running"]


def test_what_is_no_task_tells_of_itself_once_a_turn(shell: Shell) -> None:
    shell.do(OrderQueue("images", drain=True))
    shell.do(OrderQueue("images", drain=False))
    assert notes(shell) == [("queue.changed", "images"), ("queue.removed", "images")]
    agent = FakeAgent(shell).join(credit=5)
    shell.do(agent.lose())
    assert notes(shell) == [("agent.connected", "a1"), ("agent.disconnected", "a1")]


def test_a_workflow_tells_where_it_stands(shell: Shell) -> None:
    run = Run(shell, Graph().add("a"))
    run.agent.join(credit=5)
    shell.do(run.agent.ack(*run.agent.receive()))
    shell.settle()
    told_of = [event for event in told(shell) if isinstance(event, Noted) and event.what.startswith("workflow.")]
    assert {event.name for event in told_of} == {"report"}
    assert {event.id for event in told_of} == {run.id}
    assert told_of[0].what == "workflow.running"
    assert told_of[-1].what == "workflow.succeeded"


def test_tasks_that_are_dealt_out_together_are_told_line_by_line(shell: Shell) -> None:
    """Each event is of one queue and one name."""
    specs = [shell.spec(name, queue=queue) for queue in ("a", "b") for name in ("m.f", "m.g", "m.f")]
    shell.submit(*specs)
    told(shell)
    FakeAgent(shell, names=["m.f", "m.g"]).join(credit=9)
    running = [event for event in told(shell) if isinstance(event, TasksMoved)]
    assert sorted((event.queue, event.name, event.ids) for event in running) == sorted(
        (queue, name, [spec.id for spec in specs if (spec.queue, spec.name) == (queue, name)])
        for queue in ("a", "b")
        for name in ("m.f", "m.g")
    )
    assert all(len(event.spans_ms) == len(event.ids) for event in running)
