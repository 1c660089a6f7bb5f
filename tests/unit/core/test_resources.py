"""Resources: what is asked for is granted where it is, one by one, and taken back."""

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from taskd.core import choosing
from taskd.core.agent_commands import NackAttempts
from taskd.core.fitting import never, not_now
from taskd.core.peaks import MARGIN, STEP, UNKNOWN_BYTES, added, proposal
from taskd.core.records import PeaksRecord
from taskd_protocol.explanation import Obstacle
from taskd_protocol.resources import ALL, LEARNED, LabelRule, Need, Preference, Request, Supply, Where
from taskd_protocol.task import Failure, Grant, Pool, TaskSpec

GIB = 1 << 30
OUT_OF_MEMORY = Failure("worker.out_of_memory", "it held more than it was granted")


def machine(
    shell: Shell, name: str = "a1", *, cpus: int = 4, memory: int = 8, gpus: int = 0, **labels: str
) -> FakeAgent:
    supplies = [Supply("cpu", cpus * 1_000), Supply("memory", memory * GIB)]
    if gpus:
        supplies.append(Supply("gpu", gpus * 1_000, [str(i) for i in range(gpus)], ["a100-sxm4-80gb"] * gpus))
    return FakeAgent(shell, name, supplies=supplies, labels=labels).join(credit=50)


def wish(shell: Shell, *needs: Need, **where: object) -> TaskSpec:
    return shell.spec(where=Where([Request(list(needs))] if needs else [], **where))  # type: ignore[arg-type]


def cpu(amount: float) -> Need:
    return Need("cpu", round(amount * 1_000))


def holds(grant: Grant) -> dict[str, int]:
    assert grant.granted is not None
    return {hold.name: hold.amount for hold in grant.granted.holds}


def test_no_more_is_granted_than_there_is(shell: Shell) -> None:
    """Four CPUs are two tasks of two; the third comes when one has ended."""
    agent = machine(shell)
    shell.submit(*[wish(shell, cpu(2)) for _ in range(3)])
    first, second = agent.receive()
    assert holds(first) == {"cpu": 2_000}
    shell.do(agent.ack(first))
    [third] = agent.receive()
    assert third.spec.id not in {first.spec.id, second.spec.id}


def test_plain_tasks_count_as_slots(shell: Shell) -> None:
    """Eight slots on four CPUs: six plain tasks leave one CPU."""
    agent = machine(shell)
    shell.submit(*[shell.spec() for _ in range(6)])
    shell.submit(wish(shell, cpu(1.5)), wish(shell, cpu(1)))
    grants = [grant for grant in agent.receive() if grant.granted]
    assert [holds(grant) for grant in grants] == [{"cpu": 1_000}]


def test_each_pool_has_its_own_slots(shell: Shell) -> None:
    """A task that holds little starts at once, so it is granted only where a slot of its own pool is free."""
    pools = [Pool("process", 2, ["m.f"]), Pool("command", 2, ["m.g"])]
    agent = FakeAgent(shell, supplies=[Supply("cpu", 4_000)])
    agent.pools = pools
    agent.join()
    shell.do(agent.credit(9, pool=0))
    shell.submit(*[wish(shell, cpu(0.5)) for _ in range(3)])
    assert len(agent.receive()) == 2
    shell.do(agent.credit(9, pool=1))
    shell.submit(*[shell.spec("m.g", where=Where([Request([cpu(0.5)])])) for _ in range(3)])
    assert len(agent.receive()) == 2


def test_nothing_plain_is_granted_where_all_cpus_are_held(shell: Shell) -> None:
    agent = machine(shell)
    shell.submit(wish(shell, cpu(4)))
    [held] = agent.receive()
    shell.submit(shell.spec())
    assert not agent.receive()
    shell.do(agent.ack(held))
    assert len(agent.receive()) == 1


def test_alternatives_are_met_in_order(shell: Shell) -> None:
    agent = machine(shell, gpus=1)
    either = Where([Request([Need("gpu", 1_000)]), Request([cpu(4)])])
    shell.submit(*[shell.spec(where=either) for _ in range(3)])
    grants = agent.receive()
    assert [(g.granted.alternative, holds(g)) for g in grants if g.granted] == [
        (0, {"gpu": 1_000}),
        (1, {"cpu": 4_000}),
    ]


