"""Tasks that tasks spawn, and their waiting for them: nothing is made twice, nothing holds a slot meanwhile."""

import pytest
from msgspec.structs import replace

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import CancelStates, CancelTasks, RetryTasks, StartJob
from taskd.core.effects import TasksEnded, WorkflowBroken
from taskd.core.lifecycle import State
from taskd.core.records import StateRecord
from taskd.core.workflow_commands import OrderWorkflow, SpawnTasks
from taskd.core.workflow_records import WorkflowRecord
from taskd_protocol.errors import BadRequest, LeaseStale, StoreCorrupt
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.task import Grant, TaskSpec
from taskd_protocol.tracing import read_traceparent, span_id_of
from taskd_protocol.workflow import is_workflow_id, member_id, place_of, spawn_digest


def child(name: str = "m.child", payload: bytes = b"\x90") -> TaskSpec:
    return TaskSpec(b"", name, payload)


class House:
    """An agent with one slot, and a task on it."""

    def __init__(self, shell: Shell, **fields: str) -> None:
        self.shell = shell
        self.agent = FakeAgent(shell, names=["m.f", "m.child"]).join()
        self.parent = replace(shell.spec(), **fields)
        shell.submit(self.parent)

    def next(self) -> Grant:
        """Take the next attempt."""
        self.shell.do(self.agent.credit(1))
        [grant] = self.agent.receive()
        return grant

    def spawn(self, grant: Grant, *specs: TaskSpec, first: int = 0) -> None:
        self.shell.do(SpawnTasks("a1", grant.token, first, specs))

    def wait(self, grant: Grant) -> None:
        """End an attempt to wait for what it has spawned."""
        self.shell.do(self.agent.nack(grant, outcome="waiting"))
        self.agent.held.pop(grant.token)

    def ack(self, grant: Grant) -> None:
        self.shell.do(self.agent.ack(grant))
        self.agent.held.pop(grant.token)

    def crash(self) -> None:
        """Cut the power; the agent comes back with what it holds."""
        self.shell.crash()
        self.shell.settle()
        self.agent.join()

    def state(self) -> str:
        return str(check_disk(self.shell.disk)[self.parent.id])

    @property
    def family(self) -> WorkflowRecord:
        [workflow] = self.shell.disk.scan(records.WORKFLOW)
        return self.shell.disk.get(records.WORKFLOW, workflow, WorkflowRecord)


@pytest.fixture
def house(shell: Shell) -> House:
    return House(shell)


@pytest.mark.parametrize("crash", [False, True])
def test_a_task_waits_for_what_it_has_spawned_and_holds_nothing(house: House, *, crash: bool) -> None:
    first = house.next()
    assert first.spawned is None
    house.spawn(first, child(), child())
    house.wait(first)
    assert house.state() == State.BLOCKED
    for position in range(2):
        grant = house.next()
        assert (grant.spec.name, place_of(grant.spec.id)) == ("m.child", (0, position))
        if crash:
            house.crash()
        assert house.state() == State.BLOCKED
        house.ack(grant)
    if crash:
        house.crash()
    again = house.next()
    assert (again.spec.id, again.attempt) == (house.parent.id, 2)
    assert again.spawned is not None
    digest = spawn_digest(spawn_digest(b"", "m.child", b"\x90"), "m.child", b"\x90")
    assert (again.spawned.count, again.spawned.digest) == (2, digest)
    house.ack(again)
    assert house.state() == State.SUCCEEDED
    assert house.family.state == "succeeded"
    assert not house.shell.working.flows


def test_what_was_spawned_before_is_not_made_again(house: House) -> None:
    """By the same attempt, whose answer was lost, or by a later one; what is new is added."""
    grant = house.next()
    house.spawn(grant, child(), child())
    house.spawn(grant, child(), child())
    house.spawn(grant, child(), child("m.f"), first=1)
    house.shell.do(house.agent.nack(grant, outcome="crashed"))
    assert len(house.shell.disk.scan(records.SPEC)) == 4
    assert house.family.spawned == 3
    with pytest.raises(LeaseStale):
        house.spawn(grant, child(), first=3)


def test_children_stand_below_their_parents_attempt_in_its_trace(shell: Shell) -> None:
    """Where they name no context of their own."""
    house = House(shell, traceparent=f"00-{7:032x}-{8:016x}-01")
    grant = house.next()
    house.spawn(grant, child(), replace(child(), traceparent=f"00-{5:032x}-{6:016x}-00"))
    seen = sorted(read_traceparent(house.next().spec.traceparent) or () for _ in range(2))
    assert seen == [(5, 6, 0), (7, span_id_of(house.parent.id, "attempt", 1), 1)]


def test_a_gap_is_refused(house: House) -> None:
    grant = house.next()
    for first in (1, -1):
        with pytest.raises(BadRequest, match="0 are known"):
            house.spawn(grant, child(), child(), first=first)
    assert len(house.shell.disk.scan(records.SPEC)) == 1


def test_children_begin_while_their_parent_runs_and_may_outlive_it(house: House) -> None:
    parent = house.next()
    house.spawn(parent, child())
    grant = house.next()
    house.ack(parent)
    assert house.family.state == "running"
    assert house.family.parent_ended
    house.crash()
    house.ack(grant)
    assert house.family.state == "succeeded"


