"""Preemption: what may be stopped is, for what is of a higher priority and has waited; and everything ends."""

from collections.abc import Sequence

import pytest

from harness.agent import FakeAgent
from harness.core import Shell
from harness.fsck import check_disk
from taskd.core import choosing, preemption, records
from taskd.core.commands import CancelTasks, GoOn, SetLimit
from taskd.core.effects import Continue
from taskd.core.fleet import Agent
from taskd.core.lines import Line, Task
from taskd.core.preemption import LOOK_MS, PREEMPTED_MAX, ROOM_MS
from taskd.core.records import AttemptRecord
from taskd_protocol.errors import BadRequest
from taskd_protocol.limiting import Limit
from taskd_protocol.resources import Need, Request, Supply, Where
from taskd_protocol.task import Grant, TaskSpec, check_spec

PATIENCE_MS = choosing.KEPT_FREE_AFTER_MS + 2 * LOOK_MS


def machine(shell: Shell, name: str = "a1", *, cpus: int = 4, credit: int = 50) -> FakeAgent:
    return FakeAgent(shell, name, supplies=[Supply("cpu", cpus * 1_000)]).join(credit=credit)


def job(shell: Shell, cpus: float = 0, **fields: object) -> TaskSpec:
    where = Where([Request([Need("cpu", round(cpus * 1_000))])]) if cpus else None
    return shell.spec(where=where, **fields)  # type: ignore[arg-type]


def begin(shell: Shell, agent: FakeAgent, *specs: TaskSpec) -> list[Grant]:
    shell.submit(*specs)
    grants = agent.receive()
    assert len(grants) == len(specs)
    return grants


def stop(shell: Shell, agent: FakeAgent, *grants: Grant) -> None:
    shell.do(agent.nack(*grants, outcome="cancelled"))
    for grant in grants:
        agent.revoked.remove(grant.token)


def outcomes(shell: Shell, task_id: bytes) -> list[str]:
    shell.settle()
    return [
        record.outcome for key, record in shell.disk.of(records.ATTEMPT, AttemptRecord).items() if key[:16] == task_id
    ]


def test_the_fewest_that_began_last_are_stopped_and_go_on_later(shell: Shell) -> None:
    """Its checkpoint is kept, it costs nothing, and what is older in line does not get what was made room for."""
    agent = machine(shell)
    old, young = begin(shell, agent, job(shell, 2, preemptible=True), job(shell, 2, preemptible=True))
    shell.do(agent.checkpoint(young, b"\x07"))
    shell.submit(job(shell, 2, preemptible=True))
    urgent = job(shell, 1.5, priority=1)
    shell.submit(urgent)
    shell.pass_ms(choosing.KEPT_FREE_AFTER_MS - LOOK_MS)
    assert agent.receive() == []
    assert not agent.revoked, "room comes by itself, mostly"
    shell.pass_ms(3 * LOOK_MS)
    agent.receive()
    assert agent.revoked == {young.token}
    stop(shell, agent, young)
    [granted] = agent.receive()
    assert granted.spec.id == urgent.id
    assert outcomes(shell, young.spec.id) == ["preempted"]
    shell.do(agent.ack(old, granted))
    again = {grant.spec.id: grant for grant in agent.receive()}
    assert again[young.spec.id].details == b"\x07"
    assert again[young.spec.id].attempt == 2


def test_only_what_may_be_is_stopped_and_only_for_a_higher_priority(shell: Shell) -> None:
    agent = machine(shell)
    begin(shell, agent, job(shell, 2), job(shell, 2, priority=5, preemptible=True))
    shell.submit(job(shell, 2, priority=5), job(shell, 1, priority=9, preemptible=True))
    shell.pass_ms(20_000)
    assert agent.receive() == []
    assert not agent.revoked


def test_none_is_stopped_where_that_makes_no_room_or_there_is_some(shell: Shell) -> None:
    agent = machine(shell)
    begin(shell, agent, job(shell, 1, preemptible=True), job(shell, 3))
    shell.submit(job(shell, 2, priority=1))
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    assert not agent.revoked


