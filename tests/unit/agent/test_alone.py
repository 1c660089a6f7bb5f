"""What was lost before, or may run at most once: alone with its worker, marked before it starts, never run twice."""

import signal

import pytest
from msgspec.structs import replace
from trio.testing import MockClock

from harness.specs import changed
from taskd.agent.core import AgentCore
from taskd.agent.marks import Marks
from taskd.agent.slots import Slots
from taskd_protocol.agent_messages import Lease, Offered, Revoke, Started, StartRecorded
from taskd_protocol.command import pack_command
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import COMMAND_NAME, FailureReport, Grant, Pool, Report
from unit.agent.making import grant, grants, welcome
from unit.agent.stage import ASYNC, SYNC, Peer, Stage, playing


def marked(token: int, name: str = "m.f", payload: bytes = b"") -> Grant:
    plain = grant(token, name, payload) if payload else grant(token, name)
    return replace(plain, mark_start=True)


def once(token: int, name: str = "m.f") -> Grant:
    plain = grant(token, name)
    return replace(plain, spec=changed(plain.spec, at_most_once=True))


def outcome(report: Report | FailureReport) -> tuple[int, str]:
    return report.token, report.outcome if isinstance(report, FailureReport) else "acked"


async def asked(peer: Peer) -> list[int]:
    """The tokens of the next STARTED."""
    return (await peer.expect(Started)).tokens


# -- what waits for its mark ------------------------------------------------------------------


def test_a_mark_is_asked_for_once_and_again_on_a_new_connection() -> None:
    marks, first, held = Marks(), marked(1), {1}
    assert marks.may_start(grant(9), held.__contains__), "a plain lease needs none"
    assert not marks.has_news
    assert not marks.may_start(first, held.__contains__)
    assert not marks.may_start(first, held.__contains__)
    assert marks.take_unsent() == [1]
    assert not marks.has_news
    marks.connect()
    assert marks.take_unsent() == [1]
    marks.recorded([1, 5])
    assert marks.may_start(first, held.__contains__)
    marks.connect()
    assert marks.take_unsent() == []
    held.remove(1)
    assert not marks.may_start(marked(2), held.__contains__)
    assert not marks.may_start(first, held.__contains__), (
        "what is held no longer is forgotten when another is asked for"
    )


def never() -> int:
    raise AssertionError("the time matters to exclusive attempts alone")


def test_pools_do_not_forget_each_others_marks() -> None:
    core = AgentCore([Pool("process", 1, ["m.f"]), Pool("async", 1, ["m.a"])])
    core.welcome(welcome(), 0)
    core.receive(Offered())
    one, other = marked(1), marked(2, "m.a")
    core.receive(Lease(1, 0, [one]))
    core.receive(Lease(2, 1, [other]))
    assert [core.may_start(grant, never) for grant in (one, other, one)] == [False] * 3
    assert [message for message in core.messages() if isinstance(message, Started)] == [Started([1, 2])]
    core.receive(StartRecorded([1, 2]))
    assert [core.may_start(grant, never) for grant in (one, other)] == [True] * 2


def test_what_runs_alone_is_in_no_run_of_others() -> None:
    slots = Slots(1)
    slots.receive([*grants(range(1, 3)), marked(3), once(4), grant(5)])
    runs: list[list[int]] = []
    while slots.waiting:
        runs.append([taken.token for taken in slots.take_run(9, 1 << 20)])
    assert runs == [[1, 2], [3], [4, 5]]