def test_a_child_that_fails_wakes_its_parent_too(house: House) -> None:
    parent = house.next()
    house.spawn(parent, child(), child())
    house.wait(parent)
    for _ in range(2):
        house.shell.do(house.agent.nack(house.next(), final=True))
    again = house.next()
    assert again.spec.id == house.parent.id
    house.ack(again)
    assert house.family.state == "failed"


def test_grandchildren(house: House) -> None:
    """A child spawns and waits, too; its attempts cost nothing."""
    parent = house.next()
    house.spawn(parent, child())
    house.wait(parent)
    middle = house.next()
    house.spawn(middle, child(payload=b"\x91\x01"))
    house.wait(middle)
    leaf = house.next()
    assert leaf.spec.payload == b"\x91\x01"
    house.crash()
    house.ack(leaf)
    middle = house.next()
    assert middle.attempt == 2
    house.ack(middle)
    house.ack(house.next())
    assert house.state() == State.SUCCEEDED
    assert set(check_disk(house.shell.disk).values()) == {State.SUCCEEDED}


@pytest.mark.parametrize("crash", [False, True])
def test_cancel_goes_down(house: House, *, crash: bool) -> None:
    """A parent that waits is cancelled at once, and with it what it has spawned."""
    parent = house.next()
    house.spawn(parent, child(), child())
    house.wait(parent)
    running = house.next()
    if crash:
        house.crash()
    house.shell.do(CancelTasks([house.parent.id]))
    house.agent.receive()
    assert house.agent.revoked == {running.token}
    house.shell.do(house.agent.nack(running, outcome="cancelled"))
    assert set(check_disk(house.shell.disk).values()) == {State.CANCELLED}
    assert house.family.state == "cancelled"


def test_a_cancel_of_many_is_for_those_that_wait_too(house: House) -> None:
    """A filter that a waiting task fits names it, as its id does."""
    first = house.next()
    house.spawn(first, child())
    house.wait(first)
    house.shell.do(StartJob("client", house.shell.new_id(), "cancel", TaskFilter(state="blocked")))
    house.shell.settle()
    assert house.state() == State.CANCELLED
    assert set(check_disk(house.shell.disk).values()) == {State.CANCELLED}


def test_a_task_whose_children_cannot_be_read_stays_blocked(house: House) -> None:
    """It can be cancelled; what it spawns further is refused, so that nothing is made twice."""
    shell, first = house.shell, house.next()
    house.spawn(first, child())
    [family] = shell.disk.scan(records.WORKFLOW)
    del shell.disk.values[records.WORKFLOW, family]
    house.crash()
    [told] = shell.take_told(WorkflowBroken)
    assert told.id == family
    with pytest.raises(StoreCorrupt, match="spawned before cannot be read"):
        house.spawn(first, child(), child())
    house.wait(first)
    house.ack(house.next())  # the child
    states = shell.disk.get(records.STATE, house.parent.id, StateRecord)
    assert states.state == State.BLOCKED
    assert shell.do(CancelTasks([house.parent.id])) == CancelStates(["cancelled"])


def test_a_task_that_waits_for_nothing_goes_back_in_line(house: House) -> None:
    house.wait(house.next())
    assert house.state() == State.READY
    assert house.next().attempt == 2


def test_the_deadline_of_a_task_that_waits(shell: Shell) -> None:
    house = House(shell)
    shell.do(CancelTasks([house.parent.id]))
    house.parent = shell.spec(deadline_ms=8_000)
    shell.submit(house.parent)
    parent = house.next()
    house.spawn(parent, child())
    house.wait(parent)
    shell.pass_ms(9_000)
    assert house.state() == State.DEAD


def test_a_parent_that_is_retried_after_its_end_begins_anew(house: House) -> None:
    parent = house.next()
    house.spawn(parent, child())
    house.ack(house.next())
    house.shell.do(house.agent.nack(parent, final=True))
    assert house.family.state == "succeeded"
    house.shell.do(RetryTasks([house.parent.id]))
    grant = house.next()
    assert grant.spawned is None
    house.spawn(grant, child())
    families = house.shell.disk.scan(records.WORKFLOW)
    assert len(families) == 2
    assert all(is_workflow_id(family) for family in families)


@pytest.mark.parametrize("action", ["resume", "rerun", "cancel"])
def test_a_family_takes_no_orders(house: House, action: str) -> None:
    """It would wait for ever: what is ordered of its parent is carried out with it."""
    parent = house.next()
    house.spawn(parent, child())
    for _ in range(2):
        family = house.family.spec.id
        with pytest.raises(BadRequest, match=r"children of m\.f, which go with it"):
            house.shell.do(OrderWorkflow(family, action, "children"))
        if parent.token in house.agent.held:
            house.shell.do(house.agent.nack(house.next(), final=True))
            house.ack(parent)
    assert house.family.state == "failed"


def test_what_is_told(house: House) -> None:
    parent = house.next()
    house.spawn(parent, child())
    house.wait(parent)
    house.ack(house.next())
    house.ack(house.next())
    told = {o.id: o.state for e in house.shell.take_told(TasksEnded) for o in e.ended}
    family = house.family.spec.id
    ids = [house.parent.id, family, member_id(family, 0), member_id(family, 0, 0)]
    assert told == dict.fromkeys(ids, "succeeded")