def test_a_plain_task_gets_the_slot_of_one(shell: Shell) -> None:
    """Nothing else is granted there meanwhile, however long it has been in line."""
    agent = FakeAgent(shell).join(credit=8)
    running = begin(shell, agent, *[job(shell, preemptible=True) for _ in range(8)])
    shell.submit(*[job(shell, preemptible=True) for _ in range(3)])
    urgent = job(shell, priority=1, queue="urgent")
    shell.submit(urgent)
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    assert agent.revoked == {running[-1].token}
    shell.do(agent.ack(running[0]))
    shell.do(agent.credit(1))
    [granted] = agent.receive()
    assert granted.spec.id == urgent.id
    stop(shell, agent, running[-1])
    shell.do(agent.credit(1))
    assert [grant.spec.rules.preemptible for grant in agent.receive()] == [True]


def test_who_waits_no_more_keeps_no_room(shell: Shell) -> None:
    agent = machine(shell)
    [running] = begin(shell, agent, job(shell, 4, preemptible=True))
    urgent = job(shell, 4, priority=1)
    shell.submit(urgent)
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    shell.do(CancelTasks([urgent.id]))
    stop(shell, agent, running)
    shell.pass_ms(LOOK_MS)
    [again] = agent.receive()
    assert again.spec.id == running.spec.id


