"""S7: a key stands for one task, however often and by whomever it is sent, for as long as keys are kept."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd.core.working import DAY_MS
from taskd_protocol.messages import Accepted, Message, Submit

KEPT_MS = DAY_MS - 60_000
"""Keys are kept for a day of the server's wall clock; whoever is at its end by a minute may see either."""


class Keys(Checker):
    """No second task of a key is kept within a day, and who submits a key is told its task."""

    promise = "S7"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._tasks: dict[str, tuple[bytes, int]] = {}  # with when it was kept, by key
        self._latest_ms = 0

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if after.spec is not None and before.spec is None and (key := after.spec.spec.key):
            first = self._find(key)
            if first is not None:
                self.broken(f"key {key!r} stands for {first.hex()} and {task_id.hex()}")
            self._tasks[key] = (task_id, after.spec.created_at_ms)

    def said(self, conversation: Conversation, message: Message) -> None:
        if not isinstance(message, Accepted):
            return
        submit = conversation.requests.get(message.request_id)
        assert isinstance(submit, Submit)
        firsts = dict(message.existing)
        for index, spec in enumerate(submit.tasks):
            known_as = firsts.get(index, spec.id)
            is_resend = known_as == spec.id  # found by its id, also when its key is another's by now
            if spec.key and not is_resend and self._find(spec.key) not in {None, known_as}:
                self.broken(f"key {spec.key!r} was answered with {known_as.hex()}")
            stored = self.world.journal.find(known_as).spec
            if stored is not None and (stored.spec.name, stored.spec.payload) != (spec.name, spec.payload):
                self.broken(f"{known_as.hex()} is other work than what was submitted under {spec.key!r}")

    def _find(self, key: str) -> bytes | None:
        """Return the task that a key stands for; None: there is none, or it may be forgotten."""
        self._latest_ms = max(self._latest_ms, self.world.server.clock.wall_ms())
        task_id, kept_at_ms = self._tasks.get(key, (None, 0))
        return task_id if self._latest_ms - kept_at_ms < KEPT_MS else None
