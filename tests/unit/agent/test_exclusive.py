"""Exclusive attempts: gone before their lease could be given away, whatever happened to the agent's connection."""

import trio
from trio.testing import MockClock

from taskd_protocol.command import pack_command
from taskd_protocol.task import COMMAND_NAME, FailureReport, Report
from unit.agent.making import grant
from unit.agent.stage import ASYNC, SYNC, Stage, playing
from unit.agent.workshop import limited

PERIOD_S, SILENCE_S = 5.0, 15.0


def outcomes(reports: list[Report | FailureReport]) -> dict[int, str]:
    return {report.token: report.outcome if isinstance(report, FailureReport) else "acked" for report in reports}


async def test_one_is_killed_while_the_connection_is_cut_and_others_go_on(autojump_clock: MockClock) -> None:
    """In time, and with time to spare for the kill; what the others came to is reported when the server is back."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        await stage.until(lambda: len(stage.workers) == 2)
        peer = await stage.greeted()
        await peer.lease(limited(grant(1), exclusive=True), grant(2))
        killed, going_on = await stage.who_has(1), await stage.who_has(2)
        killed.runs, going_on.runs = 1, 2
        stage.unreachable()
        cut_s = trio.current_time()
        await peer.cut()
        await killed.wait()
        assert killed.signals == ["KILL"]
        assert trio.current_time() - cut_s < SILENCE_S - PERIOD_S
        assert trio.current_time() > PERIOD_S
        await trio.sleep(60)
        going_on.returns(2)
        stage.refusals.clear()
        peer = await stage.greeted()
        assert outcomes(await peer.reports(2)) == {1: "cancelled", 2: "acked"}


async def test_an_agent_that_was_stopped_kills_before_all_else(autojump_clock: MockClock) -> None:
    """What came while it was stopped is as old: it is not begun."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        await stage.until(lambda: len(stage.workers) == 1)
        peer = await stage.greeted()
        await peer.lease(limited(grant(1), exclusive=True))
        worker = await stage.who_has(1)
        worker.runs = 1
        autojump_clock.jump(60)
        await peer.lease(limited(grant(2), exclusive=True))
        assert outcomes(await peer.reports(2)) == {1: "cancelled", 2: "released"}
        assert worker.signals == ["KILL"]
        assert [given.token for given in worker.grants] == [1]


async def test_one_of_many_coroutines_is_ended_alone(autojump_clock: MockClock) -> None:
    """It is told first; only if it stays does its worker go."""
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        await stage.until(lambda: len(stage.workers) == 1)
        peer = await stage.greeted()
        await peer.lease(limited(grant(1, "m.a"), exclusive=True), grant(2, "m.a"))
        worker = await stage.who_has(2)
        peer.answers_heartbeats = False
        with trio.fail_after(60):
            while not worker.stopped:  # noqa: ASYNC110 - what the agent tells it
                await trio.sleep(0.1)
        assert worker.stopped == [1]
        worker.raises(1, "task.cancelled")
        assert outcomes(await peer.reports(1)) == {1: "cancelled"}
        assert worker.signals == []


async def test_an_exclusive_attempt_lives_while_heartbeats_are_answered(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)) as nursery:
        await stage.until(lambda: len(stage.workers) == 1)
        peer = await stage.greeted()
        await peer.lease(limited(grant(1), exclusive=True))
        worker = await stage.who_has(1)
        worker.runs = 1

        async def work() -> None:
            await trio.sleep(300)
            worker.returns(1)

        nursery.start_soon(work)
        assert outcomes(await peer.reports(1)) == {1: "acked"}
        assert len(peer.heartbeats) > 50


async def test_the_runner_of_an_exclusive_attempt_is_told_how_long_it_may_live(autojump_clock: MockClock) -> None:
    """Before the attempt starts, again with each answered heartbeat, and no longer once it has ended."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=2)):
        await stage.until(lambda: len(stage.workers) == 2)
        peer = await stage.greeted()
        await peer.lease(limited(grant(1), exclusive=True), grant(2))
        worker, other = await stage.who_has(1), await stage.who_has(2)
        [first_ms] = worker.lives_until_ms
        assert SILENCE_S - PERIOD_S < first_ms / 1e3 - trio.current_time() < SILENCE_S
        with trio.move_on_after(60):
            while True:
                await peer.next()
        told = worker.lives_until_ms
        assert len(told) > 10
        assert told == sorted(told)
        assert told[-1] / 1e3 > trio.current_time() + PERIOD_S
        worker.returns(1)
        assert outcomes(await peer.reports(1)) == {1: "acked"}
        await trio.sleep(1)
        assert worker.lives_until_ms[-1] == 0
        assert other.lives_until_ms == []


async def test_an_attempt_that_its_runner_ended_is_reported_as_if_the_agent_had(autojump_clock: MockClock) -> None:
    """The agent was stopped, and hears of the end before it looks at the time: nobody is to blame."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        await stage.until(lambda: len(stage.workers) == 1)
        peer = await stage.greeted()
        await peer.lease(limited(grant(1), exclusive=True))
        worker = await stage.who_has(1)
        worker.runs = 1
        worker.exit(-9, ordered=True)
        assert outcomes(await peer.reports(1)) == {1: "cancelled"}
        command = grant(2, COMMAND_NAME, pack_command(["true"]))
        await peer.lease(limited(command, exclusive=True), pool=1)
        await stage.until(lambda: bool(stage.commands))
        assert stage.commands[0].plan.live_until_ms > trio.current_time() * 1e3
        stage.commands[0].exit(-9, ordered=True)
        assert outcomes(await peer.reports(1)) == {2: "cancelled"}


async def test_none_starts_after_its_time_on_a_worker_that_falls_free(autojump_clock: MockClock) -> None:
    """Be it before the agent, which was stopped, has looked at the time."""
    stage = Stage(autojump_clock, SYNC)
    agent = stage.agent(processes=1)
    async with playing(stage, agent):
        await stage.until(lambda: len(stage.workers) == 1)
        peer = await stage.greeted()
        await peer.lease(grant(1), limited(grant(2), exclusive=True))
        worker = await stage.who_has(1)
        worker.runs = 1
        autojump_clock.jump(60)
        executor = agent._executors[0]
        executor.wake()
        worker.returns(1)
        ends = outcomes(await peer.reports(2))
        assert ends == {1: "acked", 2: "released"}
        assert [given.token for given in worker.grants] == [1]
