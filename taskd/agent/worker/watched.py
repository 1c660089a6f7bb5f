"""A coroutine that shows in the shared page whenever it runs, so that a crash blames it and none of its neighbours."""

from collections.abc import Awaitable, Coroutine, Iterator
from typing import cast

from taskd.agent import wire


def watched(coro: object, token: int, page: "memoryview[int]") -> Awaitable[object]:
    """Return what awaits the coroutine that a task's function gave."""
    # To the loop an iterator is as good as the generator that the type asks for.
    return Watched(cast("Coroutine[object, object, object]", coro), token, page)  # type: ignore[return-value]


class Watched:
    """Awaits a coroutine; stores its fencing token for the length of each step."""

    __slots__ = ("_coro", "_page", "_token")

    def __init__(self, coro: Coroutine[object, object, object], token: int, page: "memoryview[int]") -> None:
        self._coro = coro
        self._token = token
        self._page = page

    def __await__(self) -> Iterator[object]:
        """Be awaited."""
        return self

    def __iter__(self) -> Iterator[object]:
        """Be its own iterator."""
        return self

    def __next__(self) -> object:
        """Take a step."""
        return self.send(None)

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
