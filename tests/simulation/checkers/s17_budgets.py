"""S17: no task is tried more often than it may be, nor given up before."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.lifecycle import State
from taskd.core.records import LeaseRecord, StateRecord
from taskd_protocol.agent_messages import Nack
from taskd_protocol.messages import Message
from taskd_protocol.task import DEFAULT_RETRY


class Budgets(Checker):
    """Failures and crashes are counted, up to their limits, and only then a task is dead."""

    promise = "S17"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._reported: set[int] = set()
        self._final: set[int] = set()

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Nack):
            self._reported.update(failure.token for failure in message.failures)
            self._final.update(failure.token for failure in message.failures if failure.final)

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if after.spec is None or after.state is None:
            return
        retry = after.spec.spec.retry or DEFAULT_RETRY
        crashes = _crashes(after.state)
        failures = after.state.failures
        crashes_max = min(retry.crash_limit, retry.max_attempts)
        spent = failures >= retry.max_attempts or crashes >= crashes_max
        told = f"after {failures} failures of {retry.max_attempts} and {crashes} crashes of {crashes_max}"
        if _is_lost(before, after, self._reported) and crashes <= _crashes(before.lease):
            self.broken(f"{task_id.hex()} had started, was lost with its agent, and was not charged")
        if failures > retry.max_attempts or crashes > crashes_max:
            self.broken(f"{task_id.hex()} was tried again {told}")
        if after.name == State.DEAD and not spent and not self._ends_early(after):
            self.broken(f"{task_id.hex()} was given up {told}")
        if after.name in {State.SCHEDULED, State.READY} and spent:
            self.broken(f"{task_id.hex()} is to be tried again {told}")

    def _ends_early(self, standing: Standing) -> bool:
        """Tell whether a task ends before its budget does: by its own word, or by its rules."""
        assert standing.spec is not None
        assert standing.state is not None
        rules, failure = standing.spec.spec.rules, standing.state.failure
        late = rules.deadline_ms and failure is not None
        return bool(rules.at_most_once or late or standing.state.token in self._final)


def _crashes(record: StateRecord | LeaseRecord | None) -> int:
    return 0 if record is None or record.past is None else record.past.crashes


def _is_lost(before: Standing, after: Standing, reported: set[int]) -> bool:
    """Tell whether a started attempt has ended of which nobody reported how."""
    lease = before.lease
    if lease is None or not lease.started or lease.cancelling or lease.token in reported:
        return False
    return after.state is not None and after.lease is None and after.name != State.SUCCEEDED
