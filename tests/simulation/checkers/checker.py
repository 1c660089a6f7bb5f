"""What a checker may follow."""

from typing import TYPE_CHECKING

from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.client.family import Found
from taskd.core.events import EventsRecord
from taskd.core.records import LeaseRecord
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd_protocol.event_messages import EventPage
from taskd_protocol.messages import Message
from taskd_protocol.task import Outcome

if TYPE_CHECKING:
    from simulation.world import World


class Checker:
    """Watches one promise, and says when it is broken; what it does not follow it leaves as it is here."""

    promise = ""
    """Its number."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def broken(self, how: str) -> None:
        """Say that the promise is broken."""
        self.world.violated(self.promise, how)

    def heard(self, conversation: Conversation, message: Message) -> None:
        """The server has received this."""

    def said(self, conversation: Conversation, message: Message) -> None:
        """The server sends this."""

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        """A new lease is durable; ``over``: one that was never taken away before."""

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        """A batch has changed what is stored of a task."""

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        """A batch has changed what is stored of a workflow."""

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        """A batch has changed what is stored of a node that is no task, or whose task is void."""

    def ran(self, agent: str, task_id: bytes, attempt: int, token: int) -> None:
        """An attempt has begun to run."""

    def given(self, task_id: bytes, inputs: list[bytes]) -> None:
        """An attempt of a workflow's task, which has just begun, has these inputs."""

    def found(self, task_id: bytes, node: bytes, found: Found) -> None:
        """An attempt of a task, which has just begun, has this of what it has spawned under that node."""

    def gone(self, token: int) -> None:
        """Nothing of an attempt runs any more."""

    def journaled(self, number: int, record: EventsRecord | None) -> None:
        """A batch holds this record of the server's journal; None: it is kept no longer."""

    def looked_on(self, after: int, page: EventPage) -> None:
        """A client that has seen all events up to ``after`` takes the next page of them."""

    def committed(self) -> None:
        """A batch is durable, and all that it changed was told."""

    def ordered(self, kind: str, name: str, *, drained: bool) -> None:
        """What a person ordered of a queue or an agent is durable."""

    def told(self, outcome: Outcome) -> None:
        """A client was told how a task has ended."""

    def lost(self, agent: str) -> None:
        """The server has given up an agent."""

    def looked(self, calm_s: float) -> None:
        """Nothing goes wrong any more since then; asked every half second."""

    def recovered(self) -> None:
        """The server is about to start over what the last one left on the disk."""

    def finished(self) -> None:
        """The run is over, and the server is stopped."""
