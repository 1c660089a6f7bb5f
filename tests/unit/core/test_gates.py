"""Gates: limits by key, and strict order by key, before tasks come into line."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_beside, check_disk
from taskd.core import gates, records, stillness
from taskd.core.commands import CancelTasks, RemoveLimit, RetryTasks, SetLimit, SyncLimits, TakeGate
from taskd.core.effects import WantGate
from taskd.server import loading, selecting
from taskd_protocol.errors import BadRequest
from taskd_protocol.explanation import Reason, Reasons
from taskd_protocol.limiting import Limit
from taskd_protocol.task import Grant, Retry, Rules, TaskSpec, Use

TWO = SetLimit(Limit("stripe", 2))


def with_rules(spec: TaskSpec, rules: Rules) -> TaskSpec:
    return msgspec.structs.replace(spec, given=rules)


def used(shell: Shell, key: str = "", count: int = 1, *, weight: int = 1, priority: int = 0) -> list[bytes]:
    """Submit tasks that use the limit."""
    specs = [
        with_rules(shell.spec(priority=priority), Rules(limits=[Use("stripe", key, weight)])) for _ in range(count)
    ]
    shell.submit(*specs)
    return [spec.id for spec in specs]


def in_order(shell: Shell, key: str, count: int = 1, **options: object) -> list[bytes]:
    specs = [with_rules(shell.spec(**options), Rules(fifo_key=key)) for _ in range(count)]  # type: ignore[arg-type]
    shell.submit(*specs)
    return [spec.id for spec in specs]


def ids(grants: list[Grant]) -> list[bytes]:
    return [grant.spec.id for grant in grants]


@pytest.fixture
def agent(shell: Shell) -> FakeAgent:
    return FakeAgent(shell, names=["m.f", "m.g"]).join(credit=100)


def test_each_key_of_a_limit_counts_by_itself(shell: Shell, agent: FakeAgent) -> None:
    """What is parked is in no line; an end lets the next one pass, of the same key."""
    shell.do(TWO)
    a, b = used(shell, "a", 4), used(shell, "b", 1)
    grants = agent.receive()
    assert sorted(ids(grants)) == sorted([*a[:2], *b])
    assert sum(line.ready for line in shell.working.lines.values()) == 0
    assert shell.working.counters.parked == {"default": 2}
    check_disk(shell.disk)
    [first] = [grant for grant in grants if grant.spec.id == a[0]]
    shell.do(agent.ack(first))
    assert ids(agent.receive()) == [a[2]]
    check_disk(shell.disk)
    check_beside(shell)


def test_what_waits_is_told(shell: Shell, agent: FakeAgent) -> None:
    shell.do(TWO)
    _, _, waits = used(shell, "a", 3)
    agent.receive()
    spec = shell.disk.get(records.SPEC, waits, records.SpecRecord)
    assert gates.waits_at(shell.working, spec.spec, 0, None, shell.now) == Reason(Reasons.KEY, "stripe a", count=2)
    assert gates.waits_at(shell.working, spec.spec, 1, None, shell.now) is None


def test_a_higher_priority_passes_first(shell: Shell, agent: FakeAgent) -> None:
    shell.do(SetLimit(Limit("stripe", 1)))
    [first] = used(shell, "a")
    low, high = used(shell, "a"), used(shell, "a", priority=50)
    [grant] = agent.receive()
    assert grant.spec.id == first
    shell.do(agent.ack(grant))
    [grant] = agent.receive()
    assert [grant.spec.id] == high
    shell.do(agent.ack(grant))
    assert ids(agent.receive()) == low


def test_a_limit_that_is_not_set_holds_nothing_back_and_one_that_is_changed_holds_at_once(
    shell: Shell, agent: FakeAgent
) -> None:
    assert len(used(shell, "a", 3)) == len(agent.receive()) == 3
    shell.do(TWO)
    used(shell, "a", 3)
    assert agent.receive() == []
    shell.do(SetLimit(Limit("stripe", 4)))
    assert len(agent.receive()) == 1
    shell.do(RemoveLimit("stripe"))
    assert len(agent.receive()) == 2
    check_disk(shell.disk)


def test_a_restart_leaves_nothing_stuck(shell: Shell, agent: FakeAgent) -> None:
    """Whatever of it was on disk: leases hold their places, and what waits is looked at."""
    shell.do(TWO)
    task_ids = used(shell, "a", 5)
    running = agent.receive()
    shell.crash()
    again = FakeAgent(shell)
    again.held = {grant.token: grant for grant in running}
    again.join(credit=10)
    assert again.receive() == []
    shell.do(again.ack(running[0]))
    assert ids(again.receive()) == [task_ids[2]]
    shell.crash()
    shell.pass_ms(60_000)
    other = FakeAgent(shell, "a2").join(credit=10)
    shell.pass_ms(stillness.LOOK_MS)  # nobody had the task: that is looked at again twice a second
    assert ids(other.receive()) == task_ids[1:3]
    assert shell.working.counters.parked == {"default": 2}
    check_disk(shell.disk)


def test_a_task_of_more_weight_takes_more_and_no_more_than_there_is(shell: Shell, agent: FakeAgent) -> None:
    shell.do(TWO)
    [heavy] = used(shell, "a", weight=9)
    used(shell, "a", 2)
    [grant] = agent.receive()
    assert grant.spec.id == heavy
    shell.do(agent.ack(grant))
    assert len(agent.receive()) == 2


def test_a_task_that_waits_for_its_next_attempt_holds_no_place(shell: Shell, agent: FakeAgent) -> None:
    """It passes again in its turn, before what came later."""
    shell.do(SetLimit(Limit("stripe", 1)))
    first, second = used(shell, "a", 2)
    [grant] = agent.receive()
    shell.do(agent.nack(grant, retry_after_ms=1_000))
    [other] = agent.receive()
    assert (grant.spec.id, other.spec.id) == (first, second)
    shell.pass_ms(2_000)
    assert agent.receive() == []
    shell.do(agent.ack(other))
    assert ids(agent.receive()) == [first]
    check_disk(shell.disk)


def test_what_is_cancelled_at_a_gate_or_behind_it_leaves_it(shell: Shell, agent: FakeAgent) -> None:
    shell.do(SetLimit(Limit("stripe", 1)))
    task_ids = used(shell, "a", 4)
    [grant] = agent.receive()
    shell.do(CancelTasks(task_ids[1:2]))
    check_disk(shell.disk)
    shell.do(agent.ack(grant))
    [grant] = agent.receive()
    assert grant.spec.id == task_ids[2]
    shell.do(CancelTasks(task_ids[2:]))
    shell.do(agent.nack(grant, outcome="cancelled"))
    assert not shell.working.counters.parked, "a queue in which nothing waits costs no memory"
    assert shell.disk.scan(records.HELD) == shell.disk.scan(records.PARKED) == []
    check_disk(shell.disk)


def test_tasks_of_one_fifo_key_run_one_after_another_in_the_order_of_submits(shell: Shell, agent: FakeAgent) -> None:
    """Whatever their priority and name, through failures; of another key beside."""
    a1 = in_order(shell, "acme", 2, retry=Retry(2, base_ms=1_000))
    a2 = in_order(shell, "acme", 1, priority=90, name="m.g")
    [b] = in_order(shell, "bolt")
    begun = agent.receive()
    assert sorted(ids(begun)) == sorted([a1[0], b])
    [grant] = [grant for grant in begun if grant.spec.id == a1[0]]
    shell.do(agent.nack(grant))
    assert agent.receive() == [], "one that waits for its next attempt keeps the others waiting"
    shell.crash()
    agent = FakeAgent(shell, boot_id=b"boot-2", names=["m.f", "m.g"]).join(credit=100)
    order = []
    for _ in range(12):
        shell.do(agent.beat())
        for grant in agent.receive():
            order.append(grant.spec.id)
            shell.do(agent.ack(grant))
        shell.pass_ms(2_000)
    assert [task_id for task_id in order if task_id != b] == [*a1, *a2]
    check_disk(shell.disk)
    assert shell.disk.scan(records.HELD) == []


def test_a_dead_one_lets_the_next_one_pass_and_comes_before_later_ones_when_it_is_retried(
    shell: Shell, agent: FakeAgent
) -> None:
    first, second, third = in_order(shell, "acme", 3, retry=Retry(1))
    [grant] = agent.receive()
    shell.do(agent.nack(grant))
    [grant] = agent.receive()
    assert grant.spec.id == second
    shell.do(RetryTasks([first]))
    shell.do(agent.ack(grant))
    [grant] = agent.receive()
    assert grant.spec.id == first
    shell.do(agent.ack(grant))
    assert ids(agent.receive()) == [third]


def test_several_gates_are_passed_in_one_order(shell: Shell, agent: FakeAgent) -> None:
    """No two tasks wait for each other, and what waits at the second holds a place of the first."""
    shell.do(SetLimit(Limit("one", 1)))
    shell.do(SetLimit(Limit("two", 1)))
    uses = [[Use("one"), Use("two")], [Use("two"), Use("one")]]
    specs = [with_rules(shell.spec(), Rules(limits=uses[index % 2])) for index in range(6)]
    shell.submit(*specs)
    order = []
    for _ in range(6):
        [grant] = agent.receive()
        order.append(grant.spec.id)
        check_disk(shell.disk)
        shell.do(agent.ack(grant))
    assert order == [spec.id for spec in specs]
    assert shell.disk.scan(records.HELD) == shell.disk.scan(records.PARKED) == []


def test_more_than_one_read_holds_is_parked_and_passes_in_order(
    shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no gate is in memory."""
    monkeypatch.setattr(gates, "ADMITTED_MAX", 2)
    monkeypatch.setattr(loading, "PAGE", 1)
    monkeypatch.setattr(gates, "GATES_MAX", 0)
    monkeypatch.setattr(gates, "WALK_GATES", 1)
    shell.do(SetLimit(Limit("stripe", 1)))
    a, b = used(shell, "a", 7), used(shell, "b", 7)
    shell.do(SetLimit(Limit("stripe", 3)))
    order = []
    for _ in range(14):
        for grant in agent.receive():
            order.append(grant.spec.id)
            shell.do(agent.ack(grant))
    assert [task_id for task_id in order if task_id in a] == a
    assert [task_id for task_id in order if task_id in b] == b
    check_disk(shell.disk)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (Rules(limits=[Use(f"l{i}") for i in range(5)]), "it can use 4"),
        (Rules(limits=[Use("a", "k"), Use("a", "k", 2)]), "twice"),
        (Rules(limits=[Use("queue:a")]), "by itself"),
        (Rules(limits=[Use("")]), "not allowed"),
        (Rules(limits=[Use("a", "\n")]), "not allowed"),
        (Rules(limits=[Use("a", weight=0)]), "out of range"),
        (Rules(fifo_key="\n"), "not allowed"),
    ],
)
def test_rules_out_of_range_are_refused(shell: Shell, rules: Rules, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        shell.submit(with_rules(shell.spec(), rules))


def test_a_delay_with_a_fifo_key_is_refused(shell: Shell) -> None:
    with pytest.raises(BadRequest, match="breaks the order"):
        shell.submit(with_rules(shell.spec(delay_ms=5), Rules(fifo_key="a")))


def test_a_task_that_does_not_fit_beside_what_runs_is_looked_at_when_there_is_more_room(
    shell: Shell, agent: FakeAgent
) -> None:
    """Not over and over meanwhile; and nobody passes it."""
    shell.do(SetLimit(Limit("stripe", 3)))
    used(shell, "a", 2)
    begun = agent.receive()
    [heavy], [light] = used(shell, "a", weight=2), used(shell, "a")
    assert agent.receive() == []
    shell.do(agent.ack(begun[0]))
    assert ids(agent.receive()) == [heavy]
    shell.do(agent.ack(begun[1]))
    assert ids(agent.receive()) == [light]
    check_disk(shell.disk)


def test_no_more_is_read_of_what_waits_than_may_pass_and_none_that_has_left(shell: Shell, agent: FakeAgent) -> None:
    """The store would have to step over what was deleted; what came first since is found all the same."""
    shell.do(SetLimit(Limit("stripe", 1)))
    task_ids = used(shell, "a", 9)
    [grant] = agent.receive()
    shell.ask(agent.ack(grant))
    shell.turn()
    shell.settle()  # what was read at first may have been more
    [high] = used(shell, "a", priority=50)
    [grant] = agent.receive()
    order = []
    for _ in range(3):
        shell.ask(agent.ack(grant))
        [want] = [effect for effect in shell.turn().effects if isinstance(effect, WantGate)]
        shell.settle()
        [grant] = agent.receive()
        assert want.limit == 2
        before = [i for i in shell.disk.scan(records.PARKED, want.gate) if i <= want.after]
        assert not before
        order.append(grant.spec.id)
    assert order == [high, *task_ids[2:4]]
    assert want.after, "it begins beyond what has passed"


def test_large_arguments_are_read_some_at_a_time(
    shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "ADMITTED_BYTES", 100)
    monkeypatch.setattr(selecting, "FIRST_ENTRIES", 1)
    shell.do(SetLimit(Limit("stripe", 1)))
    specs = [with_rules(shell.spec(payload=bytes(90)), Rules(limits=[Use("stripe")])) for _ in range(6)]
    shell.submit(*specs)
    [grant] = agent.receive()
    shell.ask(SetLimit(Limit("stripe", 9)))
    read = []
    shell.turn()
    while shell.reads:
        for waits in list(shell.reads):
            shell.step(waits)
            read += [len(c.entries) for c in waits.commands or () if isinstance(c, TakeGate) and waits in shell.reads]
        shell.turn()
    shell.flush()
    assert len(agent.receive()) == 5
    assert max(read) == 2
    assert grant.spec.id == specs[0].id


def test_what_a_gate_holds_is_counted_some_at_a_time(
    shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when places are given back meanwhile, of what was counted and of what was not."""
    monkeypatch.setattr(loading, "PAGE", 2)
    shell.do(SetLimit(Limit("stripe", 7)))
    task_ids = used(shell, "a", 9)
    running = agent.receive()
    assert len(running) == 7
    shell.crash()
    again = FakeAgent(shell)
    again.held = {grant.token: grant for grant in running}
    again.join(credit=10)
    [gate] = shell.working.gates.known.values()
    assert gate.held == 7
    shell.working.gates.known.clear()
    for grant in running[:2]:
        shell.ask(again.ack(grant))
    acks = [again.ack(running[2]), again.ack(running[-1])]
    shell.turn()
    for _ in range(2):
        [read] = shell.reads
        while read in shell.reads:
            shell.step(read)
        shell.turn()
    for ack in acks:
        shell.ask(ack)
    shell.settle()
    [gate] = shell.working.gates.known.values()
    assert sorted(ids(again.receive())) == sorted(task_ids[7:])
    assert gate.held == 5
    check_disk(shell.disk)


def test_gates_are_walked_over_some_at_a_time_and_once_for_limits_that_change_together(
    shell: Shell, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next ones are found when the last ones are looked at, so that no more wait for a read."""
    monkeypatch.setattr(gates, "WALK_GATES", 2)
    shell.do(SetLimit(Limit("stripe", 1)))
    for key in "abcdefg":
        used(shell, key, 2)
    assert len(agent.receive()) == 7
    shell.working.gates.known.clear()
    shell.ask(SyncLimits("m", [Limit("one", 1), Limit("two", 1)]))
    shell.ask(SetLimit(Limit("stripe", 2)))
    shell.turn()
    assert len(shell.reads) == 1
    most = 0
    while shell.reads:
        most = max(most, len(shell.reads))
        read = shell.reads[-1]
        while read in shell.reads:
            shell.step(read)
        shell.turn()
    shell.flush()
    assert most == 2
    assert len(agent.receive()) == 7
