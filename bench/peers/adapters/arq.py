"""arq with Redis."""

from collections.abc import Sequence
from functools import partial

from arq import create_pool
from arq.connections import RedisSettings

from peers.adapters import running
from peers.interface import REDIS_MODES, Argv, Broker, Place, redis, tool

settings = RedisSettings(port=Place.here().port)


async def noop(_ctx: object, value: int) -> int:
    """Do nothing."""
    return await running.noop(value)


async def burn(_ctx: object, value: int) -> int:
    """Use CPU."""
    return await running.burn(value)


async def told(_ctx: object, value: int) -> int:
    """Leave word."""
    return await running.told(value)


class WorkerSettings:
    """Of its workers."""

    functions = [noop, burn, told]
    redis_settings = settings
    max_jobs = 100
    poll_delay = 0.01


class Peer(running.AsyncAdapter):
    """Arq."""

    packages = ("arq", "redis", "hiredis", "uvloop")
    modes = {
        mode: f"100 coroutines a process, polling every 10 ms in place of 500; {words}"
        for mode, words in REDIS_MODES.items()
    }
    differs = "Coroutines on an event loop, not functions."

    def broker(self) -> Broker:
        return redis(self.place)

    def workers(self) -> list[Argv]:
        return [[tool("arq"), "peers.adapters.arq.WorkerSettings"]] * self.place.workers

    def open(self) -> None:
        self.pool = self.run(create_pool(settings))

    async def asubmit(self, body: str, value: int) -> object:
        return await self.pool.enqueue_job(body, value)

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        return self.run(self.in_bunches(partial(self.asubmit, body), values))

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        async def wait() -> list[int]:
            return [await job.result(timeout=within_s, poll_delay=running.POLL_S) for job in handles]

        return self.run(wait())
