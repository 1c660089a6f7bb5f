"""Time limits, cancels and heartbeats, with real processes under a whole agent."""

from pathlib import Path

import msgspec
import pytest
import trio

from taskd_protocol.agent_messages import Ack, Checkpoints, Logs, LogsRecorded, Nack, Recorded, Revoke
from taskd_protocol.errors import TaskCodes
from taskd_protocol.payload import unpack
from taskd_protocol.task import FailureReport, LogPiece, Report
from unit.agent.stage import Peer
from unit.agent.test_agent import ASYNC, COMMAND, code, ends, real_agent, shell, value
from unit.agent.workshop import call, is_alive, limited, wait_until


async def ends_with_stacks(peer: Peer, count: int) -> tuple[dict[int, Report | FailureReport], str]:
    """Wait for so many reports; return them, and the stacks that came before them."""
    found: dict[int, Report | FailureReport] = {}
    pieces: list[LogPiece] = []
    with trio.fail_after(60):
        while len(found) < count:
            message = await peer.next()
            if isinstance(message, Logs):
                pieces += message.pieces
                await peer.send(LogsRecorded(sum(len(piece.data) for piece in message.pieces)))
            elif isinstance(message, Ack | Nack):
                reports = message.reports if isinstance(message, Ack) else message.failures
                found |= {report.token: report for report in reports}
    await peer.send(Recorded(list(found)))
    return found, b"".join(piece.data for piece in pieces if piece.stream == 3).decode()


@pytest.mark.usefixtures("project", "impatient")
@pytest.mark.parametrize("name", ["csleep", "busy", "deaf"])
async def test_a_call_over_its_timeout_is_killed_and_its_stacks_are_kept(name: str) -> None:
    """Whether C code holds the thread, Python code does, or TERM is ignored; the next worker goes on."""
    async with real_agent(processes=1) as peer:
        arguments = [1_000] if name == "csleep" else []
        await peer.lease(limited(call(1, name, *arguments), timeout_ms=400))
        done, stacks = await ends_with_stacks(peer, 1)
        assert code(done[1]) == TaskCodes.TIMED_OUT
        assert 'jobs.py", line' in stacks
        assert f"in {name}" in stacks
        await peer.lease(call(2, "echo", 2))
        assert value((await ends(peer, 1))[2]) == 2


async def test_a_daemon_of_a_call_over_its_timeout_is_found(project: Path) -> None:
    """One that forked twice, into a session of its own."""
    daemon = project / "daemon"
    async with real_agent(processes=1) as peer:
        await peer.lease(limited(call(1, "daemon", str(daemon)), timeout_ms=1_500))
        assert code((await ends_with_stacks(peer, 1))[0][1]) == TaskCodes.TIMED_OUT
        assert not is_alive(int(daemon.read_text()))


async def test_a_call_told_at_its_soft_timeout_ends_in_its_own_way(project: Path) -> None:
    """It may raise, which is a timeout, or return after all; the worker lives."""
    async with real_agent(processes=1) as peer:
        await peer.lease(
            limited(call(1, "polite"), soft_ms=300, timeout_ms=60_000),
            limited(call(2, "polite", "done"), soft_ms=300),
            call(3, "polite", "cancelled", str(project / "began")),
        )
        done, stacks = await ends_with_stacks(peer, 2)
        assert code(done[1]) == TaskCodes.TIMED_OUT
        assert isinstance(done[1], FailureReport)
        assert done[1].failure is not None
        assert "soft timeout of 0.3 s" in done[1].failure.message
        assert "in polite" in done[1].failure.traceback
        assert "in polite" in stacks
        assert value(done[2]) == "done"
        await wait_until((project / "began").exists)
        await peer.send(Revoke([3]))
        assert value((await ends(peer, 1))[3]) == "cancelled", "it was done before the cancel was"


