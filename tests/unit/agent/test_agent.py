"""A whole agent with real workers and commands, its server scripted."""

import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from msgspec import structs
from trio.testing import MockClock

from taskd.agent.agent import Agent
from taskd.agent.clock import SystemClock
from taskd.agent.config import AgentConfig
from taskd.agent.host import Host, oom_kills
from taskd.agent.kin import memory_of
from taskd.agent.spawner import open_spawner
from taskd.client.profile import Profile
from taskd_protocol.agent_messages import Ack, Logs, LogsRecorded, Nack, Offered, Recorded, Revoke
from taskd_protocol.command import pack_command
from taskd_protocol.errors import TaskCodes
from taskd_protocol.payload import unpack
from taskd_protocol.resources import Granted, Hold
from taskd_protocol.task import COMMAND_NAME, FailureReport, Grant, Report
from unit.agent.making import grant
from unit.agent.stage import Peer, Stage, playing
from unit.agent.workshop import call, is_alive, wait_until

PROCESS, ASYNC, COMMAND = 0, 1, 2


@asynccontextmanager
async def real_agent(*, processes: int = 2) -> AsyncIterator[Peer]:
    """An agent for the project's jobs, and the server's end of its connection."""
    stage = Stage(MockClock(), {})
    server = Profile(address="127.0.0.1:7070", token="taskd_agent_x")
    config = AgentConfig(server=server, modules=("jobs",), name="a1", processes=processes)
    async with open_spawner(config.worker_argv()) as spawner:
        platform = replace(
            stage.platform(),
            spawner=spawner,
            clock=SystemClock(),
            rng=random.Random(1),
            host_stats=Host(spawner.kin.use).stats,
            memory_of=memory_of,
            oom_kills=oom_kills,
        )
        async with playing(stage, Agent(config, platform)):
            peer = await stage.peer()
            _, offer = await peer.greet()
            assert [pool.kind for pool in offer.pools] == ["process", "async", "command"]
            await peer.send(Offered())
            yield peer


async def ends(peer: Peer, count: int) -> dict[int, Report | FailureReport]:
    with trio.fail_after(60):
        return {report.token: report for report in await peer.reports(count)}


def code(report: Report | FailureReport) -> str:
    assert isinstance(report, FailureReport)
    return report.failure.code if report.failure is not None else report.outcome


def value(report: Report | FailureReport) -> object:
    assert isinstance(report, Report), report
    return unpack(report.result)


def shell(token: int, script: str) -> Grant:
    return grant(token, COMMAND_NAME, pack_command(["/bin/sh", "-c", script]))


async def test_functions_coroutines_and_commands_all_report(project: Path) -> None:
    async with real_agent() as peer:
        await peer.lease(*(call(token, "echo", token) for token in range(1, 501)), pool=PROCESS)
        await peer.lease(*(call(token, "aecho", token) for token in range(501, 1001)), pool=ASYNC)
        done = await ends(peer, 1_000)
        assert {token: value(report) for token, report in done.items()} == {token: token for token in range(1, 1_001)}
        await peer.lease(shell(1_001, "pwd; echo problem >&2"), pool=COMMAND)
        with trio.fail_after(60):
            output = b""
            while output.count(b"\n") < 2:
                logs = await peer.expect(Logs)
                output += b"".join(piece.data for piece in logs.pieces)
                await peer.send(LogsRecorded(sum(len(piece.data) for piece in logs.pieces)))
            report = (await peer.expect(Ack)).reports[0]
        await peer.send(Recorded([report.token]))
        assert sorted(output.decode().splitlines()) == sorted([str(project), "problem"])
        assert value(report) == 0


@pytest.mark.usefixtures("project")
async def test_a_crash_fails_its_task_and_no_other() -> None:
    async with real_agent(processes=4) as peer:
        await peer.lease(call(1, "die", "SIGKILL"), call(2, "echo", 2), call(3, "die", "exit"), call(4, "echo", 4))
        done = await ends(peer, 4)
        assert (code(done[1]), code(done[3])) == (TaskCodes.WORKER_KILLED, TaskCodes.WORKER_EXITED)
        assert (value(done[2]), value(done[4])) == (2, 4)


@pytest.mark.usefixtures("project")
async def test_a_worker_whose_pipe_was_written_to_is_killed_and_the_agent_goes_on() -> None:
    async with real_agent(processes=1) as peer:
        await peer.lease(call(1, "scribble"))
        assert code((await ends(peer, 1))[1]) == TaskCodes.WORKER_KILLED
        await peer.lease(call(2, "echo", 2))
        assert value((await ends(peer, 1))[2]) == 2


