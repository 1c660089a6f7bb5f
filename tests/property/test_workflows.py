"""Workflows of any shape: what runs, and what is skipped, agrees with what became of the nodes before it (S8)."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core import Shell
from harness.fsck import check_disk
from harness.trigger_rules import agrees, may_begin
from harness.workflows import Graph, Run
from taskd.core import records
from taskd.core.graph import FAILED, RUN, SUCCEEDED, Layout
from taskd.core.graph import Graph as Rules
from taskd.core.records import StateRecord
from taskd.core.settling import SKIP_CODES
from taskd.core.workflow_records import NodeRecord
from taskd_protocol.payload import pack
from taskd_protocol.workflow import TRIGGERS, WHOLE, Choice


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw nodes, each of which comes after some of those before it."""
    graph = Graph()
    for position in range(draw(st.integers(1, 12))):
        before = draw(st.lists(st.integers(0, position - 1), unique=True, max_size=4)) if position else []
        when = draw(st.sampled_from(TRIGGERS))
        split = draw(st.integers(0, len(before)))
        only_if = []
        if when in WHOLE and before and draw(st.booleans()):
            only_if = [Choice(before[0], pack(draw(st.sampled_from(["x", "y"]))))]
        graph.add(
            f"n{position}",
            *(f"n{p}" for p in before[:split]),
            after=[f"n{p}" for p in before[split:]],
            when=when,
            only_if=only_if,
            may_fail=draw(st.booleans()),
        )
    return graph


@settings(max_examples=120, deadline=None)
@given(graphs(), st.sets(st.integers(0, 11)), st.integers(0, 2**32))
def test_every_node_ends_as_its_rule_says(graph: Graph, failing: set[int], seed: int) -> None:
    """Whatever the order in which nodes end, and whatever crashes come between."""
    chance = random.Random(seed)
    run = Run(Shell(seed=seed), graph)
    ended: dict[int, int] = {}
    for _ in range(200):
        if run.record.state != "running":
            break
        if chance.random() < 0.15:
            run.crash()
            run.shell.pass_ms(20_000)
        grants = run.take(chance.randint(1, 3))
        for name, grant in sorted(grants.items(), key=lambda _: chance.random()):
            position = graph.names[name]
            assert may_begin(graph.nodes[position], _statuses(run))
            if position in failing:
                run.fail(grant)
            else:
                run.ack(grant, pack(chance.choice("xy")))
            check_disk(run.shell.disk)
    assert run.record.state in {"succeeded", "failed"}
    ended = _statuses(run)
    assert ended.keys() == set(range(len(graph.nodes)))
    for position, status in ended.items():
        _check_end(graph, run, position, status, ended)
    failed = {p for p, status in ended.items() if status == FAILED and not graph.nodes[p].may_fail}
    assert (run.record.state == "failed") == bool(failed)
    assert all(count == 1 for count in Counter(run.ran).values()) or run.shell.mono_ms > 60_000
    assert not run.shell.working.flows
    assert not run.shell.disk.scan(records.OPEN)


@given(graphs(), st.integers(0, 2**32))
def test_successes_that_are_noted_together_come_to_the_same_as_one_by_one(graph: Graph, seed: int) -> None:
    """In any order, turn for turn, with failures and skips between."""
    chance = random.Random(seed)
    alone, together = rules_of(graph), rules_of(graph)
    verdicts, at_once = dict(alone.judge_all()), dict(together.judge_all())
    ended: set[int] = set()
    while open_nodes := sorted(verdicts.keys() - ended):
        some = [node for node in open_nodes if chance.random() < 0.6] or open_nodes
        ends = {node: chance.choice([SUCCEEDED, FAILED]) if verdicts[node] == RUN else verdicts[node] for node in some}
        succeeded = [node for node, status in ends.items() if status == SUCCEEDED]
        for node, status in ends.items():
            if status != SUCCEEDED:
                verdicts.update(alone.settle(node, status))
                at_once.update(together.settle(node, status))
        for node in succeeded:
            verdicts.update(alone.settle(node, SUCCEEDED))
        chance.shuffle(succeeded)
        at_once.update(together.succeed(succeeded))
        ended.update(some)
        assert (at_once, together.statuses, together.open_count) == (verdicts, alone.statuses, alone.open_count)
    assert ended == set(range(len(graph.nodes)))


def rules_of(graph: Graph) -> Rules:
    """Return the rules of a graph, of which nothing has begun."""
    layout = Layout()
    layout.add(graph.nodes)
    return Rules(layout)


def _statuses(run: Run) -> dict[int, int]:
    """Return how nodes ended, by what is stored of them."""
    disk = run.shell.disk
    found: dict[int, int] = {}
    for name, position in run.graph.names.items():
        node_id = run.node_id(name)
        state, node = disk.find(records.STATE, node_id, StateRecord), disk.find(records.NODE, node_id, NodeRecord)
        if node is not None and node.failure is not None:
            found[position] = SKIP_CODES[node.failure.code]
        elif state is not None and state.finished_at_ms:
            found[position] = SUCCEEDED if state.state == "succeeded" else FAILED
    return found


def _check_end(graph: Graph, run: Run, position: int, status: int, ended: dict[int, int]) -> None:
    def result_of(parent: int) -> bytes | None:
        state = run.shell.disk.find(records.STATE, run.node_id(f"n{parent}"), StateRecord)
        return None if state is None else state.result

    assert agrees(graph.nodes[position], status, ended, result_of)
