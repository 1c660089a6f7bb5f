"""The onlooker: follows what is durable, batch by batch, and compares it with what is promised of workflows.

And of schedules: the journal and checkers of the simulation, for rigs that have no network, machines and clients.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from harness.clockwork import check_schedules
from harness.core import Disk
from harness.decisions import Decisions
from simulation.bodies import ASYNC, BLOCKING, read_body
from simulation.broods import Brood, brood_of
from simulation.checkers.s08_families import Families
from simulation.checkers.s08_graphs import Graphs
from simulation.checkers.s08_signals import Signals
from simulation.journal import Journal, Standing
from taskd.core.commands import Command
from taskd.core.events import EventsRecord
from taskd.core.records import LeaseRecord, Mutation, SpecRecord
from taskd.core.workflow_commands import OrderWorkflow, SignalWorkflow
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd.store import codec
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow_messages import WorkflowOrder, WorkflowSignal

if TYPE_CHECKING:
    from simulation.tap import Conversation
    from simulation.world import World

NOBODY = cast("Conversation", None)
"""No connection: what is asked comes from the rig."""


class _Families(Families):
    def _check_done(self, task_id: bytes, family: bytes) -> None:
        """Agents of a rig report a success whenever they like."""


class Onlooker:
    """See the module's docstring.

    Attributes:
        steered: Workflows of which it was asked that they, or a task of theirs, end or run again.
        purged: Tasks and workflows that are stored no more.
    """

    def __init__(self) -> None:
        self.journal = Journal(self)
        self.steered: set[bytes] = set()
        self.purged: set[bytes] = set()
        self._specs: dict[bytes, TaskSpec] = {}
        self._sequence = 0
        self._decisions = Decisions()
        world = cast("World", self)  # as much of one as these checkers look at
        self._checkers = [Graphs(world), _Families(world), Signals(world)]

    # -- the rig's side -------------------------------------------------------------------

    def asked(self, command: Command) -> None:
        """Be told what is asked of workflows."""
        match command:
            case OrderWorkflow():
                self.steered.add(command.id)
                for checker in self._checkers:
                    checker.heard(NOBODY, WorkflowOrder(0, command.id, command.action, command.node))
            case SignalWorkflow():
                for checker in self._checkers:
                    checker.heard(NOBODY, WorkflowSignal(0, command.id, command.name, command.packed))
            case _:
                pass

    def stage(self, mutations: Sequence[Mutation]) -> None:
        """A batch is written, and not durable."""
        self._sequence += 1
        self.journal.stage(self._sequence, codec.encode(mutations))

    def flush(self, lost: int = 0) -> None:
        """All batches are durable but so many of the last ones, which are lost."""
        self.journal.commit(self._sequence - lost)
        self.journal.drop()
        self._sequence -= lost

    def check_schedules(self, disk: Disk) -> None:
        """Look at a disk all of which is durable."""
        check_schedules(disk, self._decisions, self.journal.begun)

    def open_signals(self) -> list[tuple[bytes, str]]:
        """Return what workflows that have not ended may wait for."""
        waiting = [i for i, flow in self.journal.flows.items() if not flow.finished_at_ms]
        return [(i, name) for i in waiting for name in self.journal.signals_of(i)]

    def tally(self) -> dict[str, int]:
        """Return how many workflows and families came to which end, and how many times were decided on."""
        count = Counter(flow.state for flow in self.journal.flows.values() if not flow.parent)
        families = sum(bool(flow.parent) for flow in self.journal.flows.values())
        told = {f"workflow {state}": count[state] for state in ("running", "succeeded", "failed", "cancelled")}
        return told | {"family": families, "time decided on": self._decisions.fired + self._decisions.passed_over}

    # -- as the checkers see it, and the journal --------------------------------------------

    def violated(self, promise: str, how: str) -> None:
        """A promise is broken."""
        raise AssertionError(f"{promise}: {how}")

    def find_spec(self, task_id: bytes) -> TaskSpec:
        """Return what was submitted under an id."""
        return self._specs[task_id]

    def kept(self, spec: SpecRecord) -> None:
        """See ``Reader``."""
        self._specs[spec.spec.id] = spec.spec

    def leased(self, task_id: bytes, lease: LeaseRecord, over: LeaseRecord | None) -> None:
        """See ``Reader``: looked at elsewhere."""

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        """See ``Reader``."""
        if after.spec is None:
            self.purged.add(task_id)
        for checker in self._checkers:
            checker.moved(task_id, before, after)

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        """See ``Reader``."""
        if after is None:
            self.purged.add(workflow)
        for checker in self._checkers:
            checker.flow_moved(workflow, before, after)

    def node_moved(self, node_id: bytes, before: NodeRecord | None, after: NodeRecord | None) -> None:
        """See ``Reader``."""
        for checker in self._checkers:
            checker.node_moved(node_id, before, after)

    def ordered(self, kind: str, name: str, *, drained: bool) -> None:
        """See ``Reader``: looked at elsewhere."""

    def journaled(self, number: int, record: EventsRecord | None) -> None:
        """See ``Reader``: a rig keeps no events."""

    def committed(self) -> None:
        """See ``Reader``."""
        for checker in self._checkers:
            checker.committed()


def brood_in(spec: TaskSpec) -> Brood:
    """Return what a task spawns, if its body says so."""
    return brood_of(read_body(spec.payload).brood if spec.name in {BLOCKING, ASYNC} else 0)
