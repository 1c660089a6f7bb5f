"""S8: what a task spawns is made once, and the task goes on when all of it has ended, with what came of it."""

from typing import TYPE_CHECKING

from simulation.bodies import read_body
from simulation.broods import Brood, brood_of
from simulation.checkers.checker import Checker
from simulation.journal import Standing
from taskd.client.family import Found
from taskd.core.lifecycle import State
from taskd.core.workflow_records import WorkflowRecord
from taskd_protocol.errors import TaskCodes
from taskd_protocol.payload import pack
from taskd_protocol.task import COMMAND_NAME
from taskd_protocol.workflow import member_id, place_of, workflow_of

if TYPE_CHECKING:
    from simulation.world import World

NIL = pack(None)


class Families(Checker):
    """Compares what was spawned with what the task's arguments say that it spawns."""

    promise = "S8"

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._woken: dict[bytes, bytes] = {}  # families of tasks that go on in this batch, by task
        self._cancelled: set[bytes] = set()  # families whose parents were
        self._done: dict[bytes, bytes] = {}  # and of those that have succeeded

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        record = self.world.journal.flows.get(workflow_of(task_id))
        if record is not None and record.parent and before.spec is None and after.spec is not None:
            self._check_made(task_id, record.parent, after)
        past = None if after.state is None else after.state.past
        if past is None or not past.family or before.name == after.name:
            return
        if before.name == State.BLOCKED and after.name == State.READY:
            self._woken[task_id] = past.family
        elif after.name == State.CANCELLED:
            self._cancelled.add(past.family)
        elif after.name == State.SUCCEEDED:
            self._done[task_id] = past.family

    def flow_moved(self, workflow: bytes, before: WorkflowRecord | None, after: WorkflowRecord | None) -> None:
        if after is not None and after.parent and before is not None and after.spawned < before.spawned:
            self.broken(f"family {workflow.hex()} had {before.spawned} children and has {after.spawned}")
        is_over = after is not None and after.finished_at_ms and not (before is not None and before.finished_at_ms)
        if is_over and workflow in self._cancelled and after is not None and after.state != State.CANCELLED:
            self.broken(f"the parent of family {workflow.hex()} was cancelled, and it is {after.state}")

    def committed(self) -> None:
        woken, self._woken = self._woken, {}
        done, self._done = self._done, {}
        for task_id, family in woken.items():
            self._check_ended(task_id, family)
        for task_id, family in done.items():
            self._check_done(task_id, family)

    def found(self, task_id: bytes, node: bytes, found: Found) -> None:
        """An attempt begins with what has become of its children."""
        missed = {each.position: each.failure.code for each in found.missed}
        for number, packed in enumerate(found.parts):
            child = member_id(workflow_of(node), place_of(node)[0], number)
            state = self.world.journal.find(child).state
            if missed.get(number) == TaskCodes.PENDING or state is None or not state.finished_at_ms:
                continue  # it may have ended since
            expected = self.world.journal.results.get(child) if state.result_apart else state.result
            if (state.state == State.SUCCEEDED) == (number in missed):
                self.broken(f"{task_id.hex()} was told of child {number}, which {state.state}: {missed.get(number)}")
            elif packed != (NIL if number in missed else expected):
                self.broken(f"{task_id.hex()} was given {packed!r} by child {number}, which gave {expected!r}")

    def _check_done(self, task_id: bytes, family: bytes) -> None:
        """A task has succeeded: it has spawned all that it was to, and waited for it if it was to."""
        record, brood = self.world.journal.flows.get(family), self._brood(task_id)
        if record is not None and record.spawned != len(brood.all):
            self.broken(f"{task_id.hex()} succeeded and spawned {record.spawned} of {len(brood.all)}")
        if brood.waits and not self.world.find_spec(task_id).rules.at_most_once:
            self._check_ended(task_id, family)

    # -- the inside -----------------------------------------------------------------------

    def _brood(self, parent: bytes) -> Brood:
        spec = self.world.find_spec(parent)
        return brood_of(0 if spec.name == COMMAND_NAME else read_body(spec.payload).brood)

    def _check_made(self, child_id: bytes, parent: bytes, after: Standing) -> None:
        _, number = place_of(child_id)
        expected = self._brood(parent).all[number : number + 1]
        assert after.spec is not None
        made = after.spec.spec
        if [(made.name, made.payload)] != [(spec.name, spec.payload) for spec in expected]:
            self.broken(f"child {number} of {parent.hex()} is {made.name} {made.payload!r}, and no such was spawned")

    def _check_ended(self, task_id: bytes, family: bytes) -> None:
        record = self.world.journal.flows.get(family)
        if record is None:
            self.broken(f"{task_id.hex()} goes on, and its family is gone")
            return
        for number in range(record.spawned):
            child = member_id(family, 0, number)
            if child not in self.world.purged and not self.world.journal.find(child).has_ended:
                self.broken(f"{task_id.hex()} goes on, and its child {number} is {self.world.journal.find(child).name}")
