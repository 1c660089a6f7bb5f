"""Workflows in the core: turns, rules, what is handed on, ends, and what a crash leaves."""

import msgspec
import pytest

from harness.core import Scanned, Shell, at_once
from harness.fsck import check_disk
from harness.workflows import BOOM, Graph, Run, inputs, task
from taskd.core import records
from taskd.core.commands import Command, PurgeFinished, RetryTasks, StartJob
from taskd.core.effects import WantFlow, WantItems, WorkflowBroken
from taskd.core.flows import nodes_id
from taskd.core.lifecycle import State
from taskd.core.records import CountersRecord, Kind
from taskd.core.workflow_commands import OrderWorkflow, SignalWorkflow, SubmitWorkflow
from taskd.core.workflow_records import NodeRecord, NodesRecord
from taskd.core.working import Settings
from taskd.server.flow_loading import FlowLoader
from taskd.store import codec
from taskd.store.keys import make_key
from taskd_protocol.errors import (
    BadRequest,
    StoreCorrupt,
    SubmitConflict,
    WorkflowEnded,
    WorkflowInvalid,
    WorkflowUnknown,
)
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.payload import pack
from taskd_protocol.task import Given, TaskSpec
from taskd_protocol.workflow import Choice, Node, member_id


def diamond() -> Graph:
    return Graph().add("raw").add("left", "raw").add("right", "raw").add("total", "left", "right")


def test_nodes_run_in_their_turns_and_get_what_those_before_gave(shell: Shell) -> None:
    run = Run(shell, diamond())
    grants = run.take()
    assert list(grants) == ["raw"]
    run.ack(grants["raw"], pack([1, 2]))
    grants = run.take()
    assert sorted(grants) == ["left", "right"]
    assert inputs(grants["left"]) == [Given(pack([1, 2]))]
    run.ack(grants["left"], pack("l"))
    assert not run.take()
    run.ack(grants["right"], pack("r"))
    grants = run.take()
    assert inputs(grants["total"]) == [Given(pack("l")), Given(pack("r"))]
    run.ack(grants["total"], pack(9))
    assert run.record.state == "succeeded"
    assert run.record.counts == {"succeeded": 4}
    assert run.told() == {
        "raw": "succeeded",
        "left": "succeeded",
        "right": "succeeded",
        "total": "succeeded",
        "report": "succeeded",
    }
    assert not shell.working.flows


def test_large_results_are_referred_to(shell: Shell) -> None:
    run = Run(shell, diamond())
    run.ack(run.take()["raw"], pack(bytes(10_000)))
    assert inputs(run.take()["left"]) == [Given(id=run.node_id("raw"))]


def test_many_small_results_are_referred_to_beyond_a_bound(shell: Shell) -> None:
    """A lease is one message, and what a node that maps needs is written with each child."""
    graph = Graph()
    names = [f"n{n}" for n in range(100)]
    for name in names:
        graph.add(name, kind="value", packed=pack("x" * 2_000))
    graph.add("items", kind="value", packed=pack([1, 2])).add("all", *names).add(
        "each", "items", *names, kind="map", over=0
    )
    grants = Run(shell, graph).take()
    for grant, most in ((grants["all"], 128 * 1024), (grants["each[0]"], 4 * 1024)):
        given = inputs(grant)
        assert 0.9 * most < sum(len(each.packed) for each in given) < most
        assert all(bool(each.packed) != bool(each.id) for each in given)


@pytest.mark.parametrize("at", range(5))
def test_a_crash_at_any_end_changes_nothing(shell: Shell, at: int) -> None:
    """Each node runs to its end; what was durable is not run again."""
    run = Run(shell, diamond())
    if at == 4:
        run.crash()
    ends = iter(range(10))

    def between() -> None:
        if next(ends) == at:
            run.crash()

    while run.record.state == "running":
        run.work(between=between)
        shell.pass_ms(20_000)
    assert run.record.state == "succeeded"
    assert set(run.ran) == {"raw", "left", "right", "total"}


def test_what_a_crash_cut_short_is_decided_anew(shell: Shell) -> None:
    """The end of a node is durable, and the turn in which the next one would have been made is lost."""
    run = Run(shell, Graph().add("a").add("b", "a"))
    grant = run.take()["a"]
    shell.ask(run.agent.ack(grant))
    shell.turn()
    shell.crash(kept=1)
    shell.settle()
    assert (records.SPEC, run.node_id("b")) in shell.disk.values


