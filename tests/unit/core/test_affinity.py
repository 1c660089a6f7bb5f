"""Affinity: among agents with room the one where a task finds what those before it left."""

import pytest
from msgspec.structs import replace

from harness.agent import FakeAgent
from harness.core import Shell
from harness.workflows import Graph, Run, task
from taskd.core import affinity
from taskd_protocol.errors import BadRequest
from taskd_protocol.limits import KEPT_RESULT_BYTES_MIN
from taskd_protocol.resources import LabelRule, Need, Preference, Request, Supply, Where
from taskd_protocol.task import Given, Member, Rules, TaskSpec, check_spec
from taskd_protocol.workflow import NIL


def machines(shell: Shell, *names: str, credit: int = 50, **labels: str) -> list[FakeAgent]:
    supplies = [Supply("cpu", 8_000)]
    return [FakeAgent(shell, name, supplies=supplies, labels=labels).join(credit=credit) for name in names]


def cpu(*prefers: Preference) -> Where:
    return Where([Request([Need("cpu", 1_000)])], prefers=list(prefers))


def where_runs(shell: Shell, agents: list[FakeAgent], *specs: TaskSpec) -> dict[bytes, str]:
    """Submit these one after the other, each ending before the next; return who had each."""
    had: dict[bytes, str] = {}
    for spec in specs:
        shell.submit(spec)
        for agent in agents:
            for grant in agent.receive():
                had[grant.spec.id] = agent.name
                shell.do(agent.ack(grant))
                shell.do(agent.credit(1))
    return had


@pytest.mark.parametrize("where", [None, cpu()])
def test_tasks_of_a_word_stay_on_an_agent_while_it_has_room(shell: Shell, where: Where | None) -> None:
    agents = machines(shell, "a1", "a2", "a3")
    words = ("x", "y", "z", "x", "y", "z", "z", "y", "x")
    specs = [shell.spec(where=where, sticky=word) for word in words]
    shell.submit(*specs[:3])
    held = {grant.spec.rules.sticky: (agent, grant) for agent in agents for grant in agent.receive()}
    assert len({agent.name for agent, _ in held.values()}) == 3, "without a word that is known they are spread"
    had = where_runs(shell, agents, *specs[3:])
    assert [had[spec.id] for spec in specs[3:]] == [held[word][0].name for word in words[3:]]


@pytest.mark.parametrize("where", [None, cpu()])
def test_no_task_waits_for_an_agent_that_is_full_or_gone(shell: Shell, where: Where | None) -> None:
    agents = machines(shell, "a1", "a2")
    first = shell.spec(where=where, sticky="x")
    shell.submit(first)
    home = next(agent for agent in agents if agent.receive())
    [other] = [agent for agent in agents if agent is not home]
    shell.submit(*[shell.spec(where=where, sticky="x") for _ in range(10)])
    assert len(home.receive()) == 7, "it has eight slots, and CPUs"
    assert len(other.receive()) == 3
    shell.do(home.lose())
    shell.submit(shell.spec(where=where, sticky="x"))
    assert len(other.receive()) == 1


def test_preferences_come_before_it(shell: Shell) -> None:
    [plain] = machines(shell, "a1")
    where = cpu(Preference(LabelRule("disk", "=", ["ssd"]), 10))
    first, second = shell.spec(where=where, sticky="x"), shell.spec(where=where, sticky="x")
    assert where_runs(shell, [plain], first) == {first.id: "a1"}
    [fast] = machines(shell, "a2", disk="ssd")
    assert where_runs(shell, [plain, fast], second) == {second.id: "a2"}


def test_it_comes_before_the_load_also_where_preferences_are_compared(shell: Shell) -> None:
    agents = machines(shell, "a1", "a2", disk="ssd")
    where = cpu(Preference(LabelRule("disk", "=", ["ssd"]), 10))
    shell.submit(shell.spec(where=where, sticky="x"))
    home = next(agent for agent in agents if agent.receive())
    shell.submit(*[shell.spec(where=where, sticky="x") for _ in range(3)])
    assert len(home.receive()) == 3


def test_the_best_of_its_alternatives_comes_before_it(shell: Shell) -> None:
    """Who would rather have a GPU is not kept from it by where the last one ran for want of one."""
    [small] = machines(shell, "a1")
    where = Where([Request([Need("gpu", 1_000)]), Request([Need("cpu", 1_000)])])
    first, second = [shell.spec(where=where, sticky="x") for _ in range(2)]
    assert where_runs(shell, [small], first) == {first.id: "a1"}
    large = FakeAgent(shell, "a2", supplies=[Supply("cpu", 8_000), Supply("gpu", 1_000, ["0"])]).join(credit=9)
    shell.submit(second)
    assert [grant.spec.id for grant in large.receive()] == [second.id]


