"""What executors do with leases, workers and commands, all of them played."""

import json
import signal
from functools import partial

import msgspec
import pytest
import trio
from msgspec import structs
from trio.testing import MockClock

from taskd.agent import streams
from taskd_protocol.agent_messages import (
    Ack,
    Drain,
    LeaseCredit,
    Logs,
    LogsRecorded,
    Nack,
    Recorded,
    Revoke,
    Started,
    StartRecorded,
)
from taskd_protocol.command import pack_command
from taskd_protocol.errors import TaskCodes
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import LOG_BYTES_UNRECORDED_MAX, LOG_DATA_BYTES_MAX
from taskd_protocol.payload import pack
from taskd_protocol.resources import Granted, Hold
from taskd_protocol.task import COMMAND_NAME, FailureReport, Grant, Report
from unit.agent.making import grant, grants, holding, task_id
from unit.agent.stage import ASYNC, SYNC, Peer, Stage, playing


def outcome(report: Report | FailureReport) -> tuple[int, str]:
    """The token, and how it went: acked, an outcome, or the failure's code."""
    if isinstance(report, Report):
        return report.token, "acked"
    return report.token, report.failure.code if report.failure is not None else report.outcome


def command(token: int, *argv: str, env: dict[str, str] | None = None, cwd: str | None = None) -> Grant:
    return grant(token, COMMAND_NAME, pack_command(argv, env=env, cwd=cwd))


# -- worker processes -------------------------------------------------------------------


async def test_many_short_tasks_cost_few_messages(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        count, messages, next_token = 0, 0, 1
        worker = stage.workers[0]
        worker.quick_us = 20.0
        while count < 3_000:
            message = await peer.next()
            messages += 1
            match message:
                case LeaseCredit(0, more):
                    await peer.lease(*grants(range(next_token, next_token + more)))
                    next_token += more
                case Ack(reports):
                    count += len(reports)
                    await peer.send(Recorded([report.token for report in reports]))
                case _:
                    pass
        assert messages < 150
        assert len(worker.batches) < 60


async def test_a_crash_costs_its_task_alone(autojump_clock: MockClock) -> None:
    """Done ones are acked, the running one fails by its cause, the rest run on the next worker at no charge."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        await stage.until(lambda: bool(stage.workers))
        worker = stage.workers[0]
        peer = await stage.greeted()
        await peer.lease(grant(1))
        await worker.has(1)
        worker.returns(1, run_us=20.0)
        await peer.reports(1)
        await peer.lease(*grants(range(2, 7)))
        await worker.has(6)
        worker.returns(2, 3)
        worker.dies(-signal.SIGSEGV, running=4)
        assert sorted([outcome(report) for report in await peer.reports(3)]) == [
            (2, "acked"),
            (3, "acked"),
            (4, TaskCodes.WORKER_KILLED),
        ]
        await stage.until(lambda: len(stage.workers) == 2)
        assert sorted(await stage.workers[1].has(2)) == [5, 6]


@pytest.mark.parametrize(
    ("code", "oom", "expected"),
    [
        (7, 0, TaskCodes.WORKER_EXITED),
        (-signal.SIGTERM, 0, TaskCodes.WORKER_KILLED),
        (-signal.SIGKILL, 0, TaskCodes.WORKER_KILLED),
        (-signal.SIGKILL, 1, TaskCodes.WORKER_OUT_OF_MEMORY),
        (-signal.SIGSEGV, 1, TaskCodes.WORKER_KILLED),
    ],
)
async def test_a_crash_is_told_with_its_cause(autojump_clock: MockClock, code: int, oom: int, expected: str) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        worker = await stage.who_has(1)
        stage.kills_for_memory += oom
        worker.dies(code, running=1)
        (report,) = await peer.reports(1)
        assert outcome(report) == (1, expected)
        assert isinstance(report, FailureReport)
        assert report.failure is not None
        assert report.failure.exit_code == code


async def test_a_worker_that_dies_idle_blames_nobody_and_is_replaced(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        worker = await stage.who_has(1)
        worker.returns(1)
        await peer.reports(1)
        worker.dies(-signal.SIGKILL, running=1)
        await peer.lease(grant(2))
        assert await stage.who_has(2) is stage.workers[1]
        stage.workers[1].returns(2)
        assert [outcome(report) for report in await peer.reports(1)] == [(2, "acked")]


async def test_who_was_next_when_two_workers_died_of_nothing_known_is_blamed(autojump_clock: MockClock) -> None:
    """User code can spoil even the page that names it; it must not do so for ever."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        for number in range(2):
            await stage.until(lambda number=number: len(stage.workers) > number)  # type: ignore[misc]
            await stage.workers[number].has(1)
            stage.workers[number].dies(-signal.SIGBUS, running=2**63)
        assert [outcome(report) for report in await peer.reports(1)] == [(1, TaskCodes.WORKER_KILLED)]


async def test_workers_that_get_nothing_done_are_replaced_ever_more_slowly(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)) as nursery:
        await stage.greeted()

        async def kill_all() -> None:
            for number in range(1_000):
                await stage.until(lambda number=number: len(stage.workers) > number)  # type: ignore[misc]
                stage.workers[number].dies(1)

        nursery.start_soon(kill_all)
        await trio.sleep(600)
        assert 20 <= len(stage.workers) <= 40
        nursery.cancel_scope.cancel()


