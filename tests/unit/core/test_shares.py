"""Queues share the room of agents by their weights."""

from collections import Counter

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from taskd.core import records
from taskd.core.commands import OrderQueue, WeighQueue
from taskd.core.records import QueueRecord
from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import QUEUE_WEIGHT_MAX
from taskd_protocol.resources import Need, Request, Supply, Where


@pytest.fixture
def shell() -> Shell:
    return Shell()


def fill(shell: Shell, tasks: int, *queues: str, where: Where | None = None, name: str = "m.f") -> None:
    for queue in queues:
        shell.submit(*[shell.spec(name, queue=queue, where=where) for _ in range(tasks)])


def granted(agent: FakeAgent) -> Counter[str]:
    """Take what was granted, and report it."""
    grants = agent.receive()
    if grants:
        agent.shell.do(agent.ack(*grants))
    return Counter(grant.spec.queue for grant in grants)


def serve(agent: FakeAgent, *credits_: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for credit in credits_:
        agent.shell.do(agent.credit(credit))
        total += granted(agent)
    return total


@pytest.mark.parametrize("credits_", [(400,), (40,) * 10, (1,) * 400, (7, 93) * 4])
def test_queues_share_by_weight(shell: Shell, credits_: tuple[int, ...]) -> None:
    """In one pass and in many, whatever room each has."""
    for queue, weight in (("b", 2), ("c", 5)):
        shell.do(WeighQueue(queue, weight))
    fill(shell, 400, "a", "b", "c")
    got = serve(FakeAgent(shell).join(), *credits_)
    for queue, weight in (("a", 1), ("b", 2), ("c", 5)):
        assert abs(got[queue] - 400 * weight / 8) <= 16 * weight


def test_a_backlog_does_not_hold_up_another_queue(shell: Shell) -> None:
    """A submit of thousands, of any priority, leaves the other queue its half."""
    shell.submit(*[shell.spec(queue="flood", priority=100) for _ in range(3_000)])
    agent = FakeAgent(shell).join()
    assert serve(agent, 1_000) == {"flood": 1_000}
    fill(shell, 20, "small")
    assert serve(agent, 40) == {"flood": 20, "small": 20}


def test_time_without_tasks_is_not_made_up_for(shell: Shell) -> None:
    agent = FakeAgent(shell).join()
    fill(shell, 2, "a", "b")
    assert serve(agent, 4) == {"a": 2, "b": 2}
    fill(shell, 1_000, "a")
    assert serve(agent, 500) == {"a": 500}
    fill(shell, 100, "b")
    assert serve(agent, 20, 20) == {"a": 20, "b": 20}


def test_what_a_queue_got_before_it_ran_dry_counts(shell: Shell) -> None:
    """A queue that comes and goes gets no more than its share."""
    fill(shell, 1_000, "steady")
    agent = FakeAgent(shell).join()
    total: Counter[str] = Counter()
    for _ in range(50):
        fill(shell, 10, "bursts")
        total += serve(agent, 10)
    assert abs(total["bursts"] - total["steady"]) <= 16


def test_a_queue_that_nobody_served_gets_its_share_and_no_more(shell: Shell) -> None:
    """Agents of its own come late: what went by is not made up for, and two such queues are even with each other."""
    fill(shell, 1_000, "a")
    fill(shell, 200, "b", "c", name="m.g")
    agent = FakeAgent(shell).join()
    for _ in range(20):
        assert serve(agent, 20) == {"a": 20}
    late = FakeAgent(shell, "late", names=["m.f", "m.g"]).join()
    got = serve(late, *[3] * 20)
    assert max(got.values()) - min(got.values()) <= 3


def test_two_queues_behind_a_busy_agent_are_even(shell: Shell) -> None:
    """What other queues get on other agents meanwhile brings neither of them ahead."""
    fill(shell, 3_000, "c")
    fill(shell, 100, "a", "b", name="m.g")
    others, shared = FakeAgent(shell).join(), FakeAgent(shell, "shared", names=["m.g"]).join()
    total: Counter[str] = Counter()
    for _ in range(40):
        serve(others, 50)
        total += serve(shared, 1)
    assert total == {"a": 20, "b": 20}


def test_tasks_that_ask_for_something_are_shared_one_by_one(shell: Shell) -> None:
    where = Where([Request([Need("cpu", 1_000)])])
    shell.do(WeighQueue("b", 3))
    fill(shell, 20, "a", "b", where=where)
    agent = FakeAgent(shell, supplies=[Supply("cpu", 8_000)]).join(credit=50)
    assert Counter(grant.spec.queue for grant in agent.receive()) in ({"a": 2, "b": 6}, {"a": 4, "b": 4})


def test_a_weight_is_kept(shell: Shell) -> None:
    """Over restarts, and beside other orders; the usual one leaves no record."""
    shell.do(WeighQueue("a", 9))
    shell.do(OrderQueue("a", drain=True))
    shell.crash()
    assert shell.disk.of(records.QUEUE, QueueRecord) == {b"a": QueueRecord(draining=True, weight=9)}
    assert (shell.working.is_draining("a"), shell.working.weight_of("a")) == (True, 9)
    shell.do(OrderQueue("a", drain=False))
    assert (shell.working.is_draining("a"), shell.working.weight_of("a")) == (False, 9)
    shell.do(WeighQueue("a", 1))
    assert not shell.disk.scan(records.QUEUE)


@pytest.mark.parametrize(("queue", "weight"), [("", 1), ("a", 0), ("a", -1), ("a", QUEUE_WEIGHT_MAX + 1)])
def test_a_weight_out_of_range_is_refused(shell: Shell, queue: str, weight: int) -> None:
    with pytest.raises(BadRequest):
        shell.do(WeighQueue(queue, weight))
