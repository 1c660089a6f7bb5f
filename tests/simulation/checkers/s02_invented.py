"""S2: nothing runs that nobody has submitted, no client, no schedule and no task."""

from simulation.checkers.checker import Checker
from simulation.tap import Conversation
from simulation.tasks import is_scheduled
from taskd.core.workflow_records import WorkflowRecord
from taskd_protocol.messages import Message, Submit
from taskd_protocol.workflow import place_of, workflow_of
from taskd_protocol.workflow_messages import Spawn, WorkflowSubmit


class Invented(Checker):
    """Whatever runs was in a SUBMIT, WORKFLOW_SUBMIT or SPAWN, or came from a schedule, and has a durable lease."""

    promise = "S2"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._submitted: set[bytes] = set()
        self._spawned: dict[bytes, int] = {}  # how many, by the task that did
        self._parents: dict[bytes, bytes] = {}  # by family

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Submit):
            self._submitted.update(spec.id for spec in message.tasks)
        elif isinstance(message, WorkflowSubmit):
            self._submitted.add(message.workflow.id)
        elif isinstance(message, Spawn):
            parent, _, _ = self.world.journal.leases[message.token]
            count = message.first + len(message.tasks)
            self._spawned[parent] = max(count, self._spawned.get(parent, 0))

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        if after is not None and after.parent:
            self._parents[workflow] = after.parent

    def ran(self, agent: str, task_id: bytes, attempt: int, token: int) -> None:
        is_asked = task_id in self._submitted or workflow_of(task_id) in self._submitted
        if not is_asked and not self._is_spawned(task_id) and not is_scheduled(self.world.find_spec(task_id)):
            self.broken(f"{task_id.hex()} runs and was never submitted")
        if self.world.journal.leases.get(token) != (task_id, attempt, agent):
            self.broken(f"{task_id.hex()} runs as attempt {attempt} on {agent} under {token}, which is no such lease")

    def _is_spawned(self, task_id: bytes) -> bool:
        parent = self._parents.get(workflow_of(task_id), b"")
        return place_of(task_id)[1] < self._spawned.get(parent, 0)
