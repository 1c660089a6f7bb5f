"""Coroutines on an asyncio event loop."""

import asyncio
from collections.abc import Callable

from taskd.agent.clock import Clock
from taskd.agent.worker.calls import Functions
from taskd.agent.worker.evented import Floor
from taskd.agent.worker.link import Link
from taskd.agent.worker.port import Port
from taskd_protocol.task import Grant


def serve(link: Link, functions: Functions, clock: Clock, concurrency: int, port: Port) -> None:
    """Run batches until the agent closes the link."""
    asyncio.run(_serve(link, functions, clock, concurrency, port))


async def _serve(link: Link, functions: Functions, clock: Clock, concurrency: int, port: Port) -> None:
    loop = asyncio.get_running_loop()
    closed = loop.create_future()

    def start(grant: Grant | list[Grant]) -> Callable[[], object]:
        # The loop itself holds tasks weakly; what is returned here, and kept, holds this one.
        return asyncio.Task(floor.run(grant, asyncio.CancelledError), loop=loop).cancel

    def read() -> None:
        if not floor.readable():
            loop.remove_reader(link.fd)
            closed.set_result(None)

    floor = Floor(
        link,
        functions,
        clock,
        concurrency=concurrency,
        start=start,
        soon=loop.call_soon,
        told=port.told,
        speech=port.speech,
    )
    loop.add_reader(link.fd, read)
    await closed
