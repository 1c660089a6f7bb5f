"""Real workers whose tasks spawn: what they tell of it, and what comes of their attempts."""

import pytest
from msgspec.structs import replace

from taskd.agent import wire
from taskd.agent.wire import handed
from taskd.client.family import TASKS_TOLD, Found
from taskd_protocol.errors import TaskCodes
from taskd_protocol.payload import pack, pack_arguments
from taskd_protocol.task import Grant, Spawned
from taskd_protocol.workflow import make_workflow_id, member_id, spawn_digest
from unit.agent.conftest import Hire
from unit.agent.workshop import Bench, call

NODE = member_id(make_workflow_id(1, b"12345"), 0)
KINDS = [("process", "parent"), ("asyncio", "aparent"), ("trio", "tparent")]


def again(token: int, name: str, count: int, *, changed: bool = False) -> Grant:
    """The next lease of a task that has spawned so many, all of which have ended."""
    digest = b"x" if changed else b""
    for number in range(count):
        digest = spawn_digest(digest, "echo", pack_arguments(["x" * 1000, number], {}))
    found = Found([pack(number * 10) for number in range(count)])
    return handed(replace(call(token, name, count, attempt=2), spawned=Spawned(NODE, count, digest)), found)


async def children(bench: Bench) -> tuple[int, int, int]:
    """What it says next of spawned tasks: whose, the number of the first, how many."""
    told = await bench.next()
    assert isinstance(told, wire.Children), told
    assert {task.name for task in told.tasks} == {"echo"}
    return told.token, told.first, len(told.tasks)


async def ended(bench: Bench) -> wire.Raised:
    end = await bench.next()
    assert isinstance(end, wire.Raised), end
    return end


@pytest.mark.parametrize(("kind", "name"), KINDS)
async def test_who_waits_tells_first_and_gets_the_results_at_the_next_attempt(hire: Hire, kind: str, name: str) -> None:
    """Also within the groups of event loops, which raise groups."""
    bench = await hire(kind)
    bench.give(call(5, name, 3))
    assert await children(bench) == (5, 0, 3)
    end = await ended(bench)
    assert (end.token, end.waits, end.final) == (5, True, False)
    bench.give(again(6, name, 3))
    assert await bench.result() == [0, 10, 20]
    assert bench.rest() == []


@pytest.mark.parametrize(("kind", "name"), KINDS[:2])
async def test_who_spawns_something_else_has_failed_for_good(hire: Hire, kind: str, name: str) -> None:
    bench = await hire(kind)
    bench.give(again(6, name, 3, changed=True))
    end = await ended(bench)
    assert (end.failure.code, end.final, end.waits) == (TaskCodes.SPAWN_CHANGED, True, False)


async def test_many_are_told_of_in_parts_and_what_raises_tells_of_the_rest(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(5, "parent", TASKS_TOLD + 10, "raise"))
    assert await children(bench) == (5, 0, TASKS_TOLD)
    assert await children(bench) == (5, TASKS_TOLD, 10)
    end = await ended(bench)
    assert (end.failure.type, end.waits) == ("builtins.KeyError", False)


async def test_who_dies_has_told_of_what_was_many(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(5, "parent", TASKS_TOLD + 10, "die"))
    assert await children(bench) == (5, 0, TASKS_TOLD)
    assert (await bench.exit()).code == 7


async def test_a_child_that_was_forked_spawns_nothing(hire: Hire) -> None:
    bench = await hire("process")
    bench.give(call(5, "parent", 2, "fork"))
    assert await children(bench) == (5, 0, 2)
    assert await bench.result() == "fork"
    assert bench.rest() == []
