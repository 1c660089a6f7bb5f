"""Limits of queues and task names, and paused queues."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.choosing import KEPT_FREE_AFTER_MS
from taskd.core.commands import (
    CancelTasks,
    GoOn,
    LimitsChanged,
    OrderQueue,
    RemoveLimit,
    SetLimit,
    SubmitTasks,
    SyncLimits,
)
from taskd.core.effects import Continue
from taskd.core.limiting import holds_back
from taskd_protocol import limits
from taskd_protocol.errors import BadRequest, LimitsFull, LimitUnknown, QueueDraining
from taskd_protocol.explanation import Reason, Reasons
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import CPU, ONE, Need, Request, Supply, Where
from taskd_protocol.task import Grant, TaskSpec

TWO = SetLimit(Limit("queue:default", concurrency=2))


def reason(shell: Shell) -> Reason | None:
    return holds_back(shell.working, "default", "m.f", shell.now)


def fill(shell: Shell, count: int, name: str = "m.f", queue: str = "default") -> list[bytes]:
    specs = [shell.spec(name, queue=queue) for _ in range(count)]
    shell.submit(*specs)
    return [spec.id for spec in specs]


def agent_of(shell: Shell, credit: int = 100) -> FakeAgent:
    return FakeAgent(shell, names=["m.f", "m.g"]).join(credit=credit)


def ids(grants: list[Grant]) -> list[bytes]:
    return [grant.spec.id for grant in grants]


def test_no_more_of_a_queue_run_at_a_time_than_it_allows(shell: Shell) -> None:
    """Over names and agents; what is over it is passed over, and others run; an end lets the next one begin."""
    shell.do(TWO)
    first, second = agent_of(shell), FakeAgent(shell, "a2").join(credit=50)
    fill(shell, 2)
    waits = fill(shell, 2, "m.g") + fill(shell, 1)
    other = fill(shell, 1, queue="other")
    grants = list(first.receive()) + list(second.receive())
    assert [grant.spec.queue for grant in grants].count("default") == 2
    assert set(other) <= {grant.spec.id for grant in grants}
    assert reason(shell) == Reason(Reasons.CONCURRENCY, "queue:default", count=2)
    [done] = [grant for grant in grants if grant.spec.queue == "default"][:1]
    holder = first if done.token in first.held else second
    shell.do(holder.ack(done))
    again = list(first.receive()) + list(second.receive())
    assert [grant.spec.id for grant in again] == waits[:1]
    check_disk(shell.disk)


def test_a_limit_of_a_name_holds_over_queues(shell: Shell) -> None:
    shell.do(SetLimit(Limit("task:m.f", concurrency=1)))
    agent = agent_of(shell)
    mine = fill(shell, 1) + fill(shell, 2, queue="other")
    others = fill(shell, 3, "m.g")
    grants = agent.receive()
    assert sorted(ids(grants)) == sorted([mine[0], *others])
    shell.do(agent.nack(*grants[:1], final=True))
    assert ids(agent.receive()) == mine[1:2]


def test_tasks_that_ask_for_something_are_limited_too(shell: Shell) -> None:
    where = Where([Request([Need(CPU, ONE)])])
    shell.do(TWO)
    agent = FakeAgent(shell, supplies=[Supply(CPU, 4 * ONE)]).join(credit=4)
    specs = [shell.spec(where=where) for _ in range(4)]
    shell.submit(*specs)
    grants = agent.receive()
    assert ids(grants) == [spec.id for spec in specs[:2]]
    shell.do(agent.ack(grants[0]))
    assert ids(agent.receive()) == [specs[2].id]


def test_what_is_leased_counts_when_a_limit_is_set_and_after_a_restart(shell: Shell) -> None:
    """A limit that is lowered ends nothing, and lets nothing begin."""
    agent = agent_of(shell)
    fill(shell, 5)
    running = agent.receive()
    shell.do(TWO)
    fill(shell, 1)
    shell.do(agent.ack(*running[:3]))
    assert agent.receive() == []
    shell.crash()
    again = FakeAgent(shell, boot_id=agent.boot_id, names=["m.f", "m.g"])
    again.held = {grant.token: grant for grant in running[3:]}
    again.join(credit=100)
    assert again.receive() == []
    shell.do(SetLimit(Limit("queue:default", concurrency=3)))
    assert len(again.receive()) == 1


def test_a_lease_counts_until_its_agent_is_given_up(shell: Shell) -> None:
    shell.do(SetLimit(Limit("queue:default", concurrency=1)))
    lost = agent_of(shell)
    [task] = fill(shell, 1)
    [grant] = lost.receive()
    other = FakeAgent(shell, "a2").join(credit=5)
    shell.do(lost.lose())
    shell.do(CancelTasks([task]))
    fill(shell, 1)
    assert other.receive() == []
    shell.do(CancelTasks([task], force=True))
    assert len(other.receive()) == 1
    assert grant.token not in lost.held or shell.working.limits["queue:default"].running == 1


def test_a_rate_lets_so_many_begin_and_the_clock_wakes_the_line(shell: Shell) -> None:
    """A burst at once, then one each time that a token is there; nothing else has to happen."""
    shell.do(SetLimit(Limit("queue:default", tokens=10, period_ms=1_000, burst=3)))
    agent = agent_of(shell)
    fill(shell, 8)
    assert len(agent.receive()) == 3
    assert reason(shell) == Reason(Reasons.RATE, "queue:default", until_ms=shell.wall_ms + 100)
    shell.tick()
    assert shell.working.limits_wake_mono_ms == shell.mono_ms + 100 >= shell.coordinator.next_deadline_mono_ms()
    shell.jump_ms(99)
    assert agent.receive() == []
    shell.jump_ms(1)
    assert len(agent.receive()) == 1
    shell.jump_ms(10_000)
    assert len(agent.receive()) == 3, "no more than the burst, however long nothing began"
    shell.jump_ms(100)
    assert len(agent.receive()) == 1


def test_over_a_restart_a_bucket_holds_what_it_held(shell: Shell) -> None:
    """Time without a server fills nothing: whatever clocks say of it."""
    shell.do(SetLimit(Limit("queue:default", tokens=1, period_ms=1_000, burst=5)))
    agent = agent_of(shell)
    fill(shell, 3)
    assert len(agent.receive()) == 3
    shell.mono_ms += 60_000
    shell.wall_ms += 3_600_000
    shell.crash()
    agent = agent_of(shell)
    fill(shell, 5)
    assert len(agent.receive()) == 2
    shell.jump_ms(1_000)
    assert len(agent.receive()) == 1


def test_a_limit_that_is_removed_and_set_again_has_what_it_had(shell: Shell) -> None:
    """Also when the server was started again in between; a record that is full goes."""
    limit = SetLimit(Limit("task:m.f", tokens=1, period_ms=100_000, burst=5))
    shell.do(limit)
    agent = agent_of(shell)
    fill(shell, 4)
    assert len(agent.receive()) == 4
    shell.do(RemoveLimit("task:m.f"))
    shell.do(OrderQueue("default", drain=False, pause=True))
    shell.crash()
    shell.do(limit)
    shell.do(OrderQueue("default", drain=False))
    agent = agent_of(shell)
    fill(shell, 4)
    assert len(agent.receive()) == 1
    assert len(shell.disk.scan(records.BUCKET)) == 1
    shell.do(RemoveLimit("task:m.f"))
    shell.pass_ms(600_000)
    assert shell.disk.scan(records.BUCKET) == shell.disk.scan(records.LAPSE) == []


def test_a_change_of_a_rate_fills_no_bucket(shell: Shell) -> None:
    shell.do(SetLimit(Limit("queue:default", tokens=1, period_ms=1_000, burst=5)))
    agent = agent_of(shell)
    fill(shell, 10)
    assert len(agent.receive()) == 5
    shell.do(SetLimit(Limit("queue:default", tokens=1, period_ms=60_000, burst=10)))
    assert agent.receive() == []
    shell.do(RemoveLimit("queue:default"))
    assert len(agent.receive()) == 5


def test_a_rate_without_burst_lets_begin_what_it_lets_in_a_tenth_of_a_second() -> None:
    assert Limit("queue:q", tokens=100, period_ms=1_000).burst_tokens == 10
    assert Limit("queue:q", tokens=1, period_ms=60_000).burst_tokens == 1


def test_a_paused_queue_takes_tasks_and_begins_none(shell: Shell) -> None:
    """Also over a restart; resumed, it goes on. A drain beside it is another thing; a resume ends both."""
    shell.do(OrderQueue("default", drain=False, pause=True))
    fill(shell, 2)
    agent = agent_of(shell)
    assert agent.receive() == []
    assert reason(shell) == Reason(Reasons.PAUSED, "default")
    shell.crash()
    again = FakeAgent(shell, boot_id=b"boot-2", names=["m.f"]).join(credit=5)
    assert again.receive() == []
    shell.do(OrderQueue("default", drain=True))
    with pytest.raises(QueueDraining):
        fill(shell, 1)
    shell.do(OrderQueue("default", drain=False))
    assert len(again.receive()) == 2
    fill(shell, 1)
    check_disk(shell.disk)


def test_what_code_says_changes_with_the_code_and_a_persons_word_stays(shell: Shell) -> None:
    mine, theirs = Limit("task:m.f", concurrency=4), Limit("task:m.g", concurrency=2)
    assert shell.do(SyncLimits("m", [mine, theirs])) == LimitsChanged(["task:m.f", "task:m.g"], [], [])
    assert shell.do(SyncLimits("m", [mine, theirs])) == LimitsChanged([], [], [])
    shell.do(SetLimit(Limit("task:m.f", concurrency=1)))
    assert shell.do(SyncLimits("m", [mine])) == LimitsChanged([], ["task:m.g"], ["task:m.f"])
    assert {name: gauge.limit.concurrency for name, gauge in shell.working.limits.items()} == {"task:m.f": 1}
    shell.crash()
    assert shell.do(SyncLimits("other", [mine])) == LimitsChanged([], [], ["task:m.f"])


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (Limit("", 1), "not allowed"),
        (Limit("queue:", 1), "not allowed"),
        (Limit("queue:a"), "limits nothing"),
        (Limit("queue:a", -1), "concurrency goes from 1 to 1,000,000, not -1; leave it out"),
        (Limit("queue:a", limits.LIMIT_AMOUNT_MAX + 1), "goes from 1"),
        (Limit("task:a", tokens=5), "rate per 0 ms"),
        (Limit("task:a", 1, burst=5), "no rate"),
        (Limit("task:a", 1, period_ms=5), "no rate"),
        (Limit("task:a", tokens=1, period_ms=limits.DELAY_MS_MAX + 1), "ten years"),
    ],
)
def test_a_limit_out_of_range_is_refused(shell: Shell, limit: Limit, told: str) -> None:
    for command in (SetLimit(limit), SyncLimits("m", [limit])):
        with pytest.raises(BadRequest, match=told):
            shell.do(command)
    assert shell.working.limits == {}


def test_what_cannot_be_kept_or_removed_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LimitUnknown, match="taskd limit ls"):
        shell.do(RemoveLimit("queue:a"))
    with pytest.raises(BadRequest, match="two limits"):
        shell.do(SyncLimits("m", [Limit("queue:a", 1), Limit("queue:a", 2)]))
    monkeypatch.setattr("taskd.core.limiting.LIMITS_MAX", 2)
    shell.do(SyncLimits("m", [Limit("queue:a", 1), Limit("queue:b", 2)]))
    shell.do(SetLimit(Limit("queue:a", 3)))
    with pytest.raises(LimitsFull, match="remove some"):
        shell.do(SetLimit(Limit("queue:c", 1)))


def test_no_agent_is_kept_free_for_what_is_at_its_limit_and_that_is_seen_at_once(shell: Shell) -> None:
    """By queues, too, that had their turn in the pass before the limit was come upon."""

    def job(cpus: int, **fields: object) -> TaskSpec:
        return shell.spec(where=Where([Request([Need(CPU, cpus * ONE)])]), **fields)  # type: ignore[arg-type]

    agent = FakeAgent(shell, names=["m.f", "m.big"], supplies=[Supply(CPU, 4 * ONE)]).join(credit=50)
    shell.submit(job(2, name="m.big"))
    shell.submit(job(4, name="m.big", queue="a"))
    assert len(agent.receive()) == 1
    shell.pass_ms(KEPT_FREE_AFTER_MS + 1_000)
    assert agent.receive() == []
    assert shell.working.rooms.held
    small = [job(1, queue="a", priority=9), job(1, queue="b")]
    shell.ask(SetLimit(Limit("task:m.big", 1)))
    shell.ask(SubmitTasks("client", small))
    assert Continue(GoOn()) in shell.turn().effects
    shell.settle()
    assert set(ids(agent.receive())) == {spec.id for spec in small}