def test_parts_of_a_gpu_share_one_and_whole_ones_stay_whole(shell: Shell) -> None:
    agent = machine(shell, gpus=2)
    shell.submit(*[wish(shell, Need("gpu", 500)) for _ in range(2)], wish(shell, Need("gpu", 1_000)))
    items = [grant.granted.holds[0].items for grant in agent.receive() if grant.granted]
    assert sorted(items) == [["0"], ["0"], ["1"]]


def test_an_item_by_its_name_or_kind(shell: Shell) -> None:
    agent = machine(shell, gpus=2)
    shell.submit(
        wish(shell, Need("gpu", 1_000, items=["1"])),
        wish(shell, Need("gpu", 1_000, kind="a100")),
        wish(shell, Need("gpu", 1_000, kind="t4")),
        wish(shell, Need("gpu", 1_000, kind="a10")),
    )
    items = [grant.granted.holds[0].items for grant in agent.receive() if grant.granted]
    assert sorted(items) == [["0"], ["1"]]


def test_labels_are_obeyed_and_preferences_weighed(shell: Shell) -> None:
    here, there = machine(shell, "a1", zone="a"), machine(shell, "a2", zone="b", disk="ssd")
    only_a = (LabelRule("zone", "=", ["a"]),)
    shell.submit(
        wish(shell, labels=list(only_a)), wish(shell, prefers=[Preference(LabelRule("disk", "=", ["ssd"]), 5)])
    )
    assert len(here.receive()) == len(there.receive()) == 1
    shell.submit(wish(shell, labels=[LabelRule("taskd.agent", "=", ["a2"])]))
    assert len(there.receive()) == 1


def test_numbers_are_compared_as_numbers(shell: Shell) -> None:
    small, large = machine(shell, "a1", disk="9"), machine(shell, "a2", disk="10")
    shell.submit(*[wish(shell, labels=[LabelRule("disk", ">=", ["10"])]) for _ in range(3)])
    assert not small.receive()
    assert len(large.receive()) == 3


def test_exclusive_host_waits_for_an_empty_agent_and_fills_it(shell: Shell) -> None:
    agent = machine(shell)
    shell.submit(shell.spec())
    [plain] = agent.receive()
    shell.submit(wish(shell, cpu(1), exclusive_host=True))
    assert not agent.receive()
    shell.do(agent.ack(plain))
    [alone] = agent.receive()
    assert holds(alone) == {"cpu": 4_000, "memory": 8 * GIB}
    shell.submit(shell.spec())
    assert not agent.receive()
    shell.do(agent.ack(alone))
    assert len(agent.receive()) == 1


def test_what_is_to_be_apart_runs_once_an_agent(shell: Shell) -> None:
    agents = [machine(shell, f"a{i}") for i in range(3)]
    shell.submit(*[wish(shell, apart="db") for _ in range(5)])
    assert [len(agent.receive()) for agent in agents] == [1, 1, 1]


def test_spread_goes_evenly_over_a_label(shell: Shell) -> None:
    agents = [machine(shell, f"a{i}", cpus=(16, 2, 2)[i], rack=("r1", "r2", "r2")[i]) for i in range(3)]
    shell.submit(*[wish(shell, cpu(1), spread="rack") for _ in range(4)])
    counts = [len(agent.receive()) for agent in agents]
    assert counts == [2, 1, 1]


def test_pack_fills_one_agent_before_the_next(shell: Shell) -> None:
    agents = [machine(shell, f"a{i}") for i in range(3)]
    shell.submit(*[wish(shell, cpu(1), pack=True) for _ in range(4)])
    assert sorted(len(agent.receive()) for agent in agents) == [0, 0, 4]