@pytest.mark.usefixtures("impatient")
async def test_a_command_gets_term_at_its_soft_timeout_and_its_tree_is_killed_at_the_hard_one(project: Path) -> None:
    marker = project / "pid"
    script = (
        f"trap 'echo told > {project}/told' TERM; setsid sleep 1000 & echo $! > {marker}; while :; do sleep 1; done"
    )
    async with real_agent() as peer:
        await peer.lease(limited(shell(1, script), soft_ms=500, timeout_ms=2_500), pool=COMMAND)
        done, stacks = await ends_with_stacks(peer, 1)
        assert (code(done[1]), stacks) == (TaskCodes.TIMED_OUT, "")
        assert (project / "told").exists()
        assert not is_alive(int(marker.read_text()))
        await peer.lease(
            limited(shell(2, "trap 'exit 0' TERM; while :; do sleep 0.05; done"), soft_ms=300), pool=COMMAND
        )
        assert value((await ends_with_stacks(peer, 1))[0][2]) == 0


async def test_a_coroutine_over_its_timeout_is_cancelled_and_costs_its_neighbours_nothing(project: Path) -> None:
    async with real_agent() as peer:
        await peer.lease(
            limited(call(1, "aforever"), timeout_ms=300),
            limited(call(2, "apolite", str(project / "word")), soft_ms=300),
            call(3, "abrief", 1.0),
            pool=ASYNC,
        )
        done, _ = await ends_with_stacks(peer, 3)
        assert (code(done[1]), code(done[2]), value(done[3])) == (TaskCodes.TIMED_OUT, TaskCodes.TIMED_OUT, 1.0)
        assert (project / "word").read_text() == "True"


@pytest.mark.usefixtures("project", "impatient")
@pytest.mark.parametrize("name", ["astubborn", "abusy"])
async def test_a_coroutine_that_ignores_its_cancel_costs_its_worker_and_its_neighbours_nothing(name: str) -> None:
    """They end before the worker does, or are released."""
    async with real_agent() as peer:
        await peer.lease(
            limited(call(1, name), timeout_ms=300), call(2, "abrief", 2.5), call(3, "aforever"), pool=ASYNC
        )
        await peer.lease(call(4, "aecho", 4), pool=ASYNC)
        done, _ = await ends_with_stacks(peer, 4)
        assert (code(done[1]), code(done[3])) == (TaskCodes.TIMED_OUT, "released")
        if name == "abusy":  # nobody else takes a step beside it
            assert (code(done[2]), code(done[4])) == ("released", "released")
        else:
            assert (value(done[2]), value(done[4])) == (2.5, 4)


@pytest.mark.usefixtures("project")
async def test_an_attempt_that_falls_silent_has_stalled_and_the_next_goes_on_from_there() -> None:
    async with real_agent(processes=1) as peer:
        await peer.lease(limited(call(1, "stages", 3, True), heartbeat_ms=500))  # noqa: FBT003 - of the job
        told: list[object] = []
        stacks = b""
        with trio.fail_after(60):
            while True:
                message = await peer.next()
                if isinstance(message, Checkpoints):
                    told += [unpack(each.details) for each in message.checkpoints if each.token == 1]
                elif isinstance(message, Logs):
                    stacks += b"".join(piece.data for piece in message.pieces)
                elif isinstance(message, Nack):
                    break
        assert code(message.failures[0]) == TaskCodes.STALLED
        assert told[-1] == 3
        assert b"in stages" in stacks
        await peer.send(Recorded([1]))
        again = msgspec.structs.replace(limited(call(2, "stages", 3), heartbeat_ms=500), details=b"\x03")
        await peer.lease(again)
        assert value((await ends(peer, 1))[2]) == 3


@pytest.mark.usefixtures("project")
async def test_heartbeats_from_many_threads_do_not_mix() -> None:
    async with real_agent(processes=1) as peer:
        await peer.lease(call(1, "threaded", 50))
        with trio.fail_after(60):
            while not isinstance(message := await peer.next(), Ack):
                pass
        assert value(message.reports[0]) == 50
        await peer.send(Recorded([1]))


@pytest.mark.usefixtures("project")
async def test_an_exclusive_call_is_killed_when_the_server_has_been_silent_for_too_long() -> None:
    """It is reported as gone, which costs it nothing."""
    async with real_agent() as peer:
        await peer.lease(limited(call(1, "csleep", 1_000), exclusive=True), limited(call(2, "csleep", 1.0)))
        await ends(peer, 1)
        peer.answers_heartbeats = False
        assert code((await ends(peer, 1))[1]) == "cancelled"
