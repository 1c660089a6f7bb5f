"""S17: what may run at most once does."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.records import LeaseRecord


class Once(Checker):
    """What has begun never begins again, but at a person's word."""

    promise = "S17"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._ran: dict[bytes, int] = {}  # tokens, by task
        self._leased: dict[bytes, int] = {}  # the last token, by task
        self._void: dict[bytes, int] = {}  # tokens up to this are of before the task was retried

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        self._leased[task_id] = lease.token

    def ran(self, agent: str, task_id: bytes, attempt: int, token: int) -> None:
        if token <= self._void.get(task_id, 0):
            return
        if self.world.find_spec(task_id).rules.at_most_once:
            if task_id in self._ran:
                self.broken(f"{task_id.hex()} may run once, and ran under {self._ran[task_id]} and {token}")
            self._ran[task_id] = token

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if before.has_ended and not after.has_ended:
            self._ran.pop(task_id, None)
            self._void[task_id] = self._leased.get(task_id, 0)
