"""S8: of a workflow nothing begins before its turn, and all ends as its rules say."""

from collections import Counter
from typing import TYPE_CHECKING

from harness.trigger_rules import agrees, may_begin, parents_of
from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.flows import STATES
from taskd.core.graph import BLOCKED, FAILED, RELEASED, SKIPPED, STOPPED, SUCCEEDED
from taskd.core.lifecycle import State
from taskd.core.settling import SKIP_CODES
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd_protocol.messages import Message
from taskd_protocol.payload import pack, unpack
from taskd_protocol.workflow import (
    COMPENSATE,
    FAIL_FAST,
    MAP,
    NIL,
    ON_SUCCESS,
    WHOLE,
    Node,
    member_id,
    place_of,
    workflow_of,
)
from taskd_protocol.workflow_messages import WorkflowOrder

if TYPE_CHECKING:
    from simulation.world import World

Statuses = list[int]


class Graphs(Checker):
    """Looks, after each batch, at the workflows of which it has changed something."""

    promise = "S8"

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._statuses: dict[bytes, Statuses] = {}  # after the last batch, by workflow
        self._orders: dict[bytes, int] = {}  # that were carried out, by workflow
        self._kept: dict[bytes, set[int]] = {}  # nodes whose ends an order has left, though those before them changed
        self._rerun: set[bytes] = set()  # workflows of which a node was to run again
        self._changed: dict[bytes, None] = {}
        self._ending: set[bytes] = set()

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, WorkflowOrder) and message.action == "rerun":
            self._rerun.add(message.id)

    # -- what has changed ---------------------------------------------------------------

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        workflow = workflow_of(task_id)
        record = self.world.journal.flows.get(workflow)
        if record is None:
            return
        self._changed[workflow] = None
        if after.spec is None:
            return
        if before.spec is None:
            if task_id in self.world.purged:
                self.broken(f"{task_id.hex()} was made again after it was purged")
            self._check_child(workflow, *place_of(task_id))
        elif after.spec != before.spec and not record.reruns:
            self.broken(f"{task_id.hex()} was made twice")

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        self._changed[workflow_of(node_id)] = None

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        self._changed[workflow] = None
        if after is not None and after.finished_at_ms and not (before is not None and before.finished_at_ms):
            self._ending.add(workflow)
        if after is None and before is not None and not before.finished_at_ms:
            self.broken(f"workflow {workflow.hex()} was taken away as {before.state}")

    def committed(self) -> None:
        changed, self._changed = self._changed, {}
        ending, self._ending = self._ending, set()
        for workflow in changed:
            record = self.world.journal.flows.get(workflow)
            if record is None:
                self._statuses.pop(workflow, None)
            elif not record.parent and (workflow in ending or not record.finished_at_ms):
                self._look(workflow, record)

    def given(self, task_id: bytes, inputs: list[bytes]) -> None:
        """An attempt begins with these inputs: what the nodes before it gave."""
        workflow = workflow_of(task_id)
        record = self.world.journal.flows.get(workflow)
        if record is None or record.reruns:
            return
        position, child = place_of(task_id)
        node = self.world.journal.graphs[workflow][position]
        for number, parent in enumerate(node.needs):
            expected = self._result(workflow, parent)
            if child >= 0 and number == node.over:
                expected = None if expected is None else self._item(expected, child)
            elif node.when not in WHOLE and inputs[number] == NIL:
                continue  # it had not ended then
            if expected is not None and inputs[number] != expected:
                self.broken(f"{task_id.hex()} was given {inputs[number]!r} by node {parent}, which gave {expected!r}")

    # -- one workflow -------------------------------------------------------------------

    def _look(self, workflow: bytes, record: WorkflowRecord) -> None:
        nodes = self.world.journal.graphs[workflow]
        before = self._statuses.get(workflow) or [BLOCKED] * len(nodes)
        now = self._statuses[workflow] = [self._status(workflow, position) for position in range(len(nodes))]
        if record.reruns != self._orders.get(workflow, 0) and not record.order:
            self._orders[workflow] = record.reruns
            self._note_kept(workflow, nodes, before, now)
        ends = {position: status for position, status in enumerate(now) if status > RELEASED}
        kept = self._kept.get(workflow, set())
        for position, node in enumerate(nodes):
            begun = now[position] in {RELEASED, SUCCEEDED, FAILED} and before[position] == BLOCKED
            if begun and record.reruns < 2 and position not in kept:
                self._check_begin(workflow, nodes, position, node, ends)
        if record.finished_at_ms:
            self._check_end(workflow, record, nodes, now, ends)

    def _note_kept(self, workflow: bytes, nodes: list[Node], before: Statuses, now: Statuses) -> None:
        """Note which nodes an order has left as they were, though others before them are to run again."""
        for position, node in enumerate(nodes):
            if before[position] == SUCCEEDED != now[position] and not node.phase and workflow not in self._rerun:
                self.broken(f"node {position} of {workflow.hex()} had succeeded, and runs again with a resume")
        kept = {position for position in self._kept.get(workflow, ()) if now[position] != BLOCKED}
        changed: set[int] = set()
        for position, node in enumerate(nodes):
            if changed.intersection(parents_of(node)):
                changed.add(position)
                if now[position] != BLOCKED:
                    kept.add(position)
            elif now[position] <= RELEASED or now[position] != before[position]:
                changed.add(position)
        held = {position for position, node in enumerate(nodes) if node.phase}
        self._kept[workflow] = kept | {position for position in held if now[position] != BLOCKED}

    def _check_begin(self, workflow: bytes, nodes: list[Node], position: int, node: Node, ends: dict[int, int]) -> None:
        who = f"node {position} of {workflow.hex()}"
        if not may_begin(node, ends):
            self.broken(f"{who} has begun by {node.when}, and before it there were {ends}")
        if node.phase and any(not other.phase and place not in ends for place, other in enumerate(nodes)):
            self.broken(f"{who} has begun, which is {node.phase}, before all others had ended")
        if node.phase != COMPENSATE:
            return
        if ends.get(node.compensates) != SUCCEEDED:
            self.broken(f"{who} takes back what had not succeeded")
        for place, other in enumerate(nodes):
            is_due = other.phase == COMPENSATE and ends.get(other.compensates) == SUCCEEDED
            if is_due and other.compensates > node.compensates and place not in ends:
                self.broken(f"{who} takes back node {node.compensates} before node {other.compensates} is")

    def _check_child(self, workflow: bytes, position: int, child: int) -> None:
        if child >= 0:
            node = self.world.journal.nodes.get(member_id(workflow, position))
            if node is None or node.total <= child:
                self.broken(f"child {child} of node {position} of {workflow.hex()} was made of no list: {node}")

    def _check_end(
        self, workflow: bytes, record: WorkflowRecord, nodes: list[Node], now: Statuses, ends: dict[int, int]
    ) -> None:
        who = f"workflow {workflow.hex()}"
        if len(ends) < len(nodes):
            self.broken(f"{who} is {record.state}, and not all has ended: {now}")
            return
        has_failed = any(status == FAILED and not nodes[place].may_fail for place, status in ends.items())
        was_cancelled = workflow in self.world.steered and record.state == "cancelled"
        if record.state != ("cancelled" if was_cancelled else "failed" if has_failed else "succeeded"):
            self.broken(f"{who} is {record.state}, and its nodes ended as {now}")
        counts = Counter(STATES[status] for status in now)
        if counts != record.counts:
            self.broken(f"{who} counts {record.counts}, and its nodes are {dict(counts)}")
        kept = self._kept.get(workflow, set())
        for position, node in enumerate(nodes):
            status = ends[position]
            if status == STOPPED:
                may_stop = record.spec.policy == FAIL_FAST or workflow in self.world.steered
                holds = may_stop and not node.phase
            elif node.phase and (status == SKIPPED or position in kept):
                holds = not self._is_due(node, nodes, ends, cancelled=was_cancelled) or self._agrees(
                    workflow, node, status, ends
                )
            else:
                holds = position in kept or self._agrees(workflow, node, status, ends)
            if not holds:
                self.broken(f"node {position} of {who}, {node.when}, ended as {status}, and the others as {now}")

    @staticmethod
    def _is_due(node: Node, nodes: list[Node], ends: dict[int, int], *, cancelled: bool) -> bool:
        """Tell whether a node's phase must have come."""
        has_failed = any(
            status == FAILED and not nodes[place].may_fail and not nodes[place].phase for place, status in ends.items()
        )
        match node.phase:
            case "compensate":
                return (has_failed or cancelled) and ends[node.compensates] == SUCCEEDED
            case "on_failure":
                return has_failed and not cancelled
            case _:
                assert node.phase == ON_SUCCESS
                return not (
                    cancelled or any(status == FAILED and not nodes[place].may_fail for place, status in ends.items())
                )

    def _agrees(self, workflow: bytes, node: Node, status: int, ends: dict[int, int]) -> bool:
        return agrees(node, status, ends, lambda parent: self._result(workflow, parent))

    # -- what is stored -----------------------------------------------------------------

    def _status(self, workflow: bytes, position: int) -> int:
        journal, node_id = self.world.journal, member_id(workflow, position)
        node, task = journal.nodes.get(node_id), journal.find(node_id)
        if node is not None:
            if node.state == "skipped":
                assert node.failure is not None
                return SKIP_CODES[node.failure.code]
            known = {"blocked": BLOCKED, "waiting": RELEASED, "running": RELEASED, "succeeded": SUCCEEDED}
            return known.get(node.state, FAILED)
        if task.has_ended:
            return SUCCEEDED if task.name == State.SUCCEEDED else FAILED
        return BLOCKED if task.spec is None else RELEASED

    def _result(self, workflow: bytes, position: int) -> bytes | None:
        """Return a node's result; None: it is not known here."""
        journal, node_id = self.world.journal, member_id(workflow, position)
        node, state = journal.nodes.get(node_id), journal.find(node_id).state
        if journal.graphs[workflow][position].kind == MAP:
            return None
        if node is not None:
            return (node.packed or NIL) if node.state == "succeeded" else NIL if node.finished_at_ms else None
        if state is None or not state.finished_at_ms:
            return None
        if state.state != State.SUCCEEDED:
            return NIL
        return journal.results.get(node_id) if state.result_apart else state.result

    @staticmethod
    def _item(packed: bytes, child: int) -> bytes:
        items = unpack(packed)
        assert isinstance(items, list)
        return pack(items[child])
