"""S8: a node that waits for a signal goes on by that one alone, with its value, and by one that came before."""

from typing import TYPE_CHECKING

from simulation.checkers.checker import Checker
from simulation.tap import Conversation
from taskd.core.workflow_records import NodeRecord
from taskd_protocol.messages import Message
from taskd_protocol.workflow import SIGNAL, place_of, workflow_of
from taskd_protocol.workflow_messages import WorkflowSignal

if TYPE_CHECKING:
    from simulation.world import World


class Signals(Checker):
    """Compares what nodes go on with, and which begin to wait, with the signals that came."""

    promise = "S8"

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._sent: dict[bytes, list[bytes]] = {}  # values, by workflow and name
        self._stored: set[bytes] = set()  # signals that were durable before this batch
        self._begun: list[bytes] = []  # to wait in this batch, as workflow and name

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, WorkflowSignal):
            self._sent.setdefault(message.id + message.name.encode(), []).append(message.packed)

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        graph = self.world.journal.graphs.get(workflow_of(node_id))
        position, child = place_of(node_id)
        if graph is None or after is None or child >= 0 or graph[position].kind != SIGNAL:
            return
        signal = workflow_of(node_id) + graph[position].signal.encode()
        if after.state == "succeeded" and after.packed not in self._sent.get(signal, []):
            self.broken(f"node {node_id.hex()} went on with {after.packed!r}, and {self._sent.get(signal)} came")
        if after.state == "waiting" and (before is None or before.state != "waiting"):
            self._begun.append(signal)

    def committed(self) -> None:
        for signal in self._begun:
            if signal in self._stored and signal in self.world.journal.signals:
                self.broken(f"a node of {signal[:16].hex()} waits for {signal[16:]!r}, which had come before")
        self._begun.clear()
        self._stored = set(self.world.journal.signals)
