"""Real worker processes, fed over their pipes."""

import os
import signal
from pathlib import Path

import pytest
import trio

from taskd.agent import wire
from taskd_protocol.errors import TaskCodes
from taskd_protocol.ids import format_task_id
from taskd_protocol.resources import Hold
from taskd_protocol.task import Grant, TaskSpec
from unit.agent.conftest import Hire
from unit.agent.making import task_id
from unit.agent.workshop import call, wait_until, with_hold


async def test_calls_run_in_order_and_each_is_told(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(1, "echo", 5), call(2, "echo", "a", "b"), call(3, "echo"))
    bench.give(call(4, "echo", {"k": [1.5, None]}))
    assert [await bench.result() for _ in range(4)] == [5, ["a", "b", {}], None, {"k": [1.5, None]}]


async def test_user_code_knows_its_attempt(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(77, "who", attempt=3))
    assert await bench.result() == [format_task_id(task_id(77)), "who", "some-queue", 3, 77, "00-trace-01"]


async def test_starts_are_told_by_the_servers_clock(hire: Hire) -> None:
    bench = await hire("process")
    day_ms = 24 * 3600 * 1000
    bench.give(call(1, "echo"))
    bench.give(call(2, "echo"), clock_ahead_ms=day_ms)
    first, second = await bench.next(), await bench.next()
    assert isinstance(first, wire.Returned)
    assert isinstance(second, wire.Returned)
    assert abs(second.started_at_ms - first.started_at_ms - day_ms) < 60_000
    assert first.run_us > 0


@pytest.mark.parametrize(
    ("kind", "type_", "message"),
    [
        ("value", "builtins.ValueError", "first line"),
        ("exit", "builtins.SystemExit", "3"),
        ("interrupt", "builtins.KeyboardInterrupt", "KeyboardInterrupt"),
        ("mute", "jobs.Mute", "Mute"),
        ("surrogate", "builtins.ValueError", r"bad \udcff name"),
    ],
)
async def test_a_function_that_raises_fails_and_its_worker_goes_on(
    hire: Hire, kind: str, type_: str, message: str
) -> None:
    bench = await hire("process")
    bench.give(call(1, "fail", kind), call(2, "echo", "still here"))
    failure = await bench.failure()
    assert (failure.code, failure.type, failure.message) == (TaskCodes.RAISED, type_, message)
    assert failure.traceback.splitlines()[0] == "Traceback (most recent call last):"
    assert "jobs.py" in failure.traceback.splitlines()[1], "it starts in the user's code"
    assert await bench.result() == "still here"


async def test_a_long_traceback_is_cut_in_the_middle(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(1, "fail", "deep"))
    failure = await bench.failure()
    assert len(failure.traceback) < 64 * 1024
    assert "characters left out" in failure.traceback
    assert failure.traceback.startswith("Traceback")
    assert len(failure.message) <= 1_000


async def test_wrong_arguments_fail_without_a_frame_of_ours(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(1, "large"))
    failure = await bench.failure()
    assert failure.type == "builtins.TypeError"
    assert "taskd" not in failure.traceback


async def test_what_cannot_be_run_or_carried_is_told_by_its_code(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(
        call(1, "nothing.like.it"),
        Grant(2, 1, TaskSpec(task_id(2), "echo", b"\xc1 no payload")),
        call(3, "odd"),
        call(4, "large", 2_000),
        result_bytes_max=1_000,
    )
    failures = [await bench.failure() for _ in range(4)]
    assert [failure.code for failure in failures] == [
        TaskCodes.NAME_UNKNOWN,
        TaskCodes.ARGUMENTS_UNREADABLE,
        TaskCodes.RESULT_UNPACKABLE,
        TaskCodes.RESULT_TOO_LARGE,
    ]
    assert "jobs.Odd" in failures[2].message
    assert "1000" in failures[3].message


async def test_large_arguments_and_results_pass_whole(hire: Hire) -> None:
    """Both are larger than a pipe: writing and reading go on side by side."""
    bench = await hire("process")
    data = bytes(range(256)) * 20_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.process.pump)
        bench.give(call(1, "echo", data), call(2, "echo", data), result_bytes_max=1 << 24)
        assert await bench.result() == data
        assert await bench.result() == data
        nursery.cancel_scope.cancel()


