"""LEASE messages: however much an agent is owed, each one fits the wire, and their numbers rise as they go."""

import random

import pytest

from taskd.core.agent_commands import AddCredit, BeatHeart, OfferAgent
from taskd.core.commands import Now, SubmitTasks
from taskd.core.coordinator import Coordinator
from taskd.core.effects import SendLease
from taskd.core.granting import LEASE_BYTES, LEASE_TASKS_MAX
from taskd.core.working import Settings
from taskd_protocol.agent_messages import Lease
from taskd_protocol.connection import encode
from taskd_protocol.ids import make_task_ids
from taskd_protocol.limits import MESSAGE_BYTES_MAX, NAME_CHARS_MAX
from taskd_protocol.task import Pool, TaskSpec

NOW = Now(1_000, 1_763_740_800_000)


def leases(specs: list[TaskSpec], pools: list[Pool]) -> tuple[Coordinator, list[SendLease]]:
    """Submit these tasks to a server with one agent that has room for all, and return what it is sent."""
    coordinator = Coordinator(Settings(), random.Random(1))
    queues: frozenset[str] = frozenset()
    coordinator.apply(OfferAgent(agent="a", boot_id=bytes(16), connection=1, pools=pools, queues=queues), NOW)
    for index in range(len(pools)):
        coordinator.apply(AddCredit("a", 1, index, 50_000), NOW)
    coordinator.apply(SubmitTasks("owner", specs), NOW)
    return coordinator, [effect for effect in coordinator.take_turn(NOW).effects if isinstance(effect, SendLease)]


def specs_of(count: int, name: str, payload_bytes: int = 0, **names: str) -> list[TaskSpec]:
    ids = make_task_ids(count, NOW.wall_ms, random.Random(count).randbytes(10 * count))
    return [TaskSpec(task_id, name, bytes(payload_bytes), **names) for task_id in ids]  # type: ignore[arg-type]


LONGEST = "\N{SNOWMAN}" * NAME_CHARS_MAX


@pytest.mark.parametrize(
    ("specs", "fewest"),
    [
        (specs_of(10, "small"), 1),
        (specs_of(40, "large", LEASE_BYTES), 40),
        (specs_of(41, "half", LEASE_BYTES // 2), 21),
        (specs_of(2, "huge", 16 * 1024 * 1024), 2),
        (specs_of(10_000, LONGEST, queue=LONGEST), 5),
    ],
    ids=["small", "large", "half", "huge", "long names"],
)
def test_each_lease_fits_a_message(specs: list[TaskSpec], fewest: int) -> None:
    """Every task is granted once, in order, in messages that can be sent; small ones go in one."""
    coordinator, sends = leases(specs, [Pool("process", 8, [specs[0].name])])
    assert len(sends) == fewest
    assert [grant.spec.id for send in sends for grant in send.grants] == [spec.id for spec in specs]
    for send in sends:
        assert len(send.grants) <= LEASE_TASKS_MAX
        assert len(encode(Lease(send.number, send.pool, send.grants))) <= MESSAGE_BYTES_MAX
    assert [send.number for send in sends] == list(range(1, fewest + 1))
    agent = coordinator.working.agents["a"]
    for send in sends:
        assert {agent.leases[grant.token].lease_number for grant in send.grants} == {send.number}


def test_numbers_rise_over_pools() -> None:
    """Where several pools are given more than one message holds, the numbers still rise as the messages go."""
    specs = specs_of(6, "one", LEASE_BYTES) + specs_of(7, "two", LEASE_BYTES)
    pools = [Pool("process", 8, ["one"]), Pool("async", 8, ["two"])]
    _, sends = leases(specs, pools)
    assert [send.number for send in sends] == list(range(1, 14))
    assert sorted(send.pool for send in sends) == [0] * 6 + [1] * 7


def test_what_is_under_way_is_not_taken_back() -> None:
    """A heartbeat that has seen the first of several messages does not give up the tasks of the others."""
    coordinator, sends = leases(specs_of(3, "large", LEASE_BYTES), [Pool("process", 8, ["large"])])
    first = [grant.token for grant in sends[0].grants]
    coordinator.apply(BeatHeart("a", 1, sends[0].number, first), NOW)
    assert len(coordinator.working.agents["a"].leases) == 3
    coordinator.apply(BeatHeart("a", 1, sends[1].number, first), NOW)
    assert len(coordinator.working.agents["a"].leases) == 2
