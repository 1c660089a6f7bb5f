"""Flows: workflows that have not ended, as they move in memory.

A node's task is made when its turn has come; until then the node is a part of its
workflow's records alone. What has become of a node shows in its task's records, or
in a NODE record; so all that is here can be read again, and what a crash cut short
is decided anew. A workflow that nothing has happened to since the start is here by
its WORKFLOW record alone; its nodes are read at the first event, and what happens
meanwhile is taken up after it.

Invariants:
- ``flows`` holds every workflow that has not ended.
- A flow that has something left to do, and is read, is in ``moving``.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from taskd.core.affinity import Affinity
from taskd.core.graph import (
    BLOCKED,
    FAILED,
    RELEASED,
    SKIPPED,
    STOPPED,
    SUCCEEDED,
    UPSTREAM_FAILED,
    Graph,
    Layout,
    Verdict,
)
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd_protocol.limits import NODES_MAX
from taskd_protocol.task import Failure, Given, TaskSpec
from taskd_protocol.workflow import NIL, SIGNAL, STEM_BYTES, TASK, Node, member_id

RESULT_BYTES_MAX = 2_048
"""Results up to this are kept until they are handed on; larger ones are asked for by who needs them."""

INPUTS_BYTES_MAX = 128 * 1024
"""Results that travel with one task; more is asked for. A lease with the largest arguments has room for so much."""

FAN_INPUTS_BYTES_MAX = 4 * 1024
"""And with each child of a node that maps: they are written as often as it has children."""

RESULTS_BYTES_MAX = 8 * 1024 * 1024
"""Kept of one workflow; more is asked for."""

STATES: Final = {
    BLOCKED: "blocked",
    RELEASED: "running",
    SUCCEEDED: "succeeded",
    FAILED: "failed",
    UPSTREAM_FAILED: "skipped",
    SKIPPED: "skipped",
    STOPPED: "skipped",
}
"""How nodes are counted."""


class Start(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first fields of a ``Node``: all that a task's node is asked when its turn has come, read in less time."""

    name: str
    kind: str
    task: TaskSpec | None
    needs: list[int]


_decode = msgspec.msgpack.Decoder(Node).decode
decode_start = msgspec.msgpack.Decoder(Start).decode


class Happened(msgspec.Struct, frozen=True, gc=False):
    """Something that concerns a workflow. A Struct because it is made in a fifth of a named tuple's time."""

    id: bytes
    """Of the task or node."""
    status: int
    """How it ended, as in ``graph``; ``RELEASED``: it goes on after all; ``BLOCKED``: its time has come."""
    result: bytes | None = None
    """Of a success, packed."""


class Fan:
    """The children of a node that maps.

    Attributes:
        statuses: Of each child; its length is how many items there are.
        released: So many, from the first, have a task.
        open: Of those have not ended.
        failed: Of those have not succeeded.
        items: Packed, of the next ones.
        reading: More items are on their way.
        made: So many, from the first, have a task of before that is to run again.
        again: Of those that have a task, from this one on, those that failed are still to run again; -1: none is.
        stopped: No more begin.
        refusal: Why not, if not by an order.
        started_at_ms: When it began to map.
    """

    __slots__ = (
        "again",
        "failed",
        "items",
        "made",
        "open",
        "reading",
        "refusal",
        "released",
        "started_at_ms",
        "statuses",
        "stopped",
    )

    def __init__(self, statuses: bytearray, made: int = 0, started_at_ms: int = 0, again: int = -1) -> None:
        self.statuses = statuses
        self.started_at_ms = started_at_ms
        self.made = made
        self.again = again
        self.refusal: Failure | None = None
        self.released = len(statuses) - statuses.count(BLOCKED)
        self.open = statuses.count(RELEASED)
        self.failed = statuses.count(FAILED)
        self.items: deque[bytes] = deque()
        self.reading = False
        self.stopped = False

    @property
    def has_ended(self) -> bool:
        """All children have that are to run."""
        return not self.open and self.again < 0 and (self.stopped or self.released == len(self.statuses))

    @property
    def missed(self) -> int:
        """So many have not succeeded, or were not begun."""
        return self.failed + len(self.statuses) - self.released

    def noted(self, record: NodeRecord) -> NodeRecord:
        """Return a record of its node with what that alone tells of the children."""
        released = self.released if self.made else 0
        return replace(record, total=len(self.statuses), made=self.made, released=released, again=self.again)

    def release(self) -> int:
        """Note that the next child has a task; return its position."""
        child = self.released
        self.statuses[child] = RELEASED
        self.released += 1
        self.open += 1
        return child

    def resume(self, now_ms: int) -> None:
        """Have the children that failed run again, and the others begin that have not."""
        self.stopped = self.reading = False
        self.refusal = None
        self.started_at_ms = now_ms
        self.again = 0

    def stop(self, refusal: Failure | None = None) -> None:
        """Have no more children begin."""
        self.stopped = True
        self.refusal = refusal
        self.again = -1
        self.items.clear()

    def grow(self, count: int) -> None:
        """Note so many more children, which have tasks."""
        self.statuses += bytes([RELEASED]) * count
        self.released += count
        self.open += count

    def note(self, child: int, status: int) -> None:
        """Note how a child ended, or that it goes on."""
        before = self.statuses[child]
        self.open += (status == RELEASED) - (before == RELEASED)
        self.failed += (status == FAILED) - (before == FAILED)
        self.statuses[child] = status


