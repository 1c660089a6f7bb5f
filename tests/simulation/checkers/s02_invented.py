"""S2: nothing runs that nobody has submitted, neither a client nor a schedule."""

from simulation.checkers.checker import Checker
from simulation.tap import Conversation
from simulation.tasks import is_scheduled
from taskd_protocol.messages import Message, Submit
from taskd_protocol.workflow import workflow_of
from taskd_protocol.workflow_messages import WorkflowSubmit


class Invented(Checker):
    """Whatever runs was in a SUBMIT, or WORKFLOW_SUBMIT, came from a schedule, and has a lease that was durable."""

    promise = "S2"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._submitted: set[bytes] = set()

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Submit):
            self._submitted.update(spec.id for spec in message.tasks)
        elif isinstance(message, WorkflowSubmit):
            self._submitted.add(message.workflow.id)

    def ran(self, agent: str, task_id: bytes, attempt: int, token: int) -> None:
        is_asked = task_id in self._submitted or workflow_of(task_id) in self._submitted
        if not is_asked and not is_scheduled(self.world.find_spec(task_id)):
            self.broken(f"{task_id.hex()} runs and was never submitted")
        if self.world.journal.leases.get(token) != (task_id, attempt, agent):
            self.broken(f"{task_id.hex()} runs as attempt {attempt} on {agent} under {token}, which is no such lease")