RULES = {
    # what becomes of two parents: succeeded, failed, upstream failed, skipped
    "all_succeeded": {"ss": "run", "sf": "skipped", "ff": "skipped", "sk": "skipped", "kk": "skipped"},
    "all_done": {"ss": "run", "sf": "run", "ff": "run", "sk": "run", "kk": "run"},
    "one_failed": {"ss": "skipped", "sf": "run", "ff": "run", "sk": "skipped", "kk": "skipped"},
    "one_succeeded": {"ss": "run", "sf": "run", "ff": "skipped", "sk": "run", "kk": "skipped"},
    "none_failed": {"ss": "run", "sf": "skipped", "ff": "skipped", "sk": "run", "kk": "run"},
    "none_failed_min_one_succeeded": {"ss": "run", "sf": "skipped", "ff": "skipped", "sk": "run", "kk": "skipped"},
    "all_failed": {"ss": "skipped", "sf": "skipped", "ff": "run", "sk": "skipped", "kk": "skipped"},
    "always": {"ss": "run", "sf": "run", "ff": "run", "sk": "run", "kk": "run"},
}


@pytest.mark.parametrize(("rule", "ends", "becomes"), [(r, e, b) for r, row in RULES.items() for e, b in row.items()])
def test_rules(shell: Shell, rule: str, ends: str, becomes: str) -> None:
    """Airflow's, by what has become of two nodes before."""
    graph = Graph().add("root")
    for index, end in enumerate(ends):
        only_if = [Choice(0, pack("other"))] if end == "k" else []
        graph.add(f"p{index}", "root", only_if=only_if)
    graph.add("node", "p0", "p1", when=rule)
    run = Run(shell, graph).work(fails=[f"p{index}" for index, end in enumerate(ends) if end == "f"])
    told = run.told()
    assert told["node"] == ("succeeded" if becomes == "run" else "skipped")
    assert told["report"] == ("failed" if "f" in ends else "succeeded")


def test_an_upstream_failure_goes_all_the_way_down(shell: Shell) -> None:
    run = Run(shell, Graph().add("a").add("b", "a").add("c", "b").add("handler", "c", when="one_failed")).work(["a"])
    assert run.told() == {"a": "dead", "b": "skipped", "c": "skipped", "handler": "succeeded", "report": "failed"}
    assert run.record.failed_name == "a"


def test_a_node_that_may_fail_fails_nothing(shell: Shell) -> None:
    run = Run(shell, Graph().add("a", may_fail=True).add("b", "a", when="all_done")).work(["a"])
    assert run.record.state == "succeeded"
    assert run.ran == ["a", "b"]


def test_a_branch_that_is_not_taken_is_skipped(shell: Shell) -> None:
    """With what hangs on it; a join goes on with the other."""
    graph = Graph().add("choose")
    for side in ("left", "right"):
        graph.add(side, "choose", only_if=[Choice(0, pack(side))]).add(f"{side}-2", side)
    graph.add("join", "left-2", "right-2", when="none_failed_min_one_succeeded")
    run = Run(shell, graph).work(results={"choose": pack("right")})
    assert run.ran == ["choose", "right", "right-2", "join"]
    assert run.record.state == "succeeded"


def test_a_workflow_that_fails_fast_ends_what_runs(shell: Shell) -> None:
    graph = Graph().add("bad").add("long").add("next", "long").add("nap", kind="sleep", wait_ms=60_000)
    run = Run(shell, graph, policy="fail_fast")
    grants = run.take()
    run.fail(grants["bad"])
    run.agent.receive()
    assert run.agent.revoked == {grants["long"].token}
    shell.do(run.agent.nack(grants["long"], outcome="cancelled"))
    assert run.record.state == "failed"
    assert run.told() == {"bad": "dead", "long": "cancelled", "next": "skipped", "nap": "cancelled", "report": "failed"}


def test_cancel_goes_down_the_graph(shell: Shell) -> None:
    graph = (
        Graph()
        .add("items", kind="value", packed=pack([1, 2, 3]))
        .add("each", "items", kind="map", over=0, in_flight_max=2)
    )
    run = Run(shell, graph.add("total", "each"))
    grants = run.take()
    assert sorted(grants) == ["each[0]", "each[1]"]
    shell.do(OrderWorkflow(run.id, "cancel"))
    run.agent.receive()
    assert run.record.state == "cancelling"
    for grant in grants.values():
        shell.do(run.agent.nack(grant, outcome="cancelled"))
    assert run.record.state == "cancelled"
    assert run.told()["total"] == "skipped"
    with pytest.raises(WorkflowEnded):
        shell.do(OrderWorkflow(run.id, "cancel"))


# -- map --------------------------------------------------------------------------------


def test_a_node_maps_over_what_is_known_at_run_time_only(shell: Shell) -> None:
    """Each item goes to a child of its own; what comes after gets all results, by reference, in order."""
    graph = Graph().add("find").add("root").add("each", "find", "root", kind="map", over=0).add("total", "each")
    run = Run(shell, graph)
    grants = run.take()
    run.ack(grants["find"], pack(["a", "b", "c"]))
    run.ack(grants["root"], pack("/"))
    grants = run.take()
    assert [inputs(grants[f"each[{n}]"]) for n in range(3)] == [[Given(pack(c)), Given(pack("/"))] for c in "abc"]
    for grant in grants.values():
        run.ack(grant)
    [total] = run.take().values()
    assert inputs(total) == [Given(id=run.node_id("each"), count=3)]
    run.ack(total)
    assert run.record.state == "succeeded"