def test_a_large_task_does_not_starve_behind_small_ones(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """While small ones keep coming, an agent is kept free for the large one that waits."""
    monkeypatch.setattr(choosing, "KEPT_FREE_AFTER_MS", 1_000)
    agent = machine(shell)
    shell.submit(*[wish(shell, cpu(1)) for _ in range(4)])
    large = wish(shell, cpu(4))
    shell.submit(large)
    for _ in range(40):
        running = agent.receive()
        if any(grant.spec.id == large.id for grant in running):
            break
        shell.submit(wish(shell, cpu(1)))
        shell.mono_ms += 200
        shell.do(agent.ack(agent.held.pop(next(iter(agent.held)))))
    assert large.id in {grant.spec.id for grant in agent.held.values()}


def test_a_host_that_others_use_gets_nothing_heavy(shell: Shell) -> None:
    """And it gets some again when it has been calm for three heartbeats."""
    agent = machine(shell)
    shell.do(agent.beat(cpu_outside=3_000))
    shell.submit(wish(shell, cpu(2)))
    assert not agent.receive()
    [line] = shell.working.lines.values()
    assert not_now(shell.working.agents["a1"], line, shell.now) == (Obstacle.PRESSURE, "cpu")
    for _ in range(2):
        shell.do(agent.beat(cpu_outside=500))
        assert not agent.receive()
    shell.do(agent.beat(cpu_outside=500))
    assert len(agent.receive()) == 1


def pressed(shell: Shell, agent: FakeAgent, for_ms: int) -> None:
    """Let time pass while others keep the machine busy."""
    for _ in range(for_ms // 1_000):
        shell.pass_ms(1_000)
        shell.do(agent.beat(cpu_outside=3_000))


def test_where_others_never_rest_one_task_at_a_time_runs_after_a_while(shell: Shell) -> None:
    """What they do may go on for ever, and a task that asks for CPUs would."""
    agent = machine(shell)
    shell.do(agent.beat(cpu_outside=3_000))
    shell.submit(wish(shell, cpu(2)), wish(shell, cpu(2)))
    pressed(shell, agent, choosing.PRESSED_AFTER_MS - 2_000)
    assert not agent.receive()
    pressed(shell, agent, 4_000)
    [first] = agent.receive()
    pressed(shell, agent, choosing.PRESSED_AFTER_MS + 2_000)
    assert not agent.receive(), "one at a time"
    shell.do(agent.ack(agent.held.pop(first.token)))
    pressed(shell, agent, 2_000)
    assert len(agent.receive()) == 1


def test_what_wants_an_agent_for_itself_gets_one_where_others_never_rest(shell: Shell) -> None:
    """Else the small tasks that come all the time would never leave one to it."""
    agent = machine(shell)
    alone = wish(shell, exclusive_host=True)
    shell.submit(shell.spec(), alone, shell.spec())
    for _ in range(60):
        agent.receive()
        if alone.id in {grant.spec.id for grant in agent.held.values()}:
            return
        shell.pass_ms(1_000)
        shell.do(agent.beat(cpu_outside=3_000))
        shell.submit(shell.spec())
        agent.receive()
        if agent.held:
            shell.do(agent.ack(agent.held.pop(min(agent.held))))
    raise AssertionError("it waits for ever")


def test_it_waits_for_an_agent_that_is_calm_if_there_is_one(shell: Shell) -> None:
    busy, calm = machine(shell), machine(shell, "a2")
    shell.do(busy.beat(cpu_outside=3_000))
    shell.submit(wish(shell, cpu(3)), wish(shell, cpu(3)))
    [running] = calm.receive()
    for _ in range(60):
        shell.pass_ms(1_000)
        shell.do(busy.beat(cpu_outside=3_000))
        shell.do(calm.beat())
    assert not busy.receive()
    shell.do(calm.ack(calm.held.pop(running.token)))
    assert len(calm.receive()) == 1


def test_an_agent_kept_free_that_others_then_use_is_given_up(shell: Shell) -> None:
    """The task may begin on another; and it does not begin there before its time."""
    agent = machine(shell)
    shell.submit(wish(shell, cpu(2)), wish(shell, cpu(4)))
    [running] = agent.receive()
    shell.pass_ms(2_500)
    assert list(shell.working.rooms.held.values()) == ["a1"]
    shell.do(agent.beat(cpu_outside=3_000))
    shell.do(agent.ack(agent.held.pop(running.token)))
    pressed(shell, agent, 5_000)
    assert not agent.receive()


def test_memory_that_others_use_is_not_granted_however_long_it_lasts(shell: Shell) -> None:
    agent = machine(shell)
    beat = msgspec.structs.replace(agent.beat(cpu_outside=3_000), memory_outside=4 * GIB)
    shell.do(beat)
    shell.submit(wish(shell, cpu(2), Need("memory", 6 * GIB)))
    for _ in range(60):
        shell.pass_ms(1_000)
        shell.do(beat)
    assert not agent.receive()
    assert not shell.working.rooms.held


def test_a_line_that_no_agent_could_run_keeps_no_other_from_an_agent_kept_free(shell: Shell) -> None:
    """A look for one is made for one line at a time, and the line that came first is asked first."""
    agent = machine(shell)
    for zone in "bcd":
        shell.submit(wish(shell, cpu(1), labels=[LabelRule("zone", "=", [zone])]))
    shell.submit(*[wish(shell, cpu(2)) for _ in range(2)])
    large = wish(shell, cpu(4))
    shell.submit(large)
    for _ in range(100):
        running = agent.receive()
        if any(grant.spec.id == large.id for grant in running):
            break
        shell.submit(wish(shell, cpu(2)))
        shell.pass_ms(200)
        shell.do(agent.ack(agent.held.pop(next(iter(agent.held)))))
    assert large.id in {grant.spec.id for grant in agent.held.values()}


@pytest.mark.parametrize("where", [Where(apart="db"), Where([Request([Need("memory", 8 * GIB)])])])
def test_what_asks_for_no_cpu_goes_on_where_others_use_all_of_them(shell: Shell, where: Where) -> None:
    """Less than none are left to be had, and none are asked for."""
    agent = machine(shell)
    shell.do(agent.beat(cpu_outside=4_000))
    shell.submit(shell.spec(), *[shell.spec(where=where) for _ in range(2)])
    plain, first = agent.receive()
    assert (plain.granted, first.granted is None) == (None, False)
    shell.do(agent.ack(agent.held.pop(first.token)))
    assert len(agent.receive()) == 1


@pytest.mark.parametrize("sticky", ["", "w"])
def test_an_agent_that_is_away_speaks_for_no_other_of_its_sort(shell: Shell, sticky: str) -> None:
    """What it could run is not known while it has no names; what it could is what all of its sort can."""
    away, other = machine(shell), machine(shell, "a2")
    shell.do(other.credit(0))
    shell.submit(shell.spec(where=Where([Request([cpu(1)])]), sticky=sticky))
    assert len(away.receive()) == 1, "it still has the lease, and so it is known"
    shell.do(away.lose())
    shell.submit(shell.spec(where=Where([Request([cpu(2)])]), sticky=sticky))
    shell.do(other.credit(9))
    shell.submit(shell.spec(where=Where([Request([cpu(1.5)])]), sticky=sticky))
    assert len(other.receive()) == 2


def test_an_agent_that_a_pass_gives_up_is_seen_by_the_lines_after_it(shell: Shell) -> None:
    """They had been stuck, and are looked at in the same pass: for them the agent is still to come."""
    kept, other = machine(shell), machine(shell, "a2")
    shell.do(other.credit(0))
    shell.submit(wish(shell, cpu(1)))
    shell.do(other.credit(9))
    shell.do(kept.credit(0))
    shell.submit(wish(shell, cpu(1), Need("memory", ALL)))
    [_], [first] = kept.receive(), other.receive()
    shell.do(kept.credit(9))
    large = wish(shell, cpu(4), Need("memory", ALL))
    shell.submit(large)
    shell.pass_ms(2_500)
    assert list(shell.working.rooms.held.values()) == ["a1"]
    small = shell.spec(queue="other", where=Where([Request([Need("memory", GIB)])]))
    shell.submit(small)
    assert not kept.receive()
    shell.do(other.ack(first))
    shell.settle()
    assert [grant.spec.id for grant in other.receive()] == [large.id]
    assert [grant.spec.id for grant in kept.receive()] == [small.id]


def test_what_no_agent_could_ever_do_is_told(shell: Shell) -> None:
    agent = machine(shell)
    shell.submit(wish(shell, cpu(64)), wish(shell, Need("fpga", 1_000)))
    assert not agent.receive()
    told = [never(shell.working.agents["a1"], line) for line in shell.working.lines.values()]
    assert told == [(Obstacle.TOTAL, "cpu"), (Obstacle.TOTAL, "fpga")]


def test_a_restart_counts_what_leases_hold(shell: Shell) -> None:
    agent = machine(shell)
    shell.submit(wish(shell, cpu(3)))
    [held] = agent.receive()
    shell.crash()
    agent.join(credit=50)
    shell.submit(wish(shell, cpu(2)))
    assert not agent.receive()
    shell.do(agent.ack(held))
    assert len(agent.receive()) == 1


def test_a_death_for_want_of_memory_has_the_next_attempt_ask_for_more(shell: Shell) -> None:
    agent = machine(shell)
    shell.submit(wish(shell, Need("memory", GIB)))
    [first] = agent.receive()
    shell.do(agent.nack(first, outcome="crashed", failure=OUT_OF_MEMORY, retry_after_ms=0))
    shell.pass_ms(10)
    [second] = agent.receive()
    assert holds(second) == {"memory": 2 * GIB}


def test_what_was_killed_far_above_its_memory_asks_for_more_than_it_held(shell: Shell) -> None:
    """It had not come to its end: with what it held when it was killed, and no more, it would be killed again."""
    agent = machine(shell)
    shell.submit(wish(shell, Need("memory", GIB)))
    [first] = agent.receive()
    died = agent.nack(first, outcome="crashed", failure=OUT_OF_MEMORY, retry_after_ms=0)
    shell.do(NackAttempts(died.agent, [msgspec.structs.replace(report, peak_bytes=4 * GIB) for report in died.reports]))
    shell.pass_ms(10)
    [second] = agent.receive()
    assert holds(second) == {"memory": int(4 * GIB * MARGIN)}


@pytest.mark.parametrize("amount", [8 * GIB, 6 * GIB, ALL])
def test_no_attempt_asks_for_more_than_the_largest_agent_has_that_could_run_it(shell: Shell, amount: int) -> None:
    """It would wait for ever; its next attempts may do with what there is, or end it."""
    agent = machine(shell)
    FakeAgent(shell, "a2", names=["m.g"], supplies=[Supply("cpu", 4_000), Supply("memory", 64 * GIB)]).join(credit=9)
    shell.submit(wish(shell, Need("memory", amount)))
    for attempt in (1, 2):
        [grant] = agent.receive()
        assert holds(grant) == {"memory": 8 * GIB if attempt == 2 or not amount else amount}
        shell.do(agent.nack(grant, outcome="crashed", failure=OUT_OF_MEMORY, retry_after_ms=0))
        shell.pass_ms(10)


def test_what_had_all_of_an_agent_leaves_its_alternative_as_it_was(shell: Shell) -> None:
    agent = machine(shell)
    either = [Request([Need("memory", ALL)]), Request([Need("memory", 4 * GIB)])]
    shell.submit(shell.spec(where=Where(either)))
    [first] = agent.receive()
    shell.do(agent.nack(first, outcome="crashed", failure=OUT_OF_MEMORY, retry_after_ms=1_000))
    shell.submit(wish(shell, Need("memory", 4 * GIB)))
    shell.pass_ms(1_010)
    assert [holds(grant) for grant in agent.receive()] == [{"memory": 4 * GIB}] * 2


def test_memory_is_learned(shell: Shell) -> None:
    agent = machine(shell)
    shell.submit(wish(shell, Need("memory", LEARNED)))
    [first] = agent.receive()
    assert holds(first) == {"memory": UNKNOWN_BYTES}
    shell.do(agent.ack(first))
    shell.submit(wish(shell, Need("memory", LEARNED)))
    [second] = agent.receive()
    assert 100 << 20 < holds(second)["memory"] < 200 << 20
    assert shell.disk.of(b"M", PeaksRecord)[b"m.f"].highest == 100 << 20  # type: ignore[arg-type]


def test_a_proposal_is_enough_for_95_of_100() -> None:
    peaks = None
    for peak in [GIB] * 95 + [8 * GIB] * 5:
        peaks = added(peaks, peak)
    assert GIB * MARGIN < proposal(peaks) < GIB * MARGIN * STEP * 1.01
    assert proposal(added(peaks, 8 * GIB)) > 8 * GIB
