"""Affinity: among agents with room the one where a task finds what those before it left."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from taskd.core import affinity
from taskd_protocol.errors import BadRequest
from taskd_protocol.resources import LabelRule, Need, Preference, Request, Supply, Where
from taskd_protocol.task import TaskSpec, check_spec


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
    known = [word for word in ("x", "y", "z") if shell.working.affinity.agent_of(shell.spec(sticky=word))]
    assert known == ["x", "z"]


def test_a_word_is_a_name(shell: Shell) -> None:
    with pytest.raises(BadRequest, match="sticky"):
        check_spec(shell.spec(sticky="x" * 300), 1_000)