@pytest.mark.parametrize("crashes", [0, 3])
def test_a_map_over_many_goes_on_in_pieces(shell: Shell, monkeypatch: pytest.MonkeyPatch, crashes: int) -> None:
    monkeypatch.setattr("taskd.core.fans.ITEMS", 4)
    monkeypatch.setattr("taskd.core.moves.SLICE_NODES", 3)
    monkeypatch.setattr("taskd.core.moves.STEP_NODES", 5)
    graph = (
        Graph()
        .add("items", kind="value", packed=pack(list(range(50))))
        .add("each", "items", kind="map", over=0, in_flight_max=7)
    )
    run = Run(shell, graph)
    while run.record.state == "running":
        grants = run.take(5)
        for grant in grants.values():
            run.ack(grant)
        assert len([name for name in run.ran if name]) <= 60
        if crashes and len(run.ran) > 12 * (4 - crashes):
            crashes -= 1
            run.crash()
            shell.pass_ms(20_000)
    assert sorted(set(run.ran)) == sorted(f"each[{n}]" for n in range(50))
    assert len(run.ran) == 50


def test_a_map_of_a_map(shell: Shell) -> None:
    graph = Graph().add("items", kind="value", packed=pack([1, 2])).add("each", "items", kind="map", over=0)
    run = Run(shell, graph.add("again", "each", kind="map", over=0)).work(
        results={"each[0]": pack("x"), "each[1]": pack("y")}
    )
    assert run.ran == ["each[0]", "each[1]", "again[0]", "again[1]"]
    assert run.record.state == "succeeded"


@pytest.mark.parametrize(
    ("packed", "state"),
    [
        (pack([]), "succeeded"),
        (pack("no list"), "failed"),
        (pack({}), "failed"),
        (b"", "failed"),
        (b"\xdc\x00", "failed"),
        (b"\x93\x01", "failed"),
        (b"\xdd\x00\x00\x00\x01" + b"\x91" * 100_000 + b"\xc0", "failed"),  # nested deeper than can be read
        (b"\xdd\x00\x10\x00\x00" + b"\xc0" * (1 << 20), "failed"),  # an item more than a node may have
    ],
)
def test_a_map_over_nothing_or_no_list(shell: Shell, packed: bytes, state: str) -> None:
    run = Run(shell, Graph().add("find").add("each", "find", kind="map", over=0)).work(results={"find": packed})
    assert run.record.state == state


def test_a_map_over_an_item_that_is_too_long(shell: Shell) -> None:
    """With the other arguments it would be no message: each agent that was granted it would lose its connection."""
    graph = Graph().add("items", kind="value", packed=pack([b"", bytes(15 << 20)]))
    graph.add("small", "items", kind="map", over=0)
    graph.add("large", "items", kind="map", over=0, task=TaskSpec(b"", "m.f", bytes(2 << 20)))
    run = Run(shell, graph).work()
    assert run.ran == ["small[0]", "small[1]"]
    assert run.record.failed_name == "large"
    failure = shell.disk.get(records.NODE, run.node_id("large"), NodeRecord).failure
    assert failure is not None
    assert failure.code == "payload.too_large"


@pytest.mark.parametrize("packed", [b"", b"\xc0\xc0", b"\x91", b"\x91" * 100_000 + b"\xc0"])
def test_what_is_no_value(shell: Shell, packed: bytes) -> None:
    """Is refused by who gives it, and not by who would use it."""
    with pytest.raises(WorkflowInvalid, match="'v': its value is not one value"):
        Run(shell, Graph().add("v", kind="value", packed=packed))
    run = Run(shell, Graph().add("s", kind="signal", signal="go"))
    with pytest.raises(BadRequest, match="a signal's value is not one value"):
        shell.do(SignalWorkflow(run.id, "go", packed[:50_000]))


def test_a_map_fails_when_all_have_ended_and_one_has_failed(shell: Shell) -> None:
    """Resumed, that one alone runs again."""
    graph = Graph().add("items", kind="value", packed=pack([1, 2, 3])).add("each", "items", kind="map", over=0)
    run = Run(shell, graph.add("total", "each")).work(fails=["each[1]"])
    assert run.told()["each"] == "dead"
    assert run.record.state == "failed"
    run.ran.clear()
    shell.do(OrderWorkflow(run.id, "resume"))
    run.work()
    assert run.ran == ["each[1]", "total"]
    assert run.record.state == "succeeded"


# -- waits ------------------------------------------------------------------------------


def test_sleep_holds_nothing_and_outlives_a_crash(shell: Shell) -> None:
    run = Run(shell, Graph().add("nap", kind="sleep", wait_ms=60_000).add("b", after=["nap"]))
    run.crash()
    shell.pass_ms(50_000)
    assert not run.take()
    shell.pass_ms(10_000)
    assert list(run.take()) == ["b"]


