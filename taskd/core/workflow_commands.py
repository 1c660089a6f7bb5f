"""What is asked of workflows, and what was read of them; see ``taskd.core.commands``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from taskd.core.workflow_records import NodeRecord
from taskd_protocol.task import Given, TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec


class SubmitWorkflow(msgspec.Struct, frozen=True):
    """Keep these nodes of a workflow, and with the last of them the workflow. Answer: ``NodesTaken``."""

    owner: str
    spec: WorkflowSpec
    first: int
    nodes: Sequence[Node]


class NodesTaken(NamedTuple):
    """So many nodes of the workflow are known; if that is all, it is kept."""

    nodes: int


class OrderWorkflow(msgspec.Struct, frozen=True):
    """Cancel a workflow, resume it, or run a node of it again."""

    id: bytes
    action: str
    node: str = ""
    order_id: bytes = b""
    """The same order again is known by it; empty: it is not."""


class SignalWorkflow(msgspec.Struct, frozen=True):
    """Let the nodes of a workflow go on that wait for this, now or later."""

    id: bytes
    name: str
    packed: bytes


class TakeFlow(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the effect ``WantFlow``: a workflow's nodes, and what is stored of each."""

    id: bytes
    nodes: Sequence[msgspec.Raw]
    made: Sequence[int]
    """Nodes that have a task."""
    ended: Sequence[tuple[int, bool, bytes | None]]
    """Those whose task has ended: whether it succeeded, and its result, if that stands in the state record."""
    records: Sequence[tuple[int, NodeRecord]]
    children: Mapping[int, bytes]
    """Of nodes that map: the status of each child that has a task, see ``graph``."""
    void: Sequence[tuple[int, int, bytes]]
    """Children (node, child, item or nothing) that have ended and are to run again."""
    signals: Mapping[str, bytes]
    broken: str = ""
    """Why it cannot be read, and nothing else is told; empty: it was."""


class MapItems(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the effect ``WantItems``."""

    id: bytes
    node: int
    total: int
    """Items in all; -1: it is no list."""
    longest: int = 0
    """Bytes of the longest of all; 0: not known."""
    first: int
    broken: str = ""
    """Why they cannot be read; empty: they were."""
    items: Sequence[bytes]
    """Packed, from ``first`` on."""


class SpawnTasks(msgspec.Struct, frozen=True):
    """Make what a running task has spawned."""

    agent: str
    token: int
    first: int
    specs: Sequence[TaskSpec]


class WakeTask(msgspec.Struct, frozen=True):
    """Put a task back in line that waited for what it has spawned."""

    id: bytes
    family: bytes


class RerunTasks(msgspec.Struct, frozen=True):
    """Run these tasks of workflows again, which have ended, with these inputs; none: with those of before."""

    tasks: Sequence[tuple[bytes, Sequence[Given]]]
