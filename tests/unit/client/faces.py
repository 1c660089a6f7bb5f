"""The three ways to wait, under one set of tests: a scenario is written once and run on each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import TypeVar

import trio

from taskd import as_completed
from taskd.client.handle import TaskHandle

T = TypeVar("T")
Scenario = Coroutine[object, object, T]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return as soon as the condition holds; fail when the time has passed."""
    end_s = time.monotonic() + timeout_s  # noqa: TID251 - a real thread is waited for
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"  # noqa: TID251
        time.sleep(0.001)


class OneByOne:
    """An iterator's items for ``async for``."""

    def __init__(self, items: Iterator[TaskHandle[object]]) -> None:
        self.items = items

    def __aiter__(self) -> "OneByOne":
        return self

    async def __anext__(self) -> TaskHandle[object]:
        try:
            return next(self.items)
        except StopIteration:
            raise StopAsyncIteration from None


class Face:
    """One way to call: ``await face.call(task, "submit", 1)`` is ``task.submit(1)`` or ``await task.asubmit(1)``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    async def call(self, target: object, method: str, *args: object, **kwargs: object) -> object:
        if self.name == "sync":
            return getattr(target, method)(*args, **kwargs)
        return await getattr(target, f"a{method}")(*args, **kwargs)

    def completed(self, handles: Iterable[TaskHandle[object]], timeout_s: float) -> AsyncIterator[TaskHandle[object]]:
        completions = as_completed(handles, timeout_s)
        return OneByOne(completions) if self.name == "sync" else completions

    def run(self, scenario: Scenario[T]) -> T:
        if self.name == "asyncio":
            return asyncio.run(scenario)
        if self.name == "trio":
            return trio.run(lambda: scenario)
        try:
            scenario.send(None)
        except StopIteration as stop:
            value: T = stop.value
            return value
        raise AssertionError("a synchronous scenario awaited")


FACES = [Face("sync"), Face("asyncio"), Face("trio")]
