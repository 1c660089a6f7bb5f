"""Placement: who gets what, and in which order."""

from collections.abc import Sequence

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import records
from taskd.core.commands import CancelTasks, Command, RetryTasks, SubmitTasks
from taskd.core.effects import SendLease
from taskd.core.records import EpochRecord, LeaseRecord
from taskd.core.working import EPOCH_BITS
from taskd_protocol.errors import BadRequest
from taskd_protocol.resources import Need, Request, Supply, Where
from taskd_protocol.task import Grant, TaskSpec


def names(grants: Sequence[Grant]) -> list[str]:
    return [grant.spec.name for grant in grants]


def submit(shell: Shell, *specs: TaskSpec) -> list[bytes]:
    shell.submit(*specs)
    return [spec.id for spec in specs]


def granted(agent: FakeAgent) -> list[bytes]:
    return [grant.spec.id for grant in agent.receive()]


def test_first_in_first_out_within_a_priority(shell: Shell) -> None:
    ids = submit(shell, *[shell.spec() for _ in range(5)])
    ids += submit(shell, *[shell.spec() for _ in range(5)])
    assert granted(FakeAgent(shell).join(credit=10)) == ids


def test_higher_priority_first_over_names(shell: Shell) -> None:
    low, high, mid, top = submit(
        shell,
        shell.spec(priority=-1),
        shell.spec("m.g", priority=5),
        shell.spec(),
        shell.spec("m.g", priority=9),
    )
    agent = FakeAgent(shell, names=["m.f", "m.g"]).join()
    order = []
    for _ in range(4):
        shell.do(agent.credit(1))
        order += granted(agent)
    assert order == [top, high, mid, low]


def test_lines_of_one_priority_take_turns_as_they_were_submitted(shell: Shell) -> None:
    """In one pass and in many: the order of submits holds over names."""
    specs = [shell.spec(["m.f", "m.g"][i % 2]) for i in range(12)]
    ids = submit(shell, *specs)
    agent = FakeAgent(shell, names=["m.f", "m.g"]).join(credit=7)
    assert granted(agent) == ids[:7]
    shell.do(agent.credit(2))
    assert granted(agent) == ids[7:9]
    shell.do(agent.credit(50))
    assert granted(agent) == ids[9:]


def test_lines_that_nobody_served_are_served_when_an_agent_offers_to(shell: Shell) -> None:
    """A new one, or one that has taken something else until now."""
    agent = FakeAgent(shell, queues=("mine",)).join(credit=9)
    shell.submit(shell.spec(queue="mine"), shell.spec(queue="other"), shell.spec(name="m.g", queue="mine"))
    assert [grant.spec.queue for grant in agent.receive()] == ["mine"]
    agent.queues = frozenset({"mine", "other"})
    assert [grant.spec.queue for grant in agent.join(credit=9).receive()] == ["other"]
    assert [grant.spec.name for grant in FakeAgent(shell, "a2", names=("m.g",)).join(credit=9).receive()] == ["m.g"]