@dataclass(slots=True)
class Flow:
    """One workflow.

    Attributes:
        record: As it is stored, or will be with this turn.
        packed: Its nodes; None with ``graph``: not read.
        verdicts: What is to become of nodes, and is not carried out yet.
        made: Of each node whether it has, or had, a task.
        fans: Of the nodes that map, and have begun.
        spreading: Of those, which may have something to do.
        unsized: Nodes that map whose first items are on their way; with the children of before.
        refanned: Nodes that are to map anew; with the children of before.
        waits: Nodes that sleep, or wait for a signal.
        awaited: The signals that nodes wait for, by name, with those nodes.
        signals: Those that came.
        needed: Of each node, whether another one's arguments hold its result.
        results: Small ones of those.
        deciding: By node, whose results decide whether these run.
        ruled_out: Nodes whose branch was not taken; with those whose results decided so.
        phases: Nodes of each phase, with those that they take back.
        reruns: Tasks that have ended and are to run again; with the item that a child is given now, if any.
        tally: Nodes by their statuses, see ``graph``; that of those that are blocked is not kept.
        called: Nodes whose signal has come, and that go on in their turn.
        halted: It was stopped, and nothing begins any more.
        ending: The node, and the child of it, from which on what runs is still to be ended, since it was stopped; None:
            nothing is.
        late: What happened while it was read.
        broken: Why it cannot be read, and stays as it is until the next start; empty: it can.
    """

    record: WorkflowRecord
    packed: list[msgspec.Raw] = field(default_factory=list)
    graph: Graph | None = None
    verdicts: deque[Verdict] = field(default_factory=deque)
    made: bytearray = field(default_factory=bytearray)
    fans: dict[int, Fan] = field(default_factory=dict)
    spreading: dict[int, None] = field(default_factory=dict)
    unsized: dict[int, int] = field(default_factory=dict)
    refanned: dict[int, int] = field(default_factory=dict)
    waits: dict[int, NodeRecord] = field(default_factory=dict)
    awaited: dict[str, list[int]] = field(default_factory=dict)
    signals: dict[str, bytes] = field(default_factory=dict)
    needed: bytearray = field(default_factory=bytearray)
    results: dict[int, bytes] = field(default_factory=dict)
    results_bytes: int = 0
    deciding: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    ruled_out: dict[int, set[int]] = field(default_factory=dict)
    may_fail: set[int] = field(default_factory=set)
    phases: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    reruns: deque[tuple[bytes, bytes]] = field(default_factory=deque)
    tally: list[int] = field(default_factory=lambda: [0] * len(STATES))
    called: deque[int] = field(default_factory=deque)
    halted: bool = False
    ending: tuple[int, int] | None = None
    late: list[Happened] = field(default_factory=list)
    reading: bool = False
    broken: str = ""
    id: bytes = field(init=False)
    stem: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Note what is asked for all the time."""
        self.id = self.record.spec.id
        self.stem = stem_of(self.id)

    def node(self, position: int) -> Node:
        """Return a node."""
        return _decode(self.packed[position])

    @property
    def standing(self) -> dict[str, int]:
        """Nodes by what has become of them; those that are blocked are left out."""
        if self.graph is None:
            return self.record.counts
        counts: dict[str, int] = {}
        for status, count in enumerate(self.tally):
            if count and status != BLOCKED:
                counts[STATES[status]] = counts.get(STATES[status], 0) + count
        return counts

    def count_anew(self) -> None:
        """Count the nodes."""
        assert self.graph is not None
        self.tally = [self.graph.statuses.count(status) for status in range(len(STATES))]

    def decide(self, node: int, result: bytes | None) -> None:
        """Rule out the nodes whose branch is not taken, by the result of a node that has ended; None: it has none."""
        for other, packed in self.deciding.get(node, ()):
            if result != packed:
                self.ruled_out.setdefault(other, set()).add(node)

    def undecide(self, node: int) -> None:
        """Take back what the result of a node has ruled out."""
        for other, _ in self.deciding.get(node, ()):
            deciders = self.ruled_out.get(other, set())
            deciders.discard(node)
            if not deciders:
                self.ruled_out.pop(other, None)

    def keep_result(self, node: int, result: bytes) -> None:
        """Keep a small result for the nodes that need it."""
        if self.needed[node] and len(result) <= RESULT_BYTES_MAX and self.results_bytes <= RESULTS_BYTES_MAX:
            self.results[node] = result
            self.results_bytes += len(result)

    def forget_result(self, node: int) -> None:
        """Forget a result that is void."""
        self.results_bytes -= len(self.results.pop(node, b""))


class Plan:
    """What is wanted quickly of a workflow's nodes, noted as they come: they stay packed.

    Attributes: as in ``Flow``.
    """

    __slots__ = ("awaited", "deciding", "layout", "may_fail", "needed", "phases")

    def __init__(self) -> None:
        self.layout = Layout()
        self.needed = bytearray()
        self.deciding: dict[int, list[tuple[int, bytes]]] = {}
        self.may_fail: set[int] = set()
        self.phases: dict[str, list[tuple[int, int]]] = {}
        self.awaited: dict[str, list[int]] = {}

    def add(self, nodes: Sequence[Node]) -> None:
        """Take in the next nodes."""
        needed, first = self.needed, len(self.needed)
        self.layout.add(nodes)
        needed.extend(bytes(len(nodes)))
        for position, node in enumerate(nodes, first):
            for need in node.needs:
                needed[need] = 1
            for choice in node.only_if:
                self.deciding.setdefault(choice.node, []).append((position, choice.packed))
            if node.may_fail:
                self.may_fail.add(position)
            if node.phase:
                self.phases.setdefault(node.phase, []).append((position, node.compensates))
            if node.kind == SIGNAL:
                self.awaited.setdefault(node.signal, []).append(position)


def stem_of(task_id: bytes) -> bytes:
    """Return what the ids of a workflow share, from one of them."""
    return task_id[:STEM_BYTES]


def nodes_id(workflow: bytes, first: int) -> bytes:
    """Return the NODES id of the nodes from a position on."""
    return workflow + first.to_bytes(4, "big")


def read_in(flow: Flow, packed: list[msgspec.Raw], plan: Plan | None = None) -> Graph:
    """Take in a flow's nodes, and make its graph; without their plan, they are read for one."""
    if plan is None:
        plan = Plan()
        for start in range(0, len(packed), NODES_MAX):
            plan.add(list(map(_decode, packed[start : start + NODES_MAX])))
    flow.packed = packed
    flow.made = bytearray(len(packed))
    flow.needed, flow.deciding, flow.may_fail, flow.phases = plan.needed, plan.deciding, plan.may_fail, plan.phases
    flow.awaited = plan.awaited
    graph = flow.graph = Graph(plan.layout)
    return graph


def inputs_of(flow: Flow, node: Node | Start, affinity: Affinity) -> list[Given]:
    """Return what takes its place among a node's arguments: small results themselves, as far as they are at hand."""
    room = INPUTS_BYTES_MAX if node.kind == TASK else FAN_INPUTS_BYTES_MAX
    graph = flow.graph
    assert graph is not None
    inputs: list[Given] = []
    for parent in node.needs:
        fan = flow.fans.get(parent)
        if graph.statuses[parent] != SUCCEEDED and fan is None:
            inputs.append(Given(NIL))
        elif fan is not None:
            # results that are still to come, and those of a run again, make another list of the same length
            version = 2 * flow.record.reruns + (graph.statuses[parent] <= RELEASED)
            inputs.append(Given(id=member_id(flow.id, parent), count=len(fan.statuses), version=version))
        elif (packed := flow.results.get(parent)) is not None and len(packed) <= room:
            room -= len(packed)
            inputs.append(Given(packed))
        else:
            task_id = member_id(flow.id, parent)
            inputs.append(Given(id=task_id, version=2 * flow.record.reruns, maker=affinity.maker_of(task_id)))
    return inputs
