"""S7: a key stands for one task, however often and by whomever it is sent."""

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.tap import Conversation
from taskd_protocol.messages import Accepted, Message, Submit


class Keys(Checker):
    """Two tasks of a key are never stored at the same time, and who submits a key is told its task."""

    promise = "S7"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._tasks: dict[str, bytes] = {}

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        if after.spec is not None and before.spec is None and (key := after.spec.spec.key):
            first = self._tasks.setdefault(key, task_id)
            if first != task_id:
                self.broken(f"key {key!r} stands for {first.hex()} and {task_id.hex()}")
        if after.spec is None and before.spec is not None and before.spec.spec.key:
            self._tasks.pop(before.spec.spec.key, None)

    def said(self, conversation: Conversation, message: Message) -> None:
        if not isinstance(message, Accepted):
            return
        submit = conversation.requests.get(message.request_id)
        assert isinstance(submit, Submit)
        firsts = dict(message.existing)
        for index, spec in enumerate(submit.tasks):
            known_as = firsts.get(index, spec.id)
            if spec.key and self._tasks.get(spec.key, known_as) != known_as:
                self.broken(f"key {spec.key!r} was answered with {known_as.hex()}")
