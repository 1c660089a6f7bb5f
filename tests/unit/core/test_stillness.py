"""Places of limits by key are held by nobody who cannot run while others could."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_beside, check_disk
from taskd.core import bounds, gates, records, stillness
from taskd.core.commands import CancelTasks, OrderQueue, RemoveLimit, SetLimit
from taskd.core.explain import explain_task
from taskd.server import loading
from taskd_protocol.explanation import Obstacle, Reasons
from taskd_protocol.limiting import Limit
from taskd_protocol.task import Grant, Rules, Use

ONE = SetLimit(Limit("stripe", 1))
STILL_MS = stillness.STILL_MS + 2 * stillness.LOOK_MS


def used(
    shell: Shell, count: int = 1, name: str = "m.f", *, queue: str = "default", key: str = "a", fifo_key: str = ""
) -> list[bytes]:
    """Submit tasks that use the limit."""
    rules = Rules(limits=[Use("stripe", key)], fifo_key=fifo_key)
    specs = [msgspec.structs.replace(shell.spec(name, queue=queue), given=rules) for _ in range(count)]
    shell.submit(*specs)
    return [spec.id for spec in specs]


def ids(grants: list[Grant]) -> list[bytes]:
    return [grant.spec.id for grant in grants]


def ack_all(shell: Shell, agent: FakeAgent) -> list[bytes]:
    """Have an agent run whatever it gets until it gets no more; return what that was."""
    ran: list[bytes] = []
    while grants := agent.receive():
        ran += ids(grants)
        shell.do(agent.ack(*grants))
    return ran


@pytest.fixture
def agent(shell: Shell) -> FakeAgent:
    return FakeAgent(shell).join(credit=100)


def test_what_no_agent_has_keeps_nobody_waiting(shell: Shell, agent: FakeAgent) -> None:
    """Neither what is in line nor what waits before it; once an agent has it, it comes first again."""
    shell.do(ONE)
    lonely = used(shell, 3, "m.lonely")
    able = used(shell, 2)
    assert agent.receive() == []
    shell.pass_ms(STILL_MS)
    assert ack_all(shell, agent) == able
    check_disk(shell.disk)
    check_beside(shell)
    [later] = used(shell)
    assert ack_all(shell, agent) == [later], "at once, while it is known that the others cannot run"
    other = FakeAgent(shell, "a2", ["m.lonely"]).join(credit=100)
    shell.pass_ms(stillness.LOOK_MS)
    assert ack_all(shell, other) == lonely
    assert shell.disk.scan(records.HELD) == shell.disk.scan(records.PARKED) == []
    check_disk(shell.disk)


def test_a_line_goes_on_that_stood_still_when_the_last_limit_was_removed(shell: Shell, agent: FakeAgent) -> None:
    shell.do(ONE)
    shell.do(OrderQueue("slow", drain=False, pause=True))
    paused = used(shell, 2, queue="slow")
    shell.pass_ms(STILL_MS)
    shell.do(RemoveLimit("stripe"))
    shell.do(OrderQueue("slow", drain=False))
    shell.pass_ms(2 * stillness.LOOK_MS)
    assert ack_all(shell, agent) == paused


def test_a_paused_queue_holds_no_places_and_its_tasks_come_first_when_it_is_resumed(
    shell: Shell, agent: FakeAgent
) -> None:
    shell.do(ONE)
    shell.do(OrderQueue("slow", drain=False, pause=True))
    paused = used(shell, 1, queue="slow")
    able = used(shell, 3)
    shell.pass_ms(STILL_MS)
    [grant] = agent.receive()
    assert grant.spec.id == able[0]
    shell.do(OrderQueue("slow", drain=False))
    shell.pass_ms(stillness.LOOK_MS)
    shell.do(agent.ack(grant))
    assert ack_all(shell, agent) == [*paused, *able[1:]]
    check_disk(shell.disk)


def test_it_says_what_its_line_waits_for(shell: Shell, agent: FakeAgent) -> None:
    shell.do(ONE)
    [lonely, second] = used(shell, 2, "m.lonely")
    shell.pass_ms(STILL_MS)
    for task_id in (lonely, second):
        spec = shell.disk.get(records.SPEC, task_id, records.SpecRecord)
        told = explain_task(
            shell.working, spec, shell.disk.find(records.STATE, task_id, records.StateRecord), shell.now
        )
        assert told.reason is not None
        assert told.reason.code == Obstacle.NAME
    assert agent.connection


def test_a_line_that_moves_keeps_its_places(shell: Shell) -> None:
    """However slowly, and one that is kept waiting by what runs for less than it takes to be still."""
    agent = FakeAgent(shell).join(credit=1)
    shell.do(SetLimit(Limit("stripe", 3)))
    task_ids = used(shell, 5)
    for task_id in task_ids:
        shell.pass_ms(stillness.STILL_MS - stillness.LOOK_MS)
        [grant] = agent.receive()
        assert grant.spec.id == task_id
        assert not shell.working.gates.still
        shell.do(agent.ack(grant))
        shell.do(agent.credit(1))
        shell.do(agent.beat())


def test_places_of_several_limits_are_given_back_and_a_strict_order_is_kept(shell: Shell, agent: FakeAgent) -> None:
    shell.do(ONE)
    shell.do(SetLimit(Limit("zinc", 1)))
    both = Rules(limits=[Use("stripe", "a"), Use("zinc")], fifo_key="acme")
    lonely = msgspec.structs.replace(shell.spec("m.lonely"), given=both)
    busy = msgspec.structs.replace(shell.spec(), given=Rules(limits=[Use("zinc")]))
    after = msgspec.structs.replace(shell.spec(), given=Rules(fifo_key="acme"))
    shell.submit(busy)
    [grant] = agent.receive()
    shell.submit(lonely)  # it holds a place of stripe, and waits for zinc
    shell.submit(after)
    shell.do(agent.ack(grant))
    able = used(shell, 2)
    shell.pass_ms(STILL_MS)
    assert ack_all(shell, agent) == able
    [waiting] = used(shell, 1, "m.lonely")
    second = msgspec.structs.replace(shell.spec("m.lonely"), given=both)
    shell.submit(second)
    check_disk(shell.disk)
    other = FakeAgent(shell, "a2", ["m.lonely"]).join(credit=100)
    shell.pass_ms(stillness.LOOK_MS)
    assert ack_all(shell, other) == [lonely.id, waiting]
    assert ack_all(shell, agent) == [after.id]
    assert ack_all(shell, other) == [second.id]
    check_disk(shell.disk)


def test_what_waits_at_a_second_gate_goes_back_to_the_first(shell: Shell, agent: FakeAgent) -> None:
    """It is found to be of a still line when it is its turn there, and holds no place of the first any longer."""
    shell.do(ONE)
    made = [Rules(limits=[Use("stripe", "a"), Use(name)]) for name in ("zinc", "tin", "lead", "iron", "gold")]
    both = next(
        rules for rules in made if gates.ways(msgspec.structs.replace(shell.spec(), given=rules))[0].limit == "stripe"
    )
    second = both.limits[1]
    shell.do(SetLimit(Limit(second.limit, 1)))
    shell.submit(msgspec.structs.replace(shell.spec(), given=Rules(limits=[second])))
    [grant] = agent.receive()
    lonely = msgspec.structs.replace(shell.spec("m.lonely"), given=both)
    alone = msgspec.structs.replace(shell.spec("m.lonely"), given=Rules(limits=[Use("other")]))
    shell.submit(alone)
    shell.submit(lonely)
    able = used(shell, 1)
    shell.pass_ms(STILL_MS)
    assert agent.receive() == []
    shell.do(agent.ack(grant))
    assert ack_all(shell, agent) == able
    check_disk(shell.disk)


def test_what_stands_aside_may_be_cancelled_and_a_start_finds_out_anew(shell: Shell, agent: FakeAgent) -> None:
    shell.do(ONE)
    lonely = used(shell, 3, "m.lonely")
    able = used(shell, 2)
    shell.pass_ms(STILL_MS)
    shell.do(CancelTasks(lonely[:1]))
    [grant] = agent.receive()
    shell.crash()
    again = FakeAgent(shell)
    again.held = {grant.token: grant}
    again.join(credit=100)
    shell.do(again.ack(grant))
    shell.pass_ms(STILL_MS)
    assert ack_all(shell, again) == able[1:]
    check_disk(shell.disk)
    check_beside(shell)


def test_many_of_one_line_are_stepped_over_unread(
    shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page; and where they wait at more gates than are remembered, all gates are looked at when it goes on."""
    monkeypatch.setattr(loading, "PAGE", 3)
    monkeypatch.setattr(loading, "PASSED_OVER_MAX", 6)
    monkeypatch.setattr(gates, "ADMITTED_MAX", 2)
    monkeypatch.setattr(bounds, "STILL_GATES_MAX", 1)
    shell.do(ONE)
    lonely = used(shell, 20, "m.lonely") + used(shell, 2, "m.lonely", key="b")
    able = used(shell, 2) + used(shell, 1, key="b")
    shell.pass_ms(STILL_MS)
    assert sorted(ack_all(shell, agent)) == sorted(able)
    other = FakeAgent(shell, "a2", ["m.lonely"]).join(credit=100)
    shell.pass_ms(stillness.LOOK_MS)
    assert sorted(ack_all(shell, other)) == sorted(lonely)
    check_disk(shell.disk)


def test_a_still_line_is_tried_again(shell: Shell, agent: FakeAgent) -> None:
    """For one whose first task needs more than is free, an agent is kept free only while it is in line."""
    shell.do(ONE)
    used(shell, 1, "m.lonely")
    shell.pass_ms(STILL_MS)
    [still] = shell.working.gates.still.values()
    began_ms = still.since_ms
    shell.pass_ms(stillness.AGAIN_MS + STILL_MS)
    [still] = shell.working.gates.still.values()
    assert still.since_ms >= began_ms + stillness.AGAIN_MS
    assert still.reason.code in {Obstacle.NAME, Reasons.NO_AGENT}
    assert agent.connection


def test_nothing_is_looked_at_for_who_names_no_limit(shell: Shell, agent: FakeAgent) -> None:
    shell.submit(shell.spec("m.lonely"))
    shell.pass_ms(STILL_MS)
    assert not shell.working.gates.watched
    assert stillness.next_look_mono_ms(shell.working) > shell.now.mono_ms + 1_000_000
    assert agent.connection
