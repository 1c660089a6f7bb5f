"""Explaining: each obstacle is named, with what it is about, and so is what a task waits for that is in no line."""

from collections.abc import Callable

import msgspec
import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.workflows import Graph, Run
from taskd.core import records
from taskd.core.commands import CancelTasks, OrderAgent, OrderQueue, SetLimit
from taskd.core.explain import explain_node, explain_task
from taskd.core.records import SpecRecord, StateRecord
from taskd.core.room import CALM_BEATS
from taskd.core.workflow_commands import OrderWorkflow, SignalWorkflow, SpawnTasks
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd_protocol.explanation import AGENTS_LISTED_MAX, AgentReason, Explanation, Misfit, Obstacle, Reason, Reasons
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import ALL, LabelRule, Need, Request, Supply, Where
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import member_id

GIB = 1024**3
HAS = (Supply("cpu", 8_000), Supply("memory", 4 * GIB), Supply("gpu", 2_000, ["0", "1"], ["t4", "t4"]))


def memory(amount: int) -> Where:
    return Where([Request([Need("memory", amount)])])


def explain(shell: Shell, spec: TaskSpec) -> Explanation:
    stored = shell.disk.get(records.SPEC, spec.id, SpecRecord)
    state = shell.disk.find(records.STATE, spec.id, StateRecord)
    return explain_task(shell.working, stored, state, shell.now)


def waits(shell: Shell, spec: TaskSpec) -> Reason:
    told = explain(shell, spec).reason
    assert told is not None
    return told


def join(shell: Shell, name: str = "a1", credit: int = 4, **fields: object) -> FakeAgent:
    return FakeAgent(shell, name, **{"supplies": HAS, **fields}).join(credit=credit)  # type: ignore[arg-type]  # as each test says


def submit(shell: Shell, where: Where | None = None, **fields: object) -> TaskSpec:
    spec = shell.spec(where=where, **fields)  # type: ignore[arg-type]  # as each test says
    shell.submit(spec)
    return spec


# -- what rules an agent out ----------------------------------------------------------------------


def no_queue(shell: Shell) -> TaskSpec:
    join(shell, queues=["other"])
    return submit(shell)


def no_name(shell: Shell) -> TaskSpec:
    join(shell)
    return submit(shell, name="m.new")


def no_label(shell: Shell) -> TaskSpec:
    join(shell, labels={"zone": "a"})
    return submit(shell, Where(labels=[LabelRule("zone", "in", ["b", "c"])]))


def too_small(shell: Shell) -> TaskSpec:
    join(shell)
    return submit(shell, memory(8 * GIB))


def has_none(shell: Shell) -> TaskSpec:
    join(shell)
    return submit(shell, Where([Request([Need("license", 1_000)])]))


def of_no_such_kind(shell: Shell) -> TaskSpec:
    join(shell)
    return submit(shell, Where([Request([Need("gpu", 1_000, kind="a100")])]))


def memory_taken(shell: Shell) -> TaskSpec:
    join(shell)
    submit(shell, memory(3 * GIB))
    return submit(shell, memory(2 * GIB))


def all_of_it(shell: Shell) -> TaskSpec:
    join(shell)
    submit(shell, memory(3 * GIB))
    return submit(shell, memory(ALL))


def parts_left(shell: Shell) -> TaskSpec:
    join(shell)
    for _ in range(2):
        submit(shell, Where([Request([Need("gpu", 600)])]))
    return submit(shell, Where([Request([Need("gpu", 800)])]))


def machine_pressed(shell: Shell) -> TaskSpec:
    agent = join(shell)
    for _ in range(CALM_BEATS):
        shell.do(msgspec.structs.replace(agent.beat(), cpu_outside=7_000))
    return submit(shell, Where([Request([Need("cpu", 4_000)])]))


def pressed_and_taken(shell: Shell) -> TaskSpec:
    """What would be missing if nobody else used the machine is told before what others use."""
    agent = join(shell)
    submit(shell, Where([Request([Need("gpu", 2_000)])]))
    for _ in range(CALM_BEATS):
        shell.do(msgspec.structs.replace(agent.beat(), cpu_outside=7_000))
    return submit(shell, Where([Request([Need("cpu", 4_000), Need("gpu", 1_000)])]))


def no_credit(shell: Shell) -> TaskSpec:
    join(shell, credit=0)
    return submit(shell)


def no_slot(shell: Shell) -> TaskSpec:
    join(shell, credit=8)
    shell.submit(*[shell.spec() for _ in range(8)])
    return submit(shell, Where(labels=[LabelRule("taskd.agent", "=", ["a1"])]))


