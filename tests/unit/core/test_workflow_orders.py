"""Orders in the core: what is resumed, or run again, while other things happen, and after a crash."""

import pytest

from harness.core import Shell
from harness.fsck import check_disk
from harness.workflows import Graph, Run
from taskd.core import records
from taskd.core.commands import ReleaseDue
from taskd.core.timers import timer_id
from taskd.core.workflow_commands import OrderWorkflow, SignalWorkflow
from taskd.core.workflow_records import NodeRecord
from taskd.core.workflows import ORDERS_KEPT
from taskd_protocol.errors import BadRequest, ServerBusy, WorkflowEnded
from taskd_protocol.payload import pack
from taskd_protocol.workflow import Choice


def items(count: int, in_flight_max: int = 0) -> Graph:
    """Return a node that maps over so many."""
    graph = Graph().add("items", kind="value", packed=pack(list(range(count))))
    return graph.add("each", "items", kind="map", over=0, in_flight_max=in_flight_max)


def test_a_success_that_is_run_again_is_accounted_for(shell: Shell) -> None:
    """With attempts before and after it that failed: all that is kept of them is found, and what it weighs."""
    run = Run(shell, Graph().add("a"))
    for _ in range(2):
        grant = run.take()["a"]
        shell.do(run.agent.nack(grant))
        run.agent.held.pop(grant.token)
        shell.pass_ms(10_000)
        run.work()
        shell.do(OrderWorkflow(run.id, "rerun", "a"))
        check_disk(shell.disk)
    run.work()
    assert len(shell.disk.scan(records.ATTEMPT)) == 2


@pytest.mark.parametrize("crash", [False, True])
def test_a_node_that_maps_is_run_again(shell: Shell, *, crash: bool) -> None:
    """Itself, and not for one before it."""
    run = Run(shell, items(3)).work()
    run.ran.clear()
    shell.do(OrderWorkflow(run.id, "rerun", "each"))
    if crash:
        run.crash()
    run.work()
    assert run.ran == ["each[0]", "each[1]", "each[2]"]
    assert run.record.state == "succeeded"


def test_a_node_that_fails_while_it_is_read_is_resumed(shell: Shell) -> None:
    """Its end comes after a start, before its workflow is read, and so does the order."""
    run = Run(shell, Graph().add("a").add("b"))
    grant = run.take()["a"]
    shell.crash()
    shell.ask(run.agent.offer())
    shell.ask(run.agent.nack(grant, final=True))
    shell.turn()
    shell.ask(OrderWorkflow(run.id, "rerun", "a"))
    [waiting] = shell.waiting
    with pytest.raises(ServerBusy, match="is being read"):
        shell.feed(waiting)
    shell.ask(OrderWorkflow(run.id, "resume"))
    shell.settle()
    run.crash()
    shell.pass_ms(20_000)
    run.work()
    assert sorted(run.ran) == ["a", "a", "b", "b"]
    assert run.record.state == "succeeded"


def halt(run: Run) -> None:
    """Cancel, and end what runs."""
    run.shell.do(OrderWorkflow(run.id, "cancel"))
    run.agent.receive()
    for grant in list(run.agent.held.values()):
        run.shell.do(run.agent.nack(grant, outcome="cancelled"))
    run.agent.held.clear()
    assert run.record.state == "cancelled"


@pytest.mark.parametrize("crash", [False, True])
def test_children_of_before_do_not_count_in_a_map_that_was_stopped_halfway(shell: Shell, *, crash: bool) -> None:
    run = Run(shell, items(10, in_flight_max=2)).work()
    shell.do(OrderWorkflow(run.id, "rerun", "each"))
    for grant in run.take().values():
        run.ack(grant)
    run.take()
    halt(run)
    run.ran.clear()
    for _ in range(2):
        shell.do(OrderWorkflow(run.id, "resume"))
        if crash:
            run.crash()
        run.take()
        halt(run)
        assert run.ran == ["each[2]", "each[3]"]
        run.ran.clear()
    shell.do(OrderWorkflow(run.id, "resume"))
    run.work()
    assert sorted(run.ran) == [f"each[{child}]" for child in range(2, 10)]
    assert run.record.state == "succeeded"


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("end", ["fails", "no list"])
def test_children_of_before_run_again_when_there_was_nothing_to_map_over_meanwhile(
    shell: Shell, end: str, *, crash: bool
) -> None:
    run = Run(shell, Graph().add("find").add("each", "find", kind="map", over=0)).work(results={"find": pack([1, 2])})
    shell.do(OrderWorkflow(run.id, "rerun", "find"))
    run.work(["find"] if end == "fails" else [], {"find": pack("no list")})
    assert run.record.state == "failed"
    shell.do(OrderWorkflow(run.id, "rerun", "find"))
    if crash:
        run.crash()
    run.ran.clear()
    run.work(results={"find": pack([3, 4, 5])})
    assert sorted(run.ran) == ["each[0]", "each[1]", "each[2]", "find"]
    assert run.record.state == "succeeded"