async def test_leases_that_nobody_here_can_run_go_back(autojump_clock: MockClock) -> None:
    """A module that no longer imports: another agent may have the right one."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1), grant(2))
        worker = await stage.who_has(1)
        worker.returns(1, run_us=1e6)
        await peer.reports(1)
        await worker.has(2)
        stage.error = "module 'm' failed to import: SyntaxError"
        worker.dies(1, running=0)
        assert [outcome(report) for report in await peer.reports(1)] == [(2, "released")]
        assert await quiet(peer, 300)
        stage.error = ""
        assert isinstance(await peer.next(), LeaseCredit)


async def test_a_flood_that_turned_out_long_goes_back_to_where_others_can_take_it(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await stage.until(lambda: bool(stage.workers))
        worker = stage.workers[0]
        worker.quick_us = 20.0
        await peer.lease(*grants(range(1, 101)))
        await peer.reports(100)
        worker.quick_us = None
        await peer.lease(*grants(range(201, 1_201), "m.long"))
        await stage.who_has(201)
        worker.returns(201, run_us=3e6)
        reports = await peer.reports(999)
        assert [outcome(report) for report in reports[:1]] == [(201, "acked")]
        assert {outcome(report)[1] for report in reports[1:]} == {"released"}
        assert len(worker.grants) == 102, "one of them runs here"


async def quiet(peer: Peer, seconds: float) -> bool:
    """Whether the agent says nothing but heartbeats for so long."""
    with trio.move_on_after(seconds) as scope:
        await peer.next()
    return scope.cancelled_caught


async def test_what_waits_behind_a_task_that_turned_out_long_runs_elsewhere(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=2)):
        peer = await stage.greeted()
        await stage.until(lambda: len(stage.workers) == 2)
        await peer.lease(grant(1), grant(2))
        for token in (1, 2):
            (await stage.who_has(token)).returns(token, run_us=100.0)
        await peer.reports(2)
        await peer.lease(*grants(range(10, 20)))
        stuck = await stage.who_has(10)
        other = next(worker for worker in stage.workers if worker is not stuck)
        his = [given.token for given in stuck.batches[-1].grants]
        others = [given.token for given in other.batches[-1].grants]
        assert len(his) == 5
        stuck.runs = 10
        other.returns(*others)
        began = trio.current_time()
        await other.has(1 + len(others) + 4)
        assert trio.current_time() - began < 0.2
        assert stuck.recalled == len(stuck.batches)
        assert [given.token for given in other.batches[-1].grants] == his[1:]
        other.returns(*his[1:])
        stuck.returns(10)
        assert len(await peer.reports(10)) == 10


async def test_a_running_task_is_cancelled_by_ending_its_worker(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        worker = await stage.who_has(1)
        worker.runs = 1
        await peer.send(Revoke([1]))
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "cancelled")]
        assert worker.signals == ["TERM", "KILL"], "both went out, the second to whatever it left behind"
        await peer.lease(grant(2))
        assert await stage.who_has(2) is not worker


async def test_a_task_that_ignores_term_is_killed_in_bounded_time(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        worker = await stage.who_has(1)
        worker.runs = 1
        worker.ends_on = {"KILL"}
        began = trio.current_time()
        await peer.send(Revoke([1]))
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "cancelled")]
        assert 7 <= trio.current_time() - began < 8


async def test_a_cancel_ends_one_task_and_none_of_its_neighbours(autojump_clock: MockClock) -> None:
    """Unstarted in the pool, unstarted at a worker: reported at once, and the worker lives."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        worker = await stage.who_has(1)
        worker.returns(1, run_us=20.0)
        await peer.reports(1)
        await peer.lease(*grants(range(2, 6)))
        await worker.has(5)
        worker.runs = 2
        await peer.lease(grant(9, "m.unseen"))
        await peer.send(Revoke([3, 9]))
        assert sorted([outcome(report) for report in await peer.reports(2)]) == [(3, "cancelled"), (9, "cancelled")]
        worker.returns(2)
        await worker.has(7)
        assert [given.token for given in worker.batches[-1].grants] == [4, 5]
        worker.returns(4, 5)
        assert len(await peer.reports(3)) == 3
        assert worker.signals == []


