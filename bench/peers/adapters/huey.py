"""Huey with Redis."""

from collections.abc import Sequence

from huey import RedisHuey

from peers import bodies
from peers.interface import REDIS_MODES, Adapter, Argv, Broker, Place, redis, tool

place = Place.here()
huey = RedisHuey("bench", port=place.port, notify_result=place.mode == "notify")
tasks = {name: huey.task(name=name)(getattr(bodies, name)) for name in ("noop", "burn", "told")}


class Peer(Adapter):
    """Huey."""

    packages = ("huey", "redis", "hiredis")
    modes = {
        "fast": f"worker processes; {REDIS_MODES['fast']}",
        "notify": f"the same with notify_result, so that who waits for a result need not ask; {REDIS_MODES['fast']}",
        "durable": f"worker processes; {REDIS_MODES['durable']}",
    }
    differs = "A task is taken from the list before it runs, so a worker that dies loses it. Submits one by one."

    def broker(self) -> Broker:
        return redis(self.place)

    def workers(self) -> list[Argv]:
        words = ["peers.adapters.huey.huey", "--workers", str(self.place.workers), "--worker-type", "process"]
        return [[tool("huey_consumer"), *words, "--quiet"]]

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        return list(tasks[body].map(values))

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        return [handle.get(blocking=True, timeout=within_s) for handle in handles]