async def test_what_a_task_sets_in_its_context_is_gone_with_it(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(1, "leaky"), call(2, "leaky"))
    assert [await bench.result(), await bench.result()] == [0, 0]


async def test_a_forked_child_that_returns_says_nothing(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(1, "fork"), call(2, "echo", 2))
    assert await bench.result() is True
    assert await bench.result() == 2
    bench.give(call(3, "echo", 3))
    assert await bench.result() == 3
    assert bench.rest() == []


async def test_a_result_is_told_before_the_next_task_has_ended(hire: Hire, project: Path) -> None:
    bench = await hire("process")
    gate = project / "gate"
    bench.give(call(1, "echo", 1), call(2, "until", str(gate)))
    assert await bench.result() == 1
    await wait_until(lambda: bench.process.running() == 2)
    gate.touch()
    assert await bench.result() == str(gate)
    await wait_until(lambda: bench.process.running() == 0)


async def test_what_was_recalled_is_not_started(hire: Hire, project: Path) -> None:
    bench = await hire("process")
    gate, touched = project / "gate", project / "touched"
    bench.give(call(1, "until", str(gate)), call(2, "mark", str(touched)))
    last = bench.give(call(3, "mark", str(touched)))
    await wait_until(lambda: bench.process.running() == 1)
    bench.process.recall(last)
    gate.touch()
    assert await bench.result() == str(gate)
    assert await bench.next() == wire.Recalled(1)
    assert await bench.next() == wire.Recalled(2)
    bench.give(call(4, "echo", 4))
    assert await bench.result() == 4
    assert not touched.exists()


@pytest.mark.parametrize(("how", "code"), [("exit", 7), ("SIGKILL", -signal.SIGKILL), ("SIGSEGV", -signal.SIGSEGV)])
async def test_a_crash_loses_no_result_and_names_its_culprit(hire: Hire, how: str, code: int) -> None:
    bench = await hire("process")
    bench.give(call(1, "echo", 1), call(2, "die", how), call(3, "echo", 3))
    assert (await bench.exit()).code == code
    assert [end.token for end in bench.rest() if isinstance(end, wire.Returned)] == [1]
    assert bench.process.running() == 2


async def test_a_worker_ends_when_the_agent_hangs_up(hire: Hire) -> None:
    for kind in ("process", "asyncio", "trio"):
        bench = await hire(kind)
        bench.process.hang_up()
        assert (await bench.exit()).code == 0


async def test_coroutines_run_at_the_same_time(hire: Hire) -> None:
    bench = await hire("asyncio")
    bench.give(*(call(token, "ameet", 50) for token in range(1, 51)))
    assert [await bench.result() for _ in range(50)] == [50] * 50


async def test_more_coroutines_than_may_run_wait_and_all_run(hire: Hire) -> None:
    bench = await hire("asyncio")
    bench.give(*(call(token, "aecho", token) for token in range(1, 501)))
    assert sorted([int(str(await bench.result())) for _ in range(500)]) == list(range(1, 501))


async def test_many_large_results_of_one_round_pass(hire: Hire) -> None:
    bench = await hire("asyncio")
    size = 3_000_000
    bench.give(*(call(token, "alarge", size) for token in range(1, 31)), result_bytes_max=1 << 24)
    for _ in range(30):
        assert await bench.result() == bytes(size)


async def test_each_coroutine_knows_its_own_attempt(hire: Hire) -> None:
    bench = await hire("asyncio")
    bench.give(*(call(token, "awho") for token in range(1, 20)))
    assert {await bench.result() for _ in range(19)} == set(range(1, 20))


async def test_a_coroutine_that_raises_fails_alone(hire: Hire) -> None:
    bench = await hire("asyncio")
    bench.give(call(1, "afail"), call(2, "aecho", 2))
    ends = {
        end.token: end
        for end in [await bench.next(), await bench.next()]
        if not isinstance(end, wire.Ready | wire.Recalled | wire.Ends)
    }
    failed = ends[1]
    assert isinstance(failed, wire.Raised)
    assert (failed.failure.code, failed.failure.type) == (TaskCodes.RAISED, "builtins.ValueError")
    assert "jobs.py" in failed.failure.traceback.splitlines()[1]
    assert isinstance(ends[2], wire.Returned)


