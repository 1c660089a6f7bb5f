"""S4: how far an attempt has come is told to the next one, as it was told by the holder of the lease."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd_protocol.agent_messages import Checkpoints, Lease
from taskd_protocol.messages import Message
from taskd_protocol.payload import unpack


class Progress(Checker):
    """What a grant carries was told by an attempt before it, and never goes back."""

    promise = "S4"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._told: dict[bytes, set[bytes]] = {}
        self._given: dict[bytes, list[int]] = {}

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Checkpoints):
            for checkpoint in message.checkpoints:
                if checkpoint.token in self.world.journal.leases:
                    self._told.setdefault(checkpoint.id, set()).add(checkpoint.details)

    def said(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Lease):
            for grant in message.grants:
                if grant.details:
                    self._check(grant.spec.id, grant.attempt, grant.details)

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if before.has_ended:
            self._told.pop(task_id, None)
            self._given.pop(task_id, None)

    def _check(self, task_id: bytes, attempt: int, details: bytes) -> None:
        if details not in self._told.get(task_id, ()):
            self.broken(f"attempt {attempt} of {task_id.hex()} was given details that no attempt has told")
            return
        come = unpack(details)
        assert isinstance(come, list)
        if come[0] >= attempt or come < self._given.get(task_id, come):
            self.broken(f"attempt {attempt} of {task_id.hex()} was given {come} after {self._given.get(task_id)}")
        self._given[task_id] = come
