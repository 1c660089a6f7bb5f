"""Recording: nothing runs; what was submitted is listed, for tests of code that only has to submit the right thing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from taskd.agent.clock import SystemClock
from taskd.client.app import App
from taskd.client.client import Client
from taskd.client.task import AnyTask
from taskd.testing.instant import InstantLine
from taskd_protocol.payload import unpack_arguments
from taskd_protocol.task import Outcome, TaskSpec


@dataclass(frozen=True, slots=True)
class Recorded:
    """One submit."""

    task: str
    """Its name."""
    args: tuple[object, ...]
    """As the task would get them: packed and unpacked."""
    kwargs: dict[str, object]
    spec: TaskSpec = field(compare=False)
    """All that would be sent: queue, priority, delay, retry, key, headers."""


class Recording:
    """What was submitted.

    Attributes:
        submitted: In order; a submit under a key that was used already is no new one.
    """

    def __init__(self) -> None:
        self.submitted: list[Recorded] = []

    def of(self, task: AnyTask | str) -> list[Recorded]:
        """Return the submits of one task, given itself or by name."""
        name = task if isinstance(task, str) else task.name
        return [recorded for recorded in self.submitted if recorded.task == name]

    def clear(self) -> None:
        """Forget what was submitted so far."""
        self.submitted.clear()

    def take(self, spec: TaskSpec) -> Outcome | None:
        """Note a task; it never ends."""
        args, kwargs = unpack_arguments(spec.payload)
        self.submitted.append(Recorded(spec.name, tuple(args), kwargs, spec))
        return None


@contextmanager
def recording(app: App) -> Iterator[Recording]:
    """Let nothing run that is submitted meanwhile, and list it.

    Arguments are checked and packed in earnest. A handle's state is ``ready`` (``cancelled`` once it was cancelled);
    asked for its result it raises TimedOut at once.
    """
    recorded = Recording()
    line = InstantLine("recording", SystemClock().wall_ms, recorded.take)
    with app.submitting_to(Client(line=line)):
        yield recorded
