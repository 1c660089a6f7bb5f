"""What a turn does for a workflow is bounded, however large that is."""

from collections.abc import Callable

import pytest

from harness.core import Shell
from harness.fsck import check_disk
from harness.workflows import Graph, Run, inputs
from taskd.core import moves, records
from taskd.core.commands import CancelTasks, GoOn, Now
from taskd.core.coordinator import Turn
from taskd.core.effects import Continue
from taskd.core.flows import Flow, stem_of
from taskd.core.records import StateRecord
from taskd.core.workflow_commands import OrderWorkflow, RerunTasks, SignalWorkflow
from taskd.core.workflow_records import NodeRecord
from taskd.core.working import Settings
from taskd_protocol.payload import pack
from taskd_protocol.task import Given, TaskSpec
from taskd_protocol.workflow import Node

STEP = 100
SLICE = 20
MANY = 1_000

WIDTH_MAX = 12 * STEP
"""Mutations in one turn: some for each node or child that is dealt with."""


@pytest.fixture
def widest(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return what tells the most mutations, and tasks that commands were given, in one turn since it was asked last."""
    monkeypatch.setattr(moves, "STEP_NODES", STEP)
    monkeypatch.setattr(moves, "SLICE_NODES", SLICE)
    take_turn = shell.coordinator.take_turn
    widths = [0]

    def counted(now: Now) -> Turn:
        turn = take_turn(now)
        width = len(turn.mutations)
        for effect in turn.effects:
            if isinstance(effect, Continue):
                command = effect.command
                assert isinstance(command, CancelTasks | RerunTasks | GoOn)
                width += len(command.ids if isinstance(command, CancelTasks) else getattr(command, "tasks", ()))
        widths.append(width)
        return turn

    monkeypatch.setattr(shell.coordinator, "take_turn", counted)

    def tell() -> int:
        most = max(widths)
        widths[:] = [0]
        return most

    return tell


def spread(shell: Shell) -> Run:
    graph = Graph().add("items", kind="value", packed=pack(list(range(MANY)))).add("each", "items", kind="map", over=0)
    return Run(shell, graph)


def fail_all(run: Run) -> None:
    while grants := run.take(200):
        run.shell.do(run.agent.nack(*grants.values(), final=True))
        run.agent.held.clear()


def test_a_map_of_many_is_cancelled_in_pieces(shell: Shell, widest: Callable[[], int]) -> None:
    """Those that wait, and those that run."""
    run = spread(shell)
    held = run.take(50)
    assert widest() <= WIDTH_MAX
    shell.do(OrderWorkflow(run.id, "cancel"))
    assert widest() <= WIDTH_MAX
    assert run.agent.receive() == []
    assert run.agent.revoked == {grant.token for grant in held.values()}
    assert run.record.state == "cancelling"
    shell.do(run.agent.nack(*held.values(), outcome="cancelled"))
    assert run.record.state == "cancelled"
    states = shell.disk.of(records.STATE, StateRecord).values()
    assert [state.state for state in states] == ["cancelled"] * MANY
    check_disk(shell.disk)


def test_a_cancel_goes_on_after_a_crash(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning: those that it has reached already have ended."""
    monkeypatch.setattr(moves, "STEP_NODES", STEP)
    monkeypatch.setattr(moves, "SLICE_NODES", SLICE)
    run = spread(shell)
    shell.ask(OrderWorkflow(run.id, "cancel"))
    for _ in range(3):
        shell.turn()
    shell.flush()
    run.crash()
    run.work()
    assert run.ran == []
    assert run.record.state == "cancelled"


@pytest.mark.parametrize("crashes", [0, 5])
def test_a_map_of_many_is_resumed_in_pieces(shell: Shell, widest: Callable[[], int], crashes: int) -> None:
    """Each that failed runs once more, whatever comes between."""
    run = spread(shell)
    fail_all(run)
    assert run.record.state == "failed"
    widest()
    run.ran.clear()
    shell.ask(OrderWorkflow(run.id, "resume"))
    while shell.waiting:
        shell.feed(shell.waiting[0])
    shell.settle() if not crashes else None
    for _ in range(crashes):
        for _ in range(2):
            shell.turn()
            for read in list(shell.reads):
                while read in shell.reads:
                    shell.step(read)
            for waiting in list(shell.waiting):
                shell.feed(waiting)
        shell.turn()
        shell.flush()
        run.crash()
    assert widest() <= WIDTH_MAX
    run.work()
    assert sorted(run.ran) == sorted(f"each[{n}]" for n in range(MANY))
    assert run.record.state == "succeeded"
    node = shell.disk.get(records.NODE, run.node_id("each"), NodeRecord)
    assert (node.state, node.again) == ("succeeded", -1)


def test_what_fails_again_while_a_map_is_resumed_does_not_run_a_third_time(
    shell: Shell, widest: Callable[[], int]
) -> None:
    run = spread(shell)
    fail_all(run)
    run.ran.clear()
    shell.ask(OrderWorkflow(run.id, "resume"))
    while shell.waiting:
        shell.feed(shell.waiting[0])
    ended = 0
    while ended < MANY:
        shell.turn()
        for read in list(shell.reads):
            while read in shell.reads:
                shell.step(read)
        for waiting in list(shell.waiting):
            shell.feed(waiting)
        shell.flush()
        shell.ask(run.agent.credit(20))
        shell.turn()
        shell.flush()
        grants = run.agent.receive()
        if grants:
            run.ran += [run.name_of(grant) for grant in grants]
            shell.ask(run.agent.nack(*grants, final=True))
            ended += len(grants)
    shell.settle()
    assert sorted(run.ran) == sorted(f"each[{n}]" for n in range(MANY))
    assert run.record.state == "failed"
    assert widest() <= WIDTH_MAX


def test_many_waits_are_let_go_in_pieces(shell: Shell, widest: Callable[[], int]) -> None:
    graph = Graph()
    for number in range(MANY):
        graph.add(f"n{number}", kind="signal", signal="go")
    run = Run(shell, graph)
    widest()
    shell.do(SignalWorkflow(run.id, "go", pack(1)))
    assert run.record.state == "succeeded"
    assert widest() <= WIDTH_MAX


def test_many_waits_are_cancelled_in_pieces(shell: Shell, widest: Callable[[], int]) -> None:
    graph = Graph()
    for number in range(MANY):
        graph.add(f"n{number}", kind="signal", signal=f"go-{number}", wait_ms=60_000)
    run = Run(shell, graph)
    widest()
    shell.do(OrderWorkflow(run.id, "cancel"))
    assert run.record.state == "cancelled"
    assert widest() <= WIDTH_MAX
    assert not shell.disk.scan(records.TIMER)


def test_many_nodes_whose_phase_does_not_come_are_skipped_in_pieces(shell: Shell, widest: Callable[[], int]) -> None:
    graph = Graph().add("a")
    for number in range(MANY):
        graph.add(f"undo-{number}", phase="compensate", compensates=0)
        graph.add(f"sorry-{number}", phase="on_failure")
    run = Run(shell, graph)
    widest()
    run.work()
    assert run.record.state == "succeeded"
    assert run.record.counts == {"succeeded": 1, "skipped": 2 * MANY}
    assert widest() <= WIDTH_MAX


def test_an_item_of_a_map_that_is_too_long_ends_the_one_that_maps_over_it() -> None:
    """However late it comes: those before it have run, and none begins after it."""
    shell = Shell(settings=Settings(payload_bytes_max=5_000))
    graph = Graph().add("items", kind="value", packed=pack(list(range(700)))).add("each", "items", kind="map", over=0)
    graph.add("again", "each", kind="map", over=0, task=TaskSpec(b"", "m.f", bytes(3_000)))
    run = Run(shell, graph).work(results={"each[600]": pack(bytes(4_000))})
    assert run.ran[700:] == [f"again[{n}]" for n in range(500)]
    assert run.record.failed_name == "again"
    failure = shell.disk.get(records.NODE, run.node_id("again"), NodeRecord).failure
    assert failure is not None
    assert failure.code == "payload.too_large"


def test_large_items_are_at_hand_a_few_at_a_time(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a map over another's results, which may be as large as a task's: of all of them, each its turn."""
    monkeypatch.setattr("taskd.core.fans.ITEMS_BYTES", 4_000)
    monkeypatch.setattr("taskd.server.flow_loading.RESULTS_BYTES", 4_000)
    graph = Graph().add("items", kind="value", packed=pack(list(range(40)))).add("each", "items", kind="map", over=0)
    run = Run(shell, graph.add("again", "each", kind="map", over=0, in_flight_max=1))
    result = pack(bytes(1_000))
    for grant in run.take().values():
        run.ack(grant, result)
    fan = shell.working.flows[stem_of(run.id)].fans[2]
    most = 0
    while grants := run.take():
        most = max(most, len(fan.items))
        for grant in grants.values():
            assert inputs(grant) == [Given(result)]
            run.ack(grant)
    assert 0 < most <= 12
    assert run.record.state == "succeeded"
    assert len(run.ran) == 80


@pytest.mark.parametrize("crash", [False, True])
def test_a_signal_looks_at_the_nodes_that_wait_for_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, *, crash: bool
) -> None:
    """And at none of the many others that wait: neither when it comes, nor when it is read after a start."""
    graph = Graph().add("first")
    for number in range(MANY):
        graph.add(f"early-{number}", "first", kind="signal", signal=f"early-{number}")
        graph.add(f"late-{number}", kind="signal", signal=f"late-{number}")
    run = Run(shell, graph)
    looked: list[int] = []
    node_of = Flow.node

    def node(flow: Flow, position: int) -> Node:
        looked.append(position)
        return node_of(flow, position)

    for number in range(3):
        shell.do(SignalWorkflow(run.id, f"early-{number}", pack(number)))
    monkeypatch.setattr(Flow, "node", node)
    if crash:
        run.crash()
    shell.do(SignalWorkflow(run.id, "late-7", pack("yes")))
    assert len(looked) < 10
    assert shell.disk.get(records.NODE, run.node_id("late-7"), NodeRecord).state == "succeeded"