def test_the_words_used_last_are_known(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "WORDS_MAX", 2)
    agents = machines(shell, "a1")
    where_runs(shell, agents, *[shell.spec(sticky=word) for word in ("x", "y", "x", "z")])
    known = [word for word in ("x", "y", "z") if shell.working.affinity.agents_of(shell.spec(sticky=word))]
    assert known == ["x", "z"]


def test_a_word_is_a_name(shell: Shell) -> None:
    with pytest.raises(BadRequest, match="sticky"):
        check_spec(shell.spec(sticky="x" * 300), 1_000)


LARGE, LARGER = bytes(KEPT_RESULT_BYTES_MIN), bytes(2 * KEPT_RESULT_BYTES_MIN)


def where_made(run: Run, agents: list[FakeAgent], results: dict[str, bytes], full: str = "") -> dict[str, str]:
    """Have each agent make one of these nodes' results; return who made which. One may take no more after it."""
    held = [(agent, grant) for agent in agents for grant in agent.receive()]
    made = {run.name_of(grant): agent.name for agent, grant in held}
    for agent, grant in held:
        if run.name_of(grant) == full:
            run.shell.do(agent.credit(0))
    for agent, grant in held:
        run.shell.do(agent.ack(grant, result=results[run.name_of(grant)]))
    assert len(made) == len(agents)
    return made


@pytest.mark.parametrize("where", [None, cpu()])
def test_a_node_goes_to_where_most_bytes_of_its_inputs_were_made(shell: Shell, where: Where | None) -> None:
    agents = machines(shell, "a1", "a2", "a3")
    at = replace(task(inputs=3), given=None if where is None else Rules(where=where))
    run = Run(shell, Graph().add("a").add("b").add("c").add("total", "a", "b", "c", task=at))
    made = where_made(run, agents, {"a": LARGE, "b": LARGER, "c": LARGE})
    assert [agent.name for agent in agents if agent.receive()] == [made["b"]]


@pytest.mark.parametrize("where", [None, cpu()])
def test_if_that_one_is_full_it_is_the_next_and_else_any(shell: Shell, where: Where | None) -> None:
    agents = machines(shell, "a1", "a2", "a3")
    at = replace(task(inputs=2), given=None if where is None else Rules(where=where))
    run = Run(shell, Graph().add("a").add("b").add("x").add("t", "a", "b", task=at).add("u", "b", "x", task=at))
    made = where_made(run, agents, {"a": LARGE, "b": LARGER, "x": NIL}, full="b")
    had = {run.name_of(grant): agent.name for agent in agents for grant in agent.receive()}
    assert had == {"t": made["a"], "u": made["x"]}, "the others, of which one has a task already"


def test_small_results_and_those_of_before_a_start_are_of_no_account(shell: Shell) -> None:
    run = Run(shell, Graph().add("small").add("large").add("total", "small", "large"))
    first = run.take()
    run.ack(first["small"], LARGE[:-1])
    run.ack(first["large"], LARGE)
    [small, large] = run.take()["total"].spec.rules.member.inputs  # type: ignore[union-attr]  # of a workflow's task
    assert (small.maker, large.maker) == (0, first["large"].token)
    assert shell.working.affinity
    shell.crash()
    assert not shell.working.affinity


def test_who_made_the_results_of_last_is_known(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "RESULTS_MAX", 2)
    run = Run(shell, Graph().add("a").add("b").add("c"))
    grants = run.take()
    for name in "abc":
        run.ack(grants[name], LARGE)
    makers = [shell.working.affinity.maker_of(run.node_id(name)) for name in "abc"]
    assert makers == [0, grants["b"].token, grants["c"].token]


def test_an_attempt_that_ran_again_has_made_another_result(shell: Shell) -> None:
    """What the first one left on its agent is not taken for it."""
    known = affinity.Affinity()
    known.note_made(b"a", 1, "a1", len(LARGE))
    spec = shell.spec()
    given = replace(spec, given=Rules(member=Member([Given(id=b"a", maker=1)])))
    assert known.agents_of(given) == ["a1"]
    known.note_made(b"a", 2, "a2", len(LARGE))
    assert known.agents_of(given) == []
    assert known.maker_of(b"a") == 2
