"""Hold-ups: what a task had waited for, told when it runs and after it has ended."""

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import holdups, records
from taskd.core.attempts import kept_ids
from taskd.core.commands import SetLimit
from taskd.core.explain import explain_task, with_ended
from taskd.core.holdups import CHANGES_KEPT, MOVING, Holdups
from taskd.core.records import AttemptRecord, LeaseRecord, SpecRecord, StateRecord
from taskd_protocol.explanation import AttemptWaited, Waited
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import Need, Request, Supply, Where
from taskd_protocol.task import TaskSpec, Use

GIB = 1024**3
HAS = (Supply("cpu", 8_000), Supply("memory", 4 * GIB))


def memory(amount: int) -> Where:
    return Where([Request([Need("memory", amount)])])


def waited(shell: Shell, spec: TaskSpec) -> list[AttemptWaited]:
    stored = shell.disk.get(records.SPEC, spec.id, SpecRecord)
    state = shell.disk.find(records.STATE, spec.id, StateRecord)
    told = explain_task(shell.working, stored, state, shell.now)
    task = shell.working.tasks.get(spec.id)
    past = task.past if task is not None else state.past if state is not None else None
    last = told.attempt - (told.state in {"running", "succeeded"})
    ids = [i for i in kept_ids(spec.id, last, past) if (records.ATTEMPT, i) in shell.disk.values]
    return with_ended(told, [(i, shell.disk.get(records.ATTEMPT, i, AttemptRecord)) for i in ids]).waited


def pass_s(shell: Shell, seconds: int, *agents: FakeAgent) -> None:
    for _ in range(seconds):
        shell.pass_ms(1_000)
        for agent in agents:
            shell.do(agent.beat())


def submit(shell: Shell, where: Where | None = None, **fields: object) -> TaskSpec:
    spec = shell.spec(where=where, **fields)  # type: ignore[arg-type]  # as each test says
    shell.submit(spec)
    return spec


def about(told: list[AttemptWaited], seconds: float, attempt: int = 1, code: str = "", subject: str = "") -> None:
    """Check what was waited for before one attempt, to a second."""
    [each] = [each for each in told if each.attempt == attempt]
    [one] = [one for one in each.waited if (one.code, one.subject) == (code, subject)]
    assert one.ms == pytest.approx(seconds * 1000, abs=1_000)


def test_a_task_tells_how_long_it_waited_for_memory(shell: Shell) -> None:
    """While it waits, while it runs, after a restart, and when it has ended."""
    agent = FakeAgent(shell, supplies=HAS).join(credit=4)
    holder = submit(shell, memory(3 * GIB))
    late = submit(shell, memory(2 * GIB))
    pass_s(shell, 40, agent)
    about(waited(shell, late), 40, code="agent.resource", subject="memory")
    [grant] = agent.receive()
    shell.do(agent.ack(grant))
    agent.held.clear()
    about(waited(shell, late), 40, code="agent.resource", subject="memory")
    assert waited(shell, holder) == []
    shell.crash()
    shell.settle()
    about(waited(shell, late), 40, code="agent.resource", subject="memory")
    [grant] = agent.receive() or [*agent.held.values()]
    agent.join()
    shell.do(agent.ack(grant))
    about(waited(shell, late), 40, code="agent.resource", subject="memory")
    state = shell.disk.get(records.STATE, late.id, StateRecord)
    assert state.state == "succeeded"
    check_disk(shell.disk)


def test_one_thing_after_another(shell: Shell) -> None:
    """No agent at all, one without the name, one that is busy; the longest first."""
    spec = submit(shell)
    pass_s(shell, 5)
    other = FakeAgent(shell, "other", names=["m.g"]).join()
    pass_s(shell, 20, other)
    agent = FakeAgent(shell).join()
    pass_s(shell, 10, other, agent)
    shell.do(agent.credit(1))
    [each] = waited(shell, spec)
    assert [one.code for one in each.waited] == ["agent.name", "agent.busy", "agents.none"]
    about([each], 20, code="agent.name", subject="m.f")
    about([each], 10, code="agent.busy")
    about([each], 5, code="agents.none")


def test_what_did_not_wait_writes_nothing(shell: Shell) -> None:
    agent = FakeAgent(shell).join(credit=2)
    quick, slow = submit(shell), submit(shell)
    shell.pass_ms(900)
    for spec in (quick, slow):
        assert shell.disk.get(records.LEASE, spec.id, LeaseRecord).past is None
    third = submit(shell)
    shell.pass_ms(900)
    shell.do(agent.credit(1))
    assert shell.disk.get(records.LEASE, third.id, LeaseRecord).past is None, "less than a second"


def test_a_line_that_moves_is_not_held_up(shell: Shell) -> None:
    """Who waits its turn has waited for nothing else: that it was long shows from its times."""
    agent = FakeAgent(shell).join()
    specs = [submit(shell) for _ in range(60)]
    for _ in range(60):
        shell.pass_ms(400)
        shell.do(agent.beat())
        shell.do(agent.credit(1))
    assert all(waited(shell, spec) == [] for spec in specs)
    assert all(line.holdups is None for line in shell.working.lines.values())


