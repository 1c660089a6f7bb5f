"""S17: no task is tried more often than it may be, nor given up before."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.lifecycle import State
from taskd_protocol.task import DEFAULT_RETRY


class Budgets(Checker):
    """Failures and crashes are counted, up to their limits, and only then a task is dead."""

    promise = "S17"

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if after.spec is None or after.state is None:
            return
        retry = after.spec.spec.retry or DEFAULT_RETRY
        crashes = after.state.past.crashes if after.state.past is not None else 0
        failures = after.state.failures
        crashes_max = min(retry.crash_limit, retry.max_attempts)
        spent = failures >= retry.max_attempts or crashes >= crashes_max
        told = f"after {failures} failures of {retry.max_attempts} and {crashes} crashes of {crashes_max}"
        if failures > retry.max_attempts or crashes > crashes_max:
            self.broken(f"{task_id.hex()} was tried again {told}")
        if after.name == State.DEAD and not spent:
            self.broken(f"{task_id.hex()} was given up {told}")
        if after.name in {State.SCHEDULED, State.READY} and spent:
            self.broken(f"{task_id.hex()} is to be tried again {told}")