def test_room_that_does_not_come_is_given_up(shell: Shell) -> None:
    """As where the attempt does not end; everything else goes on there then."""
    agent = machine(shell)
    begin(shell, agent, job(shell, 3, preemptible=True))
    shell.submit(job(shell, 2, priority=1))
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    shell.submit(job(shell, 1, priority=2))
    assert agent.receive() == []
    for _ in range(ROOM_MS // 1_000 + 2):
        shell.do(agent.beat())
        shell.pass_ms(1_000)
    assert len(agent.receive()) == 1


def test_what_was_done_before_it_was_stopped_is_done_and_a_cancel_is_a_cancel(shell: Shell) -> None:
    agent = machine(shell)
    done, cancelled = begin(shell, agent, job(shell, 2, preemptible=True), job(shell, 2, preemptible=True))
    urgent = job(shell, 4, priority=1)
    shell.submit(urgent)
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    assert agent.revoked == {done.token, cancelled.token}
    shell.do(CancelTasks([cancelled.spec.id]))
    shell.do(agent.ack(done))
    shell.do(agent.nack(cancelled, outcome="cancelled"))
    assert [grant.spec.id for grant in agent.receive()] == [urgent.id]
    assert outcomes(shell, cancelled.spec.id) == ["cancelled"]


def test_after_a_restart_it_is_told_again(shell: Shell) -> None:
    agent = machine(shell)
    [running] = begin(shell, agent, job(shell, 4, preemptible=True))
    shell.submit(job(shell, 4, priority=1))
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    shell.crash()
    agent.revoked.clear()
    agent.join()
    agent.receive()
    assert agent.revoked == {running.token}
    stop(shell, agent, running)
    assert outcomes(shell, running.spec.id) == ["preempted"]


def test_a_task_is_stopped_so_often_and_then_runs_to_its_end(shell: Shell) -> None:
    agent = machine(shell)
    victim = job(shell, 4, preemptible=True)
    [grant] = begin(shell, agent, victim)
    for _ in range(PREEMPTED_MAX):
        shell.submit(job(shell, 4, priority=1))
        shell.pass_ms(PATIENCE_MS)
        agent.receive()
        stop(shell, agent, grant)
        [urgent] = agent.receive()
        shell.do(agent.ack(urgent))
        [grant] = agent.receive()
        assert grant.spec.id == victim.id
        shell.do(agent.credit(2))
    shell.submit(job(shell, 4, priority=1))
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    assert not agent.revoked


def test_room_is_made_for_the_older_one_whether_it_has_a_fair_key_or_not(shell: Shell) -> None:
    agent = machine(shell)
    [victim] = begin(shell, agent, job(shell, 4, preemptible=True))
    older, keyed = job(shell, 4, priority=1), job(shell, 4, priority=1, fair_key="day")
    shell.submit(older, keyed)
    for urgent in older, keyed:
        shell.pass_ms(PATIENCE_MS)
        agent.receive()
        stop(shell, agent, victim)
        [granted] = agent.receive()
        assert granted.spec.id == urgent.id
        shell.do(agent.ack(granted))
        if urgent is older:
            [victim] = agent.receive()


def test_what_may_run_at_most_once_cannot_be_preemptible(shell: Shell) -> None:
    with pytest.raises(BadRequest, match="preemptible"):
        check_spec(job(shell, preemptible=True, at_most_once=True), 1_000)


def test_an_agent_that_is_given_up_and_kept_free_for_others_at_once_is_looked_at_again(shell: Shell) -> None:
    """What comes before those others may have it, and does not wait for the next event."""
    agent = machine(shell)
    FakeAgent(shell, "a2", names=["m.other"]).join(credit=1)
    _, young = begin(shell, agent, job(shell, 1, preemptible=True), job(shell, 2, preemptible=True))
    shell.submit(job(shell, 1.5, priority=1))
    shell.pass_ms(PATIENCE_MS)
    agent.receive()
    assert agent.revoked == {young.token}
    plain = job(shell, queue="b")
    shell.submit(plain, job(shell, 4, queue="b"))
    shell.mono_ms += choosing.KEPT_FREE_AFTER_MS
    shell.ask(SetLimit(Limit("queue:default", 1)))
    assert Continue(GoOn()) in shell.turn().effects
    shell.settle()
    [granted] = agent.receive()
    assert granted.spec.id == plain.id


@pytest.mark.parametrize("name", ["m.f", "m.g"])
def test_what_has_a_fair_key_takes_a_turn_after_what_it_was_stopped_for(shell: Shell, name: str) -> None:
    """Also in the same line: its old tag would bring it back before it, again and again."""
    agent = FakeAgent(shell, names=["m.f", "m.g"], supplies=[Supply("cpu", 4_000)]).join(credit=50)
    [night] = begin(shell, agent, job(shell, 4, preemptible=True, fair_key="night"))
    others = [job(shell, 4, preemptible=True, fair_key="night") for _ in range(3)]
    shell.submit(*others)
    urgent = job(shell, 4, name=name, priority=1, fair_key="day")
    shell.submit(urgent)
    ended = []
    for _ in range(20):
        shell.pass_ms(LOOK_MS)
        shell.do(agent.beat())
        for grant in agent.receive():
            if grant.spec.id == urgent.id:
                ended.append(urgent.id)
                shell.do(agent.ack(grant))
        for token in list(agent.revoked):
            stop(shell, agent, agent.held[token])
    assert ended == [urgent.id]
    assert outcomes(shell, night.spec.id) == ["preempted"]
    check_disk(shell.disk)


def test_a_look_asks_little_however_many_run(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all do not suffice none is asked; of those that are alike one is; and few agents are compared."""
    monkeypatch.setattr(preemption, "COMPARED", 2)
    for number in range(5):
        agent = machine(shell, f"a{number}", cpus=8)
        begin(shell, agent, *[job(shell, 1, preemptible=True) for _ in range(7)], job(shell, 1))
    asked: list[int] = []
    fits = preemption._fits

    def counted(agent: Agent, line: Line, gone: Sequence[Task]) -> bool:
        asked.append(len(gone))
        return fits(agent, line, gone)

    monkeypatch.setattr(preemption, "_fits", counted)
    shell.submit(job(shell, 8, priority=1))
    shell.pass_ms(PATIENCE_MS)
    assert not asked
    shell.submit(job(shell, 2, priority=1))
    shell.pass_ms(PATIENCE_MS)
    assert asked.count(1) <= 2 * 4, (
        "of each agent one of those alike, then the first, and each of two without the other"
    )
    assert len(shell.working.yielding.rooms) == 1


def test_agents_that_were_asked_in_vain_keep_no_others_from_their_turn(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look asks few, and the next one goes on behind them."""
    monkeypatch.setattr(preemption, "TRIED", 2)
    gpu = Need("gpu", 1_000)
    for number in range(6):
        agent = FakeAgent(shell, f"a{number}", supplies=[Supply("cpu", 4_000), Supply("gpu", 1_000)]).join(credit=50)
        held = [shell.spec(where=Where([Request([gpu])]))] if number else []
        begin(shell, agent, *held, job(shell, 4, preemptible=True))
    shell.submit(shell.spec(where=Where([Request([Need("cpu", 1_000), gpu])]), priority=1))
    shell.pass_ms(PATIENCE_MS)
    assert not shell.working.yielding.rooms
    shell.pass_ms(3 * LOOK_MS)
    assert [shell.working.rooms.held[line] for line in shell.working.yielding.rooms] == ["a0"]
