"""SAQ with Redis."""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import monotonic

from redis.asyncio import Redis
from saq.job import TERMINAL_STATUSES
from saq.queue.redis import RedisQueue

from peers.adapters import running
from peers.interface import REDIS_MODES, Argv, Broker, Place, redis, tool

CONNECTIONS = 1_000
"""Each coroutine that waits for work holds one; its Redis client allows a hundred unless told."""
queue = RedisQueue(Redis(port=Place.here().port, max_connections=CONNECTIONS))


async def noop(_ctx: object, *, value: int) -> int:
    """Do nothing."""
    return await running.noop(value)


async def burn(_ctx: object, *, value: int) -> int:
    """Use CPU."""
    return await running.burn(value)


async def told(_ctx: object, *, value: int) -> int:
    """Leave word."""
    return await running.told(value)


settings = {"queue": queue, "functions": [noop, burn, told], "concurrency": 100}


class Peer(running.AsyncAdapter):
    """SAQ."""

    packages = ("saq", "redis", "hiredis", "uvloop")
    modes = {mode: f"100 coroutines a process; {words}" for mode, words in REDIS_MODES.items()}
    differs = "Coroutines on an event loop, not functions."

    def broker(self) -> Broker:
        return redis(self.place)

    def workers(self) -> list[Argv]:
        words = ["peers.adapters.saq.settings", "--workers", str(self.place.workers), "--quiet"]
        return [[tool("saq"), *words]]

    def open(self) -> None:
        self.run(queue.connect())

    async def asubmit(self, body: str, value: int) -> object:
        return await queue.enqueue(body, value=value, timeout=0)

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        jobs = self.run(self.in_bunches(partial(self.asubmit, body), values))
        return [job.key for job in jobs]

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        async def wait() -> list[int]:
            found, left, until = [], list(handles), monotonic() + within_s
            while left:
                jobs = await queue.jobs(left[: running.BUNCH])
                ended = [job for job in jobs if job is not None and job.status in TERMINAL_STATUSES]
                found += [job.result for job in ended]
                gone = {job.key for job in ended}
                left = [key for key in left[: running.BUNCH] if key not in gone] + left[running.BUNCH :]
                if not gone:
                    if monotonic() > until:
                        raise TimeoutError
                    await asyncio.sleep(running.POLL_S)
            return found

        return self.run(wait())

    def close(self) -> None:
        self.run(queue.disconnect())
