"""S5: an agent of which a person ordered it is granted nothing; a queue takes nothing new."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.records import LeaseRecord


class Drained(Checker):
    """Looks at what is granted and submitted after the batch of the order."""

    promise = "S5"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._drained: set[tuple[str, str]] = set()

    def ordered(self, kind: str, name: str, *, drained: bool) -> None:
        if drained:
            self._drained.add((kind, name))
        else:
            self._drained.discard((kind, name))

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        if ("agent", lease.agent) in self._drained:
            self.broken(f"{task_id.hex()} was leased to {lease.agent}, which is drained")

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if before.spec is not None or after.spec is None or after.spec.spec.rules.member is not None:
            return  # a workflow was taken as a whole
        if ("queue", after.spec.spec.queue) in self._drained:
            self.broken(f"{task_id.hex()} was taken into {after.spec.spec.queue!r}, which is drained")
