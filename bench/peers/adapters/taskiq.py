"""Taskiq with Redis."""

from collections.abc import Sequence

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from peers.adapters import running
from peers.interface import REDIS_MODES, Argv, Broker, Place, redis, tool

place = Place.here()
url = f"redis://127.0.0.1:{place.port}"
backend = RedisAsyncResultBackend(url)
kind = RedisStreamBroker if place.mode == "durable" else ListQueueBroker
broker = kind(url).with_result_backend(backend)
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
        return self.run(self.in_bunches(tasks[body].kiq, values))

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        async def wait() -> list[int]:
            ended = [await each.wait_result(check_interval=running.POLL_S, timeout=within_s) for each in handles]
            return [result.return_value for result in ended]

        return self.run(wait())

    def close(self) -> None:
        self.run(broker.shutdown())
