"""Schedules: what fires and when, what is missed, what overlaps, and that each time is decided once."""

import pytest
from msgspec.structs import replace

from harness.agent import FakeAgent
from harness.clockwork import EACH_MINUTE, MINUTE_MS, a_schedule, check_schedules, firings_of, outcomes_of, put
from harness.core import WALL_MS, Shell
from harness.decisions import Decisions
from harness.fsck import check_disk
from taskd.core import leftovers, records
from taskd.core.commands import CancelTasks, OrderQueue
from taskd.core.effects import ScheduleStopped
from taskd.core.lifecycle import State
from taskd.core.records import SpecRecord
from taskd.core.schedule_commands import (
    BackfillSchedule,
    OrderSchedule,
    PutSchedule,
    ScheduleBackfilled,
    SchedulesChanged,
    ScheduleTriggered,
    SyncSchedules,
    TriggerSchedule,
)
from taskd.core.schedule_looks import HISTORY_KEPT, LATE_MS, MISSED, OVERLAP, PAUSED, WAITED
from taskd.core.schedule_records import ScheduleRecord, StandingRecord
from taskd.core.schedules import ORPHANED
from taskd_protocol.errors import BadRequest, QueueDraining, ScheduleExists, ScheduleUnknown
from taskd_protocol.schedule import NO_TASK_ID, NOMINAL_HEADER, SCHEDULE_HEADER, Schedule, Timing
from taskd_protocol.task import Grant, Retry, Rules, TaskSpec
from taskd_protocol.tracing import read_traceparent, root_of

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
ONCE = Retry(1)


def standing(shell: Shell, name: str = "tick") -> StandingRecord:
    return shell.disk.get(records.STANDING, name.encode(), StandingRecord)


def order(shell: Shell, action: str, name: str = "tick") -> None:
    shell.do(OrderSchedule(name, action))


def work(shell: Shell, agent: FakeAgent, minutes: int) -> None:
    """Let time pass while an agent is alive."""
    for _ in range(minutes * 12):
        shell.pass_ms(5_000)
        shell.do(agent.beat())


def down_for(shell: Shell, ms: int) -> None:
    """Cut the power, and start again so much later."""
    shell.mono_ms += ms
    shell.wall_ms += ms
    shell.crash()
    shell.tick()


@pytest.fixture
def decisions(shell: Shell) -> Decisions:
    """A checker that sees the disk after each turn."""
    checker = Decisions()
    stage = shell.disk.stage

    def stage_and_check(mutations: list[records.Mutation]) -> None:
        stage(mutations)
        check_schedules(shell.disk, checker)

    shell.disk.stage = stage_and_check  # type: ignore[method-assign,assignment]
    return checker


