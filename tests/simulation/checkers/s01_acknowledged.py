"""S1: what was acknowledged is never lost."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.workflow_records import WorkflowRecord
from taskd_protocol.messages import Accepted, Message, Submit
from taskd_protocol.workflow_messages import WorkflowAccepted, WorkflowSubmit


class Acknowledged(Checker):
    """Every task of an ACCEPTED, and every workflow, is stored from then on, until it has ended and is purged."""

    promise = "S1"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._acknowledged: set[bytes] = set()
        self._flows: set[bytes] = set()
        self._gone_flows: set[bytes] = set()

    def said(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Accepted):
            submit = conversation.requests.get(message.request_id)
            assert isinstance(submit, Submit)
            firsts = dict(message.existing)
            known_as = [firsts.get(index, spec.id) for index, spec in enumerate(submit.tasks)]
            self._acknowledged.update([task_id for task_id in known_as if task_id not in self.world.purged])
        elif isinstance(message, WorkflowAccepted):
            asked = conversation.requests.get(message.request_id)
            assert isinstance(asked, WorkflowSubmit)
            workflow = asked.workflow.id
            if message.nodes == asked.workflow.nodes and workflow not in self._gone_flows:
                self._flows.add(workflow)
                if workflow not in self.world.journal.flows:
                    self.broken(f"workflow {workflow.hex()} was acknowledged before it was durable")

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        if after is None:  # S8 looks whether it had ended
            self._gone_flows.add(workflow)
            self._flows.discard(workflow)

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if after.spec is None:
            if not before.has_ended:
                self.broken(f"{task_id.hex()} was purged as {before.name}")
            self._acknowledged.discard(task_id)

    def recovered(self) -> None:
        self._check()

    def finished(self) -> None:
        self._check()

    def _check(self) -> None:
        for task_id in sorted(self._acknowledged):
            if self.world.journal.find(task_id).spec is None:
                self.broken(f"{task_id.hex()} was acknowledged and is lost")
        for workflow in sorted(self._flows - self.world.journal.flows.keys()):
            self.broken(f"workflow {workflow.hex()} was acknowledged and is lost")
