"""S3, S4: at most one completion of a task counts, and only a report of its current lease does."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.lifecycle import State
from taskd_protocol.agent_messages import Ack, Nack, Recorded
from taskd_protocol.messages import Message


class CountedOnce(Checker):
    """What an attempt brought about was reported by its agent, under the lease that stood."""

    promise = "S3/S4"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._acks: dict[tuple[bytes, int, int, str], bytes] = {}  # results, by task, attempt, token, agent
        self._nacks: dict[tuple[bytes, int, int, str], str] = {}
        self._reported: dict[int, bytes] = {}  # tasks, by token
        self._recorded: dict[bytes, int] = {}  # tokens of successes, by task

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Ack):
            for report in message.reports:
                self._acks[report.id, report.attempt, report.token, conversation.name] = report.result
                self._reported[report.token] = report.id
        elif isinstance(message, Nack):
            for failure in message.failures:
                self._nacks[failure.id, failure.attempt, failure.token, conversation.name] = failure.outcome

    def said(self, conversation: Conversation, message: Message) -> None:
        if not isinstance(message, Recorded):
            return
        for token in message.tokens:
            task_id = self._reported.get(token)
            if task_id is None or self.world.is_steered(task_id):
                continue
            if self._recorded.setdefault(task_id, token) != token:
                self.broken(f"{task_id.hex()} was recorded as done under {token} and {self._recorded[task_id]}")
        for token in message.stale:
            task_id = self._reported.get(token, b"")
            state = self.world.journal.find(task_id).state
            if state is not None and state.token == token and state.state == State.SUCCEEDED:
                self.broken(f"the report under {token} was called stale, and {task_id.hex()} has ended by it")

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        state = after.state
        if state is None or after.end == before.end or not state.token:
            return
        if state.state == State.SUCCEEDED:
            self._check_success(task_id, before, after)
        elif before.lease is not None and state.state in {State.DEAD, State.SCHEDULED}:
            key = (task_id, state.attempt, state.token, state.agent)
            allowed = {"failed", "cancelled"} if _runs_once(after) else {"failed"}
            if state.failure is not None and self.was_charged(before, after) and self._nacks.get(key) not in allowed:
                self.broken(f"{task_id.hex()} failed under {state.token}, which {state.agent} did not report")

    @staticmethod
    def was_charged(before: Standing, after: Standing) -> bool:
        """Tell whether a failure was counted."""
        return before.lease is not None and after.state is not None and after.state.failures > before.lease.failures

    def _check_success(self, task_id: bytes, before: Standing, after: Standing) -> None:
        state = after.state
        assert state is not None
        lease = before.lease
        if lease is None or (lease.token, lease.attempt, lease.agent) != (state.token, state.attempt, state.agent):
            self.broken(f"{task_id.hex()} has succeeded under {state.token}, and its lease was {lease}")
        result = self._acks.get((task_id, state.attempt, state.token, state.agent))
        if result is None:
            self.broken(f"{task_id.hex()} has succeeded under {state.token}, which {state.agent} did not report")
        elif not state.result_apart and state.result != result:
            self.broken(f"{task_id.hex()} has another result than was reported under {state.token}")


def _runs_once(standing: Standing) -> bool:
    return standing.spec is not None and standing.spec.spec.rules.at_most_once