@pytest.mark.usefixtures("decisions")
class TestFiring:
    def test_each_time_is_fired_within_a_tick_of_it(self, shell: Shell) -> None:
        put(shell, a_schedule())
        shell.pass_ms(5 * MINUTE_MS)
        fired = firings_of(shell.disk)
        first = -(-WALL_MS // MINUTE_MS) * MINUTE_MS
        assert [firing.at_ms for firing in fired] == [first + index * MINUTE_MS for index in range(1, 6)]
        assert all(0 <= firing.decided_at_ms - firing.at_ms <= 500 for firing in fired)
        assert {(firing.outcome, firing.reason) for firing in fired} == {("fired", "")}
        check_disk(shell.disk)

    def test_the_task_is_as_it_was_asked_for_and_knows_its_time(self, shell: Shell) -> None:
        task = TaskSpec(NO_TASK_ID, "m.f", b"\x91\x07", "slow", 7, given=Rules(timeout_ms=9_000, headers={"who": "me"}))
        put(shell, a_schedule(task=task))
        shell.pass_ms(MINUTE_MS)
        [fired] = firings_of(shell.disk)
        record = shell.disk.get(records.SPEC, fired.task_id, SpecRecord)
        assert record.owner == "client"
        assert (record.spec.name, record.spec.payload, record.spec.queue, record.spec.priority) == (
            "m.f",
            b"\x91\x07",
            "slow",
            7,
        )
        assert record.spec.rules.timeout_ms == 9_000
        assert record.spec.rules.headers == {
            "who": "me",
            SCHEDULE_HEADER: "tick",
            NOMINAL_HEADER: "2025-11-21T21:21:00.000+00:00",
        }
        trace = read_traceparent(record.spec.traceparent)
        assert trace is not None
        assert trace.span_id == root_of(fired.task_id)

    def test_jitter_delays_each_task_by_its_time_and_no_longer(self, shell: Shell) -> None:
        put(shell, a_schedule(jitter_ms=30_000))
        shell.pass_ms(6 * MINUTE_MS)
        specs = [shell.disk.get(records.SPEC, firing.task_id, SpecRecord).spec for firing in firings_of(shell.disk)]
        assert len({spec.delay_ms for spec in specs}) > 3
        assert all(0 <= spec.delay_ms <= 30_000 for spec in specs)

    def test_two_thousand_at_the_same_instant_are_all_decided_at_once(self, shell: Shell) -> None:
        for index in range(50):
            schedules = [a_schedule(f"s{index}-{number}") for number in range(40)]
            shell.do(SyncSchedules("client", f"m{index}", schedules))
        shell.pass_ms(MINUTE_MS + 500)
        assert len(shell.disk.scan(records.FIRING)) == 2_000
        assert shell.working.schedules.take_due(shell.wall_ms, 10) == []

    def test_instants_fire_once_each_and_then_never(self, shell: Shell) -> None:
        put(shell, a_schedule(timing=Timing(at_ms=(WALL_MS + 1_000, WALL_MS + 5_000))))
        shell.pass_ms(MINUTE_MS)
        assert [firing.at_ms for firing in firings_of(shell.disk)] == [WALL_MS + 1_000, WALL_MS + 5_000]
        assert standing(shell).next_at_ms == 0

    def test_intervals_do_not_drift(self, shell: Shell) -> None:
        put(shell, a_schedule(timing=Timing(every_ms=7_777)))
        shell.pass_ms(100_000)
        assert [firing.at_ms for firing in firings_of(shell.disk)] == [
            WALL_MS + 7_777 * index for index in range(1, 13)
        ]

    def test_history_is_bounded(self, shell: Shell) -> None:
        put(shell, a_schedule(timing=Timing(every_ms=1_000)))
        shell.pass_ms((HISTORY_KEPT + 50) * 1_000)
        assert len(firings_of(shell.disk)) == HISTORY_KEPT
        assert standing(shell).sequence == HISTORY_KEPT + 50

    def test_a_drained_queue_passes_its_times_over(self, shell: Shell) -> None:
        put(shell, a_schedule())
        shell.do(OrderQueue("default", drain=True))
        shell.pass_ms(3 * MINUTE_MS)
        [passed] = firings_of(shell.disk)
        assert (passed.outcome, passed.count) == ("skipped", 3)
        assert "queue 'default' is drained" in passed.reason


@pytest.mark.usefixtures("decisions")
class TestMissed:
    @pytest.mark.parametrize(
        ("missed", "missed_max", "outcomes"),
        [
            ("latest", 0, [("coalesced", 59), ("fired", 1)]),
            ("skip", 0, [("skipped", 60)]),
            ("all", 5, [("skipped", 55), *[("fired", 1)] * 5]),
            ("all", 100, [("fired", 1)] * 60),
        ],
    )
    def test_an_hour_without_a_server(
        self, shell: Shell, missed: str, missed_max: int, outcomes: list[tuple[str, int]]
    ) -> None:
        put(shell, a_schedule(missed=missed, missed_max=missed_max))
        down_for(shell, HOUR_MS + 30_000)
        assert outcomes_of(shell.disk) == outcomes
        assert {firing.reason for firing in firings_of(shell.disk)} == {MISSED}

    @pytest.mark.parametrize("missed", ["latest", "skip"])
    def test_a_short_restart_misses_nothing(self, shell: Shell, missed: str) -> None:
        put(shell, a_schedule(missed=missed))
        shell.pass_ms(MINUTE_MS - 5_000 - WALL_MS % MINUTE_MS)
        down_for(shell, LATE_MS)
        assert outcomes_of(shell.disk) == [("fired", 1)]

    def test_what_is_due_now_is_the_latest(self, shell: Shell) -> None:
        """Where one time is due as the server comes back, those before are coalesced into it."""
        put(shell, a_schedule())
        down_for(shell, HOUR_MS - WALL_MS % MINUTE_MS - 500)
        assert outcomes_of(shell.disk) == [("coalesced", 59), ("fired", 1)]
        assert firings_of(shell.disk)[1].reason == ""

    def test_all_times_of_a_pause_are_missed_when_it_ends(self, shell: Shell) -> None:
        put(shell, a_schedule())
        order(shell, "pause")
        shell.pass_ms(HOUR_MS)
        assert firings_of(shell.disk) == []
        shell.pass_ms(30_000)
        order(shell, "resume")
        assert [(f.outcome, f.count, f.reason) for f in firings_of(shell.disk)] == [
            ("coalesced", 59, PAUSED),
            ("fired", 1, PAUSED),
        ]
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk)[2:] == [("fired", 1)]

    def test_a_clock_that_is_put_back_fires_nothing_twice(self, shell: Shell) -> None:
        put(shell, a_schedule())
        shell.pass_ms(3 * MINUTE_MS)
        shell.wall_ms -= HOUR_MS
        shell.pass_ms(59 * MINUTE_MS)
        assert len(firings_of(shell.disk)) == 3
        shell.crash()
        shell.pass_ms(2 * MINUTE_MS)
        assert len(firings_of(shell.disk)) == 4

    def test_a_clock_that_is_put_forward_has_missed_what_it_jumped_over(self, shell: Shell) -> None:
        put(shell, a_schedule())
        shell.wall_ms += DAY_MS + 30_000
        shell.pass_ms(500)
        assert outcomes_of(shell.disk) == [("coalesced", 24 * 60 - 1), ("fired", 1)]


