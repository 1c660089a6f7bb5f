"""The tap: listens at the server's end of a connection, and tells what is said there in messages."""

from typing import Protocol

from simulation.lives import Life
from taskd_protocol.connection import peer_side, server_side
from taskd_protocol.connection_messages import Hello
from taskd_protocol.errors import TaskdError
from taskd_protocol.messages import Message


class Conversation:
    """One connection, as far as its messages tell.

    Attributes:
        near: The life that connected.
        far: The server's.
        hello: What the peer said first.
        requests: Asked and not answered, by request id.
    """

    def __init__(self, near: Life, far: Life) -> None:
        self.near = near
        self.far = far
        self.hello: Hello | None = None
        self.requests: dict[int, Message] = {}

    @property
    def name(self) -> str:
        """What the peer calls itself."""
        return "" if self.hello is None else self.hello.name


class Witness(Protocol):
    """Whoever wants to know."""

    def heard(self, conversation: Conversation, message: Message) -> None:
        """The server has received this."""

    def said(self, conversation: Conversation, message: Message) -> None:
        """The server sends this."""


class Tap:
    """One connection's.

    Attributes:
        conversation: What is known of it.
    """

    def __init__(self, near: Life, far: Life, witness: Witness) -> None:
        self.conversation = Conversation(near, far)
        self._witness = witness
        self._up = server_side()
        self._up.trust()
        self._down = peer_side()

    def heard(self, data: bytes) -> None:
        """The server has read this."""
        conversation = self.conversation
        try:
            messages = self._up.receive(data)
        except TaskdError:  # a peer that is of no interest any more, once the server has read the same
            return
        for message in messages:
            if isinstance(message, Hello):
                conversation.hello = message
            number = getattr(message, "request_id", 0)
            if number:
                conversation.requests[number] = message  # type: ignore[assignment]  # an unknown one has no section
            self._witness.heard(conversation, message)  # type: ignore[arg-type]

    def said(self, data: bytes) -> None:
        """The server writes this."""
        conversation = self.conversation
        for message in self._down.receive(data):
            self._witness.said(conversation, message)  # type: ignore[arg-type]
            number = getattr(message, "request_id", 0)
            if number:
                conversation.requests.pop(number, None)