@pytest.mark.parametrize("early", [False, True])
def test_a_signal_lets_a_node_go_on(shell: Shell, *, early: bool) -> None:
    """Whether it comes while the node waits for it, or before."""
    run = Run(shell, Graph().add("a").add("approve", after=["a"], kind="signal", signal="go").add("b", "approve"))
    if early:
        shell.do(SignalWorkflow(run.id, "go", pack("yes")))
        run.crash()
    run.work()
    if not early:
        assert run.ran == ["a"]
        shell.do(SignalWorkflow(run.id, "go", pack("yes")))
    grants = run.take()
    if "b" in grants:
        assert inputs(grants["b"]) == [Given(pack("yes"))]
        run.ack(grants["b"])
    assert run.record.state == "succeeded"
    assert not shell.disk.scan(records.SIGNAL)
    with pytest.raises(WorkflowEnded):
        shell.do(SignalWorkflow(run.id, "go", pack("yes")))


@pytest.mark.parametrize("crash", [False, True])
def test_however_many_signals_are_waited_for_what_is_written_each_turn_is_small(shell: Shell, *, crash: bool) -> None:
    """Their names stand in the nodes alone; those of one that is not read are looked up there."""
    graph = Graph()
    for number in range(500):
        graph.add(f"n{number}", kind="signal", signal=f"a name of some length {number}")
    run = Run(shell, graph)
    if crash:
        shell.crash()
    with pytest.raises(WorkflowUnknown, match="'go'; signals: a name of some length 0, a name"):
        shell.do(SignalWorkflow(run.id, "go", pack(1)))
    for number in range(500):
        shell.do(SignalWorkflow(run.id, f"a name of some length {number}", pack(number)))
    assert run.record.state == "succeeded"
    [(_, value)] = codec.encode([(records.WORKFLOW, run.id, run.record)])
    assert value is not None
    assert len(value) < 500


def test_names_of_signals_that_a_record_of_old_holds_are_let_go(shell: Shell) -> None:
    run = Run(shell, Graph().add("approve", kind="signal", signal="go").add("b", kind="signal", signal="other"))
    shell.disk.values[records.WORKFLOW, run.id] = msgspec.structs.replace(run.record, signals=["go", "other"])
    shell.crash()
    shell.do(SignalWorkflow(run.id, "go", pack(1)))
    assert run.record.signals == []
    assert run.record.counts == {"succeeded": 1, "running": 1}


