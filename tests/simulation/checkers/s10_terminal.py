"""S10: what has ended stays so, and nobody is shown less than somebody was shown before."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.lifecycle import RETRIABLE, TERMINAL, TRANSITIONS, State
from taskd_protocol.messages import Cancel, JobStart, Message, Outcomes, TaskQuery, TaskRetry, TaskViews
from taskd_protocol.task import Outcome

_ENDS = {*TERMINAL, "failed", "skipped"}
"""Of tasks; and of workflows, and nodes of theirs."""

_ORDER = (State.RUNNING, State.CANCELLING, State.BLOCKED, State.SCHEDULED, State.READY)
"""How one attempt goes on until the next begins."""

Age = tuple[bool, int, int]


class Terminal(Checker):
    """A task moves along the table of the lifecycle; reads follow.

    What had ended without success goes back in line when a person asks for it, and only then.
    """

    promise = "S10"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._ends: dict[bytes, Outcome] = {}
        self._shown: dict[bytes, Age] = {}
        self._asked: dict[tuple[int, int], dict[bytes, Age]] = {}

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if before.has_ended and after.spec is not None and after.end != before.end:
            is_member = before.spec is not None and before.spec.spec.rules.member is not None
            asked = task_id in self.world.retried or self.world.retries_some
            if not (self.world.is_steered(task_id) if is_member else asked and before.name in RETRIABLE):
                self.broken(f"{task_id.hex()} had ended as {before.name} and is {after.name}")
                return
            self.world.revived.add(task_id)
            self._ends.pop(task_id, None)
            self._shown.pop(task_id, None)
            for ages in self._asked.values():
                ages.pop(task_id, None)
        if after.name != before.name and after.name and not _leads(before.name, after.name):
            self.broken(f"{task_id.hex()} went from {before.name!r} to {after.name!r}")

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, TaskRetry):
            self.world.retried.update(message.ids)
        elif isinstance(message, JobStart) and message.action == "retry":
            self.world.retries_some = True
        elif isinstance(message, Cancel) and message.force:
            self.world.forced.update(message.ids)
        elif isinstance(message, TaskQuery):
            known = {task_id: self._shown[task_id] for task_id in message.ids if task_id in self._shown}
            self._asked[id(conversation), message.request_id] = known

    def said(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Outcomes):
            for outcome in message.outcomes:
                self._check_end(outcome)
        elif isinstance(message, TaskViews):
            asked = self._asked.pop((id(conversation), message.request_id), {})
            for view in message.views:
                if view is not None:
                    self._check_view(view.id, _age(view.state, view.attempt), asked)

    def told(self, outcome: Outcome) -> None:
        self._check_end(outcome)

    def _check_view(self, task_id: bytes, age: Age, asked: dict[bytes, Age]) -> None:
        if task_id in self.world.revived:
            return  # how it had ended may be on its way still
        if task_id in asked and age < asked[task_id]:
            self.broken(f"{task_id.hex()} was shown as {age} after {asked[task_id]}")
        self._shown[task_id] = max(age, self._shown.get(task_id, age))

    def _check_end(self, outcome: Outcome) -> None:
        if outcome.state == "unknown" or outcome.id in self.world.revived or self.world.is_steered(outcome.id):
            return
        if outcome.state not in _ENDS:
            self.broken(f"{outcome.id.hex()} was said to have ended as {outcome.state}")
        if self._ends.setdefault(outcome.id, outcome) != outcome:
            self.broken(f"{outcome.id.hex()} was said to have ended as {self._ends[outcome.id]} and as {outcome}")
        self._shown[outcome.id] = _age(outcome.state, outcome.attempt)


def _age(state: str, attempt: int) -> Age:
    return (True, attempt, 0) if state in _ENDS else (False, attempt, _ORDER.index(State(state)))


def _leads(start: str, end: str) -> bool:
    """Tell whether the table leads from one state to another in a few steps: one batch may hold several."""
    reached = {State(start) if start else None}
    for _ in range(4):
        reached |= {after for state in reached for after in TRANSITIONS[state]}
    return State(end) in reached