def drained(shell: Shell) -> TaskSpec:
    join(shell)
    shell.do(OrderAgent("a1", drain=True))
    return submit(shell)


def life_too_short(shell: Shell) -> TaskSpec:
    agent = FakeAgent(shell)
    shell.do(msgspec.structs.replace(agent.offer(), life_ms=60_000))
    shell.do(agent.credit(1))
    return submit(shell, Where(life_ms=120_000))


def taken_whole(shell: Shell) -> TaskSpec:
    join(shell)
    submit(shell, Where(exclusive_host=True))
    return submit(shell)


def not_empty(shell: Shell) -> TaskSpec:
    join(shell)
    submit(shell)
    return submit(shell, Where(exclusive_host=True))


def another_apart(shell: Shell) -> TaskSpec:
    join(shell)
    submit(shell, Where(apart="db"))
    return submit(shell, Where(apart="db"))


def kept_free(shell: Shell) -> TaskSpec:
    """Another task has waited for all memory while smaller ones went by."""
    join(shell)
    submit(shell, memory(GIB))
    submit(shell, memory(4 * GIB))
    shell.pass_ms(3_000)
    FakeAgent(shell, "a2").join()  # its coming is a reason to look again
    shell.do(shell_agent(shell).credit(1))
    return submit(shell, memory(GIB))


def shell_agent(shell: Shell) -> FakeAgent:
    agent = FakeAgent(shell, "a1")
    agent.connection = shell.working.agents["a1"].connection
    return agent


def away(shell: Shell) -> TaskSpec:
    agent = join(shell)
    submit(shell)
    shell.do(agent.lose())
    return submit(shell)


OBSTACLES: list[tuple[Callable[[Shell], TaskSpec], Obstacle, str, tuple[int, int, int], bool]] = [
    (no_queue, Obstacle.QUEUE, "default", (0, 0, 0), True),
    (no_name, Obstacle.NAME, "m.new", (0, 0, 0), True),
    (no_label, Obstacle.LABEL, "zone in b, c", (0, 0, 0), True),
    (too_small, Obstacle.TOTAL, "memory", (8 * GIB, 4 * GIB, 4 * GIB), True),
    (has_none, Obstacle.TOTAL, "license", (1_000, 0, 0), True),
    (of_no_such_kind, Obstacle.TOTAL, "gpu", (1_000, 2_000, 2_000), True),
    (memory_taken, Obstacle.RESOURCE, "memory", (2 * GIB, GIB, 4 * GIB), False),
    (all_of_it, Obstacle.RESOURCE, "memory", (0, GIB, 4 * GIB), False),
    (parts_left, Obstacle.RESOURCE, "gpu", (800, 800, 2_000), False),
    (machine_pressed, Obstacle.PRESSURE, "cpu", (4_000, 1_000, 8_000), False),
    (pressed_and_taken, Obstacle.RESOURCE, "gpu", (1_000, 0, 2_000), False),
    (no_credit, Obstacle.BUSY, "", (0, 0, 0), False),
    (no_slot, Obstacle.BUSY, "", (0, 0, 0), False),
    (drained, Obstacle.DRAINING, "", (0, 0, 0), False),
    (life_too_short, Obstacle.LIFE, "", (0, 0, 0), False),
    (taken_whole, Obstacle.TAKEN, "", (0, 0, 0), False),
    (not_empty, Obstacle.NOT_EMPTY, "", (0, 0, 0), False),
    (another_apart, Obstacle.APART, "db", (0, 0, 0), False),
    (kept_free, Obstacle.HELD, "", (0, 0, 0), False),
    (away, Obstacle.ABSENT, "", (0, 0, 0), False),
]


@pytest.mark.parametrize(("make", "code", "subject", "amounts", "never"), OBSTACLES)
def test_each_obstacle_of_an_agent_is_named(
    shell: Shell,
    make: Callable[[Shell], TaskSpec],
    code: Obstacle,
    subject: str,
    amounts: tuple[int, int, int],
    *,
    never: bool,
) -> None:
    told = explain(shell, make(shell))
    [of_a1] = [each for each in told.agents if each.agent == "a1"]
    assert of_a1 == AgentReason("a1", Reason(str(code), subject, *amounts), never)
    assert told.impossible == (never and len(told.agents) == 1)
    if code == Obstacle.ABSENT:
        assert told.reason == Reason(Reasons.NO_AGENT)
    else:
        assert told.reason == told.agents[0].reason


