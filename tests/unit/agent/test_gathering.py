"""Tasks that are run many in one call: what waits for what, what is asked for, and who is blamed."""

import pytest
import trio
from trio.testing import MockClock

from taskd.agent.crew import Crew, Member
from taskd.agent.gathering import Rule
from taskd.agent.slots import Slots
from taskd_protocol.agent_messages import LeaseCredit, Revoke
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import FailureReport, Report
from unit.agent.making import grant, grants, holding
from unit.agent.stage import ASYNC, SYNC, Stage, playing

MS = 1_000_000


def crew_of(workers: int, size: int = 4, wait_ms: int = 50) -> tuple[Crew, Slots]:
    slots = Slots(workers)
    slots.gathering.rules = {"m.b": Rule(size, wait_ms)}
    crew = Crew(slots)
    crew.members.extend(Member() for _ in range(workers))
    return crew, slots


def dealt(crew: Crew, now_ns: int) -> list[list[int]]:
    return [[given.token for given in batch] for _, batch in crew.deal(now_ns)]


def test_leases_of_a_name_wait_for_others_up_to_the_size_and_the_time() -> None:
    crew, slots = crew_of(3)
    slots.receive(grants(range(1, 4), "m.b"))
    assert dealt(crew, 0) == []
    assert slots.gathering.due_ns(0) == 50 * MS
    slots.receive(grants(range(4, 7), "m.b"))
    assert dealt(crew, 10 * MS) == [[1, 2, 3, 4]], "full: at once"
    assert dealt(crew, 59 * MS) == []
    assert dealt(crew, 60 * MS) == [[5, 6]], "no later than so long after the first of them came"
    assert slots.waiting == 0


def test_what_was_taken_back_waits_no_more_and_goes_first() -> None:
    crew, slots = crew_of(2)
    slots.receive(grants(range(1, 4), "m.b"))
    assert dealt(crew, 0) == []
    ((member, _),) = crew.deal(50 * MS)
    assert [given.token for given in crew.recalled(member, 0)] == [1, 2, 3]
    assert slots.drop(2) is not None
    assert slots.drop(99) is None
    slots.receive([grant(4, "m.b")])
    assert slots.waiting == 3
    assert dealt(crew, 51 * MS) == [[1, 3, 4]]
    assert slots.drop_waiting() == []


def test_what_came_first_goes_first_and_a_call_has_its_worker_alone() -> None:
    crew, slots = crew_of(1)
    slots.pace_of("m.f").add(10.0, 100)
    slots.receive([grant(1), *grants(range(2, 6), "m.b"), grant(6)])
    assert dealt(crew, 0) == [[1, 6]], "what is dealt in numbers is short"
    slots.receive([grant(7)])
    (member,) = crew.members
    crew.ended(member, [1])
    assert dealt(crew, 0) == [], "nothing is put before the call any more"
    crew.ended(member, [6])
    assert dealt(crew, 0) == [[2, 3, 4, 5]]
    assert crew.held_up() == []
    assert crew.held_up() == [], "nobody waits behind another"
    assert crew.recalled(member, 2) == [], "all of them run"
    crew.ended(member, [2, 3, 4])
    assert dealt(crew, 0) == []
    crew.ended(member, [5])
    assert dealt(crew, 0) == [[7]]


def test_as_many_again_are_asked_for_until_one_call_waits_beside_those_that_run() -> None:
    """And of a task that runs alone no more than before."""
    crew, slots = crew_of(2, size=100)
    token = 1
    asked: list[int] = []
    while due := slots.take_credit():
        asked.append(due)
        slots.receive(grants(range(token, token + due), "m.b"))
        token += due
    assert asked[:4] == [2, 4, 8, 16]
    assert slots.waiting == 102
    assert [len(call) for call in dealt(crew, 0)] == [100]
    assert slots.take_credit() == 100 - 1
    slots.receive(grants(range(token, token + 99), "m.b"))
    assert [len(call) for call in dealt(crew, 0)] == [100]
    for member in crew.members:
        crew.ended(member, list(member.assigned))
    assert slots.gathering.riding == 0
    plain = Slots(2)
    plain.gathering.rules = {"m.b": Rule(100, 50)}
    plain.receive(grants(range(1, 3)))
    assert plain.take_credit() == 0


def test_what_runs_alone_is_not_gathered() -> None:
    crew, slots = crew_of(2)
    slots.receive([holding(1, name="m.b"), grant(2, "m.b")])
    ((member, batch),) = crew.deal(0)
    assert [given.token for given in batch] == [1]
    assert member.call == 1


def test_of_a_worker_that_died_in_a_call_all_that_have_not_ended_ran() -> None:
    """Also when the first of them was told to have ended before."""
    crew, slots = crew_of(1)
    slots.receive(grants(range(1, 5), "m.b"))
    ((member, _),) = crew.deal(0)
    crew.ended(member, [1])
    ran, back = crew.left(member, 1)
    assert ([given.token for given in ran], back, slots.gathering.riding) == ([2, 3, 4], [], 0)


async def test_a_call_is_made_in_time_and_asks_the_server_for_more(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.together = {"m.f": (8, 50)}
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        assert [await peer.next() for _ in range(2)] == [LeaseCredit(0, 1), LeaseCredit(1, 1)]
        start_s = trio.current_time()
        await peer.lease(grant(1))
        assert await peer.next() == LeaseCredit(0, 2), "as many again, and one in place of that"
        await peer.lease(grant(2), grant(3))
        worker = await stage.who_has(3)
        assert 0.05 <= trio.current_time() - start_s < 0.07
        assert [(batch.together, len(batch.grants)) for batch in worker.batches] == [(True, 3)]
        worker.returns(1, 3)
        worker.raises(2, "task.raised")
        reports = {report.token: report for report in await peer.reports(3)}
        assert isinstance(reports[1], Report)
        assert isinstance(reports[3], Report)
        assert isinstance(reports[2], FailureReport)


@pytest.mark.parametrize("tasks", [SYNC, ASYNC])
async def test_of_a_call_that_took_its_worker_down_each_is_lost(
    autojump_clock: MockClock, tasks: dict[str, bool]
) -> None:
    """Who knows of which it died: the server grants each alone the next time. One that was alone is blamed."""
    (name,) = tasks
    stage = Stage(autojump_clock, tasks)
    stage.together = {name: (2, 50)}
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1, name), grant(2, name))
        (await stage.who_has(1)).dies(-11, running=1)
        reports = await peer.reports(2)
        assert {(r.token, r.outcome) for r in reports if isinstance(r, FailureReport)} == {(1, "lost"), (2, "lost")}
        await peer.lease(grant(3, name))
        (await stage.who_has(3)).dies(-11, running=3)
        (report,) = await peer.reports(1)
        assert isinstance(report, FailureReport)
        assert (report.outcome, report.failure and report.failure.code) == ("crashed", TaskCodes.WORKER_KILLED)


async def test_a_cancel_that_ends_a_call_lets_the_others_go_uncharged(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.together = {"m.f": (3, 50)}
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(*grants(range(1, 4)))
        worker = await stage.who_has(1)
        worker.runs = 1
        await peer.send(Revoke([2]))
        reports = [report for report in await peer.reports(3) if isinstance(report, FailureReport)]
        assert worker.cancelled == 2
        assert {(report.token, report.outcome, report.unstarted) for report in reports} == {
            (1, "released", False),
            (2, "cancelled", False),
            (3, "released", False),
        }
