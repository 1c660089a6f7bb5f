"""A coroutine that shows in the shared page whenever it runs, so that a crash blames it and none of its neighbours."""

from collections.abc import Coroutine, Generator
from typing import Self

from taskd.agent import wire

UserCoroutine = Coroutine[object, object, object]


class Watched:
    """Awaits a coroutine that has taken its first step; stores its fencing token for the length of each further one."""

    __slots__ = ("_coro", "_page", "_token", "_waits_for")

    def __init__(self, coro: UserCoroutine, waits_for: object, token: int, page: "memoryview[int]") -> None:
        self._coro = coro
        self._waits_for = waits_for  # what the first step gave, for the loop
        self._token = token
        self._page = page

    def __await__(self) -> Generator[object, object, object]:
        """Be awaited."""
        return self  # type: ignore[return-value]  # to the loop an iterator is as good as a generator

    def __iter__(self) -> Self:
        """Be its own iterator."""
        return self

    def __next__(self) -> object:
        """Pass on what the first step gave; later, take a step."""
        waits_for, self._waits_for = self._waits_for, self
        return self.send(None) if waits_for is self else waits_for

    def send(self, value: object) -> object:
        """Take a step."""
        self._page[wire.PAGE_RUNNING] = self._token
        try:
            return self._coro.send(value)
        finally:
            self._page[wire.PAGE_RUNNING] = 0

    def throw(self, error: BaseException) -> object:
        """Take a step that begins with an exception."""
        self._page[wire.PAGE_RUNNING] = self._token
        try:
            return self._coro.throw(error)
        finally:
            self._page[wire.PAGE_RUNNING] = 0

    def close(self) -> None:
        """Give up."""
        self._coro.close()
