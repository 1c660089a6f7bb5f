"""S2: nothing runs that nobody has submitted, neither a client nor a schedule."""

from simulation.checkers.checker import Checker
from simulation.tap import Conversation
from simulation.tasks import is_scheduled
from taskd_protocol.messages import Message, Submit


class Invented(Checker):
    """Whatever runs was in a SUBMIT that the server received, and runs under a lease that was durable."""

    promise = "S2"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._submitted: set[bytes] = set()

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Submit):
            self._submitted.update(spec.id for spec in message.tasks)

    def ran(self, agent: str, task_id: bytes, attempt: int, token: int) -> None:
        if task_id not in self._submitted and not is_scheduled(self.world.known[task_id]):
            self.broken(f"{task_id.hex()} runs and was never submitted")
        if self.world.journal.leases.get(token) != (task_id, attempt, agent):
            self.broken(f"{task_id.hex()} runs as attempt {attempt} on {agent} under {token}, which is no such lease")
