"""Messages about workflows; they belong to the unions of ``messages``, and follow its rules of change.

Type numbers: 80-82 agents, 96-105 clients.
"""

import msgspec

from taskd_protocol.mark import Mark
from taskd_protocol.task import Failure, Outcome, TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec

# -- agents -----------------------------------------------------------------------------


class InputQuery(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=80):
    """Tell me an input of a task that I hold, as it was granted with a reference to it. Answered by INPUT_PAGE."""

    request_id: int
    token: int
    input: int
    """Its position among the inputs; -1: what the task has spawned."""
    after: int = 0
    """Of a list that a node's children made: so many of their results are known already."""


class Missed(msgspec.Struct, array_like=True, frozen=True):
    """A task that another one has spawned, and that has not succeeded."""

    position: int
    """Its position among all that were."""
    failure: Failure
    """Why not; ``task.pending``: it has not ended."""


class InputPage(msgspec.Struct, array_like=True, frozen=True, tag=81):
    """A task's result, or some of the results that are to be a list."""

    request_id: int
    parts: list[bytes]
    """Packed: the result; or, of a list, those from ``after`` on, nil for a child that did not succeed."""
    last: bool = True
    """The list ends with these."""
    missed: list[Missed] = []
    """Of what was spawned, those that have not succeeded."""


class Spawn(msgspec.Struct, array_like=True, frozen=True, tag=82):
    """A task that I run has spawned these. Answered DONE; its report comes after that."""

    request_id: int
    token: int
    first: int
    """So many were spawned before these, by this attempt or earlier ones."""
    tasks: list[TaskSpec]
    """Under empty ids. Those that are known from their positions are not made again."""


# -- clients ----------------------------------------------------------------------------


class WorkflowSubmit(msgspec.Struct, array_like=True, frozen=True, tag=96):
    """Keep this workflow: whole, once the last of its nodes has come, or not at all.

    One of many nodes comes in several, one after the other in order; each is answered. Resent from
    the first on, under the same id, until the last is answered. Answered by WORKFLOW_ACCEPTED.
    """

    request_id: int
    workflow: WorkflowSpec
    """The same in each."""
    first: int
    """The position of the first of these nodes."""
    nodes: list[Node]
    """1 to ``NODES_MAX``."""


class WorkflowAccepted(msgspec.Struct, array_like=True, frozen=True, tag=97):
    """These nodes are taken; with the last of them the workflow is on the server's disk."""

    request_id: int
    mark: Mark
    nodes: int
    """How many are known now; as many as it has: it is kept."""


class WorkflowOrder(msgspec.Struct, array_like=True, frozen=True, tag=98):
    """Have this done to a workflow. Answered DONE."""

    request_id: int
    id: bytes
    action: str
    """``cancel``: end it, with all that it runs; ``resume``: go on from what has failed; ``rerun``: go on from
    ``node``, with all that comes after it."""
    node: str = ""
    """Of ``rerun``: its name."""
    order_id: bytes = b""
    """16 bytes, drawn for each order and the same on every resend, which then changes nothing; empty: none."""


class WorkflowSignal(msgspec.Struct, array_like=True, frozen=True, tag=99):
    """Let nodes go on that wait for a signal, now or later. Answered DONE."""

    request_id: int
    id: bytes
    name: str
    packed: bytes = b"\xc0"
    """Their result."""


class WorkflowView(msgspec.Struct, array_like=True, frozen=True):
    """A workflow as people and programs see it. Instants are UTC milliseconds, None: not yet."""

    id: bytes
    name: str
    state: str
    """``running``, ``cancelling``, ``succeeded``, ``failed`` or ``cancelled``; or ``broken``: it cannot be read, and
    stays as it is."""
    nodes: int
    counts: dict[str, int]
    """Nodes by state; what is in motion counts as ``running``."""
    created_at_ms: int
    finished_at_ms: int | None
    policy: str
    traceparent: str
    failed_node: str = ""
    """The first whose failure made it fail; empty: none."""
    schedule: str = ""
    """The schedule that submitted it; empty: none did."""
    scheduled_for_ms: int | None = None
    """The nominal time that it is for; None: no schedule submitted it."""
    reason: str = ""
    """Why it is ``broken``; empty: it is not."""


class NodeView(msgspec.Struct, array_like=True, frozen=True):
    """A node as people and programs see it."""

    name: str
    kind: str
    state: str
    """Of its task; or ``blocked``, ``waiting`` (of ``sleep`` and ``signal``), ``running`` (of ``map``), ``skipped``; or
    ``broken``: what has become of it cannot be read."""
    task: str
    """Name of what it runs; empty: nothing."""
    needs: list[int]
    after: list[int]
    when: str
    phase: str = ""
    attempt: int = 0
    agent: str = ""
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    failure: Failure | None = None
    """Why it failed, or was skipped; in short."""
    children: int = 0
    """Of ``map``: how many there are."""
    succeeded: int = 0
    """Of those."""
    failed: int = 0
    """Of those."""
    signal: str = ""
    """Of ``signal``: its name."""


class WorkflowList(msgspec.Struct, array_like=True, frozen=True, tag=100):
    """Show me the workflows, newest first. Answered by WORKFLOW_PAGE."""

    request_id: int
    state: str = ""
    """Only those; empty: all."""
    name: str = ""
    """With ``*`` and ``?``; empty: all."""
    limit: int = 100
    cursor: bytes = b""
    """Of the page before; empty: the first page."""


class WorkflowPage(msgspec.Struct, array_like=True, frozen=True, tag=101):
    """A page; it may be short of ``limit`` and still have a cursor, when the scan's budget was spent."""

    request_id: int
    views: list[WorkflowView]
    cursor: bytes
    """For the next page; empty: there is none."""


class WorkflowQuery(msgspec.Struct, array_like=True, frozen=True, tag=102):
    """Show me a workflow, and a page of its nodes. Answered by WORKFLOW_NODES."""

    request_id: int
    id: bytes
    first: int = 0
    """Position of the page's first node."""
    limit: int = 1_000


class WorkflowNodes(msgspec.Struct, array_like=True, frozen=True, tag=103):
    """The workflow as it stands, None if it is not stored, and a page of its nodes, in order."""

    request_id: int
    view: WorkflowView | None
    nodes: list[NodeView]


class ChildrenQuery(msgspec.Struct, array_like=True, frozen=True, tag=104):
    """Show me the children of a node that maps, while it runs or later. Answered by CHILDREN_PAGE."""

    request_id: int
    id: bytes
    """The node's."""
    first: int = 0
    limit: int = 1_000


class ChildrenPage(msgspec.Struct, array_like=True, frozen=True, tag=105):
    """Some of the children, in the order of the items."""

    request_id: int
    total: int
    """Children in all; -1: not known yet, or no such node."""
    outcomes: list[Outcome]
    """From ``first`` on, fewer than asked for if they are large; of one that has not ended, its state alone."""
