"""Celery with Redis as broker and result backend."""

from collections.abc import Sequence

from celery import Celery, chain, group

from peers import bodies
from peers.interface import REDIS_MODES, Argv, Broker, GraphAdapter, Place, redis, tool

place = Place.here()
app = Celery(
    "bench",
    broker=f"redis://127.0.0.1:{place.port}/0",
    backend=f"redis://127.0.0.1:{place.port}/1",
)
app.conf.update(
    worker_prefetch_multiplier=64,  # as its guide advises for many short tasks
    task_acks_late=place.mode == "durable",
    task_reject_on_worker_lost=place.mode == "durable",
    broker_connection_retry_on_startup=True,
)
tasks = {name: app.task(getattr(bodies, name), name=name) for name in ("noop", "burn", "told")}


class Peer(GraphAdapter):
    """Celery."""

    packages = ("celery", "kombu", "redis", "hiredis")
    modes = {
        "fast": f"prefork, prefetch multiplier 64, no gossip, mingle or heartbeats; {REDIS_MODES['fast']}",
        "durable": f"the same with acks_late and reject_on_worker_lost; {REDIS_MODES['durable']}",
    }
    differs = (
        "Submits one by one; its graph is a chain of groups with a task between any two, so each layer waits for all of"
        " the one before. Each of their messages carries all that comes after it: ten layers at most, in place of 50."
    )
    layers_at_most = 10  # time grows with their square; 50 took longer than a minute

    def broker(self) -> Broker:
        return redis(self.place)

    def workers(self) -> list[Argv]:
        words = ["-A", "peers.adapters.celery:app", "worker", "-P", "prefork", "-c", str(self.place.workers)]
        return [[tool("celery"), *words, "-l", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]]

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        task = tasks[body]
        with app.producer_pool.acquire(block=True) as producer:
            return [task.apply_async((value,), producer=producer) for value in values]

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        return [handle.get(timeout=within_s) for handle in handles]

    def run_graph(self, layers: int, width: int, within_s: float) -> None:
        noop, steps = tasks["noop"], []
        for _ in range(layers):  # a group right after a group of a hundred does not end
            steps += [group([noop.si(number) for number in range(width)]), noop.si(0)]
        chain(*steps).apply_async().get(timeout=within_s)
