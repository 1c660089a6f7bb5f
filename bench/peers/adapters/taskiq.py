"""Taskiq with Redis."""

import asyncio
from collections.abc import Sequence

from taskiq import AsyncTaskiqTask, TaskiqResult
from taskiq.exceptions import ResultGetError
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from peers.adapters import running
from peers.interface import REDIS_MODES, Argv, Broker, Place, redis, tool

AT_ONCE = 50
"""Calls under way at once: each holds a connection to Redis."""
place = Place.here()
url = f"redis://127.0.0.1:{place.port}"
backend = RedisAsyncResultBackend(url)
kind = RedisStreamBroker if place.mode == "durable" else ListQueueBroker
broker = kind(url, socket_timeout=None).with_result_backend(backend)  # a worker that waits for 5 s ends otherwise
tasks = {name: broker.task(name)(getattr(running, name)) for name in ("noop", "burn", "told")}


class Peer(running.AsyncAdapter):
    """Taskiq."""

    packages = ("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop")
    modes = {
        "fast": f"ListQueueBroker, 100 coroutines a process; {REDIS_MODES['fast']}",
        "durable": f"RedisStreamBroker, which has acknowledgements, 100 coroutines a process; {REDIS_MODES['durable']}",
    }
    differs = "Coroutines on an event loop, not functions."

    def broker(self) -> Broker:
        return redis(self.place)

    def workers(self) -> list[Argv]:
        words = ["worker", "peers.adapters.taskiq:broker", "--workers", str(self.place.workers)]
        return [[tool("taskiq"), *words, "--max-async-tasks", "100", "--log-level", "ERROR"]]

    def open(self) -> None:
        self.run(broker.startup())

    async def asubmit(self, body: str, value: int) -> object:
        return await tasks[body].kiq(value)

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        return self.run(self.in_bunches(tasks[body].kiq, values, AT_ONCE))

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        async def result(task: AsyncTaskiqTask[int]) -> TaskiqResult[int]:
            try:
                return await task.get_result()
            except ResultGetError:  # it is not there yet
                return await task.wait_result(check_interval=running.POLL_S, timeout=within_s)

        async def wait() -> list[int]:
            values: list[int] = []
            for start in range(0, len(handles), AT_ONCE):
                bunch = handles[start : start + AT_ONCE]
                # By then most of the others have ended, too, so that it need not be asked of each whether it has.
                await bunch[-1].wait_result(check_interval=running.POLL_S, timeout=within_s)
                values += [each.return_value for each in await asyncio.gather(*map(result, bunch))]
            return values

        return self.run(wait())

    def close(self) -> None:
        self.run(broker.shutdown())
