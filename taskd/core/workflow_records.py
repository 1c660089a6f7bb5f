"""Records of workflows: where they stand, their nodes, and what became of those; see ``taskd.core.records``."""

import msgspec

from taskd_protocol.task import Failure
from taskd_protocol.workflow import WorkflowSpec


class WorkflowRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Where a workflow stands."""

    spec: WorkflowSpec
    owner: str
    """Key id of the token that submitted it."""
    created_at_ms: int
    state: str
    """``running``, ``cancelling``, or how it ended."""
    counts: dict[str, int]
    """Nodes by how they ended; the others have not."""
    finished_at_ms: int = 0
    """0: it goes on."""
    failed_node: int = -1
    """The first whose failure made it fail; -1: none."""
    failed_name: str = ""
    """Its name."""
    stopped: bool = False
    """What has not begun is not begun any more: it was cancelled, or failed fast."""
    stage: int = 0
    """0: nodes of no phase; 1: compensating; 2: the nodes for its success, or its failure."""
    order: str = ""
    """``resume``, or ``rerun``, which was ordered and is still to be carried out; empty: none."""
    order_node: int = -1
    """Of ``rerun``."""
    signals: list[str] = []
    """Names of those that nodes wait for, as they once were kept here; now they are read of the nodes."""
    compensated: bool = False
    """Something was taken back: it is not resumed."""
    digest: bytes = b""
    """16 bytes over its nodes: another content under the id is a conflict."""
    parts: list[int] = []
    """The position of the first node of each NODES record."""
    parent: bytes = b""
    """The task that has spawned its tasks; empty: it was submitted."""
    spawned: int = 0
    """How many."""
    waiting: bool = False
    """The parent waits for them."""
    parent_ended: bool = False
    swept: int = 0
    """So many nodes, from the first, have been taken away by retention."""
    reruns: int = 0
    """How often it was resumed, or a node of it ordered to run again: results may be others since."""
    schedule: str = ""
    """The schedule that submitted it; empty: a client, or a task, did."""
    scheduled_for_ms: int = 0
    """The nominal time that it is for, of one that a schedule submitted."""
    orders: list[bytes] = []
    """Ids of the newest orders, oldest first: the same again is known by it."""


class NodesRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Some of a workflow's nodes, in order. Written once."""

    nodes: list[msgspec.Raw]
    """Each a ``Node``: many are read when one is wanted, so they stay packed."""


class NodeRecord(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A node that is no task of its own: it waits, maps or has a value; or was skipped."""

    state: str
    """``waiting``, ``running``, ``succeeded``, ``dead``, ``cancelled`` or ``skipped``; ``blocked``: what its task, or
    child, came to is void, it is to run again."""
    started_at_ms: int
    finished_at_ms: int = 0
    """0: it has not ended."""
    due_at_ms: int = 0
    """Of one that sleeps, or waits for a signal and not for ever."""
    total: int = -1
    """Of one that maps: items; -1: not known yet."""
    made: int = 0
    """Of one that maps anew: children of before, from the first, whose tasks are there."""
    released: int = 0
    """Of those: so many, from the first, run again, or have done so."""
    packed: bytes = b""
    """Its result, if that was handed to it."""
    failure: Failure | None = None
    again: int = -1
    """Of one that maps and was resumed: of the children from this one on, those that failed are still to run again; -1:
    none is."""
