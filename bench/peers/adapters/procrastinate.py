"""Procrastinate with PostgreSQL."""

import asyncio
from collections.abc import Sequence
from time import monotonic

import procrastinate

from peers.adapters import running
from peers.interface import Argv, Broker, Place, postgres, tool

place = Place.here()
connector = procrastinate.PsycopgConnector(
    kwargs={"host": "127.0.0.1", "port": place.port, "user": "bench", "dbname": "bench"}
)
app = procrastinate.App(connector=connector)
tasks = {name: app.task(getattr(running, name), name=name) for name in ("noop", "burn", "told")}

CHUNK = 1_000
APP = "peers.adapters.procrastinate.app"
ENDED = "SELECT count(*) AS ended FROM procrastinate_jobs WHERE id = ANY(%(ids)s) AND status = 'succeeded'"


class Peer(running.AsyncAdapter):
    """Procrastinate."""

    packages = ("procrastinate", "psycopg")
    modes = {
        "fast": "50 coroutines a process; PostgreSQL with synchronous_commit=off",
        "durable": "50 coroutines a process; PostgreSQL as it comes",
    }
    differs = "Coroutines on an event loop. It keeps no results: the client asks the table what has ended."

    def broker(self) -> Broker:
        return postgres(self.place, "bench", [[tool("procrastinate"), f"--app={APP}", "schema", "--apply"]])

    def workers(self) -> list[Argv]:
        return [[tool("procrastinate"), f"--app={APP}", "worker", "--concurrency=50"]] * self.place.workers

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The client's loop: psycopg wants asyncio's own."""
        try:
            return self._loop
        except AttributeError:
            self._loop = asyncio.new_event_loop()
            return self._loop

    def open(self) -> None:
        self.run(app.open_async())

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        async def submit() -> list[object]:
            ids: list[object] = []
            for start in range(0, len(values), CHUNK):
                chunk = [{"value": value} for value in values[start : start + CHUNK]]
                ids += await tasks[body].batch_defer_async(*chunk)
            return ids

        return self.run(submit())

    async def asubmit(self, body: str, value: int) -> object:
        return await tasks[body].defer_async(value=value)

    def submit(self, body: str, value: int) -> object:
        return self.run(self.asubmit(body, value))

    def results(self, handles: Sequence[object], within_s: float) -> None:
        async def wait() -> None:
            until = monotonic() + within_s
            for start in range(0, len(handles), CHUNK):
                ids = list(handles[start : start + CHUNK])
                while (await connector.execute_query_one_async(ENDED, ids=ids))["ended"] < len(ids):
                    if monotonic() > until:
                        raise TimeoutError
                    await asyncio.sleep(running.POLL_S)

        self.run(wait())

    def close(self) -> None:
        self.run(app.close_async())