def test_what_is_kept_free_for_a_task_is_told(shell: Shell) -> None:
    join(shell)
    submit(shell, memory(GIB))
    large = submit(shell, memory(4 * GIB))
    assert explain(shell, large).kept_free == ""
    shell.pass_ms(3_000)
    shell.do(shell_agent(shell).credit(1))
    FakeAgent(shell, "a2").join()
    submit(shell, memory(2 * GIB))
    told = explain(shell, large)
    assert told.kept_free == "a1"
    assert told.reason == Reason(Obstacle.RESOURCE, "memory", 4 * GIB, 3 * GIB, 4 * GIB)
    behind = submit(shell, memory(4 * GIB))
    assert explain(shell, behind).kept_free == "", "it is for the first of the line"


def test_where_a_task_would_rather_run_is_told(shell: Shell) -> None:
    agent = join(shell)
    submit(shell, memory(4 * GIB), sticky="x")
    [_] = agent.receive()
    other, same = [submit(shell, memory(4 * GIB), sticky=word) for word in ("y", "x")]
    assert explain(shell, other).rather == ""
    told = explain(shell, same)
    assert (told.rather, told.rather_for) == ("a1", "sticky")


def test_the_nearest_agent_says_what_is_waited_for(shell: Shell) -> None:
    """One that lacks memory now is nearer than one that will never have it, or has no such task."""
    join(shell, "never", supplies=(Supply("memory", GIB),))
    join(shell, "other", names=["m.g"])
    join(shell, "soon")
    submit(shell, memory(3 * GIB))
    told = explain(shell, submit(shell, memory(2 * GIB)))
    assert [each.agent for each in told.agents] == ["soon", "never", "other"]
    assert told.reason == Reason(Obstacle.RESOURCE, "memory", 2 * GIB, GIB, 4 * GIB)
    assert not told.impossible


def test_many_agents_are_counted(shell: Shell) -> None:
    for index in range(AGENTS_LISTED_MAX + 5):
        FakeAgent(shell, f"n{index:02}", names=["m.g"]).join()
    FakeAgent(shell, "z", queues=["other"]).join()
    told = explain(shell, submit(shell))
    assert len(told.agents) == AGENTS_LISTED_MAX
    assert told.others == {"agent.name": 5, "agent.queue": 1}


def test_without_an_agent_one_is_waited_for(shell: Shell) -> None:
    told = explain(shell, submit(shell))
    assert told.reason == Reason(Reasons.NO_AGENT)
    assert (told.agents, told.impossible) == ([], False)


def test_what_has_room_is_about_to_be_granted(shell: Shell) -> None:
    agent = join(shell, credit=0)
    first, second = submit(shell), submit(shell)
    shell.ask(agent.credit(1))
    assert waits(shell, first) == Reason(Reasons.PLACING)
    assert waits(shell, second) == Reason(Reasons.AHEAD, count=1)


# -- place and pace -------------------------------------------------------------------------------


def test_the_place_in_line_is_exact_in_the_window(shell: Shell) -> None:
    submit(shell, name="m.g", priority=3)
    specs = [submit(shell) for _ in range(5)]
    high = submit(shell, priority=5)
    places = [explain(shell, spec).place for spec in [high, *specs]]
    assert [place.ahead for place in places if place] == [0, 1, 2, 3, 4, 5]
    assert {(place.ready, place.is_exact) for place in places if place} == {(6, True)}
    assert [place.lines_before for place in places if place] == [0, 1, 1, 1, 1, 1]


