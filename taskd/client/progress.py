"""Progress: how far a workflow is, and what took its time, from what is told of its nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from taskd_protocol.workflow import MAP
from taskd_protocol.workflow_messages import NodeView, WorkflowView

_MOVING: Final = frozenset({"blocked", "waiting", "running", "ready", "scheduled", "cancelling", "broken"})
"""What a node's state is until it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowProgress:
    """How far a workflow is. A node that maps counts as one, however many tasks it is."""

    state: str
    """Of the workflow."""
    nodes: int
    ended: int
    """Of those; skipped ones, too."""
    share: float
    """From 0 to 1: nodes that have ended, and of those that map the share of their tasks that have."""
    children: int
    """Tasks of all nodes that map, as far as it is known how many there are."""
    children_ended: int
    """Of those; of a node that has ended, all."""


def ended_count(view: WorkflowView) -> int:
    """Return how many nodes have ended."""
    return sum([count for state, count in view.counts.items() if state not in _MOVING])


def progress_of(view: WorkflowView, nodes: Sequence[NodeView]) -> WorkflowProgress:
    """Return how far a workflow is that has these nodes."""
    ended = children = children_ended = 0
    shares = 0.0
    for node in nodes:
        done = node.succeeded + node.failed
        if node.state not in _MOVING:
            ended += 1
            shares += 1
            done = node.children
        elif node.kind == MAP and node.children:
            shares += done / node.children
        children += node.children
        children_ended += done
    return WorkflowProgress(
        state=view.state,
        nodes=view.nodes,
        ended=ended,
        share=shares / max(view.nodes, 1),
        children=children,
        children_ended=children_ended,
    )


def ran_ms(node: NodeView) -> int:
    """Return how long a node took; 0: it has not ended, or took no time."""
    started, finished = node.started_at_ms, node.finished_at_ms
    return 0 if started is None or finished is None else max(0, finished - started)


def critical_path(nodes: Sequence[NodeView]) -> list[int]:
    """Return the chain of nodes whose runs took longest together, from the first on, as positions; empty: nothing ran.

    Without those that took no time.
    """
    together: list[int] = []
    before: list[int] = []
    for node in nodes:
        slowest = max([*node.needs, *node.after], key=together.__getitem__, default=-1)
        before.append(slowest)
        together.append(ran_ms(node) + (together[slowest] if slowest >= 0 else 0))
    if not any(together):
        return []
    at = max(range(len(nodes)), key=together.__getitem__)
    chain: list[int] = []
    while at >= 0:
        chain.append(at)
        at = before[at]
    return [position for position in reversed(chain) if ran_ms(nodes[position])]
