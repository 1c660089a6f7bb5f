"""How far a workflow is, and what took its time, told from its nodes."""

from msgspec.structs import replace

from taskd.client.progress import critical_path, ended_count, progress_of
from taskd_protocol.workflow_messages import NodeView, WorkflowView

VIEW = WorkflowView(
    bytes(16), "w", "running", 4, {"succeeded": 1, "skipped": 1, "ready": 1, "blocked": 1}, 0, None, "", ""
)


def node(name: str, state: str, needs: list[int], start_ms: int | None = None, end_ms: int | None = None) -> NodeView:
    return NodeView(name, "task", state, "t", needs, [], "all_succeeded", started_at_ms=start_ms, finished_at_ms=end_ms)


DIAMOND = [
    node("a", "succeeded", [], 0, 1_000),
    node("b", "succeeded", [0], 1_000, 6_000),
    node("c", "dead", [0], 1_000, 3_000),
    node("d", "skipped", [1, 2]),
    node("e", "running", [1], 6_000),
]


def test_the_longest_chain() -> None:
    """Of nodes that follow one another; what has not ended, or took no time, is no part of it."""
    assert critical_path(DIAMOND) == [0, 1]
    last = node("f", "succeeded", [2], 3_000, 7_500)
    assert critical_path([*DIAMOND, last]) == [0, 2, 5]
    assert critical_path([*DIAMOND, replace(last, needs=[2, 3])]) == [0, 1, 5]
    assert critical_path([replace(DIAMOND[1], needs=[], after=[]), replace(DIAMOND[0], after=[0])]) == [0, 1]
    assert critical_path([node("a", "ready", [])]) == []
    assert critical_path([]) == []


def test_a_clock_that_was_put_back_takes_no_time_away() -> None:
    assert critical_path([node("a", "succeeded", [], 5_000, 1_000), node("b", "succeeded", [0], 0, 10)]) == [1]


def test_a_node_that_maps_counts_by_its_tasks() -> None:
    mapped = replace(node("m", "running", []), kind="map", children=8, succeeded=1, failed=1)
    told = progress_of(replace(VIEW, nodes=2), [node("a", "skipped", []), mapped])
    assert (told.nodes, told.ended, told.children, told.children_ended) == (2, 1, 8, 2)
    assert told.share == (1 + 0.25) / 2
    ended = progress_of(replace(VIEW, nodes=1), [replace(mapped, state="dead")])
    assert (ended.share, ended.children_ended) == (1.0, 8)


def test_counts() -> None:
    assert ended_count(VIEW) == 2
