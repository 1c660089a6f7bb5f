"""Rare states of workflows, counted where they show from the outside."""

from typing import TYPE_CHECKING

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd_protocol.messages import Message
from taskd_protocol.workflow import COMPENSATE, MAP, SIGNAL, member_id, place_of, workflow_of
from taskd_protocol.workflow_messages import InputQuery, Spawn

if TYPE_CHECKING:
    from simulation.world import World


class RareGraphs(Checker):
    """Counts; breaks nothing."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._epochs: dict[bytes, int] = {}  # in which a workflow, or a node, was first seen
        self._waited: set[bytes] = set()  # families for which their parents have
        self._spawned: dict[int, int] = {}  # how many, by the token of the attempt
        self._asked: dict[tuple[bytes, int, int], Conversation] = {}  # for which input, by an agent's life

    def heard(self, conversation: Conversation, message: Message) -> None:
        match message:
            case Spawn():
                count = message.first + len(message.tasks)
                if count <= self._spawned.get(message.token, 0):
                    self.world.reach("what was spawned told again")
                self._spawned[message.token] = max(count, self._spawned.get(message.token, 0))
            case InputQuery() if conversation.hello is not None:
                key = (conversation.hello.boot_id, message.token, message.input)
                if self._asked.setdefault(key, conversation) is not conversation:
                    self.world.reach("an input asked for again on the next connection")
                    self._asked[key] = conversation
            case _:
                pass

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        if after is None or before is None:
            if after is not None:
                self._is_over_a_start(workflow)
            return
        if after.parent:
            self._family_moved(workflow, before, after)
            return
        is_over = self._is_over_a_start(workflow)
        facts = {
            "a workflow went on after a start of the server": is_over and before.counts != after.counts,
            "a workflow failed after a start of the server": is_over and before.failed_node < 0 <= after.failed_node,
            "a workflow that had ended went on": before.finished_at_ms and not after.finished_at_ms,
            "an order that waited until its workflow was read": bool(before.order) and not after.order,
            "a workflow stopped by a failure": after.stopped and not before.stopped and after.state == "running",
            "a workflow cancelled": after.state == "cancelled" and not before.finished_at_ms,
        }
        for name, holds in facts.items():
            if holds:
                self.world.reach(name)

    def _family_moved(self, workflow: bytes, before: WorkflowRecord, after: WorkflowRecord) -> None:
        facts = {
            "a task waited for what it had spawned": after.waiting and not before.waiting,
            "a task that waited was woken after a start of the server": before.waiting
            and not (after.waiting or after.parent_ended)
            and self._is_over_a_start(workflow),
            "what was spawned was cancelled with its parent": after.state == "cancelled" and not before.finished_at_ms,
            "a task spawned more when it went on": 0 < before.spawned < after.spawned and workflow in self._waited,
        }
        if after.waiting:
            self._waited.add(workflow)
        for name, holds in facts.items():
            if holds:
                self.world.reach(name)

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        graph = self.world.journal.graphs.get(workflow_of(node_id))
        if graph is None or after is None:
            return
        position, child = place_of(node_id)
        if child < 0 and graph[position].kind == MAP and after.state == "running":
            self._is_over_a_start(node_id)
        is_signal = child < 0 and graph[position].kind == SIGNAL
        if is_signal and after.state == "succeeded" and (before is None or before.state != "waiting"):
            self.world.reach("a signal came before its node's turn")

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        workflow = workflow_of(task_id)
        graph = self.world.journal.graphs.get(workflow)
        if graph is None or after.spec is None:
            return
        position, child = place_of(task_id)
        is_made, has_ended = before.spec is None, after.has_ended and not before.has_ended
        takes_back = graph[position].phase == COMPENSATE
        is_item = child >= 0 and graph[position].kind == MAP
        is_over = takes_back and self._is_over_a_start(task_id)
        facts = {
            "a node ran again": child < 0 and before.has_ended and not after.has_ended,
            "a child of a map ran again": is_item and before.has_ended and not after.has_ended,
            "a map went on after a start of the server": is_item
            and is_made
            and self._is_over_a_start(member_id(workflow, position)),
            "a node was taken back": takes_back and has_ended,
            "a node was taken back over a start of the server": takes_back and has_ended and is_over,
        }
        for name, holds in facts.items():
            if holds:
                self.world.reach(name)

    def _is_over_a_start(self, what: bytes) -> bool:
        """Tell whether the server has started since this was first asked."""
        epoch = self.world.journal.epoch
        return self._epochs.setdefault(what, epoch) != epoch