async def test_a_cancelled_task_is_reported_when_its_daemons_are_dead_too(project: Path) -> None:
    daemon = project / "daemon"
    async with real_agent() as peer:
        await peer.lease(call(1, "daemon", str(daemon)), call(2, "echo", 2))
        await wait_until(daemon.exists)
        pid = int(daemon.read_text())
        assert is_alive(pid)
        await peer.send(Revoke([1]))
        done = await ends(peer, 2)
        assert code(done[1]) == "cancelled"
        assert not is_alive(pid)
        assert value(done[2]) == 2


async def test_a_daemon_of_a_call_that_returned_ends_with_its_worker(project: Path) -> None:
    """Nobody looks for it while the worker is sound; it does not outlive it."""
    daemon = project / "daemon"
    async with real_agent(processes=1) as peer:
        await peer.lease(call(1, "daemon", str(daemon), 0))
        assert value((await ends(peer, 1))[1]) is None
        pid = int(daemon.read_text())
        assert is_alive(pid)
        await peer.lease(call(2, "die", "SIGKILL"))
        await ends(peer, 1)
        await wait_until(lambda: not is_alive(pid))


@pytest.mark.usefixtures("impatient")
async def test_a_cancelled_command_leaves_nothing(project: Path) -> None:
    marker = project / "pid"
    async with real_agent() as peer:
        script = f"trap '' TERM; setsid sleep 1000 & echo $! > {marker}.new; mv {marker}.new {marker}; wait; sleep 1000"
        await peer.lease(shell(1, script), pool=COMMAND)
        await wait_until(marker.exists)
        await peer.send(Revoke([1]))
        with trio.fail_after(60):
            (report,) = (await peer.expect(Nack)).failures
        await peer.send(Recorded([1]))
        assert report.outcome == "cancelled"
        assert not is_alive(int(marker.read_text()))


@pytest.mark.usefixtures("project", "impatient")
async def test_coroutines_are_cancelled_and_stubborn_ones_too() -> None:
    async with real_agent() as peer:
        await peer.lease(call(1, "aforever"), call(2, "astubborn"), pool=ASYNC)
        await peer.lease(call(3, "aecho", 3), pool=ASYNC)
        assert value((await ends(peer, 1))[3]) == 3
        await peer.send(Revoke([1, 2]))
        done = {**await ends(peer, 1), **await ends(peer, 1)}
        assert {code(done[1]), code(done[2])} == {"cancelled"}


async def test_short_tasks_behind_a_long_one_run_elsewhere(project: Path) -> None:
    """And nothing runs twice: each leaves one mark."""
    gate, marks = project / "gate", project / "marks"
    async with real_agent() as peer:
        await peer.lease(*(call(token, "echo", token) for token in range(1, 201)))
        await ends(peer, 200)
        path = str(marks)
        await peer.lease(*(call(token, "mark", path) for token in range(201, 221)))
        await ends(peer, 20)
        await peer.lease(*(call(token, "until", path) for token in range(1_001, 1_021)))
        await ends(peer, 20)
        # All are known to be short by now, so that some are dealt behind the one that is not.
        await peer.lease(call(221, "until", str(gate)), *(call(token, "mark", path) for token in range(222, 322)))
        done = await ends(peer, 100)
        assert set(done) == set(range(222, 322))
        gate.touch()
        assert value((await ends(peer, 1))[221]) == str(gate)
        assert len(marks.read_text()) == 120


@pytest.mark.usefixtures("project")
async def test_memory_that_was_granted_is_the_most_that_an_attempt_may_hold() -> None:
    """Of a worker that is used again, and of a command with a child; what ends them leaves their neighbours alone."""
    granted = Granted([Hold("memory", 150 << 20)])
    hoard = f"{sys.executable} -c 'import time; x = b\"x\" * (300 << 20); time.sleep(100)'; echo never"
    async with real_agent() as peer:
        await peer.lease(
            call(1, "csleep", 4.0), replace_granted(call(2, "take", 300 << 20, 100), granted), pool=PROCESS
        )
        await peer.lease(replace_granted(shell(3, hoard), granted), pool=COMMAND)
        found = await ends(peer, 3)
        assert isinstance(found[1], Report)
        for token in (2, 3):
            assert code(found[token]) == TaskCodes.WORKER_OUT_OF_MEMORY
            assert 150 << 20 <= found[token].peak_bytes < 400 << 20, (
                "the kernel, where it is asked, lets none hold more"
            )
        await peer.lease(replace_granted(call(4, "take", 1 << 20), granted), pool=PROCESS)
        await peer.lease(replace_granted(shell(5, "true"), granted), pool=COMMAND)
        found = await ends(peer, 2)
        assert all(isinstance(report, Report) and 1 << 20 < report.peak_bytes < 150 << 20 for report in found.values())


def replace_granted(grant: Grant, granted: Granted) -> Grant:
    return structs.replace(grant, granted=granted)