def test_beyond_the_window_the_place_is_estimated(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [("WINDOW_TASKS_MAX", 16), ("WINDOW_LOW", 4), ("REFILL_TASKS", 8)]:
        monkeypatch.setattr(f"taskd.core.lines.{name}", value)
    specs = [submit(shell) for _ in range(120)]
    low = submit(shell, priority=-3)
    told = [explain(shell, spec).place for spec in specs]
    window = shell.working.active[next(iter(shell.working.active))].window_count
    assert 0 < window < 100
    for true, place in enumerate(told):
        assert place is not None
        assert place.is_exact == (true < window)
        assert place.ahead_min <= true
        assert abs(place.ahead - true) <= (0 if place.is_exact else 3)
    last = explain(shell, low).place
    assert last is not None
    assert (last.ahead, last.is_exact) == (120, False)


def test_the_start_is_estimated_from_what_was_granted_of_late(shell: Shell) -> None:
    agent = join(shell)
    specs = [submit(shell) for _ in range(100)]
    assert explain(shell, specs[50]).starts_in_ms == -1, "four were granted at once: that is no pace"
    for _ in range(20):
        shell.pass_ms(1_000)
        shell.do(agent.beat())
        shell.do(agent.credit(2))
    told = explain(shell, specs[64])
    assert told.place is not None
    assert told.place.ahead == 20
    assert told.per_minute == pytest.approx(120, rel=0.15)
    assert told.starts_in_ms == pytest.approx(10_500, rel=0.15)
    for _ in range(50):
        shell.pass_ms(1_000)
        shell.do(agent.beat())
    told = explain(shell, specs[64])
    assert (told.starts_in_ms, told.per_minute) == (-1, 0), "none of late"


def test_a_line_that_is_being_read_says_so(shell: Shell) -> None:
    spec = submit(shell)
    shell.crash()
    assert waits(shell, spec) == Reason(Reasons.NO_AGENT)
    shell.ask(FakeAgent(shell).offer())
    shell.ask(shell_agent(shell).credit(1))
    assert waits(shell, spec) == Reason(Reasons.READING)


# -- what is in no line ---------------------------------------------------------------------------


def test_a_delay_and_a_backoff_tell_when_they_end(shell: Shell) -> None:
    later = submit(shell, delay_ms=90_000)
    assert waits(shell, later) == Reason(Reasons.DELAY, until_ms=shell.wall_ms + 90_000)
    agent = join(shell)
    failed = submit(shell)
    [grant] = agent.receive()
    shell.do(agent.nack(grant, retry_after_ms=7_000))
    told = explain(shell, failed)
    assert told.reason == Reason(Reasons.BACKOFF, count=1, until_ms=shell.wall_ms + 7_000)
    assert told.failure is not None
    assert told.failure.message == "boom"


def test_what_runs_tells_where_and_what_it_holds(shell: Shell) -> None:
    agent = join(shell)
    spec = submit(shell, memory(GIB))
    told = explain(shell, spec)
    assert (told.state, told.agent, told.reason, told.attempt) == ("running", "a1", None, 1)
    assert told.holds is not None
    assert [(hold.name, hold.amount) for hold in told.holds.holds] == [("memory", GIB)]
    assert told.started_at_ms == shell.wall_ms
    shell.do(CancelTasks([spec.id]))
    assert waits(shell, spec) == Reason(Reasons.PROOF, "a1")
    shell.do(agent.lose())
    assert waits(shell, spec) == Reason(Reasons.AWAY, "a1")


def test_what_has_ended_tells_how(shell: Shell) -> None:
    agent = join(shell)
    good, bad = submit(shell), submit(shell)
    first, second = agent.receive()
    shell.do(agent.ack(first))
    shell.do(agent.nack(second, final=True))
    told = explain(shell, good)
    assert (told.state, told.agent, told.reason, told.failure) == ("succeeded", "a1", None, None)
    assert told.finished_at_ms == shell.wall_ms
    told = explain(shell, bad)
    assert (told.state, told.reason) == ("dead", None)
    assert told.failure is not None
    assert (told.failure.code, told.failure.traceback) == ("task.raised", "")


def test_what_waits_for_its_children_names_them(shell: Shell) -> None:
    agent = FakeAgent(shell, names=["m.f"]).join(credit=1)
    spec = submit(shell)
    [grant] = agent.receive()
    shell.do(SpawnTasks("a1", grant.token, 0, [TaskSpec(b"", "m.child", b"\x90") for _ in range(12)]))
    shell.do(agent.nack(grant, outcome="waiting"))
    told = waits(shell, spec)
    assert (told.code, told.count, told.total, len(told.named)) == (Reasons.CHILDREN, 12, 12, 8)
    shell.crash()
    assert waits(shell, spec) == Reason(Reasons.CHILDREN, total=12), "not read yet"


# -- nodes ----------------------------------------------------------------------------------------


def node(run: Run, name: str, parents: dict[str, str]) -> Explanation:
    position = run.graph.names[name]
    node_id = member_id(run.id, position)
    shell = run.shell
    return explain_node(
        shell.working,
        run.graph.nodes[position],
        node_id,
        workflow=shell.disk.get(records.WORKFLOW, run.id, WorkflowRecord),
        record=shell.disk.find(records.NODE, node_id, NodeRecord),
        parents=list(parents.items()),
    )


def test_a_node_names_those_that_it_comes_after(shell: Shell) -> None:
    run = Run(shell, Graph().add("a").add("b").add("c", "a", "b"))
    told = node(run, "c", {"a": "succeeded", "b": "running"})
    assert (told.state, told.name) == ("blocked", "m.f")
    assert told.reason == Reason(Reasons.NODES, total=2, count=1, named=["b"])
    assert node(run, "c", {"a": "succeeded", "b": "dead"}).reason == Reason(Reasons.TURN)


def test_a_node_of_a_phase_waits_for_all_others(shell: Shell) -> None:
    run = Run(shell, Graph().add("a").add("mail", phase="on_failure"))
    assert node(run, "mail", {}).reason == Reason(Reasons.PHASE, "on_failure")


def test_a_node_that_sleeps_and_one_that_waits_for_a_signal(shell: Shell) -> None:
    graph = Graph().add("nap", kind="sleep", wait_ms=60_000).add("gate", kind="signal", signal="go")
    run = Run(shell, graph)
    assert node(run, "nap", {}).reason == Reason(Reasons.SLEEP, until_ms=shell.wall_ms + 60_000)
    assert node(run, "gate", {}).reason == Reason(Reasons.SIGNAL, "go")
    shell.do(SignalWorkflow(run.id, "go", b"\xc0"))
    told = node(run, "gate", {})
    assert (told.state, told.reason) == ("succeeded", None)


def test_a_node_of_what_has_ended_waits_for_nothing(shell: Shell) -> None:
    run = Run(shell, Graph().add("a").add("b", "a"))
    shell.do(OrderWorkflow(run.id, "cancel"))
    told = node(run, "b", {"a": "cancelled"})
    assert (told.state, told.reason) == ("skipped", None)


def test_a_node_that_maps_counts_its_children(shell: Shell) -> None:
    graph = Graph().add("items", kind="value", packed=b"\x93\x01\x02\x03").add("each", "items", kind="map", over=0)
    run = Run(shell, graph)
    told = node(run, "each", {"items": "succeeded"}).reason
    assert told is not None
    assert (told.code, told.count, told.total, len(told.named)) == (Reasons.CHILDREN, 3, 3, 3)


# -- at the submit --------------------------------------------------------------------------------


def test_a_submit_that_no_agent_could_run_is_warned_of(shell: Shell) -> None:
    """Once for all that ask the same, with what the nearest agent lacks."""
    join(shell, "small", labels={"zone": "a"}, supplies=(Supply("memory", GIB),))
    join(shell, labels={"zone": "a"})
    join(shell, "other", names=["m.g"])
    there = Where(labels=[LabelRule("zone", "=", ["b"])])
    specs = [shell.spec(), shell.spec(where=memory(GIB)), *(shell.spec(where=memory(9 * GIB)) for _ in range(2))]
    answer = shell.submit(*specs, shell.spec(where=there))
    assert answer.warnings == [
        Misfit(2, Reason(Obstacle.TOTAL, "memory", 9 * GIB, 4 * GIB, 4 * GIB)),
        Misfit(4, Reason(Obstacle.LABEL, "zone = b")),
    ]


def test_a_submit_that_some_agent_could_run_is_not_warned_of(shell: Shell) -> None:
    """Nor one of a task that no agent has yet, nor one that was there."""
    assert not shell.submit(shell.spec(where=memory(9 * GIB))).warnings, "no agent at all"
    join(shell)
    assert not shell.submit(shell.spec("m.new", where=memory(9 * GIB))).warnings
    large = shell.spec(where=memory(9 * GIB))
    assert shell.submit(large).warnings
    assert shell.submit(large).existing == [(0, large.id)]
    assert not shell.submit(large).warnings
    join(shell, "large", supplies=(Supply("memory", 16 * GIB),), credit=0)
    assert not shell.submit(shell.spec(where=memory(9 * GIB))).warnings


def test_without_a_pace_a_rate_tells_when_it_may_start(shell: Shell) -> None:
    """And no pause: nobody knows when that ends."""
    shell.do(SetLimit(Limit("task:m.f", tokens=6, period_ms=60_000, burst=1)))
    specs = [shell.spec() for _ in range(4)]
    shell.submit(*specs)
    told = explain(shell, specs[3])
    assert (told.starts_in_ms, told.by_rate) == (30_000, True)
    assert told.per_minute == pytest.approx(6)
    shell.do(OrderQueue("default", drain=False, pause=True))
    told = explain(shell, specs[3])
    assert (told.starts_in_ms, told.by_rate) == (-1, False)
