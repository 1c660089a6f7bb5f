"""Dramatiq with Redis as broker and result backend."""

from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from peers import bodies
from peers.interface import REDIS_MODES, Adapter, Argv, Broker, Place, redis, tool

place = Place.here()
url = f"redis://127.0.0.1:{place.port}/0"
backend = RedisBackend(url=url)
broker = RedisBroker(url=url)
broker.add_middleware(Results(backend=backend, store_results=True))
dramatiq.set_broker(broker)
actors = {name: dramatiq.actor(getattr(bodies, name), actor_name=name) for name in ("noop", "burn", "told")}


class Peer(Adapter):
    """Dramatiq."""

    packages = ("dramatiq", "redis", "hiredis")
    modes = {mode: f"8 threads a process, its default; {words}" for mode, words in REDIS_MODES.items()}
    differs = "Submits one by one."

    def broker(self) -> Broker:
        return redis(self.place)

    def workers(self) -> list[Argv]:
        words = ["peers.adapters.dramatiq:broker", "--processes", str(self.place.workers), "--threads", "8"]
        return [[tool("dramatiq"), *words]]

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        actor = actors[body]
        return [actor.send(value) for value in values]

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        return [message.get_result(backend=backend, block=True, timeout=round(within_s * 1000)) for message in handles]
