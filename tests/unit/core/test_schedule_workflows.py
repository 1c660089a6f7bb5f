"""A workflow as a schedule's work: it is kept with the decision, and counts for every rule as a task does."""

from collections.abc import Sequence
from contextlib import suppress

import pytest
from msgspec.structs import replace

from harness.agent import FakeAgent
from harness.clockwork import MINUTE_MS, a_schedule, check_schedules, firings_of, outcomes_of, put
from harness.core import WALL_MS, Shell
from harness.decisions import Decisions
from harness.fsck import check_disk
from harness.workflows import BOOM, Graph, task
from taskd.core import records, schedule_looks, schedule_work
from taskd.core.commands import NeedRecords, OrderQueue, RetryTasks
from taskd.core.effects import ScheduleStopped, WorkflowBroken
from taskd.core.records import SpecRecord
from taskd.core.schedule_commands import (
    BackfillSchedule,
    OrderSchedule,
    ScheduleBackfilled,
    SchedulesChanged,
    ScheduleTriggered,
    TriggerSchedule,
)
from taskd.core.schedule_looks import OVERLAP_WORKFLOW, WAITED_WORKFLOW
from taskd.core.schedule_records import ScheduleRecord, StandingRecord
from taskd.core.workflow_commands import OrderWorkflow
from taskd.core.workflow_records import NodesRecord, WorkflowRecord
from taskd_protocol.errors import BadRequest, QueueDraining, WorkflowInvalid
from taskd_protocol.schedule import NO_TASK, NOMINAL_HEADER, SCHEDULE_HEADER, Schedule, ScheduledWorkflow
from taskd_protocol.task import Grant, Rules
from taskd_protocol.tracing import read_traceparent, root_of
from taskd_protocol.workflow import Node, is_workflow_id, workflow_of

HOUR_MS = 60 * MINUTE_MS


def chain() -> list[Node]:
    """Return two nodes, one after the other."""
    return Graph().add("first").add("second", "first").nodes


def standing(shell: Shell) -> StandingRecord:
    return shell.disk.get(records.STANDING, b"tick", StandingRecord)


def workflows_of(shell: Shell) -> list[WorkflowRecord]:
    return list(shell.disk.of(records.WORKFLOW, WorkflowRecord).values())


