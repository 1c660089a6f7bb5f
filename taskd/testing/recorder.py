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
from taskd_protocol.workflow import Node, WorkflowSpec


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


@dataclass(frozen=True, slots=True)
class RecordedWorkflow:
    """A workflow that was submitted."""

    name: str
    policy: str
    nodes: tuple[Node, ...]
    """In order, as they would be sent."""

    def names(self) -> list[str]:
        """Return the names of its nodes, in order."""
        return [node.name for node in self.nodes]


class Recording:
    """What was submitted.

    Attributes:
        submitted: In order; a submit under a key that was used already is no new one.
        workflows: Likewise; their nodes are not among ``submitted``.
    """

    def __init__(self) -> None:
        self.submitted: list[Recorded] = []
        self.workflows: list[RecordedWorkflow] = []

    def of(self, task: AnyTask | str) -> list[Recorded]:
        """Return the submits of one task, given itself or by name."""
        name = task if isinstance(task, str) else task.name
        return [recorded for recorded in self.submitted if recorded.task == name]

    def clear(self) -> None:
        """Forget what was submitted so far."""
        self.submitted.clear()
        self.workflows.clear()

    def take(self, spec: TaskSpec) -> Outcome | None:
        """Note a task; it never ends."""
        args, kwargs = unpack_arguments(spec.payload)
        self.submitted.append(Recorded(spec.name, tuple(args), kwargs, spec))
        return None

    def take_workflow(self, spec: WorkflowSpec, nodes: list[Node]) -> None:
        """Note a workflow; none of its nodes ever runs."""
        self.workflows.append(RecordedWorkflow(spec.name, spec.policy, tuple(nodes)))


@contextmanager
def recording(app: App) -> Iterator[Recording]:
    """Let nothing run that is submitted meanwhile, and list it.

    Arguments are checked and packed in earnest. A handle's state is ``ready`` (``cancelled`` once it was cancelled);
    asked for its result it raises TimedOut at once.
    """
    recorded = Recording()
    line = InstantLine("recording", SystemClock().wall_ms, recorded.take, recorded.take_workflow)
    with app.submitting_to(Client(line=line)):
        yield recorded
