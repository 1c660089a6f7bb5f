"""Rare states of workflows, counted where they show from the outside."""

from typing import TYPE_CHECKING

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.records import NodeRecord, WorkflowRecord
from taskd_protocol.workflow import COMPENSATE, SIGNAL, place_of, workflow_of

if TYPE_CHECKING:
    from simulation.world import World


class RareGraphs(Checker):
    """Counts; breaks nothing."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._epochs: dict[bytes, int] = {}  # in which a workflow was first seen

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        if after is None or before is None:
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

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        graph = self.world.journal.graphs.get(workflow_of(node_id))
        if graph is None or after is None:
            return
        position, child = place_of(node_id)
        is_signal = child < 0 and graph[position].kind == SIGNAL
        if is_signal and after.state == "succeeded" and (before is None or before.state != "waiting"):
            self.world.reach("a signal came before its node's turn")

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        workflow = workflow_of(task_id)
        graph = self.world.journal.graphs.get(workflow)
        if graph is None or after.spec is None:
            return
        position, _ = place_of(task_id)
        if before.has_ended and not after.has_ended:
            self.world.reach("a node ran again")
        elif graph[position].phase == COMPENSATE and after.has_ended and not before.has_ended:
            self.world.reach("a node was taken back")

    def _is_over_a_start(self, what: bytes) -> bool:
        """Tell whether the server has started since this was first asked."""
        epoch = self.world.journal.epoch
        return self._epochs.setdefault(what, epoch) != epoch
