"""Workflows to their ends and beyond: policies, taking back, nodes for success and failure, and what a resume runs."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core import Shell
from harness.fsck import check_disk
from harness.trigger_rules import agrees
from harness.workflows import Graph, Run
from taskd.core import records
from taskd.core.graph import FAILED, SKIPPED, STOPPED, SUCCEEDED
from taskd.core.records import StateRecord
from taskd.core.settling import SKIP_CODES
from taskd.core.workflow_commands import OrderWorkflow
from taskd.core.workflow_records import NodeRecord
from taskd_protocol.errors import WorkflowEnded
from taskd_protocol.workflow import COMPENSATE, FAIL_FAST, FINISH, ON_FAILURE, ON_SUCCESS, TRIGGERS

Statuses = dict[str, int]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw nodes, some of which take others back, and some for the end."""
    graph = Graph()
    count = draw(st.integers(1, 8))
    for position in range(count):
        before = draw(st.lists(st.integers(0, position - 1), unique=True, max_size=3)) if position else []
        when = draw(st.sampled_from(("all_succeeded", "all_succeeded", *TRIGGERS)))
        graph.add(f"n{position}", after=[f"n{each}" for each in before], when=when, may_fail=draw(st.booleans()))
    for target in draw(st.lists(st.integers(0, count - 1), unique=True, max_size=3)):
        graph.add(f"undo{target}", f"n{target}", when="all_done", phase=COMPENSATE, compensates=target)
    for phase in draw(st.lists(st.sampled_from((ON_FAILURE, ON_SUCCESS)), max_size=2)):
        graph.add(f"{phase}-{len(graph.nodes)}", when="all_done", phase=phase)
    return graph


failing = st.sets(st.integers(0, 7).map("n{}".format) | st.sampled_from(("undo0", "undo1")), max_size=4)


@settings(max_examples=150, deadline=None)
@given(graphs(), st.sampled_from((FINISH, FAIL_FAST)), failing, st.integers(0, 2**32))
def test_a_workflow_ends_as_its_nodes_and_its_policy_say(graph: Graph, policy: str, fails: set[str], seed: int) -> None:
    """Whatever the order in which nodes end, and whatever crashes come between; then a resume runs what had failed."""
    chance = random.Random(seed)
    run = Run(Shell(seed=seed), graph, policy=policy)
    _work(run, chance, lambda name: name in fails)
    ends = _statuses(run)
    first = list(dict.fromkeys(run.ran))
    assert ends.keys() == graph.names.keys()
    _check_plain(graph, policy, ends)
    _check_taken_back(graph, ends, first)
    _check_phases(graph, ends, first)
    has_failed = _has_failed(graph, ends, list(graph.names))
    assert run.record.state == ("failed" if has_failed else "succeeded")
    if has_failed:
        _check_resume(run, chance, ends)
    else:
        with pytest.raises(WorkflowEnded, match="there is nothing to resume"):
            run.shell.do(OrderWorkflow(run.id, "resume"))


def _check_plain(graph: Graph, policy: str, ends: Statuses) -> None:
    """Each node of no phase ended by its rule, unless a failure has stopped all."""
    by_place = {graph.names[name]: status for name, status in ends.items()}
    stops = policy == FAIL_FAST and _has_failed(graph, ends, _plain(graph))
    for name in _plain(graph):
        node, status = graph.nodes[graph.names[name]], ends[name]
        assert (
            (status == STOPPED and stops)
            or agrees(node, status, by_place, lambda _: None)
            or (
                stops and status == FAILED  # it ran, and was cancelled
            )
        )


def _check_taken_back(graph: Graph, ends: Statuses, ran: list[str]) -> None:
    """What had succeeded, if anything failed: the last node's first, before all that comes at the end."""
    undone = [name for name in ran if name.startswith("undo")]
    due = [name for name in graph.names if name.startswith("undo") and ends[f"n{name[4:]}"] == SUCCEEDED]
    expected = sorted(due, reverse=True) if _has_failed(graph, ends, _plain(graph)) else []
    assert undone == expected
    assert all(ends[name] == SKIPPED for name in graph.names if name.startswith("undo") and name not in undone)


