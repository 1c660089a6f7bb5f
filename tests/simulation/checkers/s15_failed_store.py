"""S15: after any error of the store nobody is told anything any more."""

from simulation.checkers.checker import Checker
from simulation.tap import Conversation
from taskd_protocol.agent_messages import Lease, Recorded
from taskd_protocol.messages import Accepted, Cancelled, Message, Outcomes


class FailedStore(Checker):
    """A life of the server whose disk has failed falls silent, and ends."""

    promise = "S15"

    def said(self, conversation: Conversation, message: Message) -> None:
        if self.world.server.condition.failed and isinstance(
            message, Accepted | Cancelled | Lease | Outcomes | Recorded
        ):
            self.broken(f"{type(message).__name__} was sent after the store had failed")