class Hand:
    """An agent that works off what schedules start, in time that passes."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.agent = FakeAgent(shell).join(credit=100)

    def pass_minutes(self, minutes: int) -> None:
        for _ in range(minutes * 12):
            self.shell.pass_ms(5_000)
            self.shell.do(self.agent.beat())

    def take(self) -> list[Grant]:
        self.shell.settle()
        return self.agent.receive()

    def work_off(self, *, failing: bool = False) -> None:
        """Have all tasks end that there are, and those that come of it."""
        while grants := self.take():
            for grant in grants:
                ended = self.agent.nack(grant, failure=BOOM, final=True) if failing else self.agent.ack(grant)
                self.shell.do(ended)
                self.agent.held.pop(grant.token, None)


@pytest.fixture
def hand(shell: Shell) -> Hand:
    """With a checker that sees the disk after each turn."""
    checker = Decisions()
    stage = shell.disk.stage

    def stage_and_check(mutations: Sequence[records.Mutation]) -> None:
        stage(mutations)
        check_schedules(shell.disk, checker)

    shell.disk.stage = stage_and_check  # type: ignore[method-assign]
    return Hand(shell)


class TestFiring:
    def test_each_time_submits_the_whole_workflow_whose_tasks_know_the_time(self, shell: Shell, hand: Hand) -> None:
        nodes = chain()
        spec = replace(task("m.f"), given=Rules(timeout_ms=9_000, headers={"who": "me"}))
        nodes[0] = replace(nodes[0], task=spec)
        put(shell, a_schedule(nodes=nodes))
        hand.pass_minutes(1)
        [fired] = firings_of(shell.disk)
        [workflow] = workflows_of(shell)
        assert is_workflow_id(fired.task_id)
        assert (workflow.spec.id, workflow.spec.name, workflow.spec.nodes) == (fired.task_id, "wf", 2)
        assert (workflow.schedule, workflow.scheduled_for_ms, workflow.owner) == ("tick", fired.at_ms, "client")
        trace = read_traceparent(workflow.spec.traceparent)
        assert trace is not None
        assert trace.span_id == root_of(fired.task_id)
        [grant] = hand.take()
        assert grant.spec.name == "m.f"
        assert grant.spec.rules.timeout_ms == 9_000
        headers = {SCHEDULE_HEADER: "tick", NOMINAL_HEADER: "2025-11-21T21:21:00.000+00:00"}
        assert grant.spec.rules.headers == {"who": "me", **headers}
        shell.do(hand.agent.ack(grant))
        [second] = hand.take()
        assert second.spec.rules.headers == headers
        shell.do(hand.agent.ack(second))
        assert workflows_of(shell)[0].state == "succeeded"
        hand.pass_minutes(2)
        assert outcomes_of(shell.disk) == [("fired", 1)] * 3
        check_disk(shell.disk)

    @pytest.mark.parametrize("kept", [0, 1, 2, 3])
    def test_a_crash_leaves_the_decision_with_its_workflow_or_neither(self, shell: Shell, kept: int) -> None:
        put(shell, a_schedule(nodes=chain()))
        shell.mono_ms += MINUTE_MS
        shell.wall_ms += MINUTE_MS
        shell.coordinator.tick(shell.now)
        for _ in range(3):
            shell.turn()
            for waiting in list(shell.waiting):
                with suppress(NeedRecords):
                    shell.feed(waiting)
        decided = [firing.task_id for firing in firings_of(shell.disk)]
        assert [record.spec.id for record in workflows_of(shell)] == decided
        shell.crash(kept)
        decided = [firing.task_id for firing in firings_of(shell.disk)]
        assert [record.spec.id for record in workflows_of(shell)] == decided
        shell.tick()
        [record] = workflows_of(shell)
        [fired] = firings_of(shell.disk)
        assert (record.spec.id, record.scheduled_for_ms) == (fired.task_id, fired.at_ms)
        hand = Hand(shell)
        hand.work_off()
        assert workflows_of(shell)[0].state == "succeeded"

    def test_missed_times_are_made_up_for_each_with_one(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(nodes=chain(), missed="all", missed_max=5))
        shell.mono_ms += HOUR_MS
        shell.wall_ms += HOUR_MS
        shell.crash()
        shell.tick()
        assert outcomes_of(shell.disk) == [("skipped", 54), *[("fired", 1)] * 6]
        assert len(workflows_of(shell)) == 6
        assert len({record.scheduled_for_ms for record in workflows_of(shell)}) == 6
        assert hand.agent is not None

    def test_an_id_that_another_workflow_has_is_not_taken_twice(self, shell: Shell) -> None:
        put(shell, a_schedule(nodes=chain()))
        record = shell.disk.get(records.SCHEDULE, b"tick", ScheduleRecord)
        first = schedule_work.fresh_id(shell.working, record, 7, shell.now)
        assert first == schedule_work.id_of(record, 7, shell.now), "it follows from the time"
        schedule_work.start(shell.working, record, [(first, 7)], shell.now)
        second = schedule_work.fresh_id(shell.working, record, 7, shell.now)
        assert second != first
        assert is_workflow_id(second)
        ids = {schedule_work.id_of(record, at_ms, shell.now) for at_ms in range(10_000)}
        assert len(ids) == 10_000, "times of one schedule never share one"

    def test_many_large_ones_at_the_same_instant_come_in_several_pieces(
        self, shell: Shell, hand: Hand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(schedule_looks, "LOOK_NODES", 3)
        for number in range(8):
            put(shell, a_schedule(f"s{number}", nodes=chain()))
        hand.pass_minutes(1)
        assert sorted(record.schedule for record in workflows_of(shell)) == [f"s{number}" for number in range(8)]


class TestRules:
    def test_skip_passes_over_while_the_workflow_before_goes_on(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(nodes=chain(), overlap="skip"))
        hand.pass_minutes(3)
        assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 2)]
        assert firings_of(shell.disk)[1].reason == OVERLAP_WORKFLOW
        shell.crash()
        hand.agent.join(credit=10)
        hand.work_off()
        assert standing(shell).running == []
        hand.pass_minutes(1)
        assert outcomes_of(shell.disk)[2:] == [("fired", 1)]

    def test_queue_one_starts_the_next_at_the_end(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(nodes=chain(), overlap="queue_one"))
        hand.pass_minutes(3)
        assert outcomes_of(shell.disk) == [("fired", 1), ("waiting", 1), ("skipped", 1)]
        [first] = hand.take()
        shell.do(hand.agent.ack(first))
        assert outcomes_of(shell.disk)[1] == ("waiting", 1), "a node's end is not the workflow's"
        [second] = hand.take()
        shell.do(hand.agent.ack(second))
        shell.settle()
        started = firings_of(shell.disk)[1]
        assert (started.outcome, started.reason) == ("fired", WAITED_WORKFLOW)
        assert standing(shell).running == [started.task_id]

    def test_cancel_running_waits_until_all_of_the_workflow_has_ended(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(nodes=chain(), overlap="cancel_running"))
        hand.pass_minutes(1)
        [grant] = hand.take()
        hand.pass_minutes(1)
        hand.take()
        assert hand.agent.revoked == {grant.token}
        assert outcomes_of(shell.disk) == [("fired", 1), ("waiting", 1)]
        shell.do(hand.agent.nack(grant, outcome="cancelled"))
        shell.settle()
        assert outcomes_of(shell.disk) == [("fired", 1), ("fired", 1)]
        assert [record.state for record in workflows_of(shell)] == ["cancelled", "running"]

    def test_cancel_running_lets_one_end_that_is_at_its_end(self, shell: Shell, hand: Hand) -> None:
        graph = Graph().add("first").add("tell", after=["first"], phase="on_success", when="all_done")
        put(shell, a_schedule(nodes=graph.nodes, overlap="cancel_running"))
        hand.pass_minutes(1)
        [first] = hand.take()
        shell.do(hand.agent.ack(first))
        [tell] = hand.take()
        hand.pass_minutes(1)
        assert outcomes_of(shell.disk) == [("fired", 1), ("waiting", 1)]
        shell.do(hand.agent.ack(tell))
        shell.settle()
        assert outcomes_of(shell.disk) == [("fired", 1), ("fired", 1)]
        assert workflows_of(shell)[0].state == "succeeded"

    @pytest.mark.parametrize("overlap", ["skip", "queue_one", "cancel_running"])
    def test_one_that_cannot_be_read_holds_up_nothing(self, shell: Shell, hand: Hand, overlap: str) -> None:
        """It may never end: neither what waits already, nor what comes after it, waits for that."""
        put(shell, a_schedule(nodes=chain(), overlap=overlap))
        hand.pass_minutes(2)
        [first] = workflows_of(shell)
        assert outcomes_of(shell.disk)[1] == ("skipped" if overlap == "skip" else "waiting", 1)
        shell.disk.values[records.NODES, shell.disk.scan(records.NODES)[0]] = NodesRecord([])
        shell.crash()
        hand.agent.join(credit=10)
        hand.work_off()
        [told] = shell.take_told(WorkflowBroken)
        assert told.id == first.spec.id
        assert outcomes_of(shell.disk)[1] == ("skipped" if overlap == "skip" else "fired", 1)
        hand.pass_minutes(1)
        assert outcomes_of(shell.disk)[2:] == [("fired", 1)]
        assert [record.state for record in workflows_of(shell)[1:-1]] == ["succeeded"] * (overlap != "skip")

    def test_one_that_is_resumed_is_waited_for_again(self, shell: Shell, hand: Hand) -> None:
        """As long as it goes on no other begins."""
        put(shell, a_schedule(nodes=chain(), overlap="skip"))
        hand.pass_minutes(1)
        hand.work_off(failing=True)
        [failed] = workflows_of(shell)
        shell.do(OrderWorkflow(failed.spec.id, "resume"))
        assert standing(shell).running == [failed.spec.id]
        shell.crash()
        hand.agent.join(credit=10)
        hand.pass_minutes(1)
        assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 1)]
        hand.work_off()
        hand.pass_minutes(1)
        assert outcomes_of(shell.disk)[2:] == [("fired", 1)]

    def test_a_task_that_is_retried_is_waited_for_again(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(overlap="skip"))
        hand.pass_minutes(1)
        hand.work_off(failing=True)
        [fired] = firings_of(shell.disk)
        shell.do(RetryTasks([fired.task_id]))
        shell.do(RetryTasks([fired.task_id]))
        assert standing(shell).running == [fired.task_id]
        hand.pass_minutes(1)
        assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 1)]
        hand.work_off()
        assert standing(shell).running == []

    def test_failed_workflows_in_a_row_pause_it(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(nodes=chain(), pause_after=2))
        for failing in (True, False, True, True):
            hand.pass_minutes(1)
            hand.work_off(failing=failing)
        why = "2 workflows in a row have failed"
        assert standing(shell).why_paused == why
        assert shell.take_told(ScheduleStopped) == [ScheduleStopped("tick", why, broken=False)]

    def test_a_drained_queue_of_any_node_passes_its_times_over(self, shell: Shell, hand: Hand) -> None:
        nodes = chain()
        nodes[1] = replace(nodes[1], task=replace(task(inputs=1), queue="slow"))
        put(shell, a_schedule(nodes=nodes))
        shell.do(OrderQueue("slow", drain=True))
        hand.pass_minutes(2)
        [passed] = firings_of(shell.disk)
        assert (passed.outcome, passed.count) == ("skipped", 2)
        with pytest.raises(QueueDraining):
            shell.do(TriggerSchedule("tick", shell.new_id()))


class TestOrders:
    def test_a_trigger_starts_one_workflow_however_often_it_is_sent(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(nodes=chain(), overlap="skip"))
        request = shell.new_id()
        answer = shell.do(TriggerSchedule("tick", request))
        assert isinstance(answer, ScheduleTriggered)
        assert is_workflow_id(answer.id)
        assert shell.do(TriggerSchedule("tick", request)) == answer
        shell.crash()
        put(shell, a_schedule(nodes=chain()[:1], overlap="skip"))
        assert shell.do(TriggerSchedule("tick", request)) == answer, "also when the schedule is another by then"
        [workflow] = workflows_of(shell)
        assert workflow.spec.id == answer.id
        hand.pass_minutes(1)
        assert outcomes_of(shell.disk) == [("triggered", 1), ("skipped", 1)], "it is one of the schedule's"

    def test_a_backfill_starts_a_workflow_for_each_time_once(self, shell: Shell) -> None:
        put(shell, a_schedule(nodes=chain()))
        request = BackfillSchedule("tick", shell.new_id(), WALL_MS - HOUR_MS + 1, WALL_MS)
        answer = shell.do(request)
        assert isinstance(answer, ScheduleBackfilled)
        assert len(answer.at_ms) == 60
        shell.crash()
        assert shell.do(request) == answer
        assert [record.scheduled_for_ms for record in workflows_of(shell)].count(answer.at_ms[0]) == 1
        assert len(workflows_of(shell)) == 60
        assert outcomes_of(shell.disk) == [("backfilled", 60)]

    def test_a_backfill_of_large_ones_goes_on_in_the_next_request(self, shell: Shell) -> None:
        put(shell, a_schedule(nodes=[Node(f"n{n}", task=task()) for n in range(500)]))
        first = shell.do(BackfillSchedule("tick", shell.new_id(), WALL_MS - HOUR_MS + 1, WALL_MS))
        assert isinstance(first, ScheduleBackfilled)
        assert len(first.at_ms) == 20
        assert first.until_ms == first.at_ms[-1]

    def test_a_schedule_may_change_from_a_task_to_a_workflow_while_the_task_goes_on(
        self, shell: Shell, hand: Hand
    ) -> None:
        put(shell, a_schedule(overlap="cancel_running"))
        hand.pass_minutes(1)
        [grant] = hand.take()
        changed = a_schedule(nodes=chain(), overlap="cancel_running")
        assert put(shell, changed) == SchedulesChanged([], ["tick"], [], [])
        assert put(shell, replace(changed, task=shell.spec())) == SchedulesChanged([], [], [], ["tick"])
        hand.pass_minutes(1)
        hand.take()
        assert hand.agent.revoked == {grant.token}
        shell.do(hand.agent.nack(grant, outcome="cancelled"))
        shell.settle()
        assert [record.schedule for record in workflows_of(shell)] == ["tick"]

    def test_removing_it_leaves_what_it_has_started(self, shell: Shell, hand: Hand) -> None:
        put(shell, a_schedule(nodes=chain(), overlap="skip"))
        hand.pass_minutes(1)
        shell.do(OrderSchedule("tick", "remove"))
        hand.work_off()
        assert workflows_of(shell)[0].state == "succeeded"
        assert shell.disk.get(records.SPEC, shell.disk.scan(records.SPEC)[0], SpecRecord) is not None
        assert workflow_of(shell.disk.scan(records.SPEC)[0]) == workflows_of(shell)[0].spec.id


ONE = [Node("a", task=task())]


@pytest.mark.parametrize(
    ("schedule", "error", "says"),
    [
        (replace(a_schedule(nodes=ONE), workflow=ScheduledWorkflow("wf", [])), BadRequest, "a workflow of 0 nodes"),
        (replace(a_schedule(nodes=ONE), workflow=ScheduledWorkflow("w\n", ONE)), BadRequest, "workflow name"),
        (replace(a_schedule(nodes=ONE), workflow=ScheduledWorkflow("wf", ONE, "any")), BadRequest, "policy 'any'"),
        (a_schedule(nodes=[*ONE, *ONE]), WorkflowInvalid, "node 'a' stands twice"),
        (a_schedule(nodes=[replace(ONE[0], after=[0])]), WorkflowInvalid, "it waits for itself"),
        (a_schedule(nodes=[Node(f"n{n}", task=task()) for n in range(1_001)]), BadRequest, "1001 nodes"),
        (
            a_schedule(nodes=[Node(f"n{n}", "value", packed=b"\xc6" + (90_000).to_bytes(4, "big") + bytes(90_000))
                              for n in range(3)]),
            BadRequest,
            "at most 262144",
        ),
        (a_schedule(nodes=ONE, jitter_ms=5), BadRequest, "jitter is for tasks"),
        (
            a_schedule(nodes=[Node(f"n{n}", task=task()) for n in range(100)], missed="all", missed_max=101),
            BadRequest,
            "100 at most",
        ),
        (
            a_schedule(nodes=[ONE[0], Node("b", task=task(), after=[0], phase="on_failure"),
                              Node("c", task=task(), after=[1])]),
            WorkflowInvalid,
            "comes after node number 1",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(
    shell: Shell, schedule: Schedule, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        put(shell, schedule)
    assert shell.working.schedules.of == {}


def test_who_knows_of_no_workflows_refuses_it(shell: Shell) -> None:
    """A server of before sees no workflow, and a task without a name."""
    with pytest.raises(BadRequest, match="task name"):
        put(shell, replace(a_schedule(), task=NO_TASK))
