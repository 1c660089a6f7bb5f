"""Real workers that are given many tasks in one call: each has a result, or a failure, of its own."""

import pytest
import trio

from taskd.agent import wire
from taskd_protocol.errors import TaskCodes
from taskd_protocol.payload import unpack
from unit.agent.conftest import Hire
from unit.agent.workshop import Bench, call

KINDS = [("process", "halves"), ("asyncio", "ahalves")]


async def ends_of(bench: Bench, count: int) -> dict[int, object]:
    """The result of each by its token, or the code, and the type, of its failure."""
    ends: dict[int, object] = {}
    for _ in range(count):
        end = await bench.next()
        assert isinstance(end, wire.Returned | wire.Raised)
        if isinstance(end, wire.Returned):
            ends[end.token] = unpack(end.result)
        else:
            ends[end.token] = "released" if end.released else (end.failure.code, end.failure.type)
    return ends


@pytest.mark.parametrize(("kind", "name"), KINDS)
async def test_each_task_of_a_call_ends_in_its_own_way(hire: Hire, kind: str, name: str) -> None:
    """What cannot be read is not in the list; an exception among the results is one task's failure."""
    bench = await hire(kind)
    bench.give(call(1, name, 4), call(2, name, 1, 2), call(3, name, "odd"), call(4, name, 6), together=True)
    assert await ends_of(bench, 4) == {
        1: [1, 2.0],
        2: (TaskCodes.ARGUMENTS_UNREADABLE, ""),
        3: (TaskCodes.RAISED, "builtins.ValueError"),
        4: [4, 3.0],
    }


@pytest.mark.parametrize(("kind", "name"), KINDS)
async def test_what_is_raised_or_returned_wrongly_fails_all_of_the_call(hire: Hire, kind: str, name: str) -> None:
    bench = await hire(kind)
    bench.give(call(1, name, 4), call(2, name, "raise"), together=True)
    assert set((await ends_of(bench, 2)).values()) == {(TaskCodes.RAISED, "builtins.LookupError")}
    bench.give(call(3, name, 4), call(4, name, "short"), together=True)
    assert set((await ends_of(bench, 2)).values()) == {(TaskCodes.BATCH_RESULTS, "")}
    bench.give(call(5, name, 8), together=True)
    assert await ends_of(bench, 1) == {5: [5, 4.0]}, "the worker goes on"


async def test_a_function_sees_which_of_its_tasks_are_to_end(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(1, "halves", "patient"), call(2, "halves", 2), call(3, "halves", 2), together=True)
    while bench.process.running() != 1:  # noqa: ASYNC110 - in another process
        await trio.sleep(0.005)
    bench.process.cancel(2, 1)
    assert await ends_of(bench, 3) == {1: False, 2: True, 3: False}


async def test_a_coroutine_of_many_that_is_told_to_end_one_has_not_failed_the_others(hire: Hire) -> None:
    bench = await hire("asyncio")
    bench.give(call(1, "ahalves", "forever"), call(2, "ahalves", 2), together=True)
    bench.give(call(3, "aecho", "beside"))
    assert await bench.result() == "beside"
    bench.tell(wire.Stop([2]))
    assert await ends_of(bench, 2) == {1: "released", 2: (TaskCodes.CANCELLED, "")}
