"""S11: what anybody is told is durable when it leaves the server."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.lifecycle import State
from taskd_protocol.agent_messages import Ack, Lease, Recorded
from taskd_protocol.messages import Accepted, Cancel, Cancelled, Message, Outcomes, Submit
from taskd_protocol.task import Outcome
from taskd_protocol.workflow import is_workflow_id, workflow_of


class Durable(Checker):
    """Compares each message, as the server writes it, with the disk."""

    promise = "S11"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._acked: dict[int, bytes] = {}

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Ack):
            self._acked.update({report.token: report.id for report in message.reports})

    def said(self, conversation: Conversation, message: Message) -> None:
        match message:
            case Accepted():
                self._accepted(conversation, message)
            case Lease():
                self._lease(message)
            case Outcomes():
                self._outcomes(message)
            case Recorded():
                self._recorded(message)
            case Cancelled():
                self._cancelled(conversation, message)
            case _:
                pass

    def _accepted(self, conversation: Conversation, message: Accepted) -> None:
        submit = conversation.requests.get(message.request_id)
        assert isinstance(submit, Submit)
        firsts = dict(message.existing)
        for index, spec in enumerate(submit.tasks):
            known_as = firsts.get(index, spec.id)
            if self.world.journal.find(known_as).spec is None and known_as not in self.world.purged:
                self.broken(f"{known_as.hex()} was acknowledged before it was durable")

    def _lease(self, message: Lease) -> None:
        for grant in message.grants:
            lease = self.world.journal.leases.get(grant.token)
            if lease is None or lease[:2] != (grant.spec.id, grant.attempt):
                self.broken(f"{grant.spec.id.hex()} was leased as {grant.token} before that was durable")

    def _outcomes(self, message: Outcomes) -> None:
        for outcome in message.outcomes:
            if workflow_of(outcome.id) in self.world.journal.flows:
                self._end_of_workflow(outcome)
                continue
            state, workflow = self.world.journal.find(outcome.id).state, workflow_of(outcome.id)
            if (
                outcome.state == "unknown"
                or workflow in self.world.purged
                or outcome.id in self.world.purged
                or outcome.id in self.world.revived
            ):
                continue
            if state is None or (state.state, state.attempt) != (outcome.state, outcome.attempt):
                self.broken(f"{outcome.id.hex()} was said to have ended as {outcome.state}, which was not durable")

    def _end_of_workflow(self, outcome: Outcome) -> None:
        """Check what is told of a workflow, or of a node of one."""
        world, journal = self.world, self.world.journal
        workflow = journal.flows[workflow_of(outcome.id)]
        if outcome.state == "unknown" or world.is_steered(outcome.id) or workflow.swept:
            return
        node, state = journal.nodes.get(outcome.id), journal.find(outcome.id).state
        stored = workflow if is_workflow_id(outcome.id) else node or state
        if outcome.id not in world.purged and (stored is None or stored.state != outcome.state):
            self.broken(
                f"{outcome.id.hex()} was said to have ended as {outcome.state}, which was not durable: {stored}"
            )

    def _recorded(self, message: Recorded) -> None:
        for token in message.tokens:
            task_id = self._acked.get(token)
            if task_id is None or task_id in self.world.purged:
                continue
            standing = self.world.journal.find(task_id)
            if self.world.is_steered(task_id) and _has_run_again(standing, token):
                continue  # a rerun came before the flush that covers both
            state = standing.state
            if state is None or (state.state, state.token) != (State.SUCCEEDED, token):
                self.broken(f"the success of {task_id.hex()} under {token} was called recorded, and was not")

    def _cancelled(self, conversation: Conversation, message: Cancelled) -> None:
        asked = conversation.requests.get(message.request_id)
        assert isinstance(asked, Cancel)
        for task_id, state in zip(asked.ids, message.states, strict=True):
            standing = self.world.journal.find(task_id)
            moved_on = standing.has_ended or self.world.may_run_again(task_id)
            if state == "unknown" or task_id in self.world.purged or moved_on:
                continue
            if standing.name != state:
                self.broken(f"{task_id.hex()} was said to be {state} by a cancel, and was {standing.name!r} on disk")


def _has_run_again(standing: Standing, token: int) -> bool:
    """Tell whether a task shows that the attempt of that token was recorded, and is void by now."""
    if standing.lease is not None:
        return standing.lease.token > token
    return standing.state is not None and standing.state.token >= token