@pytest.mark.usefixtures("decisions")
class TestOverlap:
    def run_first(self, shell: Shell, overlap: str) -> tuple[FakeAgent, Grant]:
        put(shell, a_schedule(overlap=overlap))
        agent = FakeAgent(shell).join(credit=1)
        work(shell, agent, 1)
        [grant] = agent.receive()
        return agent, grant

    def test_skip_submits_nothing_while_the_task_before_goes_on(self, shell: Shell) -> None:
        agent, grant = self.run_first(shell, "skip")
        work(shell, agent, 3)
        assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 3)]
        assert firings_of(shell.disk)[1].reason == OVERLAP
        shell.crash()
        agent.join(credit=1)
        work(shell, agent, 1)
        assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 4)], "also after a restart"
        shell.do(agent.ack(grant))
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk)[2:] == [("fired", 1)]

    def test_allow_submits_all(self, shell: Shell) -> None:
        self.run_first(shell, "allow")
        shell.pass_ms(3 * MINUTE_MS)
        assert outcomes_of(shell.disk) == [("fired", 1)] * 4
        assert standing(shell).running == [], "nobody waits for their ends"

    @pytest.mark.parametrize("crashed", [False, True])
    def test_queue_one_has_one_time_wait_for_the_end(self, shell: Shell, *, crashed: bool) -> None:
        agent, grant = self.run_first(shell, "queue_one")
        work(shell, agent, 3)
        assert outcomes_of(shell.disk) == [("fired", 1), ("waiting", 1), ("skipped", 2)]
        if crashed:
            shell.crash()
            agent.join()
        waiting = firings_of(shell.disk)[1]
        shell.do(agent.ack(grant))
        started = firings_of(shell.disk)[1]
        assert (started.outcome, started.at_ms, started.reason) == ("fired", waiting.at_ms, WAITED)
        assert standing(shell).running == [started.task_id]
        assert outcomes_of(shell.disk) == [("fired", 1), ("fired", 1), ("skipped", 2)]

    def test_an_end_and_a_crash_before_the_next_turn_lose_no_time_that_waits(self, shell: Shell) -> None:
        agent, grant = self.run_first(shell, "queue_one")
        work(shell, agent, 1)
        shell.ask(agent.ack(grant))
        shell.turn()
        assert standing(shell).running == []
        assert outcomes_of(shell.disk)[1] == ("waiting", 1)
        shell.disk.flush()
        shell.crash()
        shell.tick()
        assert outcomes_of(shell.disk)[1] == ("fired", 1)

    def test_cancel_running_starts_the_next_when_the_one_before_is_proven_dead(self, shell: Shell) -> None:
        agent, grant = self.run_first(shell, "cancel_running")
        work(shell, agent, 1)
        agent.receive()
        assert agent.revoked == {grant.token}
        assert outcomes_of(shell.disk) == [("fired", 1), ("waiting", 1)]
        work(shell, agent, 1)
        assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 1), ("waiting", 1)], "a later time takes the place"
        shell.do(agent.nack(grant, outcome="cancelled"))
        assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 1), ("fired", 1)]

    def test_cancel_running_replaces_at_once_what_has_not_begun(self, shell: Shell) -> None:
        put(shell, a_schedule(overlap="cancel_running"))
        shell.pass_ms(3 * MINUTE_MS)
        assert outcomes_of(shell.disk) == [("fired", 1)] * 3
        states = check_disk(shell.disk)
        assert sorted(states.values()) == [State.CANCELLED, State.CANCELLED, State.READY]

    def test_a_task_that_is_cancelled_by_hand_makes_room(self, shell: Shell) -> None:
        put(shell, a_schedule(overlap="skip"))
        shell.pass_ms(MINUTE_MS)
        [first] = firings_of(shell.disk)
        shell.do(CancelTasks([first.task_id]))
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk) == [("fired", 1)] * 2