def test_each_attempt_tells_its_own(shell: Shell) -> None:
    agent = FakeAgent(shell).join()
    spec = submit(shell)
    pass_s(shell, 6, agent)
    shell.do(agent.credit(1))
    [grant] = agent.receive()
    shell.do(agent.nack(grant, retry_after_ms=1_000))
    agent.held.clear()
    pass_s(shell, 12, agent)
    about(waited(shell, spec), 6, attempt=1, code="agent.busy")
    shell.do(agent.credit(1))
    told = waited(shell, spec)
    assert [each.attempt for each in told] == [1, 2]
    about(told, 11, attempt=2, code="agent.busy")
    [grant] = agent.receive()
    shell.do(agent.nack(grant, final=True))
    assert [each.attempt for each in waited(shell, spec)] == [1, 2]
    check_disk(shell.disk)


def test_what_came_later_tells_only_its_own_wait(shell: Shell) -> None:
    agent = FakeAgent(shell).join()
    first = submit(shell)
    pass_s(shell, 10, agent)
    later = submit(shell)
    pass_s(shell, 5, agent)
    shell.do(agent.credit(2))
    about(waited(shell, first), 15, code="agent.busy")
    about(waited(shell, later), 5, code="agent.busy")


def test_what_is_released_unstarted_tells_nothing_of_before(shell: Shell) -> None:
    agent = FakeAgent(shell).join()
    spec = submit(shell)
    pass_s(shell, 6, agent)
    shell.do(agent.credit(1))
    [grant] = agent.receive()
    shell.do(agent.give_back(grant))
    agent.held.clear()
    shell.do(agent.credit(1))
    assert [each.attempt for each in waited(shell, spec)] in ([], [2])


def test_few_lines_are_looked_at_at_a_time_and_all_in_the_end(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdups, "LINES_LOOKED_AT", 4)
    specs = [submit(shell, name=f"m.n{index}") for index in range(10)]
    pass_s(shell, 12)
    assert all(line.holdups is not None for line in shell.working.active.values())
    for spec in specs:
        [each] = waited(shell, spec)
        assert [one.code for one in each.waited] == ["agents.none"]


def test_what_was_waited_for_is_added_up() -> None:
    held = Holdups(1_000, "a", "")
    held.note(3_000, "b", "x")
    held.note(3_500, "b", "x")
    held.note(4_000, MOVING, "")
    held.note(6_000, "a", "")
    assert held.since(0, 10_000) == [Waited("a", "", 6_000), Waited("b", "x", 1_000)]
    assert held.since(3_200, 10_000) == [Waited("a", "", 4_000), Waited("b", "x", 800)]
    assert held.since(9_500, 10_000) == [], "under a second"
    assert held.since(11_000, 10_000) == []


def test_changes_and_reasons_are_bounded() -> None:
    held = Holdups(0, "r0", "")
    for index in range(1, 200):
        held.note(index * 1_000, f"r{index}", "")
    assert len(held.changes) == CHANGES_KEPT
    told = held.since(0, 200_000)
    assert len(told) == 4
    assert sum(one.ms for one in told) == 4_000


def test_what_waited_at_gates_tells_for_what(shell: Shell) -> None:
    """For a place of a key, for its rate, for its turn: while it is in line, and when it has ended."""
    shell.do(SetLimit(Limit("crew", concurrency=1)))
    shell.do(SetLimit(Limit("calls", tokens=1, period_ms=20_000, burst=1)))
    agent = FakeAgent(shell).join(credit=20)
    crew, calls, turns = (
        [submit(shell, **rules) for _ in range(2)]
        for rules in (
            {"limits": [Use("crew", "a")]},
            {"limits": [Use("calls", "a")]},
            {"fifo_key": "k"},
        )
    )
    grants = {grant.spec.id: grant for grant in agent.receive()}
    assert sorted(grants) == sorted([crew[0].id, calls[0].id, turns[0].id])
    pass_s(shell, 10, agent)
    for first in (crew[0], turns[0]):
        shell.do(agent.ack(grants[first.id]))
    pass_s(shell, 10, agent)
    later = {grant.spec.id: grant for grant in agent.receive()}
    for second, seconds, code, subject in (
        (crew[1], 10, "limit.key", "crew a"),
        (calls[1], 20, "limit.rate", "calls a"),
        (turns[1], 10, "limit.fifo", "k"),
    ):
        about(waited(shell, second), seconds, code=code, subject=subject)
        shell.do(agent.ack(later[second.id]))
        about(waited(shell, second), seconds, code=code, subject=subject)
    assert all(waited(shell, first) == [] for first in (crew[0], calls[0], turns[0]))
    check_disk(shell.disk)


def test_what_waited_at_a_gate_and_then_in_line_tells_both(shell: Shell) -> None:
    """Of a gate that turned nobody away meanwhile nothing is told, however old the task is."""
    shell.do(SetLimit(Limit("crew", concurrency=1)))
    agent = FakeAgent(shell, supplies=HAS).join(credit=20)
    first, holder = submit(shell, limits=[Use("crew")]), submit(shell, memory(3 * GIB))
    late = submit(shell, memory(2 * GIB), limits=[Use("crew")])
    grants = {grant.spec.id: grant for grant in agent.receive()}
    pass_s(shell, 8, agent)
    shell.do(agent.ack(grants[first.id]))
    pass_s(shell, 4, agent)
    about(waited(shell, late), 8, code="limit.key", subject="crew")
    about(waited(shell, late), 4, code="agent.resource", subject="memory")
    shell.do(agent.ack(grants[holder.id]))
    agent.receive()
    about(waited(shell, late), 8, code="limit.key", subject="crew")
    about(waited(shell, late), 4, code="agent.resource", subject="memory")
    newer = submit(shell, limits=[Use("crew", "other")])
    pass_s(shell, 3, agent)
    assert waited(shell, newer) == []
