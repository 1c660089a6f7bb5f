"""Tasks with ``batch=``: how they are declared, and what their middleware and their tests see."""

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from taskd import App, Resources, TaskContext, TaskFailed, current, current_batch
from taskd.client.batching import Batching, read_batching
from taskd.client.context import running_together
from taskd.client.middleware import Around, TaskFunction
from taskd.client.options import Options
from taskd.testing import inline
from taskd_protocol.errors import BadRequest
from taskd_protocol.task import Grant, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Coroutine


def halves(numbers: list[int]) -> list[float | Exception]:
    return [ValueError(f"{n} is odd") if n % 2 else n / 2 for n in numbers]


@pytest.mark.parametrize(
    ("batch", "wait", "options", "why"),
    [
        (501, 0.0, Options(), "1 to 500"),
        (-1, 0.0, Options(), "1 to 500"),
        (10, 61, Options(), "0 to 60 seconds"),
        (0, 0.05, Options(), "no batch that waits"),
        (10, 0.0, Options(exclusive=True), "does not go with exclusive"),
        (10, 0.0, Options(resources=Resources(gpu=1)), "does not go with resources"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(batch: int, wait: float, options: Options, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        read_batching("t", batch, wait, options)
    with pytest.raises(BadRequest, match=why) as unnamed:
        read_batching("", batch, wait, options)
    assert "''" not in unnamed.value.message, "a decorator's task has no name yet"


def none() -> list[int]:
    return []


def two(one: list[int], other: list[int]) -> list[int]:
    return one + other


def by_name(*, numbers: list[int]) -> list[int]:
    return numbers


@pytest.mark.parametrize("function", [none, two, by_name])
def test_the_function_takes_one_list(function: TaskFunction) -> None:
    with pytest.raises(BadRequest, match="takes one argument"):
        App().declare(function, "t", Options(), None, Batching(10, 0))


def test_a_call_here_and_now_is_plain_and_a_submit_takes_one_item() -> None:
    app = App()
    task = app.task(name="halves", batch=10)(halves)
    assert task([2, 4]) == [1.0, 2.0]
    with inline(app):
        assert [handle.result() for handle in task.map([2, 4])] == [1.0, 2.0]
        with pytest.raises(TaskFailed, match="3 is odd") as caught:
            task.submit(3).result()
        assert caught.value.type == "builtins.ValueError"


def test_inline_runs_an_async_one_with_its_contexts() -> None:
    app = App()

    @app.task(name="names", batch=10)
    async def names(items: list[str]) -> list[str]:
        await asyncio.sleep(0)
        with pytest.raises(BadRequest, match="current_batch"):
            current()
        with pytest.raises(BadRequest, match="spawns nothing"):
            current_batch()[0].spawn(names, "x")
        return [f"{each.name} {item}" for each, item in zip(current_batch(), items, strict=True)]

    @app.task(name="short", batch=10)
    def short(items: list[str]) -> list[str]:
        return items[1:]

    with inline(app):
        assert names.submit("a").result() == "names a"
        with pytest.raises(TaskFailed, match="given 1 tasks, and returned 0"):
            short.submit("a").result()
    with pytest.raises(BadRequest, match="no tasks run here"):
        current_batch()


class Noting:
    """Notes what becomes of each task, and turns those of token 3 away."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def attempting(self, context: TaskContext, /) -> Around:
        try:
            yield
        except Exception as error:
            self.notes.append(f"{context.fencing_token}: {error}")
            raise
        self.notes.append(f"{context.fencing_token}: fine")
        if context.fencing_token == 3:
            raise PermissionError("not that one")


@pytest.mark.parametrize("is_async", [False, True])
def test_middleware_is_around_each_task_of_a_call(*, is_async: bool) -> None:
    """An exception among the results is raised where that task's hooks yielded; what a hook raises is that task's."""
    noting = Noting()
    app = App(middleware=[noting])

    async def later(numbers: list[int]) -> list[float | Exception]:
        await asyncio.sleep(0)
        return halves(numbers)

    app.task(name="sync", batch=10)(halves)
    app.task(name="async", batch=10)(later)
    running_together.set([TaskContext(Grant(token, 1, TaskSpec(bytes(16), "t"))) for token in (1, 2, 3)])
    try:
        function = app.tasks["async" if is_async else "sync"].for_worker()
        returned = function([2, 3, 4])
        results = asyncio.run(cast("Coroutine[object, object, object]", returned)) if is_async else returned
        assert isinstance(results, list)
        assert results[0] == 1.0
        assert [type(result) for result in results[1:]] == [ValueError, PermissionError]
        assert noting.notes == ["3: fine", "2: 3 is odd", "1: fine"]
    finally:
        running_together.set(None)