def _check_phases(graph: Graph, ends: Statuses, ran: list[str]) -> None:
    """Nodes for failure run when anything has failed, taking back too; those for success when nothing has."""
    before = [*_plain(graph), *(name for name in graph.names if name.startswith("undo"))]
    has_failed = _has_failed(graph, ends, before)
    for name, position in graph.names.items():
        phase = graph.nodes[position].phase
        if phase in {ON_FAILURE, ON_SUCCESS}:
            assert ends[name] == (SUCCEEDED if (phase == ON_FAILURE) == has_failed else SKIPPED)
            assert name not in ran or {other for other in ran if other in before} <= set(ran[: ran.index(name)])


def _check_resume(run: Run, chance: random.Random, ends: Statuses) -> None:
    """It runs what had failed and what came after; what was taken back is not resumed."""
    graph = run.graph
    if any(name.startswith("undo") for name in run.ran):
        with pytest.raises(WorkflowEnded, match="taken back"):
            run.shell.do(OrderWorkflow(run.id, "resume"))
        return
    run.ran.clear()
    run.shell.do(OrderWorkflow(run.id, "resume"))
    _work(run, chance, lambda _: False)
    again = _statuses(run)
    kept = {name for name in _plain(graph) if ends[name] == SUCCEEDED}
    assert kept.isdisjoint(run.ran), "what has succeeded is kept"
    assert run.record.state == "succeeded"
    left = [
        name for name in _plain(graph) if ends[name] == FAILED and not _may_fail(graph, name) and name not in run.ran
    ]
    by_place = {graph.names[name]: status for name, status in again.items()}
    for name in left:  # what it ran for has not happened this time
        assert again[name] == SKIPPED
        assert agrees(graph.nodes[graph.names[name]], SKIPPED, by_place, lambda _: None)
    assert not _has_failed(graph, again, list(graph.names))
    _check_phases(graph, again, list(dict.fromkeys(run.ran)))


# -- the run --------------------------------------------------------------------------------


def _work(run: Run, chance: random.Random, fails: Callable[[str], bool]) -> None:
    """Work off all there is, in any order, with crashes; what is cancelled ends as such."""
    for _ in range(300):
        if run.record.finished_at_ms:
            break
        if chance.random() < 0.1:
            run.crash()
            run.shell.pass_ms(20_000)
        grants = run.take(chance.randint(1, 3))
        taking_back = [name for name in grants if name.startswith("undo")]
        assert len(taking_back) <= 1, "one is taken back after the other"
        for name, grant in sorted(grants.items(), key=lambda _: chance.random()):
            if grant.token in run.agent.revoked:
                run.shell.do(run.agent.nack(grant, outcome="cancelled"))
                run.agent.held.pop(grant.token)
            elif fails(name):
                run.fail(grant)
            else:
                run.ack(grant)
            run.agent.receive()
            check_disk(run.shell.disk)
    assert run.record.finished_at_ms
    assert not run.shell.disk.scan(records.OPEN)


def _statuses(run: Run) -> Statuses:
    """Return how nodes ended, by what is stored of them."""
    disk = run.shell.disk
    found: Statuses = {}
    for name in run.graph.names:
        node_id = run.node_id(name)
        state, node = disk.find(records.STATE, node_id, StateRecord), disk.find(records.NODE, node_id, NodeRecord)
        if node is not None and node.failure is not None:
            found[name] = SKIP_CODES[node.failure.code]
        elif state is not None and state.finished_at_ms:
            found[name] = SUCCEEDED if state.state == "succeeded" else FAILED
    return found


def _plain(graph: Graph) -> list[str]:
    return [name for name, position in graph.names.items() if not graph.nodes[position].phase]


def _may_fail(graph: Graph, name: str) -> bool:
    return graph.nodes[graph.names[name]].may_fail


def _has_failed(graph: Graph, ends: Statuses, names: list[str]) -> bool:
    return any(ends[name] == FAILED and not _may_fail(graph, name) for name in names)
