"""Schedules under commands, ends, crashes at any write and clocks that jump: each time is decided exactly once."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.agent import FakeAgent
from harness.clockwork import MINUTE_MS, a_schedule, check_schedules
from harness.core import Shell
from harness.decisions import Decisions
from harness.fsck import check_disk
from harness.workflows import Graph
from taskd.core import records
from taskd.core.commands import NeedRecords, OrderQueue
from taskd.core.invariants import check_invariants
from taskd.core.records import Mutation
from taskd.core.schedule_commands import (
    BackfillSchedule,
    OrderSchedule,
    PutSchedule,
    ScheduleCommand,
    SyncSchedules,
    TriggerSchedule,
)
from taskd_protocol.errors import TaskdError
from taskd_protocol.schedule import OVERLAPS, Schedule, Timing

HOUR_MS = 60 * MINUTE_MS
NAMES = ("a", "b", "c")

timings = st.sampled_from(
    (
        Timing(cron=("* * * * *",)),
        Timing(cron=("*/20 * * * * *",), not_cron=("* */2 * * *",)),
        Timing(cron=("30 2 * * *", "*/7 * * * *"), zone="Europe/Oslo", gap="shift", fold="both"),
        Timing(every_ms=11_000),
        Timing(every_ms=4 * MINUTE_MS, not_dates=("2025-11-22",)),
    )
)
schedules = st.builds(
    a_schedule,
    st.sampled_from(NAMES),
    timings,
    overlap=st.sampled_from(OVERLAPS),
    missed=st.sampled_from(("latest", "skip", "all")),
    missed_max=st.just(0),
    pause_after=st.sampled_from((0, 0, 2)),
    jitter_ms=st.sampled_from((0, 3_000)),
) | st.builds(
    a_schedule,
    st.sampled_from(NAMES),
    timings,
    overlap=st.sampled_from(OVERLAPS),
    missed=st.sampled_from(("latest", "skip", "all")),
    pause_after=st.sampled_from((0, 2)),
    nodes=st.sampled_from(
        (
            Graph().add("one").nodes,
            Graph().add("one").add("two", "one").add("tell", after=["two"], phase="on_failure", when="all_done").nodes,
            Graph().add("list", kind="value", packed=b"\x92\x01\x02").add("each", "list", kind="map", over=0).nodes,
        )
    ),
)
steps = st.one_of(
    st.tuples(st.just("put"), schedules),
    st.tuples(st.just("sync"), st.tuples(st.lists(schedules, max_size=3), st.booleans())),
    st.tuples(
        st.just("order"), st.tuples(st.sampled_from(NAMES), st.sampled_from(("pause", "resume", "resume", "remove")))
    ),
    st.tuples(st.just("trigger"), st.sampled_from(NAMES)),
    st.tuples(st.just("backfill"), st.sampled_from(NAMES)),
    st.tuples(st.just("drain"), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from((500, 5_000, MINUTE_MS, 5 * MINUTE_MS))),
    st.tuples(st.just("pass"), st.sampled_from((500, 5_000, MINUTE_MS, 5 * MINUTE_MS))),
    st.tuples(st.just("wall"), st.sampled_from((-3 * HOUR_MS, -HOUR_MS, -1_000, 1_000, HOUR_MS, 26 * HOUR_MS))),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 5), st.sampled_from(("ack", "fail", "cancelled")))),
    st.tuples(st.just("crash"), st.integers(0, 3)),
    st.tuples(st.just("torn"), st.tuples(st.integers(0, 6), st.integers(0, 4))),
)


class Played:
    """A server's core, an agent, and a checker that sees the disk after each batch and each crash."""

    def __init__(self) -> None:
        self.shell = Shell()
        self.decisions = Decisions()
        self.agent = FakeAgent(self.shell).join(credit=4)
        stage = self.shell.disk.stage

        def stage_and_check(mutations: Sequence[Mutation]) -> None:
            stage(mutations)
            check_schedules(self.shell.disk, Decisions())  # what is not durable may never have been

        self.shell.disk.stage = stage_and_check  # type: ignore[method-assign]

    def do(self, command: ScheduleCommand | OrderQueue) -> None:
        """Apply a command; refused, it changes nothing."""
        before = (dict(self.shell.working.schedules.of), list(self.shell.working.mutations))
        try:
            self.shell.do(command)
        except TaskdError:
            assert (self.shell.working.schedules.of, self.shell.working.mutations) == before

    def play(self, step: tuple[str, object]) -> None:  # noqa: C901 - one case a step
        """Take a step, and check what is durable after it."""
        shell = self.shell
        match step:
            case ("put", Schedule() as schedule):
                self.do(PutSchedule("client", fitting(schedule)))
            case ("sync", (list() as several, bool(prune))):
                self.do(SyncSchedules("client", "shop", [fitting(each) for each in several], prune))
            case ("order", (str(name), str(action))):
                self.do(OrderSchedule(name, action))
            case ("trigger", str(name)):
                self.do(TriggerSchedule(name, shell.new_id()))
            case ("backfill", str(name)):
                self.do(BackfillSchedule(name, shell.new_id(), shell.wall_ms - HOUR_MS, shell.wall_ms))
            case ("drain", bool(drain)):
                self.do(OrderQueue("default", drain=drain))
            case ("pass", int(ms)):
                shell.pass_ms(ms)
            case ("wall", int(ms)):
                shell.wall_ms += ms
                shell.tick()
            case ("end", (int(index), str(how))):
                self.end(index, how)
            case ("crash", int(kept)):
                self.crash(kept)
            case ("torn", (int(turns), int(kept))):
                self.torn(turns, kept)
            case _:
                raise AssertionError(step)
        check_schedules(shell.disk, self.decisions)
        check_invariants(shell.working)

    def end(self, index: int, how: str) -> None:
        """Have the agent report one of its attempts."""
        self.agent.receive()
        if not self.agent.held:
            self.shell.do(self.agent.credit(1))
            return
        grant = list(self.agent.held.values())[index % len(self.agent.held)]
        del self.agent.held[grant.token]
        self.shell.do(
            self.agent.ack(grant) if how == "ack" else self.agent.nack(grant, outcome={"fail": "failed"}.get(how, how))
        )
        self.shell.do(self.agent.credit(1))

    def crash(self, kept: int) -> None:
        """Cut the power, and start again with the agent."""
        self.shell.crash(kept)
        before = dict(self.shell.working.schedules.of)
        assert before.keys() == {i.decode() for i in self.shell.disk.scan(records.STANDING)}
        self.agent.join()
        self.shell.tick()

    def torn(self, turns: int, kept: int) -> None:
        """Let much become due, take some turns without a flush, and cut the power in the midst of them."""
        shell = self.shell
        shell.mono_ms += 10 * MINUTE_MS
        shell.wall_ms += 10 * MINUTE_MS
        for _ in range(turns):
            shell.coordinator.tick(shell.now)
            shell.turn()
            for waiting in list(shell.waiting):
                try:
                    shell.feed(waiting)
                except NeedRecords:
                    continue
        self.crash(kept)


def fitting(schedule: Schedule) -> Schedule:
    """Give `all` a number."""
    return replace(schedule, missed_max=4) if schedule.missed == "all" else schedule


@given(played=st.lists(steps, min_size=1, max_size=25))
@settings(max_examples=150)
def test_each_time_is_decided_once(played: list[tuple[str, object]]) -> None:
    """Whatever happens in between; and every index agrees with the records at the end."""
    world = Played()
    for step in played:
        world.play(step)
    world.shell.settle()
    check_disk(world.shell.disk)
    before = dict(world.shell.working.schedules.of)
    world.shell.crash()
    assert world.shell.working.schedules.of == before, "what is restored equals what was lost"
