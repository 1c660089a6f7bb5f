"""Tasks of a queue that have fair keys share it key by key."""

import random
from collections import Counter

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_beside, check_disk
from taskd.core import records
from taskd.core.commands import RetryTasks, SetLimit, WeighFairKey
from taskd.core.fair import SWEEP_MS, UNIT, Fairness, fair_id
from taskd.core.invariants import check_invariants
from taskd.core.records import FairRecord, PaceRecord, QueueRecord, SpecRecord
from taskd_protocol import limits
from taskd_protocol.errors import BadRequest
from taskd_protocol.limiting import Limit
from taskd_protocol.task import Grant, Retry, Rules, TaskSpec, Use


@pytest.fixture
def shell() -> Shell:
    return Shell()


def fill(shell: Shell, tasks: int, *keys: str, name: str = "m.f", priority: int = 0) -> list[TaskSpec]:
    specs = [shell.spec(name, fair_key=key, priority=priority) for key in keys for _ in range(tasks)]
    for start in range(0, len(specs), 500):
        shell.submit(*specs[start : start + 500])
    return specs


def serve(agent: FakeAgent, *credits_: int) -> list[Grant]:
    """Take what is granted, and report it."""
    taken: list[Grant] = []
    for credit in credits_:
        agent.shell.do(agent.credit(credit))
        grants = agent.receive()
        taken += grants
        if grants:
            agent.shell.do(agent.ack(*grants))
    return taken


def keys_of(grants: list[Grant]) -> Counter[str]:
    return Counter(grant.spec.rules.fair_key for grant in grants)


@pytest.mark.parametrize("credits_", [(60,), (7,) * 9, (1,) * 60])
def test_keys_are_served_in_turn(shell: Shell, credits_: tuple[int, ...]) -> None:
    """However much each has waiting, in one pass and in many."""
    fill(shell, 900, "flood")
    fill(shell, 30, "b", "c")
    got = keys_of(serve(FakeAgent(shell).join(), *credits_))
    assert max(got.values()) - min(got.values()) <= 2
    assert set(got) == {"flood", "b", "c"}


def test_a_new_key_waits_for_no_backlog(shell: Shell) -> None:
    """Its first task comes after at most one of each key that waits."""
    fill(shell, 1_000, "flood")
    agent = FakeAgent(shell).join()
    serve(agent, 300)
    fill(shell, 5, "new")
    assert keys_of(serve(agent, 10)) in ({"flood": 5, "new": 5}, {"flood": 6, "new": 4})


def test_first_in_first_out_within_a_key_and_priority(shell: Shell) -> None:
    specs = [*fill(shell, 8, "a", "b"), *fill(shell, 8, "a", "b")]
    grants = serve(FakeAgent(shell).join(), 32)
    for key in ("a", "b"):
        of_key = [spec.id for spec in specs if spec.rules.fair_key == key]
        assert [grant.spec.id for grant in grants if grant.spec.rules.fair_key == key] == of_key


def test_a_higher_priority_comes_first_within_its_key(shell: Shell) -> None:
    """And costs other keys nothing: what its key submits after it comes later for that."""
    fill(shell, 20, "a", "b")
    fill(shell, 4, "a", priority=5)
    more = fill(shell, 1, "a")
    grants = serve(FakeAgent(shell).join(), 12)
    assert [grant.spec.priority for grant in grants].count(5) == 4
    rest = serve(FakeAgent(shell, "a2").join(), 33)
    assert rest[-1].spec.id == more[0].id


def test_tasks_without_a_key_are_served_as_one_key_is(shell: Shell) -> None:
    fill(shell, 200, "a", "b", "")
    got = keys_of(serve(FakeAgent(shell).join(), *[10] * 15))
    assert max(got.values()) - min(got.values()) <= 2


