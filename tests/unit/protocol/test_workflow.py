"""Workflows on the wire: ids, and what is refused."""

import pytest
from msgspec.structs import replace

from taskd_protocol.errors import BadRequest, WorkflowInvalid
from taskd_protocol.ids import format_task_id, is_task_id, parse_task_id
from taskd_protocol.task import Rules, TaskSpec, Unique
from taskd_protocol.workflow import (
    CHILDREN_MAX,
    Choice,
    Node,
    WorkflowSpec,
    check_nodes,
    check_workflow,
    is_workflow_id,
    make_workflow_id,
    member_id,
    place_of,
    workflow_of,
)

WORKFLOW = make_workflow_id(0x019AA8A95C00, b"\xff\x01\xff\x02\x03")
FETCH = TaskSpec(b"", "shop.fetch")
FIRST = Node("first", task=FETCH)


def test_ids() -> None:
    """All of a workflow sort behind it, by node and then by child, and each tells where it belongs."""
    ids = [
        WORKFLOW,
        *(member_id(WORKFLOW, node, child) for node in (0, 1, 99_999) for child in (-1, 0, CHILDREN_MAX - 1)),
    ]
    assert ids == sorted(ids)
    assert [place_of(i) for i in ids[:4]] == [(-1, -1), (0, -1), (0, 0), (0, CHILDREN_MAX - 1)]
    assert {workflow_of(i) for i in ids} == {WORKFLOW}
    assert [is_workflow_id(i) for i in ids] == [True] + [False] * 9
    assert not any(is_task_id(i) for i in ids)
    assert all(parse_task_id(format_task_id(i)) == i for i in ids)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": WORKFLOW[:15] + b"\x01"}, "five zero bytes"),
        ({"name": ""}, "workflow name"),
        ({"nodes": 0}, "1 to 10"),
        ({"nodes": 11}, "use map"),
        ({"policy": "give_up"}, "fail_fast"),
        ({"traceparent": "00-1"}, "W3C"),
    ],
)
def test_a_workflow_out_of_range(change: dict[str, object], said: str) -> None:
    spec = WorkflowSpec(WORKFLOW, "report", 1)
    check_workflow(spec, 10)
    with pytest.raises(BadRequest if "nodes" not in change else WorkflowInvalid, match=said):
        check_workflow(replace(spec, **change), 10)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (Node("", task=FETCH), "node name"),
        (Node("n", task=FETCH, needs=[1]), "waits for itself"),
        (Node("n", task=FETCH, after=[2]), "cycle"),
        (Node("n", task=FETCH, needs=[-1]), "cycle"),
        (Node("n", task=FETCH, needs=[0], after=[0]), "twice"),
        (Node("n", task=FETCH, needs=[0], when="some"), "all_succeeded"),
        (Node("n", task=FETCH, only_if=[Choice(0, b"\x01")]), "among needs or after"),
        (Node("n", task=FETCH, needs=[0], when="one_succeeded", only_if=[Choice(0, b"\x01")]), "waits for all"),
        (Node("n", task=FETCH, phase="later"), "on_success"),
        (Node("n", task=FETCH, phase="compensate"), "takes back"),
        (Node("n", task=FETCH, compensates=0), "takes back"),
        (Node("n", kind="loop"), "task, map"),
        (Node("n"), "needs a task"),
        (Node("n", kind="value", task=FETCH), "has no task"),
        (Node("n", kind="map", task=FETCH, needs=[0]), "which of its needs"),
        (Node("n", kind="map", task=FETCH, needs=[0], over=1), "which of its needs"),
        (Node("n", kind="map", task=FETCH, needs=[0], over=0, in_flight_max=-1), "in_flight_max"),
        (Node("n", kind="value", packed=bytes(2_000)), "limit is 1000"),
        (Node("n", kind="signal"), "signal name"),
        (Node("n", kind="sleep"), "1 ms"),
        (Node("n", kind="signal", signal="go", wait_ms=-1), "1 ms"),
        (Node("n", task=replace(FETCH, id=WORKFLOW)), "has no id"),
        (Node("n", task=replace(FETCH, key="k")), "neither key nor unique"),
        (Node("n", task=replace(FETCH, given=Rules(unique=Unique("running")))), "neither key nor unique"),
        (Node("n", task=replace(FETCH, priority=101)), "priority"),
        (Node("n", task=replace(FETCH, payload=bytes(2_000))), "2000 bytes"),
    ],
)
def test_a_node_out_of_range(node: Node, said: str) -> None:
    """It is named, with what is wrong."""
    with pytest.raises(WorkflowInvalid, match=said) as refused:
        check_nodes([FIRST, node], 0, 1_000)
    assert repr(node.name) in refused.value.message