def test_signals_have_a_limit_together(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same one again takes the place of the one before."""
    monkeypatch.setattr("taskd.core.workflows.SIGNALS_BYTES_MAX", 5)
    graph = Graph().add("s", kind="signal", signal="s").add("t", kind="signal", signal="t")
    run = Run(shell, graph.add("slow"))
    for _ in range(2):
        shell.do(SignalWorkflow(run.id, "s", pack("abc")))
    with pytest.raises(BadRequest, match="pass references"):
        shell.do(SignalWorkflow(run.id, "t", pack("a")))
    assert run.record.counts["succeeded"] == 1


def test_a_signal_that_does_not_come_in_time(shell: Shell) -> None:
    graph = Graph().add("approve", kind="signal", signal="go", wait_ms=5_000).add("late", "approve", when="all_failed")
    run = Run(shell, graph)
    with pytest.raises(WorkflowUnknown, match="signals: go"):
        shell.do(SignalWorkflow(run.id, "stop", b"\xc0"))
    shell.pass_ms(6_000)
    run.work()
    assert run.ran == ["late"]
    assert run.record.state == "failed"


# -- phases -----------------------------------------------------------------------------


def saga() -> Graph:
    graph = Graph().add("book").add("pay", "book").add("send", "pay")
    for name in ("book", "pay", "send"):
        graph.add(f"undo-{name}", name, phase="compensate", compensates=graph.names[name])
    graph.add("sorry", phase="on_failure")
    return graph.add("hurrah", phase="on_success")


def test_what_succeeded_is_taken_back_the_last_first(shell: Shell) -> None:
    run = Run(shell, saga()).work(fails=["send"])
    assert run.ran == ["book", "pay", "send", "undo-pay", "undo-book", "sorry"]
    assert run.record.state == "failed"
    with pytest.raises(WorkflowEnded, match="taken back"):
        shell.do(OrderWorkflow(run.id, "resume"))


def test_nothing_is_taken_back_of_a_success(shell: Shell) -> None:
    run = Run(shell, saga()).work()
    assert run.ran == ["book", "pay", "send", "hurrah"]
    assert run.told()["sorry"] == "skipped"


@pytest.mark.parametrize("at", range(6))
def test_a_crash_while_it_is_taken_back(shell: Shell, at: int) -> None:
    run = Run(shell, saga())
    ends = iter(range(20))
    while run.record.state == "running":
        run.work(["send"], between=lambda: run.crash() if next(ends) == at else None)
        shell.pass_ms(20_000)
    assert run.ran == ["book", "pay", "send", "undo-pay", "undo-book", "sorry"]


# -- resume and rerun -------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
def test_resume_keeps_what_succeeded(shell: Shell, *, crash: bool) -> None:
    graph = Graph().add("a").add("b", "a").add("c", "b").add("d", "a").add("end", "c", "d")
    run = Run(shell, graph).work(["b"])
    assert run.record.state == "failed"
    assert run.record.counts == {"succeeded": 2, "failed": 1, "skipped": 2}
    run.ran.clear()
    shell.do(OrderWorkflow(run.id, "resume"))
    if crash:
        run.crash()
    run.work()
    assert run.ran == ["b", "c", "end"]
    assert run.record.state == "succeeded"
    assert run.record.counts == {"succeeded": 5}
    with pytest.raises(WorkflowEnded, match="nothing to resume"):
        shell.do(OrderWorkflow(run.id, "resume"))


@pytest.mark.parametrize("crash", [False, True])
def test_a_node_is_run_again_with_all_that_come_after_it(shell: Shell, *, crash: bool) -> None:
    """With what those before it give now."""
    graph = Graph().add("a").add("b", "a").add("c", "b").add("d", "a")
    run = Run(shell, graph).work(results={"b": pack("old")})
    run.ran.clear()
    with pytest.raises(WorkflowUnknown, match="no node 'x'"):
        shell.do(OrderWorkflow(run.id, "rerun", "x"))
    shell.do(OrderWorkflow(run.id, "rerun", "b"))
    if crash:
        run.crash()
    run.ack(run.take()["b"], pack("new"))
    grant = run.take()["c"]
    assert inputs(grant) == [Given(pack("new"))]
    run.ack(grant)
    assert run.ran == ["b", "c"]
    assert run.record.state == "succeeded"


@pytest.mark.parametrize("crash", [False, True])
def test_a_map_is_run_again_over_what_the_list_is_now(shell: Shell, *, crash: bool) -> None:
    graph = Graph().add("find").add("each", "find", kind="map", over=0).add("total", "each")
    run = Run(shell, graph).work(results={"find": pack([1, 2, 3])})
    run.ran.clear()
    shell.do(OrderWorkflow(run.id, "rerun", "find"))
    if crash:
        run.crash()
    run.ack(run.take()["find"], pack(["x", "y"]))
    if crash:
        run.crash()
    grants = run.take()
    assert {name: inputs(grant) for name, grant in grants.items()} == {
        "each[0]": [Given(pack("x"))],
        "each[1]": [Given(pack("y"))],
    }
    for grant in grants.values():
        run.ack(grant)
    assert inputs(run.take()["total"]) == [Given(id=run.node_id("each"), count=2, version=2)]


def test_a_reference_tells_one_result_from_the_next(shell: Shell) -> None:
    """Agents keep what they fetched: the same id and version must be the same value."""
    run = Run(shell, Graph().add("raw").add("left", "raw"))
    run.ack(run.take()["raw"], pack(bytes(10_000)))
    first = run.take()["left"]
    run.ack(first)
    shell.do(OrderWorkflow(run.id, "rerun", "raw"))
    run.ack(run.take()["raw"], pack(bytes(10_001)))
    again = run.take()["left"]
    assert inputs(first) == [Given(id=run.node_id("raw"))]
    assert inputs(again) == [Given(id=run.node_id("raw"), version=2)]


def test_a_list_that_is_not_whole_is_another_than_the_whole_one(shell: Shell) -> None:
    graph = Graph().add("items", kind="value", packed=pack([1, 2])).add("each", "items", kind="map", over=0)
    run = Run(shell, graph.add("early", "each", when="always").add("total", "each"))
    grants = run.take()
    for child in range(2):
        run.ack(grants[f"each[{child}]"])
    list_id = run.node_id("each")
    early, total = inputs(grants["early"]), inputs(run.take()["total"])
    assert total == [Given(id=list_id, count=2)]
    assert early != total


@pytest.mark.parametrize("crash", [False, True])
def test_a_node_run_again_leaves_what_has_failed_beside_it(shell: Shell, *, crash: bool) -> None:
    """The workflow fails for that as before."""
    run = Run(shell, Graph().add("a").add("b")).work(["b"])
    assert (run.record.state, run.record.failed_name) == ("failed", "b")
    shell.do(OrderWorkflow(run.id, "rerun", "a"))
    if crash:
        run.crash()
    run.work()
    assert (run.record.state, run.record.failed_name) == ("failed", "b")


@pytest.mark.parametrize("policy", ["finish_what_you_can", "fail_fast"])
def test_a_failure_while_its_workflow_is_read_is_its_failure(shell: Shell, policy: str) -> None:
    """Nobody noted the node's end as it came: it is found among what was read."""
    run = Run(shell, Graph().add("a").add("b").add("c", "a"), policy=policy)
    grants = run.take()
    shell.crash()
    shell.turn()
    shell.ask(run.agent.offer())
    shell.ask(run.agent.nack(grants["b"], failure=BOOM, final=True))
    run.agent.held.pop(grants["b"].token)
    shell.settle()
    assert (run.record.failed_name, run.record.stopped) == ("b", policy == "fail_fast")
    run.ack(grants["a"])
    run.work()
    assert (run.record.state, "c" in run.ran) == ("failed", policy != "fail_fast")


def test_a_success_that_is_run_again_is_counted_once() -> None:
    """Attempts before and after it are kept, and all goes with the workflow."""
    run = aged(Graph().add("a"))
    shell = run.shell
    grant = run.take()["a"]
    shell.do(run.agent.nack(grant, outcome="released"))
    run.agent.held.pop(grant.token)
    for ends in ("succeeded", "failed", "succeeded"):
        run.work(["a"] if ends == "failed" else [])
        assert run.record.state == ends
        check_disk(shell.disk)
        if ends != "succeeded" or not run.record.reruns:
            shell.do(OrderWorkflow(run.id, "rerun", "a"))
            check_disk(shell.disk)
    shell.pass_ms(2 * AGE_MS)
    check_disk(shell.disk)
    assert {kind for kind, _ in shell.disk.values} == {records.META}
    counters = shell.disk.get(records.META, b"counters", CountersRecord)
    assert (counters.ended, counters.finished_bytes) == ({}, 0)


# -- submit -----------------------------------------------------------------------------


def test_a_workflow_comes_in_parts_and_is_kept_with_the_last(shell: Shell) -> None:
    graph = Graph().add("n0")
    for n in range(1, 10):
        graph.add(f"n{n}", f"n{n - 1}")
    run = Run(shell, graph, part=3)
    assert len(shell.disk.scan(records.NODES)) == 4
    run.crash()
    run.work()
    assert run.record.state == "succeeded"


def test_a_part_whose_forerunners_were_lost(shell: Shell) -> None:
    run = Run(shell, Graph().add("a"))
    nodes = [Node("x", task=task()), Node("y", task=task())]
    spec = type(run.spec)(run.spec.id[:9] + b"\x01\x01" + bytes(5), "two", 2)
    shell.do(SubmitWorkflow("client", spec, 0, nodes[:1]))
    shell.crash()
    with pytest.raises(BadRequest, match="from the first on"):
        shell.do(SubmitWorkflow("client", spec, 1, nodes[1:]))
    assert not [key for key in shell.disk.values if key[1].startswith(spec.id)]


def test_the_same_workflow_again_is_known(shell: Shell) -> None:
    """While it runs and after; another one under its id is refused."""
    run = Run(shell, diamond())
    again = SubmitWorkflow("client", run.spec, 0, run.graph.nodes)
    shell.do(again)
    other = [*run.graph.nodes[:3], Node("total", task=task("m.g"))]
    for _ in range(2):
        with pytest.raises(SubmitConflict):
            shell.do(SubmitWorkflow("client", run.spec, 0, other))
        with pytest.raises(SubmitConflict):
            shell.do(SubmitWorkflow("somebody", run.spec, 0, run.graph.nodes))
        run.work()
        shell.do(again)
    assert len(run.ran) == 4


def test_a_branch_by_a_long_value(shell: Shell) -> None:
    graph = Graph().add("a").add("b", "a", only_if=[Choice(0, pack("x" * 600))])
    with pytest.raises(WorkflowInvalid, match="'b': only_if compares"):
        Run(shell, graph)


@pytest.mark.parametrize("phase", ["", "on_success", "compensate"])
@pytest.mark.parametrize("part", [1, 3])
def test_a_node_that_would_wait_for_a_later_phase(shell: Shell, phase: str, part: int) -> None:
    """Else its workflow would never end."""
    graph = Graph().add("a").add("sorry", phase="on_failure")
    graph.add("b", "sorry", phase=phase, compensates=0 if phase == "compensate" else -1)
    with pytest.raises(WorkflowInvalid, match="'b' comes after node number 1, whose phase is on_failure"):
        Run(shell, graph, part=part)


def test_a_node_that_would_wait_for_another_compensation(shell: Shell) -> None:
    graph = Graph().add("a").add("undo", phase="compensate", compensates=0)
    with pytest.raises(WorkflowInvalid, match="none after one that compensates"):
        Run(shell, graph.add("more", after=["undo"], phase="compensate", compensates=0))


def test_nodes_of_one_phase_may_wait_for_each_other(shell: Shell) -> None:
    graph = Graph().add("a").add("sorry", phase="on_failure").add("so-sorry", "sorry", phase="on_failure")
    assert Run(shell, graph).work(["a"]).ran == ["a", "sorry", "so-sorry"]


@pytest.mark.parametrize("part", [1, 100])
def test_too_many_edges(shell: Shell, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.workflows.EDGES_MAX", 5)
    graph = Graph().add("a").add("b").add("c", "a", "b").add("d", "a", after=["b", "c"])
    assert Run(shell, graph, part=part).record.state == "running"
    with pytest.raises(WorkflowInvalid, match="6 others in all, 5 are the most"):
        Run(shell, graph.add("e", "d"), part=part)


def test_two_nodes_of_one_name(shell: Shell) -> None:
    with pytest.raises(WorkflowInvalid, match="'a' stands twice"):
        Run(shell, Graph().add("a").add("a"))


def test_too_many_nodes(shell: Shell) -> None:
    graph = Graph()
    for n in range(10_001):
        graph.add(str(n))
    with pytest.raises(WorkflowInvalid, match="1 to 10000"):
        Run(shell, graph)


# -- what cannot be read ----------------------------------------------------------------


def test_a_workflow_that_cannot_be_read_stops_nothing_else(shell: Shell) -> None:
    """It is told of, takes no orders, and stays as it is."""
    broken, whole = Run(shell, diamond()), Run(shell, diamond())
    nodes = records.NODES, nodes_id(broken.id, 0)
    for record in (None, NodesRecord([msgspec.Raw(b"\x90")] * 4)):
        if record is None:
            del shell.disk.values[nodes]
        else:
            shell.disk.values[nodes] = record
        whole.crash()
        [told] = shell.take_told(WorkflowBroken)
        assert (told.id, told.name) == (broken.id, "report")
        assert "taskd fsck" in told.why
        for order in (OrderWorkflow(broken.id, "cancel"), SignalWorkflow(broken.id, "go", pack(1))):
            with pytest.raises(StoreCorrupt, match="cannot be read"):
                shell.do(order)
    whole.agent.join()
    shell.do(whole.agent.credit(2))
    for grant in whole.agent.receive():
        whole.ack(grant)
    while grants := whole.take():
        for grant in grants.values():
            whole.ack(grant)
    assert (whole.record.state, broken.record.state) == ("succeeded", "running")
    assert not shell.working.flows[broken.id[:11]].late


def test_a_record_that_does_not_decode_is_told(shell: Shell) -> None:
    run = Run(shell, diamond())
    store = Scanned(shell.disk)
    store.stage([(make_key(records.NODES, nodes_id(run.id, 0)), b"\xc1")])
    told = at_once(FlowLoader(store).read_flow(WantFlow(run.id)))
    assert "does not decode" in told.broken


@pytest.mark.parametrize("kind", [records.STATE, records.NODE])
def test_items_that_cannot_be_read_set_their_workflow_aside(shell: Shell, kind: Kind) -> None:
    """In the midst of it: what runs is recorded, nothing begins any more, and the next start reads it anew."""
    run = Run(shell, diamond())
    store, source = Scanned(shell.disk), member_id(run.id, 0)
    store.stage([(make_key(kind, source), b"\xc1")])
    told = at_once(FlowLoader(store).read_items(WantItems(run.id, 1, source, -1, 0, 10)))
    assert "does not decode" in told.broken
    first = run.take()["raw"]
    for alarms in (1, 0):  # the second time it is aside already
        shell.do(told)
        assert [(each.id, each.why) for each in shell.take_told(WorkflowBroken)] == [(run.id, told.broken)] * alarms
    run.ack(first, pack([1]))
    assert run.take() == {}
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        shell.do(OrderWorkflow(run.id, "cancel"))
    run.crash()
    run.agent.join()
    assert run.work().record.state == "succeeded"


def test_records_that_contradict_each_other_set_their_workflow_aside(shell: Shell) -> None:
    run = Run(shell, diamond())
    for position, record in ((9, NodeRecord("succeeded", 0)), (3, NodeRecord("skipped", 0))):
        key = records.NODE, member_id(run.id, position)
        shell.disk.values[key] = record
        run.crash()
        [told] = shell.take_told(WorkflowBroken)
        assert f"number {position}" in told.why
        del shell.disk.values[key]


def test_a_workflow_that_is_not_there_is_not_made_again(shell: Shell) -> None:
    """What it did is not known: a submit under its id is refused, as is an order."""
    run = Run(shell, diamond())
    del shell.disk.values[records.WORKFLOW, run.id]
    run.crash()
    [told] = shell.take_told(WorkflowBroken)
    assert (told.id, told.why) == (run.id, "it is listed as going on, and is not there; run `taskd fsck`")
    for command in (
        SubmitWorkflow("client", run.spec, 0, run.graph.nodes),
        OrderWorkflow(run.id, "resume"),
        SignalWorkflow(run.id, "go", pack(1)),
    ):
        with pytest.raises(StoreCorrupt, match="cannot be read"):
            shell.do(command)


# -- retention --------------------------------------------------------------------------

AGE_MS = 60_000


def aged(graph: Graph) -> Run:
    return Run(Shell(settings=Settings(retention_age_ms=AGE_MS)), graph)


def test_what_is_of_a_workflow_is_kept_for_as_long_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it goes on, however long, and for an age after its end; then nothing of it is left."""
    monkeypatch.setattr("taskd.core.retention.RECORDS_MAX", 2)
    graph = Graph().add("a").add("items", kind="value", packed=pack([1, 2])).add("each", "items", kind="map", over=0)
    run = aged(graph.add("approve", kind="signal", signal="go").add("never", "a", when="one_failed"))
    shell = run.shell
    run.work()
    shell.pass_ms(3 * AGE_MS)
    assert (records.STATE, run.node_id("a")) in shell.disk.values
    check_disk(shell.disk)
    shell.do(SignalWorkflow(run.id, "go", pack(1)))
    assert run.record.state == "succeeded"
    shell.pass_ms(AGE_MS - 1_000)
    assert (records.STATE, run.node_id("a")) in shell.disk.values
    shell.pass_ms(30_000)
    check_disk(shell.disk)
    assert {kind for kind, _ in shell.disk.values} == {records.META}
    counters = shell.disk.get(records.META, b"counters", CountersRecord)
    assert (counters.ended, counters.finished_bytes) == ({}, 0)
    with pytest.raises(WorkflowUnknown):
        shell.do(OrderWorkflow(run.id, "rerun", "a"))


def test_no_part_of_a_workflow_is_taken_away_while_it_can_be_resumed() -> None:
    """Also when finished tasks weigh too much: what had succeeded would run again."""
    graph = Graph().add("n0")
    for n in range(1, 8):
        graph.add(f"n{n}", f"n{n - 1}")
    run = Run(Shell(settings=Settings(retention_bytes=2_000)), graph)
    shell = run.shell
    run.work(["n7"])
    for _ in range(300):
        shell.pass_ms(500)
        there = [name for name in graph.names if (records.SPEC, run.node_id(name)) in shell.disk.values]
        assert len(there) == 8 or (records.WORKFLOW, run.id) not in shell.disk.values
    assert len(there) < 8
    check_disk(shell.disk)
    with pytest.raises(WorkflowUnknown):
        shell.do(OrderWorkflow(run.id, "resume"))


def test_a_workflow_is_not_taken_away_in_the_turn_that_resumes_it() -> None:
    """What retention has read of it says that it ended long ago."""
    run = aged(Graph().add("a").add("b", "a")).work(["b"])
    shell = run.shell
    shell.jump_ms(AGE_MS - 1_000)
    shell.wall_ms += 2_000
    finished = shell.disk.scan(records.FINISHED)
    assert finished
    commands: list[Command] = [OrderWorkflow(run.id, "resume"), *map(PurgeFinished, finished)]
    for command in commands:
        shell.ask(command)
        while shell.waiting:
            shell.feed(shell.waiting[0])
    shell.settle()
    check_disk(shell.disk)
    run.work()
    assert run.record.state == "succeeded"


def test_a_workflow_that_was_resumed_is_not_taken_away() -> None:
    run = aged(Graph().add("a").add("b", "a")).work(["b"])
    run.shell.pass_ms(AGE_MS // 2)
    run.shell.do(OrderWorkflow(run.id, "resume"))
    run.shell.pass_ms(2 * AGE_MS)
    run.crash()
    run.work()
    assert run.record.state == "succeeded"


def test_what_ran_again_is_taken_away_once() -> None:
    """What is put off of a first end is not what was void by then."""
    run = aged(Graph().add("a").add("b", "a").add("wait", kind="signal", signal="go"))
    run.work()
    run.shell.do(OrderWorkflow(run.id, "rerun", "a"))
    run.work()
    run.shell.pass_ms(2 * AGE_MS)
    check_disk(run.shell.disk)
    run.shell.do(SignalWorkflow(run.id, "go", pack(1)))
    run.shell.pass_ms(2 * AGE_MS)
    check_disk(run.shell.disk)
    assert {kind for kind, _ in run.shell.disk.values} == {records.META}


def test_what_waits_in_a_workflow_that_is_cancelled_is_told_as_it_is_kept(shell: Shell) -> None:
    """And what was for its success, or its failure, has ended, too."""
    graph = Graph().add("a").add("approve", kind="signal", signal="go")
    graph.add("cheer", phase="on_success").add("mourn", phase="on_failure")
    run = Run(shell, graph).work(["a"])
    run.told()
    shell.do(OrderWorkflow(run.id, "cancel"))
    told = run.told()
    assert told == {"approve": "cancelled", "cheer": "skipped", "mourn": "skipped", "report": "cancelled"}
    assert shell.disk.get(records.NODE, run.node_id("approve"), NodeRecord).state == "cancelled"


def test_a_workflow_s_task_is_not_retried_alone(shell: Shell) -> None:
    """What came after it was decided by its end."""
    run = Run(shell, Graph().add("a").add("b", "a")).work(["a"])
    with pytest.raises(WorkflowEnded, match="workflow resume"):
        shell.do(RetryTasks([run.node_id("a")]))
    shell.do(StartJob("client", shell.new_id(), "retry", TaskFilter()))
    shell.do(StartJob("client", shell.new_id(), "purge", TaskFilter()))
    assert run.record.state == "failed"
    assert check_disk(shell.disk) == {run.node_id("a"): State.DEAD}
