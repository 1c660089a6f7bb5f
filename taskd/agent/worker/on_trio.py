"""Coroutines on a trio event loop."""

from collections.abc import Callable
from functools import partial

import trio

from taskd.agent.clock import Clock
from taskd.agent.worker.calls import Functions
from taskd.agent.worker.evented import Floor
from taskd.agent.worker.link import Link
from taskd.agent.worker.port import Port
from taskd_protocol.task import Grant


def serve(link: Link, functions: Functions, clock: Clock, concurrency: int, port: Port) -> None:
    """Run batches until the agent closes the link."""
    trio.run(_serve, link, functions, clock, concurrency, port)


async def _serve(link: Link, functions: Functions, clock: Clock, concurrency: int, port: Port) -> None:
    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:

        async def attempt(grant: Grant | list[Grant], scope: trio.CancelScope) -> None:
            with scope:
                await floor.run(grant, trio.Cancelled)

        def start(grant: Grant | list[Grant]) -> Callable[[], object]:
            scope = trio.CancelScope()
            nursery.start_soon(attempt, grant, scope)
            return scope.cancel

        floor = Floor(
            link,
            functions,
            clock,
            concurrency=concurrency,
            start=start,
            soon=partial(token.run_sync_soon),
            told=port.told,
            speech=port.speech,
        )
        while True:
            await trio.lowlevel.wait_readable(link.fd)
            if not floor.readable():
                break
        nursery.cancel_scope.cancel()