@pytest.mark.parametrize(("kind", "forever"), [("asyncio", "aforever"), ("trio", "tforever")])
async def test_a_coroutine_is_cancelled_whether_it_runs_waits_or_just_came(hire: Hire, kind: str, forever: str) -> None:
    bench = await hire(kind)
    bench.give(*(call(token, forever) for token in range(1, 102)))
    bench.tell(wire.Stop([1, 101, 999]))
    assert {(await bench.failure()).code for _ in range(2)} == {TaskCodes.CANCELLED}
    bench.tell(wire.Stop([7]))
    assert (await bench.failure()).code == TaskCodes.CANCELLED
    assert bench.rest() == []


async def test_a_coroutine_may_limit_its_own_waits(hire: Hire) -> None:
    bench = await hire("asyncio")
    bench.give(call(1, "atimely"), call(2, "atimely"))
    assert [await bench.result(), await bench.result()] == [0, 0]


@pytest.mark.parametrize("wait", [True, False])
async def test_a_crash_names_the_coroutine_that_was_taking_a_step(hire: Hire, *, wait: bool) -> None:
    bench = await hire("asyncio")
    bench.give(call(1, "aforever"), call(2, "adie", wait), call(3, "aforever"))
    assert (await bench.exit()).code == 9
    assert bench.process.running() == 2


async def test_coroutines_run_on_trio_too(hire: Hire) -> None:
    bench = await hire("trio")
    bench.give(*(call(token, "techo", token) for token in range(1, 301)))
    assert sorted([await bench.result() for _ in range(300)]) == [[token, token] for token in range(1, 301)]  # type: ignore[type-var]


async def test_an_attempt_has_what_its_lease_holds_and_the_next_one_has_it_no_more(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it did to its environment, and however it ended."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    bench = await hire("process")
    all_cpus = sorted(os.sched_getaffinity(0))
    one = all_cpus[:1]
    holds = Hold("cpu", 1_000), Hold("gpu", 500, ["2"]), Hold("memory", 1 << 30)
    held = {"cpu": [1.0], "gpu": [0.5, "2"], "memory": [1 << 30]}
    bench.give(with_hold(call(1, "having"), *holds), cpus=one)
    assert await bench.result() == [held, ["2", "PCI_BUS_ID"], one, one]
    bench.give(call(2, "having"))
    assert await bench.result() == [{}, ["0,1,2,3", None], all_cpus, all_cpus]
    bench.give(with_hold(call(3, "having", "spoil"), *holds), cpus=one)
    assert (await bench.failure()).type == "builtins.SystemExit"
    bench.give(with_hold(call(4, "having"), Hold("cpu", 500)))
    assert await bench.result() == [{"cpu": [0.5]}, ["0,1,2,3", None], all_cpus, all_cpus]


async def test_the_most_that_an_attempt_held_is_its_own_and_not_the_workers(hire: Hire) -> None:
    """Only of one that was granted memory: it costs some fifty microseconds."""
    bench = await hire("process")
    peaks = []
    for token, size in enumerate((64 << 20, 1, 32 << 20, 1), 1):
        bench.give(with_hold(call(token, "take", size), Hold("memory", 1 << 30)))
        end = await bench.next()
        assert isinstance(end, wire.Returned)
        peaks.append(end.peak_bytes)
    base = peaks[3]
    assert 1 << 20 < base < 200 << 20
    assert 60 << 20 < peaks[0] - base < 80 << 20
    assert peaks[1] - base < 8 << 20
    assert 28 << 20 < peaks[2] - base < 40 << 20
    bench.give(call(9, "take", 1))
    end = await bench.next()
    assert isinstance(end, wire.Returned)
    assert end.peak_bytes == 0


async def test_a_coroutine_knows_what_it_holds(hire: Hire) -> None:
    bench = await hire("asyncio")
    bench.give(with_hold(call(1, "ahaving"), Hold("memory", 1 << 20)))
    assert await bench.result() == {"memory": 1 << 20}
