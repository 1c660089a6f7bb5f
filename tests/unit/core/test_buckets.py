"""Rates by key: what passes a gate has its tokens, whatever becomes of the server and of the limit."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import gates, records, stillness
from taskd.core.commands import CancelTasks, OrderQueue, RemoveLimit, SetLimit
from taskd.core.explain import explain_task
from taskd.core.records import BucketRecord
from taskd_protocol.explanation import Reasons
from taskd_protocol.limiting import Limit
from taskd_protocol.task import Grant, Rules, Use

RATE = SetLimit(Limit("card", tokens=1, period_ms=1_000, burst=2))


def used(shell: Shell, count: int = 1, key: str = "a", *, weight: int = 1) -> list[bytes]:
    specs = [
        msgspec.structs.replace(shell.spec(), given=Rules(limits=[Use("card", key, weight)])) for _ in range(count)
    ]
    shell.submit(*specs)
    return [spec.id for spec in specs]


def ids(grants: list[Grant]) -> list[bytes]:
    return [grant.spec.id for grant in grants]


@pytest.fixture
def agent(shell: Shell) -> FakeAgent:
    return FakeAgent(shell).join(credit=100)


def test_each_key_has_a_bucket_of_its_own(shell: Shell, agent: FakeAgent) -> None:
    """A burst at once, then one each time that a token is there, in the order of submits."""
    shell.do(RATE)
    a, b = used(shell, 4, "a"), used(shell, 1, "b")
    assert sorted(ids(agent.receive())) == sorted([*a[:2], *b])
    shell.jump_ms(999)
    assert agent.receive() == []
    shell.jump_ms(1)
    assert ids(agent.receive()) == [a[2]]
    shell.pass_ms(1_000)
    assert ids(agent.receive()) == [a[3]]
    check_disk(shell.disk)


def test_a_task_takes_as_many_tokens_as_it_weighs_and_no_more_than_there_can_be(shell: Shell, agent: FakeAgent) -> None:
    shell.do(RATE)
    light, heavy, huge = used(shell), used(shell, weight=2), used(shell, weight=9)
    assert ids(agent.receive()) == light
    shell.pass_ms(1_000)
    assert ids(agent.receive()) == heavy
    shell.pass_ms(1_500)
    assert agent.receive() == []
    shell.pass_ms(500)
    assert ids(agent.receive()) == huge


def test_what_waits_in_line_has_its_tokens_set_aside_and_no_more_begin_at_once(shell: Shell) -> None:
    """However long it waits there: tokens are taken as it begins."""
    shell.do(RATE)
    task_ids = used(shell, 6)
    agent = FakeAgent(shell, queues=["other"]).join(credit=100)
    shell.pass_ms(4_000)
    assert agent.receive() == []
    able = FakeAgent(shell, "a2").join(credit=100)
    assert ids(able.receive()) == task_ids[:2]
    shell.pass_ms(1_000)
    assert ids(able.receive()) == task_ids[2:3]
    check_disk(shell.disk)


def test_what_is_cancelled_or_stands_aside_takes_none(shell: Shell, agent: FakeAgent) -> None:
    shell.do(RATE)
    shell.do(OrderQueue("default", drain=False, pause=True))
    task_ids = used(shell, 4)
    shell.do(CancelTasks(task_ids[:1]))
    shell.pass_ms(stillness.STILL_MS + 2 * stillness.LOOK_MS)
    shell.do(OrderQueue("default", drain=False))
    shell.pass_ms(stillness.LOOK_MS)
    assert ids(agent.receive()) == task_ids[1:3]


@pytest.mark.parametrize("is_known", [True, False])
def test_over_a_restart_a_bucket_holds_what_it_held(shell: Shell, agent: FakeAgent, *, is_known: bool) -> None:
    """What is in line then has its tokens; of a gate that nobody has read, no more are taken to be there."""
    shell.do(SetLimit(Limit("card", tokens=1, period_ms=10_000, burst=3)))
    first = used(shell)
    [grant] = agent.receive()
    assert [grant.spec.id] == first
    shell.do(agent.ack(grant))
    shell.do(OrderQueue("default", drain=False, pause=True))
    second = used(shell)
    shell.crash()
    shell.wall_ms += 3_600_000
    agent = FakeAgent(shell, boot_id=b"boot-2").join(credit=100)
    rest = used(shell, 5) if is_known else []
    shell.do(OrderQueue("default", drain=False))
    rest = rest or used(shell, 5)
    begun = ids(agent.receive())
    assert begun[:1] == second
    assert len(begun) <= 2
    shell.pass_ms(10_000)
    shell.do(agent.beat())
    assert len(agent.receive()) >= 1
    assert not set(first) & set(rest)
    check_disk(shell.disk)


def test_a_rate_that_changes_while_nobody_has_the_bucket_counts_from_then_on(shell: Shell, agent: FakeAgent) -> None:
    shell.do(SetLimit(Limit("card", tokens=1, period_ms=100_000, burst=2)))
    used(shell, 2)
    assert len(agent.receive()) == 2
    shell.pass_ms(10_000)
    shell.do(agent.beat())
    shell.working.gates.known.clear()
    shell.do(RemoveLimit("card"))
    shell.do(SetLimit(Limit("card", tokens=1, period_ms=1_000, burst=2)))
    used(shell, 2)
    assert agent.receive() == [], "ten seconds were a tenth of a token, and are no ten"
    shell.pass_ms(1_000)
    assert len(agent.receive()) == 1


def test_a_bucket_that_is_full_again_costs_nothing(shell: Shell, agent: FakeAgent) -> None:
    """Whether its gate is in memory or not; one that is not full yet is looked at again."""
    shell.do(SetLimit(Limit("card", tokens=1, period_ms=100_000, burst=2)))
    used(shell, 2, "a")
    used(shell, 1, "b")
    for grant in agent.receive():
        shell.do(agent.ack(grant))
    assert len(shell.disk.of(records.BUCKET, BucketRecord)) == 2
    shell.pass_ms(30_000)
    used(shell, 1, "b")
    for grant in agent.receive():
        shell.do(agent.ack(grant))
    known = shell.working.gates.known
    known.pop(next(iter(known)))
    for _ in range(20):
        shell.pass_ms(14_000)
        shell.do(agent.beat())
        check_disk(shell.disk)
    shell.pass_ms(10_000)
    assert shell.disk.scan(records.BUCKET) == shell.disk.scan(records.LAPSE) == []


def test_it_says_until_when_it_waits(shell: Shell, agent: FakeAgent) -> None:
    shell.do(RATE)
    *_, waits = used(shell, 3)
    assert len(agent.receive()) == 2
    spec = shell.disk.get(records.SPEC, waits, records.SpecRecord)
    told = explain_task(shell.working, spec, None, shell.now)
    assert told.reason is not None
    assert (told.reason.code, told.reason.subject) == (Reasons.RATE, "card a")
    assert told.reason.until_ms == shell.wall_ms + 1_000
    assert gates.WAKE in shell.disk.scan(records.TIMER)[0]