async def test_what_ended_before_its_cancel_came_is_acked_and_its_worker_lives(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        worker = await stage.who_has(1)
        worker.runs = 1
        await peer.send(Revoke([1]))
        await trio.sleep(0.001)
        worker.runs = 0
        worker.returns(1)
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "acked")]
        await trio.sleep(20)
        assert worker.signals == []


# -- leaving ----------------------------------------------------------------------------


async def test_a_draining_agent_gives_back_what_waits_and_finishes_what_runs(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    agent = stage.agent(processes=1)
    async with playing(stage, agent):
        peer = await stage.greeted()
        await peer.lease(grant(1), grant(2))
        worker = await stage.who_has(1)
        worker.runs = 1
        agent.drain()
        assert [outcome(report) for report in await peer.reports(1)] == [(2, "released")]
        worker.returns(1)
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "acked")]
        began = trio.current_time()
        with pytest.raises(EOFError):
            await peer.next()
        assert trio.current_time() - began < 1
        assert worker.signals == ["HUP"]


async def test_a_server_may_ask_an_agent_to_go(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.send(Drain("maintenance"))
        await peer.expect(Drain)
        with pytest.raises(EOFError):
            await peer.next()


async def test_a_server_may_ask_an_agent_to_rest(autojump_clock: MockClock) -> None:
    """What waits goes back, what runs goes on, and so does the agent."""
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1), grant(2))
        worker = await stage.who_has(1)
        worker.runs = 1
        await peer.send(Drain("a person drained this agent", stay=True))
        assert [outcome(report) for report in await peer.reports(1)] == [(2, "released")]
        worker.returns(1)
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "acked")]
        await peer.lease(grant(3))
        await stage.who_has(3)


async def test_when_its_grace_is_over_the_rest_is_killed_and_given_back(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {"m.f": False, "m.a": True})
    agent = stage.agent(processes=1, drain_s=12.0)
    async with playing(stage, agent):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        await peer.lease(grant(2, "m.a"), pool=1)
        await peer.lease(command(3, "sleep"), pool=2)
        (await stage.who_has(1)).runs = 1
        await stage.who_has(2)
        await stage.until(lambda: bool(stage.commands))
        began = trio.current_time()
        agent.drain()
        reports = await peer.reports(3)
        assert sorted([outcome(report) for report in reports]) == [(1, "released"), (2, "released"), (3, "released")]
        assert 12 <= trio.current_time() - began < 13


# -- coroutines -------------------------------------------------------------------------