def test_a_stream_of_new_keys_starves_nobody(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new key begins where the queue is; but each grant moves that on."""
    monkeypatch.setattr("taskd.core.fair.UNIT", 50)
    old = fill(shell, 3, "old")
    agent, waiting = FakeAgent(shell).join(), {spec.id for spec in old}
    for number in range(300):
        fill(shell, 1, f"n{number}", f"m{number}")
        waiting -= {grant.spec.id for grant in serve(agent, 1)}
        if not waiting:
            return
    pytest.fail("it waits for ever")


def test_a_delayed_task_takes_its_place_when_it_is_due(shell: Shell) -> None:
    """A thousand that are due tomorrow hold up nothing of their key today, and nobody tomorrow."""
    shell.submit(*[shell.spec(fair_key="a", delay_ms=5_000) for _ in range(50)])
    now = fill(shell, 1, "a")
    agent = FakeAgent(shell).join()
    assert [grant.spec.id for grant in serve(agent, 1)] == [now[0].id]
    fill(shell, 50, "b")
    shell.pass_ms(5_500)
    got = keys_of(serve(agent, 20))
    assert abs(got["a"] - got["b"]) <= 2
    check_disk(shell.disk)


def test_tasks_that_are_tried_again_keep_their_tags(shell: Shell) -> None:
    specs = [shell.spec(fair_key="a", retry=Retry(3, base_ms=100, jitter=0.0)) for _ in range(20)]
    shell.submit(*specs)
    agent = FakeAgent(shell).join(credit=1)
    [grant] = agent.receive()
    shell.do(agent.nack(grant))
    shell.pass_ms(1_000)
    assert serve(agent, 1)[0].spec.id == grant.spec.id


def test_what_is_retried_by_hand_stands_behind(shell: Shell) -> None:
    """A thousand dead tasks of one key, retried at once, come in turn with what waits."""
    specs = [shell.spec(fair_key="a", retry=Retry(1)) for _ in range(40)]
    shell.submit(*specs)
    agent = FakeAgent(shell).join(credit=40)
    shell.do(agent.nack(*agent.receive()))
    fill(shell, 40, "b")
    shell.do(RetryTasks([spec.id for spec in specs]))
    got = keys_of(serve(agent, 20))
    assert abs(got["a"] - got["b"]) <= 2
    check_disk(shell.disk)


def test_the_order_outlasts_a_restart(shell: Shell) -> None:
    """With the keys' ends looked up when they are needed, and only then."""
    specs = fill(shell, 40, "a", "b")
    agent = FakeAgent(shell).join()
    served = serve(agent, 11)
    shell.crash()
    shell.settle()
    check_beside(shell)
    specs += fill(shell, 1, "a")
    fill(shell, 10, "c")
    agent = FakeAgent(shell, "a2").join()
    grants = serve(agent, 30)
    got = keys_of(grants)
    assert max(got.values()) - min(got.values()) <= 2
    served += grants + serve(agent, 99)
    for key in ("a", "b"):
        of_key = [grant.spec.id for grant in served if grant.spec.rules.fair_key == key]
        assert of_key == [spec.id for spec in specs if spec.rules.fair_key == key]
    check_invariants(shell.working)


def test_ends_that_are_behind_are_taken_away(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few a step; those that are ahead stay, and those of a key that has submitted meanwhile."""
    monkeypatch.setattr("taskd.core.fair.SWEEP_STEP", 3)
    fill(shell, 1, *[f"k{number}" for number in range(10)])
    fill(shell, 60, "long", "longer")
    serve(FakeAgent(shell).join(), 100)
    assert len(shell.disk.scan(records.FAIR)) == 12
    shell.pass_ms(SWEEP_MS)
    shell.pass_ms(3_000)
    ends = shell.disk.of(records.FAIR, FairRecord)
    assert set(ends) == {fair_id("default", "long"), fair_id("default", "longer")}
    pace = shell.disk.get(records.PACE, b"default", PaceRecord)
    assert all(max(end for _, end in record.ends) > pace.at for record in ends.values())


def test_keys_beyond_memory_are_looked_up(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.core.fair.KEYS_MAX", 2)
    fill(shell, 5, "a", "b", "c", "d")
    places = [shell.disk.get(records.SPEC, spec.id, SpecRecord).place for spec in fill(shell, 1, "a", "b", "c", "d")]
    assert places == [UNIT * 6] * 4


@pytest.mark.parametrize("seed", range(5))
def test_a_key_that_always_has_tasks_gets_its_share(seed: int) -> None:
    """Whatever others do, of which there are never more than so many."""
    rng, fairness = random.Random(seed), Fairness()
    waiting: list[tuple[int, int, str]] = []
    served: Counter[str] = Counter()

    def submit(key: str, count: int) -> None:
        for _ in range(count):
            spec = TaskSpec(bytes(16), "f", given=Rules(fair_key=key))
            waiting.append((fairness.place(spec), len(waiting) + sum(served.values()), key))

    submit("steady", 2)
    for _ in range(3_000):
        if rng.random() < 0.3:
            submit(rng.choice("abcd"), rng.choice((1, 1, 40)))
        submit("steady", 1)
        first = min(waiting)
        waiting.remove(first)
        fairness.note_granted("default", first[0], 1)
        served[first[2]] += 1
    assert served["steady"] >= 3_000 / 5 - 2


def gated(shell: Shell, tasks: int, key: str, *uses: Use, fifo_key: str = "", priority: int = 0) -> list[TaskSpec]:
    specs = [shell.spec(fair_key=key, limits=list(uses), fifo_key=fifo_key, priority=priority) for _ in range(tasks)]
    shell.submit(*specs)
    return specs


def test_what_has_limits_of_its_key_shares_the_line_behind_them(shell: Shell) -> None:
    """It gets its tag as it comes into line; through attempts that fail, a restart, and a retry by hand."""
    for name in ("a", "b", "c"):
        shell.do(SetLimit(Limit(f"of-{name}", 40)))
    gated(shell, 90, "a", Use("of-a"))
    gated(shell, 20, "b", Use("of-b"), Use("none"))
    gated(shell, 20, "c", Use("of-c", "k"))
    check_disk(shell.disk)
    agent = FakeAgent(shell).join()
    got = keys_of(serve(agent, *(1,) * 45))
    assert max(got.values()) - min(got.values()) <= 2
    shell.crash(len(shell.disk.undo))
    agent = FakeAgent(shell, boot_id=b"boot-2").join(credit=1)
    [grant] = agent.receive()
    shell.do(agent.nack(grant, final=True))
    shell.do(RetryTasks([grant.spec.id]))
    check_disk(shell.disk)
    check_beside(shell)
    serve(agent, *(5,) * 30)
    assert sum(shell.working.counters.ended.values()) == 130
    assert not shell.disk.scan(records.PARKED)
    check_invariants(shell.working)


def test_a_strict_order_and_a_fair_key_go_together(shell: Shell) -> None:
    """Those of one order run in it, and take the turns of their keys as they come."""
    first = gated(shell, 4, "a", fifo_key="x") + gated(shell, 2, "b", fifo_key="x")
    fill(shell, 6, "c")
    agent = FakeAgent(shell).join()
    granted = [grant.spec.id for grant in serve(agent, *(1,) * 12)]
    assert [i for i in granted if i in {spec.id for spec in first}] == [spec.id for spec in first]
    assert len(granted) == 12
    check_disk(shell.disk)


def test_a_delayed_task_with_limits_takes_its_place_behind_them_when_it_is_due(shell: Shell) -> None:
    shell.do(SetLimit(Limit("card", 1)))
    fill(shell, 50, "flood")
    late = shell.spec(fair_key="a", limits=[Use("card")], delay_ms=5_000)
    shell.submit(late)
    agent = FakeAgent(shell).join()
    serve(agent, 10)
    shell.pass_ms(5_000)
    assert late.id in {grant.spec.id for grant in serve(agent, 1, 1)}
    check_disk(shell.disk)


def test_keys_have_weights(shell: Shell) -> None:
    """For what comes from then on, over a restart; 1 takes it back."""
    shell.do(WeighFairKey("default", "b", 3))
    shell.crash(len(shell.disk.undo))
    fill(shell, 100, "a", "b", "c")
    agent = FakeAgent(shell).join()
    got = keys_of(serve(agent, *(1,) * 50))
    assert got["b"] == pytest.approx(30, abs=2)
    assert got["a"] == pytest.approx(10, abs=1)
    assert shell.disk.of(records.QUEUE, QueueRecord)[b"default"].fair_weights == {"b": 3}
    shell.do(WeighFairKey("default", "b", 1))
    assert not shell.disk.scan(records.QUEUE)
    assert not shell.working.fair.weights


@pytest.mark.parametrize(("queue", "key", "weight"), [("", "a", 2), ("q", "", 2), ("q", "a", 0), ("q", "a", 1_001)])
def test_a_weight_that_is_none_is_refused(shell: Shell, queue: str, key: str, weight: int) -> None:
    with pytest.raises(BadRequest):
        shell.do(WeighFairKey(queue, key, weight))


def test_so_many_keys_have_weights_and_no_more(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAIR_WEIGHTS_MAX", 2)
    for key in ("a", "b", "b"):
        shell.do(WeighFairKey("default", key, 2))
    with pytest.raises(BadRequest, match="no more can"):
        shell.do(WeighFairKey("default", "c", 2))