@pytest.mark.usefixtures("decisions")
class TestOrders:
    def test_failures_in_a_row_pause_it(self, shell: Shell) -> None:
        put(shell, a_schedule(pause_after=2, task=TaskSpec(NO_TASK_ID, "m.f", b"\x90", retry=ONCE)))
        agent = FakeAgent(shell).join(credit=8)
        for failing in (True, False, True, True):
            work(shell, agent, 1)
            [grant] = agent.receive()
            shell.do(agent.nack(grant) if failing else agent.ack(grant))
        assert standing(shell).why_paused == "2 tasks in a row have failed"
        assert shell.take_told(ScheduleStopped) == [
            ScheduleStopped("tick", "2 tasks in a row have failed", broken=False)
        ]
        shell.crash()
        shell.pass_ms(HOUR_MS)
        assert outcomes_of(shell.disk) == [("fired", 1)] * 4
        order(shell, "resume")
        assert standing(shell).failures == 0
        assert outcomes_of(shell.disk)[4:] == [("coalesced", 59), ("fired", 1)]

    def test_a_trigger_is_beside_the_times_and_once(self, shell: Shell) -> None:
        put(shell, a_schedule(overlap="skip"))
        task_id = shell.new_id()
        for _ in range(2):
            assert shell.do(TriggerSchedule("tick", task_id)) == ScheduleTriggered(task_id)
        shell.crash()
        assert shell.do(TriggerSchedule("tick", task_id)) == ScheduleTriggered(task_id)
        assert outcomes_of(shell.disk) == [("triggered", 1)]
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk) == [("triggered", 1), ("skipped", 1)], "it is a task of the schedule"

    def test_a_trigger_into_a_drained_queue_is_refused(self, shell: Shell) -> None:
        put(shell, a_schedule())
        shell.do(OrderQueue("default", drain=True))
        with pytest.raises(QueueDraining):
            shell.do(TriggerSchedule("tick", shell.new_id()))

    def test_a_backfill_submits_the_past_once(self, shell: Shell) -> None:
        put(shell, a_schedule(overlap="skip"))
        request = BackfillSchedule("tick", shell.new_id(), WALL_MS - HOUR_MS + 1, WALL_MS)
        answer = shell.do(request)
        assert isinstance(answer, ScheduleBackfilled)
        assert (len(answer.at_ms), answer.until_ms) == (60, WALL_MS)
        assert shell.do(request) == answer
        shell.crash()
        assert shell.do(request) == answer
        assert len(shell.disk.scan(records.SPEC)) == 60
        assert outcomes_of(shell.disk) == [("backfilled", 60)]
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk)[1:] == [("fired", 1)], "it is in nobody's way"

    def test_a_long_backfill_goes_on_in_the_next_request(self, shell: Shell) -> None:
        put(shell, a_schedule(timing=Timing(cron=("* * * * * *",))))
        first = shell.do(BackfillSchedule("tick", shell.new_id(), WALL_MS - 1_500_000, WALL_MS))
        assert isinstance(first, ScheduleBackfilled)
        second = shell.do(BackfillSchedule("tick", shell.new_id(), first.until_ms + 1, WALL_MS))
        assert isinstance(second, ScheduleBackfilled)
        assert (len(first.at_ms), len(second.at_ms)) == (1_000, 501)

    def test_the_future_is_not_filled(self, shell: Shell) -> None:
        put(shell, a_schedule())
        with pytest.raises(BadRequest, match="of the past"):
            shell.do(BackfillSchedule("tick", shell.new_id(), WALL_MS, WALL_MS + 1))

    def test_many_that_are_removed_together_go_a_piece_a_turn(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No turn takes long over it, a crash does not stop it, and a new one of the same name has none of before."""
        monkeypatch.setattr(leftovers, "STEP_DECISIONS", 25)
        names = [f"s{number}" for number in range(4)]
        each_second = Timing(cron=("* * * * * *",))
        shell.do(SyncSchedules("m", "m", [a_schedule(name, timing=each_second) for name in names]))
        shell.pass_ms(20_000)
        before = len(shell.disk.scan(records.FIRING))
        assert before >= 4 * 19
        shell.ask(SyncSchedules("m", "m", [], prune=True))
        shell.turn()
        assert len(shell.disk.scan(records.FIRING)) == before - 25
        assert len(shell.disk.scan(records.REMOVED)) == 3
        shell.crash(kept=1)
        assert len(shell.disk.scan(records.FIRING)) >= before - 50
        put(shell, a_schedule(names[-1]))
        shell.settle()
        for kind in (records.REMOVED, records.FIRING):
            assert shell.disk.scan(kind) == []
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk, names[-1]) == [("fired", 1)]

    def test_what_is_removed_leaves_nothing_but_its_tasks(self, shell: Shell) -> None:
        put(shell, a_schedule(overlap="skip"))
        shell.pass_ms(2 * MINUTE_MS)
        order(shell, "remove")
        for kind in (records.SCHEDULE, records.STANDING, records.FIRING):
            assert shell.disk.scan(kind) == []
        assert len(shell.disk.scan(records.SPEC)) == 1
        with pytest.raises(ScheduleUnknown, match="'tick' is kept"):
            order(shell, "pause")
        put(shell, a_schedule())
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk) == [("fired", 1)]

    def test_orders_come_to_the_same_when_sent_again(self, shell: Shell) -> None:
        put(shell, a_schedule())
        for action in ("pause", "pause", "resume", "resume"):
            order(shell, action)
        assert standing(shell).paused_at_ms == 0
        with pytest.raises(BadRequest, match="pause, resume, remove"):
            order(shell, "stop")


@pytest.mark.usefixtures("decisions")
class TestChanges:
    def test_the_same_again_changes_nothing(self, shell: Shell) -> None:
        assert put(shell, a_schedule()) == SchedulesChanged(["tick"], [], [], [])
        other_id = replace(a_schedule(), task=shell.spec())
        assert put(shell, other_id) == SchedulesChanged([], [], [], ["tick"])

    def test_other_arguments_leave_the_times_as_they_are(self, shell: Shell) -> None:
        put(shell, a_schedule(timing=Timing(every_ms=90_000)))
        shell.pass_ms(MINUTE_MS)
        changed = a_schedule(timing=Timing(every_ms=90_000), task=TaskSpec(NO_TASK_ID, "m.g", b"\x90"))
        assert put(shell, changed) == SchedulesChanged([], ["tick"], [], [])
        shell.pass_ms(MINUTE_MS)
        assert [firing.at_ms for firing in firings_of(shell.disk)] == [WALL_MS + 90_000]

    def test_code_defines_its_own_schedules_and_no_others(self, shell: Shell) -> None:
        one, two = a_schedule("one"), a_schedule("two")
        put(shell, a_schedule("hand"))
        assert shell.do(SyncSchedules("c", "shop", [one, two])) == SchedulesChanged(["one", "two"], [], [], [])
        order(shell, "pause", "two")
        again = [one, a_schedule("two", overlap="skip")]
        assert shell.do(SyncSchedules("c", "shop", again)) == SchedulesChanged([], ["two"], [], ["one"])
        assert standing(shell, "two").paused_at_ms
        assert shell.do(SyncSchedules("c", "other", [a_schedule("three")])) == SchedulesChanged(["three"], [], [], [])
        assert shell.do(SyncSchedules("c", "shop", [one], prune=True)) == SchedulesChanged([], [], ["two"], ["one"])
        assert sorted(shell.working.schedules.of) == ["hand", "one", "three"]
        with pytest.raises(ScheduleExists, match="made by hand"):
            shell.do(SyncSchedules("c", "shop", [a_schedule("hand")]))
        with pytest.raises(ScheduleExists, match="defined in the code of shop"):
            shell.do(SyncSchedules("c", "other", [one]))
        with pytest.raises(ScheduleExists, match="change it there"):
            put(shell, one)
        with pytest.raises(BadRequest, match="two schedules of shop are named 'one'"):
            shell.do(SyncSchedules("c", "shop", [one, one]))

    def test_what_its_code_defines_no_longer_fires_no_more_and_is_kept(self, shell: Shell) -> None:
        one, two = a_schedule("one"), a_schedule("two")
        shell.do(SyncSchedules("c", "shop", [one, two]))
        shell.pass_ms(2 * MINUTE_MS)
        for _ in range(2):
            changed = shell.do(SyncSchedules("c", "shop", [one]))
            assert changed == SchedulesChanged([], [], [], ["one"], ("two",)), "and is told each time"
        assert (standing(shell, "two").orphaned, standing(shell, "two").why_paused) == (True, ORPHANED)
        shell.crash()
        shell.pass_ms(3 * MINUTE_MS)
        assert outcomes_of(shell.disk, "one") == [("fired", 1)] * 5
        assert outcomes_of(shell.disk, "two") == [("fired", 1)] * 2
        assert shell.do(SyncSchedules("c", "shop", [one, two])) == SchedulesChanged([], [], [], ["one", "two"])
        assert not standing(shell, "two").orphaned
        assert outcomes_of(shell.disk, "two")[2:] == [("coalesced", 2), ("fired", 1)], "as after a pause"
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk, "two")[4:] == [("fired", 1)]

    def test_an_orphan_that_is_resumed_fires_all_the_same(self, shell: Shell) -> None:
        shell.do(SyncSchedules("c", "shop", [a_schedule()]))
        shell.do(SyncSchedules("c", "shop", []))
        order(shell, "resume")
        assert shell.do(SyncSchedules("c", "shop", [])) == SchedulesChanged([], [], [], [], ("tick",))
        shell.pass_ms(MINUTE_MS)
        assert outcomes_of(shell.disk) == [("fired", 1)]
        order(shell, "pause")
        shell.do(SyncSchedules("c", "shop", [a_schedule()]))
        assert (standing(shell).orphaned, standing(shell).why_paused) == (False, "by hand"), (
            "what a person paused stays"
        )

    def test_the_name_of_an_orphan_may_be_taken(self, shell: Shell) -> None:
        for take in (
            SyncSchedules("c", "market", [a_schedule()]),
            PutSchedule("c", a_schedule(timing=Timing(every_ms=30_000))),
        ):
            shell.do(SyncSchedules("c", "shop", [a_schedule()]))
            with pytest.raises(ScheduleExists):
                shell.do(take)
            shell.do(SyncSchedules("c", "shop", []))
            assert shell.do(take) == SchedulesChanged([], ["tick"], [], [])
            assert not standing(shell).orphaned
            assert not standing(shell).paused_at_ms
            order(shell, "remove")

    @pytest.mark.parametrize(
        ("schedule", "says"),
        [
            (a_schedule(timing=Timing(every_ms=0)), "interval above zero"),
            (a_schedule(timing=Timing(cron=("0 0 30 2 *",))), "names no day that there is"),
            (a_schedule(timing=Timing(cron=("@daily",), zone="Mars/Olympus")), "time zone 'Mars/Olympus' is unknown"),
            (a_schedule(timing=Timing(cron=("@daily",), start_ms=2, end_ms=1)), "ends before it starts"),
            (a_schedule(timing=Timing(at_ms=(1,))), "would never fire"),
            (a_schedule(timing=Timing(cron=("0 0 29 2 *",), not_cron=("* * 29 2 *",))), "would never fire"),
            (a_schedule(timing=Timing(cron=("x" * 10_000,))), "at most 256"),
            (
                a_schedule(overlap="maybe"),
                "overlap 'maybe' is unknown; use one of allow, skip, queue_one, cancel_running",
            ),
            (a_schedule(missed="some"), "missed 'some' is unknown; use one of latest, skip, all"),
            (a_schedule(missed="all"), "say how many at most, 1 to 1000"),
            (a_schedule(missed="all", missed_max=1_001), "1 to 1000"),
            (a_schedule(missed="skip", missed_max=3), "takes no number"),
            (a_schedule(jitter_ms=-1), "jitter of -1 ms"),
            (a_schedule(pause_after=-1), "pause_after -1"),
            (a_schedule("x" * 300), "schedule name"),
            (a_schedule("line\nbreak"), "schedule name"),
            (a_schedule(task=TaskSpec(NO_TASK_ID, "m.f", b"\x90", key="k")), "has no key"),
            (
                a_schedule(jitter_ms=9_000, task=TaskSpec(NO_TASK_ID, "m.f", given=Rules(ttl_ms=9_000))),
                "ttl of 9000 ms",
            ),
            (replace(a_schedule(), source="shop"), "leave source empty"),
        ],
    )
    def test_what_cannot_be_is_refused_and_changes_nothing(self, shell: Shell, schedule: Schedule, says: str) -> None:
        with pytest.raises(BadRequest) as refusal:
            put(shell, schedule)
        assert says in refusal.value.message
        assert shell.working.schedules.of == {}

    def test_a_schedule_that_cannot_be_read_stops_no_other(self, shell: Shell) -> None:
        """A zone that the new data no longer has, an interval of zero on disk: set aside, told, and taken up again."""
        put(shell, a_schedule("good"))
        put(shell, a_schedule("zone"))
        put(shell, a_schedule("zero"))
        for name, timing in (("zone", Timing(cron=("@hourly",), zone="Old/Zone")), ("zero", Timing())):
            record = shell.disk.get(records.SCHEDULE, name.encode(), ScheduleRecord)
            shell.disk.values[records.SCHEDULE, name.encode()] = replace(
                record, schedule=replace(record.schedule, timing=timing)
            )
        shell.disk.stage = type(shell.disk).stage.__get__(shell.disk)  # type: ignore[method-assign] # they cannot be read
        shell.disk.flush()
        shell.crash()
        shell.pass_ms(MINUTE_MS)
        assert "time zone 'Old/Zone' is unknown" in standing(shell, "zone").broken
        assert "exactly one of the three" in standing(shell, "zero").broken
        assert {stopped.name for stopped in shell.take_told(ScheduleStopped)} == {"zone", "zero"}
        assert outcomes_of(shell.disk, "good") == [("fired", 1)]
        assert outcomes_of(shell.disk, "zone") == []
        put(shell, a_schedule("zone", overlap="skip"))
        shell.pass_ms(MINUTE_MS)
        assert standing(shell, "zone").broken == ""
        assert outcomes_of(shell.disk, "zone") == [("fired", 1)]


def test_a_start_knows_what_was_lost(shell: Shell) -> None:
    """What is restored from the store equals what was lost."""
    put(shell, a_schedule("one", overlap="skip"))
    put(shell, a_schedule("two", EACH_MINUTE, pause_after=3))
    shell.pass_ms(3 * MINUTE_MS)
    before, of_task = dict(shell.working.schedules.of), dict(shell.working.schedules.of_task)
    shell.crash()
    assert (shell.working.schedules.of, shell.working.schedules.of_task) == (before, of_task)


def test_a_year_of_minutes_is_one_record(shell: Shell) -> None:
    """In many steps, over a crash in the midst of them."""
    put(shell, a_schedule(timing=Timing(cron=("* * * * *",), not_cron=("0 4 1 1 *",)), missed="skip"))
    shell.mono_ms += 365 * DAY_MS + 30_000
    shell.wall_ms += 365 * DAY_MS + 30_000
    shell.crash()
    shell.coordinator.tick(shell.now)
    for _ in range(20):
        shell.turn()
        for waiting in list(shell.waiting):
            shell.feed(waiting)
        shell.coordinator.tick(shell.now)
    shell.turn()
    [part] = firings_of(shell.disk)
    shell.crash(kept=7)
    shell.tick()
    shell.pass_ms(0)
    while shell.working.schedules.heap[0][0] <= shell.wall_ms:
        shell.tick()
    [whole] = firings_of(shell.disk)
    assert 0 < part.count < whole.count == 365 * 24 * 60 - 1
    assert standing(shell).sequence == 1


def test_another_timing_counts_from_now_on(shell: Shell) -> None:
    """Also where the clock on the wall was far ahead for a while: a new timing begins at its own time."""
    put(shell, a_schedule())
    shell.wall_ms += 365 * DAY_MS
    shell.pass_ms(MINUTE_MS)
    shell.wall_ms -= 365 * DAY_MS
    shell.pass_ms(5 * MINUTE_MS)
    decided = len(firings_of(shell.disk))
    put(shell, a_schedule(timing=Timing(cron=("*/2 * * * *",))))
    shell.pass_ms(5 * MINUTE_MS)
    assert len(firings_of(shell.disk)) in {decided + 2, decided + 3}


def test_decisions_on_another_timing_stand_apart_under_a_clock_that_was_put_back(shell: Shell) -> None:
    """Those of the timing before may lie between its beginning and its first time."""
    put(shell, a_schedule(timing=Timing(every_ms=7_000), overlap="skip"))
    shell.pass_ms(30_000)
    assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 3)]
    shell.wall_ms -= 20_000
    put(shell, a_schedule(timing=Timing(every_ms=30_000), overlap="skip"))
    shell.pass_ms(61_000)
    assert outcomes_of(shell.disk) == [("fired", 1), ("skipped", 3), ("skipped", 2)]
