"""What the peers that speak asyncio share: one event loop for the client, and coroutines in bounded bunches."""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from peers import bodies
from peers.interface import Adapter

T = TypeVar("T")

BUNCH = 500
POLL_S = 0.002


class AsyncAdapter(Adapter):
    """An adapter whose client runs on a loop of its own."""

    def run(self, work: Awaitable[T]) -> T:
        """Run to its end."""
        return self.loop.run_until_complete(work)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The client's loop."""
        try:
            return self._loop
        except AttributeError:
            import uvloop  # noqa: PLC0415 - the client's alone

            self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            asyncio.set_event_loop(self._loop)
            return self._loop

    @abstractmethod
    async def asubmit(self, body: str, value: int) -> object:
        """Submit one task; return when it is acknowledged."""

    def submit_at_once(self, body: str, count: int, submitters: int) -> None:
        """See ``Adapter``; here the submitters are coroutines."""
        self.run(at_once(lambda value: self.asubmit(body, value), count, submitters))

    async def in_bunches(
        self, call: Callable[[int], Awaitable[object]], values: Sequence[int], bunch: int = BUNCH
    ) -> list[object]:
        """Await a call for each value, so many at a time; return what they returned."""
        made: list[object] = []
        for start in range(0, len(values), bunch):
            made += await asyncio.gather(*map(call, values[start : start + bunch]))
        return made


async def at_once(call: Callable[[int], Awaitable[object]], count: int, submitters: int) -> None:
    """Have so many coroutines await one call after the other, so many calls in all."""
    left = iter(range(count))

    async def one() -> None:
        for value in left:
            await call(value)

    await asyncio.gather(*[one() for _ in range(submitters)])


async def noop(value: int) -> int:
    """Do nothing, on a worker's event loop."""
    return bodies.noop(value)


async def burn(value: int) -> int:
    """Use CPU, on a worker's event loop."""
    return bodies.burn(value)


async def told(value: int) -> int:
    """Leave word, on a worker's event loop."""
    return bodies.told(value)