def test_many_lines_together_hold_no_more_than_windows_may(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million tasks in a thousand queues would else be in memory. After a start, too; and all of it runs."""
    for name, value in {"LEAN_TASKS": 2, "REFILL_TASKS": 8, "WINDOW_LOW": 4}.items():
        monkeypatch.setattr(f"taskd.core.lines.{name}", value)
    monkeypatch.setattr("taskd.core.working.WINDOWS_TASKS_MAX", 40)
    for number in range(30):
        shell.submit(*[shell.spec(queue=f"q{number}") for _ in range(10)])
    assert len(shell.working.tasks) <= 40 + 30 * 2
    shell.crash()
    shell.settle()
    assert len(shell.working.tasks) <= 40 + 30 * 2
    assert not shell.working.refilling
    agent = FakeAgent(shell).join(credit=1_000)
    ran = 0
    while grants := agent.receive():
        ran += len(grants)
        shell.do(agent.ack(*grants))
    assert ran == 300
    check_disk(shell.disk)


def test_a_queue_filter_keeps_other_queues_away(shell: Shell) -> None:
    default, other = submit(shell, shell.spec(), shell.spec(queue="other"))
    picky = FakeAgent(shell, "picky", queues=["other"]).join(credit=5)
    assert granted(picky) == [other]
    assert granted(FakeAgent(shell, "all").join(credit=5)) == [default]


def test_a_name_that_no_agent_has_waits_and_blocks_nobody(shell: Shell) -> None:
    unknown, known = submit(shell, shell.spec("m.new", priority=9), shell.spec())
    assert granted(FakeAgent(shell).join(credit=5)) == [known]
    newer = FakeAgent(shell, "newer", names=["m.new"]).join(credit=5)
    assert granted(newer) == [unknown]


def test_no_more_is_granted_than_there_is_credit_for(shell: Shell) -> None:
    submit(shell, *[shell.spec() for _ in range(9)])
    agent = FakeAgent(shell).join()
    assert granted(agent) == []
    for credit, expected in [(2, 2), (3, 3), (90, 4)]:
        shell.do(agent.credit(credit))
        assert len(granted(agent)) == expected
    submit(shell, *[shell.spec() for _ in range(90)])
    assert len(granted(agent)) == 86


@pytest.mark.parametrize(("pool", "leases"), [(1, 1), (-1, 1), (1, 0), (0, -5), (0, 100_001)])
def test_credit_out_of_range_is_refused(shell: Shell, pool: int, leases: int) -> None:
    agent = FakeAgent(shell).join()
    with pytest.raises(BadRequest):
        shell.do(agent.credit(leases, pool))


def test_credit_that_is_taken_back_is_granted_to_no_more(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=7)
    shell.do(agent.credit(0))
    submit(shell, *[shell.spec() for _ in range(9)])
    assert granted(agent) == []
    shell.do(agent.credit(2))
    assert len(granted(agent)) == 2


def test_a_slot_that_is_free_goes_before_credit_to_wait_behind_what_runs(shell: Shell) -> None:
    busy, idle = FakeAgent(shell, "busy").join(credit=500), FakeAgent(shell, "idle")
    submit(shell, *[shell.spec() for _ in range(8)])
    assert len(granted(busy)) == 8
    idle.join(credit=3)
    submit(shell, shell.spec(), shell.spec())
    assert [len(granted(busy)), len(granted(idle))] == [0, 2]
    submit(shell, *[shell.spec() for _ in range(6)])
    assert [len(granted(busy)), len(granted(idle))] == [5, 1], "more than that is dealt out"


def test_tasks_are_dealt_out_evenly(shell: Shell) -> None:
    agents = [FakeAgent(shell, f"a{i}").join(credit=10) for i in range(4)]
    submit(shell, *[shell.spec() for _ in range(10)])
    assert [len(agent.receive()) for agent in agents] == [3, 3, 2, 2]


def test_who_has_less_room_than_its_share_leaves_the_rest_to_the_others(shell: Shell) -> None:
    agents = [FakeAgent(shell, f"a{i}").join(credit=credit) for i, credit in enumerate([1, 20, 3])]
    submit(shell, *[shell.spec() for _ in range(12)])
    assert [len(agent.receive()) for agent in agents] == [1, 8, 3]
    submit(shell, *[shell.spec() for _ in range(20)])
    assert [len(agent.receive()) for agent in agents] == [0, 12, 0]


def test_lines_that_share_some_agents_are_served_in_order_all_the_same(shell: Shell) -> None:
    """The room of an agent that has both names goes to whoever was submitted first."""
    both = FakeAgent(shell, "both", names=["m.f", "m.g"]).join()
    only = FakeAgent(shell, "only", names=["m.g"]).join()
    f1, g1, f2, g2, g3, g4 = submit(shell, *[shell.spec(f"m.{letter}") for letter in "fgfggg"])
    shell.ask(both.credit(3))
    shell.ask(only.credit(1))
    shell.settle()
    first = granted(both)
    assert [*sorted([*first, *granted(only)])] == sorted([f1, g1, f2, g2])
    assert {f1, f2} <= set(first)
    shell.do(both.credit(9))
    assert granted(both) == [g3, g4]


def test_separate_lines_do_not_wait_for_each_other(shell: Shell) -> None:
    f_agent = FakeAgent(shell, "fs", names=["m.f"]).join()
    g_agent = FakeAgent(shell, "gs", names=["m.g"]).join()
    submit(shell, *[shell.spec(f"m.{letter}") for letter in "fgfgffgg"])
    shell.ask(f_agent.credit(9))
    shell.ask(g_agent.credit(2))
    shell.settle()
    assert names(f_agent.receive()) == ["m.f"] * 4
    assert names(g_agent.receive()) == ["m.g"] * 2


def test_pools_of_an_agent_get_leases_of_their_own(shell: Shell) -> None:
    agent = FakeAgent(shell)
    agent.pools = [*agent.pools, *FakeAgent(shell, names=["m.g"]).pools]
    agent.join()
    submit(shell, shell.spec(), shell.spec("m.g"))
    shell.ask(agent.credit(1, pool=1))
    shell.settle()
    [lease] = shell.take_told(SendLease)
    assert (lease.pool, names(lease.grants)) == (1, ["m.g"])


def test_a_draining_agent_gets_nothing_more_on_its_connection(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=5)
    shell.do(agent.drain())
    ids = submit(shell, shell.spec())
    assert granted(agent) == []
    assert granted(agent.join(credit=1)) == ids


def test_a_grant_says_what_is_stored(shell: Shell) -> None:
    spec = shell.spec()
    submit(shell, spec)
    [grant] = FakeAgent(shell).join(credit=1).receive()
    assert grant == Grant(shell.working.epoch << EPOCH_BITS, 1, spec)
    lease = shell.disk.get(records.LEASE, spec.id, LeaseRecord)
    assert (lease.token, lease.attempt, lease.agent, lease.granted_at_ms) == (grant.token, 1, "a1", shell.wall_ms)


# -- fencing tokens ------------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, Where([Request([Need("cpu", 1_000)])]), Where([], apart="")])
def test_an_agent_is_given_no_more_arguments_than_fit_its_memory(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, where: Where | None
) -> None:
    """Credit counts tasks; their arguments may be large. What it reports makes room again."""
    monkeypatch.setattr("taskd.core.fleet.LEASED_BYTES_MAX", 1_000)
    agent = FakeAgent(shell, supplies=[Supply("cpu", 8_000)]).join()
    shell.do(agent.credit(100))
    for _ in range(3):
        submit(shell, shell.spec(payload=bytes(600), where=where))
    shell.turn()
    held = agent.receive()
    assert len(held) == 2
    shell.do(agent.ack(*held))
    shell.turn()
    assert len(agent.receive()) == 1


def tokens_of(shell: Shell, agent: FakeAgent, count: int) -> list[int]:
    shell.do(SubmitTasks("client", [shell.spec() for _ in range(count)]))
    shell.do(agent.credit(count))
    return [grant.token for grant in agent.receive()]


def test_a_task_that_is_granted_in_the_turn_of_its_submit_never_stands_in_line_on_disk(shell: Shell) -> None:
    agent = FakeAgent(shell)
    agent.join()
    shell.do(agent.credit(2))
    specs = [shell.spec() for _ in range(3)]
    shell.ask(SubmitTasks("client", specs))
    entries = [(i, value) for kind, i, value in shell.turn().mutations if kind == records.READY]
    assert [value for _, value in entries] == [specs[2].id]
    check_disk(shell.disk)
    shell.settle()
    assert granted(agent) == [spec.id for spec in specs[:2]]


def test_what_leaves_the_line_in_the_turn_of_its_submit_stands_there_only_if_it_came_back(shell: Shell) -> None:
    agent = FakeAgent(shell)
    agent.join()
    specs = [shell.spec() for _ in range(4)]
    shell.ask(SubmitTasks("client", specs))
    commands: list[Command] = [
        CancelTasks([spec.id for spec in specs[:3]]),
        RetryTasks([spec.id for spec in specs[1:3]]),
        CancelTasks([specs[2].id]),
        agent.credit(1),
    ]
    for command in commands:  # all of them in one turn
        shell.ask(command)
        for waiting in list(shell.waiting):
            shell.feed(waiting)
    shell.turn()
    states = check_disk(shell.disk)
    assert [states[spec.id] for spec in specs] == ["cancelled", "running", "cancelled", "ready"]
    assert [shell.disk.raw(records.READY, i) for i in shell.disk.scan(records.READY)] == [specs[3].id]


def test_tokens_rise_over_restarts(shell: Shell) -> None:
    """Also over two within a second, and when the clock went back between them."""
    tokens: list[int] = []
    for back_ms in (0, 1_000, 1_000, 90_000_000):
        tokens += tokens_of(shell, FakeAgent(shell, f"a{len(tokens)}").join(), 3)
        shell.crash()
        shell.wall_ms -= back_ms
    assert tokens == sorted(set(tokens))
    assert max(tokens) < 1 << 63


def test_the_epoch_is_on_disk_before_the_first_lease_of_a_start(shell: Shell) -> None:
    tokens_of(shell, FakeAgent(shell).join(), 1)
    before = shell.working.epoch
    shell.crash()
    shell.turn()
    assert shell.disk.get(records.META, b"epoch", EpochRecord).epoch == shell.working.epoch > before


def test_a_counter_that_runs_out_begins_an_epoch_in_the_same_batch(shell: Shell) -> None:
    agent = FakeAgent(shell).join()
    shell.working.lease_counter = (1 << EPOCH_BITS) - 3
    epoch = shell.working.epoch
    before = tokens_of(shell, agent, 2)
    shell.ask(SubmitTasks("client", [shell.spec() for _ in range(4)]))
    shell.ask(agent.credit(4))
    shell.turn()
    assert shell.disk.get(records.META, b"epoch", EpochRecord).epoch == epoch + 1
    shell.flush()
    after = [grant.token for grant in agent.receive()]
    assert after == [(epoch + 1) << EPOCH_BITS | i for i in range(4)]
    assert before[-1] < after[0]
    shell.crash()
    assert shell.working.epoch > epoch + 1