async def test_coroutines_are_given_up_to_their_number_and_then_as_they_end(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        assert stage.workers[0].setup is not None
        assert (stage.workers[0].setup.kind, stage.workers[0].setup.concurrency) == ("asyncio", 100)
        await peer.lease(*grants(range(1, 151), "m.a"))
        worker = stage.workers[0]
        assert len(await worker.has(100)) == 100
        worker.returns(*range(1, 11), run_us=1e6)
        assert len(await worker.has(110)) == 110


async def test_a_crash_blames_the_coroutine_that_took_a_step_and_releases_the_others(
    autojump_clock: MockClock,
) -> None:
    """They had begun: the server has them run again as attempts of their own."""
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(*grants(range(1, 4), "m.a"))
        await stage.workers[0].has(3)
        stage.workers[0].dies(1, running=2)
        reports = await peer.reports(3)
        assert sorted([outcome(report) for report in reports]) == [
            (1, "released"),
            (2, TaskCodes.WORKER_EXITED),
            (3, "released"),
        ]
        assert not any(report.unstarted for report in reports if isinstance(report, FailureReport))


async def test_those_of_a_worker_that_died_of_nobody_known_are_lost(autojump_clock: MockClock) -> None:
    """Once; who was lost before, and has its start marked, is blamed."""
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(*grants(range(1, 3), "m.a"))
        await stage.workers[0].has(2)
        stage.workers[0].dies(-signal.SIGKILL)
        lost = [report for report in await peer.reports(2) if isinstance(report, FailureReport)]
        assert [report.outcome for report in lost] == ["lost", "lost"]
        assert [outcome(report)[1] for report in lost] == [TaskCodes.WORKER_LOST] * 2
        await stage.until(lambda: len(stage.workers) == 2)
        await peer.lease(grant(3, "m.a"), msgspec.structs.replace(grant(4, "m.a"), mark_start=True))
        while not isinstance(await peer.next(), Started):
            pass
        await peer.send(StartRecorded([4]))
        await stage.workers[1].has(2)
        stage.workers[1].dies(-signal.SIGKILL)
        assert sorted([outcome(report) for report in await peer.reports(2)]) == [
            (3, TaskCodes.WORKER_LOST),
            (4, TaskCodes.WORKER_KILLED),
        ]


async def test_a_coroutine_is_cancelled_on_its_loop(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(*grants(range(1, 3), "m.a"))
        worker = stage.workers[0]
        await worker.has(2)
        await peer.send(Revoke([1]))
        worker.got = trio.Event()
        await worker.got.wait()
        assert worker.stopped == [1]
        worker.raises(1, TaskCodes.CANCELLED)
        assert [outcome(report) for report in await peer.reports(1)] == [(1, "cancelled")]
        await trio.sleep(60)
        assert worker.signals == []


async def test_a_coroutine_that_will_not_end_is_ended_with_its_worker_and_its_neighbours_are_released(
    autojump_clock: MockClock,
) -> None:
    stage = Stage(autojump_clock, ASYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(*grants(range(1, 4), "m.a"))
        await stage.workers[0].has(3)
        await peer.send(Revoke([2]))
        assert sorted([outcome(report) for report in await peer.reports(3)]) == [
            (1, "released"),
            (2, "cancelled"),
            (3, "released"),
        ]


# -- commands ---------------------------------------------------------------------------


async def test_a_command_is_started_as_asked_and_its_output_comes_before_its_end(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        await peer.lease(command(7, "make", "all", env={"A": "b"}, cwd="/src"))
        await stage.until(lambda: bool(stage.commands))
        played = stage.commands[0]
        assert (list(played.plan.argv), played.plan.cwd) == (["make", "all"], "/src")
        assert played.plan.environ == {
            "A": "b",
            "TASKD_TASK_ID": format_task_id(task_id(7)),
            "TASKD_ATTEMPT": "1",
            "TASKD_FENCING_TOKEN": "7",
        }
        played.prints(b"out")
        first = await peer.expect(Logs)
        played.prints(b"err", stream=2)
        played.exit(0)
        second = await peer.expect(Logs)
        pieces = [(piece.token, piece.stream, piece.data) for logs in (first, second) for piece in logs.pieces]
        assert pieces == [(7, 1, b"out"), (7, 2, b"err")]
        (report,) = (await peer.expect(Ack)).reports
        assert report.result == pack(0)


@pytest.mark.parametrize(
    ("code", "message"), [(3, "exit code 3"), (-signal.SIGKILL, "SIGKILL ended the command"), (-50, "signal 50 ended")]
)
async def test_a_command_that_fails_is_told_by_its_exit_code(
    autojump_clock: MockClock, code: int, message: str
) -> None:
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        await peer.lease(command(1, "false"))
        await stage.until(lambda: bool(stage.commands))
        stage.commands[0].exit(code)
        (report,) = (await peer.expect(Nack)).failures
        assert report.failure is not None
        assert (report.failure.code, report.failure.exit_code) == (TaskCodes.COMMAND_FAILED, code)
        assert report.failure.message.startswith(message)


async def test_a_command_that_succeeds_as_the_agent_goes_is_not_run_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order to kill it came too late: its work is done, and so it is reported."""
    stage = Stage(autojump_clock, {})
    agent = stage.agent(modules=())
    async with playing(stage, agent):
        peer = await stage.greeted()
        await peer.lease(command(1, "true"))
        await stage.until(lambda: bool(stage.commands))
        (played,) = stage.commands
        monkeypatch.setattr(played, "kill", partial(played.exit, 0))
        agent.stop()
        (report,) = await peer.reports(1)
        assert isinstance(report, Report)
        assert report.result == pack(0)


async def test_a_command_that_cannot_be_started_says_why(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {})
    stage.cannot_start = OSError("No such file or directory: nix")
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        await peer.lease(command(1, "nix"), grant(2, COMMAND_NAME, b"\xc1"))
        failures = {
            report.token: report.failure for report in await peer.reports(2) if isinstance(report, FailureReport)
        }
        assert failures[1] is not None
        assert failures[2] is not None
        assert failures[1].code == TaskCodes.COMMAND_NOT_STARTED
        assert "No such file" in failures[1].message
        assert failures[2].code == TaskCodes.ARGUMENTS_UNREADABLE


async def test_output_is_gathered_so_that_a_chatty_command_makes_few_pieces(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        await peer.lease(command(1, "chat"))
        await stage.until(lambda: bool(stage.commands))
        for _ in range(10):
            stage.commands[0].prints(b"x\n")
            await trio.sleep(0.01)
        began = trio.current_time()
        await peer.expect(Logs)
        await peer.expect(Logs)
        assert trio.current_time() - began < 0.1


async def test_a_command_that_floods_waits_until_its_output_is_recorded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WAITING_BYTES_MAX", LOG_BYTES_UNRECORDED_MAX)
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        await peer.lease(command(1, "yes"))
        await stage.until(lambda: bool(stage.commands))
        played = stage.commands[0]
        count = 4 * LOG_BYTES_UNRECORDED_MAX // LOG_DATA_BYTES_MAX
        for _ in range(count):
            played.prints(bytes(LOG_DATA_BYTES_MAX))
        await trio.sleep(10)
        taken = count - played.outputs[1][1].statistics().current_buffer_used
        played.exit(0)
        got = 0
        while got < count * LOG_DATA_BYTES_MAX:
            logs = await peer.expect(Logs)
            size = sum(len(piece.data) for piece in logs.pieces)
            got += size
            await peer.send(LogsRecorded(size))
        assert taken == LOG_BYTES_UNRECORDED_MAX // LOG_DATA_BYTES_MAX
        assert (await peer.expect(Ack)).reports[0].token == 1


async def test_a_running_command_is_cancelled_with_all_that_came_from_it(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        await peer.lease(command(1, "sleep"), command(2, "sleep"))
        await stage.until(lambda: len(stage.commands) == 2)
        stubborn = stage.commands[0]
        stubborn.ends_on = {"KILL"}
        await peer.send(Revoke([1, 2]))
        reports = [*await peer.reports(1), *await peer.reports(1)]
        assert sorted([outcome(report) for report in reports]) == [(1, "cancelled"), (2, "cancelled")]
        assert stubborn.signals == ["TERM", "KILL"]


async def test_a_command_is_told_what_it_holds(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        peer = await stage.greeted()
        granted = Granted([Hold("cpu", 1_500), Hold("gpu", 2_000, ["0", "3"]), Hold("memory", 1 << 30)])
        await peer.lease(structs.replace(command(7, "train"), granted=granted))
        await stage.until(lambda: bool(stage.commands))
        environ = stage.commands[0].plan.environ
        assert json.loads(environ["TASKD_RESOURCES"]) == {
            "cpu": {"amount": 1.5},
            "gpu": {"amount": 2, "items": ["0", "3"]},
            "memory": {"amount": 1 << 30},
        }
        assert (environ["CUDA_VISIBLE_DEVICES"], environ["CUDA_DEVICE_ORDER"]) == ("0,3", "PCI_BUS_ID")
        stage.commands[0].exit(0)
        await peer.reports(1)


async def test_attempts_that_hold_whole_cpus_have_them_to_themselves(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=4, pin_cpus=True)):
        peer = await stage.greeted()
        await peer.lease(holding(1, 1_000), holding(2, 2_500), holding(3, 500), holding(4, 2_000))
        batches = {token: next(b for b in (await stage.who_has(token)).batches) for token in (1, 2, 3, 4)}
        assert [batches[token].cpus for token in (1, 2, 3, 4)] == [[0], [1, 2], [], []], "of four only one is left"
        (await stage.who_has(2)).returns(2)
        await peer.reports(1)
        await peer.lease(holding(5, 2_000))
        assert (await stage.who_has(5)).batches[-1].cpus == [1, 2]


async def test_a_worker_that_has_opened_gpus_gets_no_others(autojump_clock: MockClock) -> None:
    """Libraries keep to what they saw first: where no other worker is idle, a new one takes its place."""
    stage = Stage(autojump_clock, SYNC)

    def on(token: int, *gpus: str) -> Grant:
        return structs.replace(grant(token), granted=Granted([Hold("gpu", 1_000 * len(gpus), list(gpus))]))

    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        for token, gpus in ((1, "0"), (2, "0"), (3, ""), (4, "0")):
            await peer.lease(on(token, *gpus))
            (await stage.who_has(token)).returns(token)
            await peer.reports(1)
        assert len(stage.workers) == 1
        await peer.lease(on(5, "1"))
        second = await stage.who_has(5)
        assert stage.workers == [stage.workers[0], second]
        assert stage.workers[0].signals[:1] == ["HUP"]
        second.returns(5)
        assert [report.token for report in await peer.reports(1)] == [5]
