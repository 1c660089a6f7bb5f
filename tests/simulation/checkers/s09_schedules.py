"""S9: of every nominal time of a schedule there is exactly one decision, over every crash and clock."""

from harness.clockwork import check_schedules
from harness.decisions import Decisions
from simulation.checkers.checker import Checker
from simulation.checkers.s13_records import read_disk


class Schedules(Checker):
    """Compares, whenever a server starts, what is decided with the times that there are, and with what was decided."""

    promise = "S9"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._decisions = Decisions()

    def recovered(self) -> None:
        self._check()

    def finished(self) -> None:
        self._check()

    def _check(self) -> None:
        try:
            check_schedules(read_disk(self.world), self._decisions, self.world.journal.begun)
        except AssertionError as error:
            self.broken(f"decisions on schedules: {error}")
