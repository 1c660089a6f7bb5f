"""What attempts hold of memory: told with their reports, and the end of those that hold more than was granted."""

import signal
from collections.abc import Sequence

import trio
from trio.testing import MockClock

from taskd.agent.footprints import Footprints
from taskd_protocol.command import pack_command
from taskd_protocol.errors import TaskCodes
from taskd_protocol.resources import Granted, Hold
from taskd_protocol.task import COMMAND_NAME, FailureReport, Grant, Report
from unit.agent.making import grant, holding
from unit.agent.stage import ASYNC, SYNC, Peer, Stage, playing

MIB = 1 << 20
LIMIT = 100 * MIB


def with_memory(token: int, limit: int = LIMIT, name: str = "m.f") -> Grant:
    return holding(token, 0, name, memory=limit)


def command(token: int) -> Grant:
    return Grant(
        token, 1, grant(token, COMMAND_NAME, pack_command(["x"])).spec, granted=Granted([Hold("memory", LIMIT)])
    )


async def report_of(peer: Peer) -> Report | FailureReport:
    (report,) = await peer.reports(1)
    return report


def test_only_who_was_granted_memory_is_looked_at() -> None:
    footprints = Footprints()
    footprints.hold(grant(1))
    footprints.hold(holding(2, 1_000))
    assert not footprints
    assert footprints.note(1, 1 << 40) is None
    footprints.hold(with_memory(3))
    assert (bool(footprints), footprints.limit_of(3), footprints.limit_of(2)) == (True, LIMIT, None)
    assert footprints.note(3, LIMIT) is None
    failure = footprints.note(3, 2 * LIMIT)
    assert failure is not None
    assert failure.message == "it held 200 MiB of memory, more than the 100 MiB granted to it"
    footprints.note(3, 5)
    assert footprints.take_peak(3, 7) == 2 * LIMIT
    assert (bool(footprints), footprints.take_peak(3, 7)) == (False, 7)


def test_who_is_held_no_more_is_forgotten() -> None:
    footprints = Footprints()
    for token in (1, 2):
        footprints.hold(with_memory(token))
    footprints.keep(lambda token: token == 2)
    assert (footprints.limit_of(1), footprints.limit_of(2)) == (None, LIMIT)


async def test_an_attempt_over_its_memory_is_killed_and_told_as_out_of_memory(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(with_memory(1), grant(2))
        worker, neighbour = await stage.who_has(1), await stage.who_has(2)
        worker.runs = 1
        stage.memory = {worker.pid: LIMIT, neighbour.pid: 5 * LIMIT}
        await trio.sleep(5)
        assert (worker.signals, neighbour.signals) == ([], []), "what was not granted is not looked at"
        stage.memory[worker.pid] = LIMIT + MIB
        report = await report_of(peer)
        assert isinstance(report, FailureReport)
        assert (report.token, report.outcome, report.peak_bytes) == (1, "crashed", LIMIT + MIB)
        assert report.failure is not None
        assert report.failure.code == TaskCodes.WORKER_OUT_OF_MEMORY
        assert "101 MiB" in report.failure.message
        assert (worker.signals, neighbour.signals) == (["KILL"], [])


async def test_the_kernel_is_told_what_each_attempt_may_hold(autojump_clock: MockClock) -> None:
    """And of what it ends for that it is told what it had."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        for token, leased in ((1, with_memory(1)), (2, grant(2)), (3, with_memory(3, 2 * LIMIT))):
            await peer.lease(leased)
            worker = await stage.who_has(token)
            if token < 3:
                worker.returns(token)
                await peer.reports(1)
        assert worker.limits_bytes == [LIMIT, 0, 2 * LIMIT]
        stage.kills_for_memory += 1
        worker.dies(-signal.SIGKILL, running=3)
        report = await report_of(peer)
        assert isinstance(report, FailureReport)
        assert report.failure is not None
        assert report.failure.code == TaskCodes.WORKER_OUT_OF_MEMORY
        assert report.failure.message.endswith("because memory ran out; 200 MiB were granted to it")


async def test_a_command_over_its_memory_is_killed_with_all_that_came_from_it(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        await peer.lease(command(1))
        await stage.until(lambda: bool(stage.commands))
        stage.memory = {stage.commands[0].pid: 3 * LIMIT}
        report = await report_of(peer)
        assert isinstance(report, FailureReport)
        assert report.failure is not None
        assert (report.failure.code, report.peak_bytes) == (TaskCodes.WORKER_OUT_OF_MEMORY, 3 * LIMIT)
        assert report.failure.exit_code == -signal.SIGKILL


async def test_a_coroutine_has_no_memory_of_its_own_to_be_looked_at(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(with_memory(1, name="m.a"))
        worker = await stage.who_has(1)
        stage.memory = {worker.pid: 9 * LIMIT}
        await trio.sleep(5)
        assert worker.signals == []
        worker.returns(1)
        assert (await report_of(peer)).peak_bytes == 0


async def test_the_most_of_what_was_seen_and_what_is_told_is_reported(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()

        async def ends(token: int, seen: Sequence[int], told: int, *, raises: bool = False) -> int:
            await peer.lease(with_memory(token))
            worker = await stage.who_has(token)
            for memory in seen:
                stage.memory = {worker.pid: memory}
                await trio.sleep(1)
            worker.ends(token, peak_bytes=told, raises=raises)
            return (await report_of(peer)).peak_bytes

        assert await ends(1, [5 * MIB, 90 * MIB, 7 * MIB], 30 * MIB) == 90 * MIB, "a child's, which it knows not of"
        assert await ends(2, [5 * MIB], 30 * MIB) == 30 * MIB, "held between two looks"
        assert await ends(3, [50 * MIB], 60 * MIB, raises=True) == 60 * MIB
