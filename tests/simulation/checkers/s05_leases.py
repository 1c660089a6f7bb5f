"""S5, S6: leases of one task never overlap; attempts and tokens grow."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.records import LeaseRecord


class Leases(Checker):
    """A lease is given when the last one was taken away, under a higher attempt and a higher token."""

    promise = "S5/S6"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._last: dict[bytes, tuple[int, int]] = {}  # attempt and token, by task
        self._token = 0

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        if over is not None:
            self.broken(f"{task_id.hex()} was leased as {lease.token} while {over.token} stood")
        attempt, token = self._last.get(task_id, (0, 0))
        if lease.attempt <= attempt or lease.token <= token:
            self.broken(f"{task_id.hex()}: attempt {lease.attempt} under {lease.token} follows {attempt} under {token}")
        if lease.token in self.world.journal.leases:
            self.broken(f"token {lease.token} was given twice")
        self._last[task_id] = (lease.attempt, lease.token)

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if after.spec is not None and after.attempt < before.attempt:
            self.broken(f"{task_id.hex()} was at attempt {before.attempt} and is at {after.attempt}")