@pytest.mark.parametrize("turns", range(1, 7))
def test_what_is_to_run_again_is_not_begun_when_it_is_cancelled_meanwhile(
    shell: Shell, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are more than one turn deals with: those that had no turn yet are cancelled, too."""
    run = Run(shell, items(50)).work([f"each[{child}]" for child in range(50)])
    monkeypatch.setattr("taskd.core.moves.STEP_NODES", 10)
    monkeypatch.setattr("taskd.core.moves.SLICE_NODES", 10)
    shell.ask(OrderWorkflow(run.id, "resume"))
    for _ in range(turns):
        for waiting in shell.waiting.copy():
            shell.feed(waiting)
        for read in shell.reads.copy():
            while read in shell.reads:
                shell.step(read)
        shell.turn()
    shell.do(OrderWorkflow(run.id, "cancel"))
    for grant in run.agent.receive():
        shell.do(run.agent.nack(grant, outcome="cancelled"))
    assert not run.take()
    assert run.record.state == "cancelled"
    check_disk(shell.disk)
    shell.do(OrderWorkflow(run.id, "resume"))
    run.work()
    assert run.record.state == "succeeded"


@pytest.mark.parametrize("turn", ["right", "r" * 500])
def test_a_branch_that_was_taken_is_taken_after_a_crash(
    shell: Shell, turn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much else there was to remember."""
    graph = Graph().add("choose").add("slow").add("side", "choose", after=["slow"], only_if=[Choice(0, pack(turn))])
    run = Run(shell, graph)
    run.ack(run.take()["choose"], pack(turn))
    monkeypatch.setattr("taskd.core.flows.RESULTS_BYTES_MAX", -1)
    run.crash()
    shell.pass_ms(20_000)
    run.work()
    assert run.record.counts == {"succeeded": 3}


@pytest.mark.parametrize("crash", [False, True])
def test_a_branch_that_was_not_taken_is_not_taken_by_a_resumed_workflow(shell: Shell, *, crash: bool) -> None:
    """Though it was skipped for what failed, too."""
    graph = Graph().add("choose").add("bad").add("side", "choose", after=["bad"], only_if=[Choice(0, pack("right"))])
    run = Run(shell, graph).work(["bad"], {"choose": pack("left")})
    shell.do(OrderWorkflow(run.id, "resume"))
    if crash:
        run.crash()
    run.work()
    assert run.record.state == "succeeded"
    assert "side" not in run.ran


def test_a_second_order_does_not_replace_one_that_is_still_to_be_carried_out(shell: Shell) -> None:
    """Only the same again is nothing new."""
    run = Run(shell, Graph().add("a").add("b")).work(["b"])
    for action, node in (("resume", ""), ("resume", ""), ("rerun", "a")):
        shell.ask(OrderWorkflow(run.id, action, node))
        if action == "rerun":
            [waiting] = shell.waiting
            with pytest.raises(ServerBusy, match="another order, resume"):
                shell.feed(waiting)
        else:
            for waiting in shell.waiting.copy():
                shell.feed(waiting)
    shell.settle()
    run.work()
    assert run.ran == ["a", "b", "b"]
    assert run.record.state == "succeeded"


@pytest.mark.parametrize("crash", [False, True])
def test_what_failed_before_an_order_does_not_stop_it(shell: Shell, *, crash: bool) -> None:
    run = Run(shell, Graph().add("a").add("b"), policy="fail_fast")
    grants = run.take()
    run.ack(grants["a"])
    run.fail(grants["b"])
    shell.do(OrderWorkflow(run.id, "rerun", "a"))
    if crash:
        run.crash()
    run.work()
    assert run.ran == ["a", "b", "a"]
    assert run.record.counts == {"succeeded": 1, "failed": 1}
    assert (run.record.state, run.record.failed_name) == ("failed", "b")


def test_a_node_is_not_run_again_while_one_after_it_runs(shell: Shell) -> None:
    """That runs on what the node gave before; what has not begun may wait for the node again."""
    run = Run(shell, Graph().add("a").add("b", "a").add("c", "b").add("d", "c"))
    run.ack(run.take()["a"], pack(1))
    run.ack(run.take()["b"])
    grant = run.take()["c"]
    with pytest.raises(WorkflowEnded, match="node 'c' of workflow 'report' comes after 'a' and runs"):
        shell.do(OrderWorkflow(run.id, "rerun", "a"))
    with pytest.raises(WorkflowEnded, match=r"node 'd' .* has not ended"):
        shell.do(OrderWorkflow(run.id, "rerun", "d"))
    run.ack(grant)
    run.work()
    shell.do(OrderWorkflow(run.id, "rerun", "a"))
    run.work()
    assert run.ran == ["a", "b", "c", "d"] * 2


def test_what_is_not_run_again_has_failed_still(shell: Shell) -> None:
    run = Run(shell, Graph().add("a").add("b")).work(["b"])
    shell.do(OrderWorkflow(run.id, "rerun", "a"))
    run.work()
    assert run.ran == ["a", "b", "a"]
    assert (run.record.state, run.record.failed_name) == ("failed", "b")


# -- orders that are sent again ---------------------------------------------------------

FIRST, SECOND = bytes(16), bytes(range(16))


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("action", ["rerun", "resume"])
def test_an_order_that_is_sent_again_after_a_lost_answer_is_carried_out_once(
    shell: Shell, action: str, *, crash: bool
) -> None:
    """While it is, and when that is done; another one is another."""
    run = Run(shell, Graph().add("a").add("b", "a")).work(["b"])
    run.ran.clear()
    order = OrderWorkflow(run.id, action, "b" if action == "rerun" else "", FIRST)
    shell.do(order)
    if crash:
        run.crash()
    shell.do(order)
    run.work(["b"])
    shell.do(order)
    assert run.ran == ["b"]
    assert run.record.state == "failed"
    shell.do(OrderWorkflow(run.id, action, order.node, SECOND))
    run.work()
    shell.do(order)
    assert run.ran == ["b", "b"]
    assert run.record.state == "succeeded"


def test_a_cancel_that_is_sent_again_after_the_end_is_done(shell: Shell) -> None:
    run = Run(shell, Graph().add("a"))
    shell.do(OrderWorkflow(run.id, "cancel", order_id=FIRST))
    assert run.record.state == "cancelled"
    shell.do(OrderWorkflow(run.id, "cancel", order_id=FIRST))
    with pytest.raises(WorkflowEnded):
        shell.do(OrderWorkflow(run.id, "cancel", order_id=SECOND))


def test_an_order_that_was_refused_is_not_taken_for_one_that_was_carried_out(shell: Shell) -> None:
    run = Run(shell, Graph().add("a"))
    order = OrderWorkflow(run.id, "rerun", "a", FIRST)
    with pytest.raises(WorkflowEnded):
        shell.do(order)
    run.work()
    shell.do(order)
    run.work()
    assert run.ran == ["a", "a"]


def test_so_many_orders_are_remembered(shell: Shell) -> None:
    run = Run(shell, Graph().add("a")).work()
    orders = [OrderWorkflow(run.id, "rerun", "a", number.to_bytes(16, "big")) for number in range(1, ORDERS_KEPT + 2)]
    for order in orders:
        shell.do(order)
        run.work()
    assert run.record.orders == [order.order_id for order in orders[1:]]


def test_the_id_of_an_order_is_16_bytes(shell: Shell) -> None:
    run = Run(shell, Graph().add("a"))
    with pytest.raises(BadRequest, match="16 bytes"):
        shell.do(OrderWorkflow(run.id, "cancel", order_id=b"x"))


def test_a_child_that_is_not_there_fails_alone(shell: Shell) -> None:
    """Those beside it run again all the same, and its node tells how many did not succeed."""
    run = Run(shell, items(4).add("slow"))
    grants = run.take()
    slow = grants.pop("slow")
    for grant in grants.values():
        run.ack(grant)
    kept = {child: shell.disk.values.pop((records.SPEC, run.node_id("each", child))) for child in (0, 2)}
    run.ran.clear()
    shell.do(OrderWorkflow(run.id, "rerun", "each"))
    grants = run.take()
    assert sorted(grants) == ["each[1]", "each[3]"]
    for child, record in kept.items():
        shell.disk.values[records.SPEC, run.node_id("each", child)] = record
    run.ack(grants["each[1]"])
    run.ack(grants["each[3]"])
    each = shell.disk.get(records.NODE, run.node_id("each"), NodeRecord)
    assert each.state == "dead"
    assert each.failure is not None
    assert each.failure.message == "2 of its 4 children did not succeed"
    run.ack(slow)
    assert run.record.state == "failed"
    shell.do(OrderWorkflow(run.id, "resume"))
    run.work()
    assert run.record.state == "succeeded", "what is there again is run again"


def test_a_timer_of_a_wait_before_ends_no_other(shell: Shell) -> None:
    """It had run out, and was still to be looked at, when the signal came, and the node was run again."""
    run = Run(shell, Graph().add("go", kind="signal", signal="go", wait_ms=60_000))
    waiting = shell.disk.get(records.NODE, run.node_id("go"), NodeRecord)
    shell.do(SignalWorkflow(run.id, "go", pack(1)))
    assert run.record.state == "succeeded"
    shell.pass_ms(60_000)
    shell.do(OrderWorkflow(run.id, "rerun", "go"))
    shell.do(ReleaseDue([timer_id(waiting.due_at_ms, run.node_id("go"))]))
    again = shell.disk.get(records.NODE, run.node_id("go"), NodeRecord)
    assert (again.state, again.due_at_ms) == ("waiting", shell.wall_ms + 60_000)
    shell.pass_ms(60_000)
    assert shell.disk.get(records.NODE, run.node_id("go"), NodeRecord).state == "dead"
