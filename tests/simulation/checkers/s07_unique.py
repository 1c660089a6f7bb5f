"""S7: of the work that a submit asked to be unique there is one task at a time."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.core.lifecycle import State
from taskd_protocol.task import QUEUED, RUNNING, TaskSpec


class Only(Checker):
    """Counts, after each batch, the tasks that hold a claim by what is stored of them."""

    promise = "S7"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._holders: dict[tuple[str, ...], set[bytes]] = {}
        self._changed: set[tuple[str, ...]] = set()

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        record = after.spec or before.spec
        if record is None or record.spec.rules.unique is None:
            return
        work = _work(record.spec)
        holders = self._holders.setdefault(work, set())
        holders.discard(task_id)
        if after.spec is not None and _holds(after):
            holders.add(task_id)
            self._changed.add(work)

    def committed(self) -> None:
        for work in sorted(self._changed):
            if len(self._holders[work]) > 1:
                ids = sorted(task_id.hex() for task_id in self._holders[work])
                self.broken(f"of {work} there is to be one task, and there are {ids}")
        self._changed.clear()


def _work(spec: TaskSpec) -> tuple[str, ...]:
    unique = spec.rules.unique
    assert unique is not None
    return unique.mode, spec.name, unique.key or spec.payload.hex()


def _holds(standing: Standing) -> bool:
    assert standing.spec is not None
    unique = standing.spec.spec.rules.unique
    assert unique is not None
    if unique.mode == RUNNING:
        return not standing.has_ended
    revived_attempt = 0 if standing.state is None else standing.state.revived_attempt
    waits = standing.name in {State.READY, State.SCHEDULED}
    return unique.mode == QUEUED and waits and standing.attempt == revived_attempt
