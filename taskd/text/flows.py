"""What the server tells of workflows, as JSON documents: see ``documents``."""

from collections.abc import Sequence

import msgspec

from taskd.text.documents import ErrorDocument, error_document
from taskd.text.values import iso
from taskd_protocol.ids import format_task_id
from taskd_protocol.workflow import MAP, member_id
from taskd_protocol.workflow_messages import NodeView, WorkflowView


class WorkflowDocument(msgspec.Struct):
    """A workflow."""

    id: str
    name: str
    state: str
    policy: str
    node_count: int
    counts: dict[str, int]
    """Nodes by state."""
    failed_node: str | None
    """The first whose failure made it fail."""
    reason: str | None
    """Why it is broken."""
    created_at: str | None
    finished_at: str | None
    trace_id: str | None
    schedule: str | None
    """That submitted it."""
    scheduled_for: str | None


class ChildrenDocument(msgspec.Struct):
    """The children of a node that maps, counted."""

    total: int
    succeeded: int
    failed: int


class NodeDocument(msgspec.Struct):
    """A node of a workflow."""

    id: str
    name: str
    kind: str
    state: str
    task: str | None
    """Name of what it runs."""
    needs: list[str]
    after: list[str]
    when: str
    phase: str | None
    attempt: int
    agent: str | None
    started_at: str | None
    finished_at: str | None
    error: ErrorDocument | None
    children: ChildrenDocument | None
    signal: str | None


class WorkflowDetail(WorkflowDocument):
    """A workflow with its nodes."""

    nodes: list[NodeDocument]


def workflow_document(view: WorkflowView) -> WorkflowDocument:
    """Return a workflow."""
    return WorkflowDocument(
        id=format_task_id(view.id),
        name=view.name,
        state=view.state,
        policy=view.policy,
        node_count=view.nodes,
        counts=dict(view.counts),
        failed_node=view.failed_node or None,
        reason=view.reason or None,
        created_at=iso(view.created_at_ms),
        finished_at=iso(view.finished_at_ms),
        trace_id=view.traceparent[3:35] or None,
        schedule=view.schedule or None,
        scheduled_for=iso(view.scheduled_for_ms),
    )


def workflow_detail(view: WorkflowView, nodes: Sequence[NodeView]) -> WorkflowDetail:
    """Return a workflow with all its nodes."""
    names = [node.name for node in nodes]
    told = [node_document(node, names, member_id(view.id, position)) for position, node in enumerate(nodes)]
    return WorkflowDetail(**msgspec.structs.asdict(workflow_document(view)), nodes=told)


def node_document(view: NodeView, names: Sequence[str], task_id: bytes) -> NodeDocument:
    """Return a node.

    Args:
        view: The node.
        names: Of all nodes of its workflow, in order.
        task_id: Its own.
    """
    return NodeDocument(
        id=format_task_id(task_id),
        name=view.name,
        kind=view.kind,
        state=view.state,
        task=view.task or None,
        needs=[names[position] for position in view.needs],
        after=[names[position] for position in view.after],
        when=view.when,
        phase=view.phase or None,
        attempt=view.attempt,
        agent=view.agent or None,
        started_at=iso(view.started_at_ms),
        finished_at=iso(view.finished_at_ms),
        error=None if view.failure is None else error_document(view.failure),
        children=ChildrenDocument(view.children, view.succeeded, view.failed) if view.kind == MAP else None,
        signal=view.signal or None,
    )
