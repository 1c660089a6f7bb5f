"""Workflows as a test writes them, and an agent that works them off."""

from collections.abc import Callable, Mapping, Sequence

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.effects import TasksEnded
from taskd.core.workflow_commands import NodesTaken, SubmitWorkflow
from taskd.core.workflow_records import WorkflowRecord
from taskd_protocol.payload import Input, pack_arguments
from taskd_protocol.task import Failure, Given, Grant, TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec, make_workflow_id, member_id, place_of

BOOM = Failure("task.raised", "boom", "builtins.ValueError", "Traceback", None)


def task(name: str = "m.f", inputs: int = 0) -> TaskSpec:
    """Make what a node submits."""
    return TaskSpec(b"", name, pack_arguments([Input(n) for n in range(inputs)], {}))


class Graph:
    """Nodes by name, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.names: dict[str, int] = {}

    def add(self, name: str, *needs: str, after: Sequence[str] = (), **fields: object) -> "Graph":
        """Add a node that runs ``m.f`` unless it says otherwise."""
        self.names[name] = len(self.nodes)
        if fields.get("kind", "task") in {"task", "map"}:
            fields.setdefault("task", task(inputs=len(needs)))
        places = [self.names[need] for need in needs]
        self.nodes.append(Node(name, needs=places, after=[self.names[n] for n in after], **fields))  # type: ignore[arg-type]  # as each test says
        return self


class Run:
    """A workflow that was submitted, and an agent that works it off.

    Attributes:
        ran: Names of the nodes, and of children with their positions, whose attempts were granted, in order.
    """

    def __init__(self, shell: Shell, graph: Graph, *, policy: str = "finish_what_you_can", part: int = 1_000) -> None:
        self.shell = shell
        self.graph = graph
        self.id = make_workflow_id(shell.wall_ms, shell.ids.randbytes(5))
        self.spec = WorkflowSpec(self.id, "report", len(graph.nodes), policy)
        self.agent = FakeAgent(shell)
        self.ran: list[str] = []
        for first in range(0, len(graph.nodes), part):
            nodes = graph.nodes[first : first + part]
            taken = shell.do(SubmitWorkflow("client", self.spec, first, nodes))
            assert taken == NodesTaken(first + len(nodes))

    def name_of(self, grant: Grant) -> str:
        """Return which node an attempt is of; of a child with its position."""
        node, child = place_of(grant.spec.id)
        name = self.graph.nodes[node].name
        return name if child < 0 else f"{name}[{child}]"

    def take(self, count: int = 100) -> dict[str, Grant]:
        """Have the agent ask for work; return what it got, by node."""
        if not self.agent.connection:
            self.agent.join()
        self.shell.do(self.agent.credit(count))
        grants = {self.name_of(grant): grant for grant in self.agent.receive()}
        self.ran += grants
        return grants

    def ack(self, grant: Grant, result: bytes = b"\xc0") -> None:
        """Report a success."""
        self.shell.do(self.agent.ack(grant, result=result))
        self.agent.held.pop(grant.token, None)

    def fail(self, grant: Grant) -> None:
        """Report a failure that is the last."""
        self.shell.do(self.agent.nack(grant, failure=BOOM, final=True))
        self.agent.held.pop(grant.token, None)

    def work(
        self,
        fails: Sequence[str] = (),
        results: Mapping[str, bytes] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> "Run":
        """Work off all there is: those named fail, the others succeed."""
        while grants := self.take():
            for name, grant in grants.items():
                if name in fails:
                    self.fail(grant)
                else:
                    self.ack(grant, (results or {}).get(name, b"\xc0"))
                between()
            check_disk(self.shell.disk)
        return self

    @property
    def record(self) -> WorkflowRecord:
        """The workflow as it is stored."""
        return self.shell.disk.get(records.WORKFLOW, self.id, WorkflowRecord)

    def node_id(self, name: str, child: int = -1) -> bytes:
        """Return the id of a node, or of a child of it."""
        return member_id(self.id, self.graph.names[name], child)

    def crash(self) -> None:
        """Cut the power, start again; the agent is another one."""
        self.shell.crash()
        self.shell.settle()
        self.agent = FakeAgent(self.shell, boot_id=self.agent.boot_id + b"'")

    def told(self) -> dict[str, str]:
        """Return what was told of the ends of nodes, by name, and of the workflow, under its own."""
        found: dict[str, str] = {}
        for effect in self.shell.take_told(TasksEnded):
            for outcome in effect.ended:
                node, child = place_of(outcome.id)
                if child < 0:
                    found[self.spec.name if node < 0 else self.graph.nodes[node].name] = outcome.state
        return found


def inputs(grant: Grant) -> list[Given]:
    """Return what an attempt is given."""
    assert grant.spec.rules.member is not None
    return grant.spec.rules.member.inputs