async def test_a_marked_lease_starts_alone_and_after_its_mark(autojump_clock: MockClock) -> None:
    """Those before it are one batch, it is one of its own, and those after it wait for its end."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        worker = stage.workers[0]
        await peer.lease(grant(1))
        await worker.has(1)
        worker.returns(1, run_us=20.0)
        await peer.reports(1)
        await peer.lease(*grants(range(2, 4)), marked(4), *grants(range(5, 7)))
        await worker.has(3)
        worker.returns(2, 3, run_us=20.0)
        while await peer.next() != Started([4]):
            pass
        assert len(worker.grants) == 3, "it does not start before the answer"
        await peer.send(StartRecorded([4]))
        await worker.has(4)
        worker.returns(4)
        await worker.has(6)
        assert [[given.token for given in batch.grants] for batch in worker.batches[1:3]] == [[2, 3], [4]]


async def test_an_unanswered_mark_is_asked_for_again(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(marked(1))
        assert await asked(peer) == [1]
        await peer.cut()
        peer = await stage.peer()
        _, offer = await peer.greet()
        assert [held.token for held in offer.holding] == [1]
        await peer.send(Offered())
        assert await asked(peer) == [1]
        await peer.send(StartRecorded([1]))
        worker = await stage.who_has(1)
        worker.returns(1)
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "acked")]


async def test_a_stale_mark_is_forgotten_and_never_started(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(marked(1), grant(2))
        assert await asked(peer) == [1]
        await peer.send(StartRecorded([], [1]))
        worker = await stage.who_has(2)
        assert [given.token for given in worker.grants] == [2]


async def test_a_cancel_before_the_mark_ends_what_never_started(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(marked(1))
        assert await asked(peer) == [1]
        await peer.send(Revoke([1]))
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "cancelled")]
        assert stage.workers[0].grants == []


@pytest.mark.parametrize("pool", ["process", "async", "command"])
async def test_a_draining_agent_gives_back_what_waits_for_its_mark(autojump_clock: MockClock, pool: str) -> None:
    stage = Stage(autojump_clock, ASYNC if pool == "async" else SYNC)
    agent = stage.agent(() if pool == "command" else ("m",), processes=1)
    async with playing(stage, agent):
        peer = await stage.greeted()
        name, payload = (COMMAND_NAME, pack_command(["true"])) if pool == "command" else ("m.f", b"")
        await peer.lease(marked(1, name, payload))
        assert await asked(peer) == [1]
        agent.drain()
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "released")]


@pytest.mark.parametrize("pool", ["async", "command"])
async def test_other_pools_mark_starts_too(autojump_clock: MockClock, pool: str) -> None:
    """And give up, unstarted, what is cancelled before."""
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent(() if pool == "command" else ("m",))):
        peer = await stage.greeted()
        name, payload = (COMMAND_NAME, pack_command(["true"])) if pool == "command" else ("m.f", b"")
        await peer.lease(marked(1, name, payload))
        assert await asked(peer) == [1]
        await peer.send(Revoke([1]))
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "cancelled")]
        await peer.lease(marked(2, name, payload))
        assert await asked(peer) == [2]
        await peer.send(StartRecorded([2]))
        if pool == "command":
            await stage.until(lambda: bool(stage.commands))
            stage.commands[0].exit(0)
        else:
            assert await stage.workers[0].has(1) == [2]
            stage.workers[0].returns(2)
        assert [outcome(report) for report in await peer.reports(1)] == [(2, "acked")]


async def test_a_worker_that_dies_idle_is_not_the_fault_of_what_waits_for_its_mark(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(marked(1))
        assert await asked(peer) == [1]
        for count in range(2, 5):
            stage.workers[-1].dies(-signal.SIGKILL)
            await stage.until(lambda count=count: len(stage.workers) == count)  # type: ignore[misc]  # bound above
        await peer.send(StartRecorded([1]))
        worker = await stage.who_has(1)
        worker.returns(1)
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "acked")]


# -- at most once ------------------------------------------------------------------------------


async def test_what_may_run_once_is_blamed_for_a_death_of_nothing_known(autojump_clock: MockClock) -> None:
    """Its worker had it: that it had not started is not proven, so it is not run again."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(once(1))
        worker = await stage.who_has(1)
        worker.dies(-signal.SIGKILL, running=0)
        (report,) = await peer.reports(1)
        assert outcome(report) == (1, "crashed")


async def test_a_coroutine_that_may_run_once_is_not_run_again_by_its_agent(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(once(1), grant(2))
        worker = stage.workers[0]
        await worker.has(2)
        worker.dies(-signal.SIGKILL, running=0)
        assert sorted([outcome(report) for report in await peer.reports(2)]) == [(1, "crashed"), (2, "lost")]


async def test_an_agent_that_must_go_says_that_it_had_started(autojump_clock: MockClock) -> None:
    """What runs when the grace is over goes back uncharged, but not what may run once."""
    stage = Stage(autojump_clock, SYNC)
    agent = stage.agent(processes=2)
    async with playing(stage, agent):
        await stage.until(lambda: len(stage.workers) == 2)
        peer = await stage.greeted()
        await peer.lease(once(1), grant(2))
        first, second = await stage.who_has(1), await stage.who_has(2)
        first.runs, second.runs = 1, 2
        agent.stop()
        ended = {report.token: report for report in await peer.reports(2)}
        assert sorted(map(outcome, ended.values())) == [(1, "crashed"), (2, "released")]
        stopped = ended[1]
        assert isinstance(stopped, FailureReport)
        assert stopped.failure is not None
        assert stopped.failure.code == TaskCodes.WORKER_LOST
