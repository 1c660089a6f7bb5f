"""RQ with Redis."""

from collections.abc import Sequence

from redis import Redis
from rq import Queue

from peers.interface import REDIS_MODES, Argv, Broker, GraphAdapter, redis, tool


class Peer(GraphAdapter):
    """RQ."""

    packages = ("rq", "redis", "hiredis")
    modes = {mode: f"SimpleWorker, which forks for no job; {words}" for mode, words in REDIS_MODES.items()}
    differs = (
        "A job whose last two dependencies end at one moment, in two workers, may never be started: a graph in layers"
        " of a hundred does not end."
    )

    def broker(self) -> Broker:
        return redis(self.place)

    def workers(self) -> list[Argv]:
        url = f"redis://127.0.0.1:{self.place.port}"
        words = ["worker-pool", "-n", str(self.place.workers), "-w", "rq.worker.SimpleWorker", "-q", "-u", url]
        return [[tool("rq"), *words]]

    def open(self) -> None:
        self.queue = Queue(connection=Redis(port=self.place.port, socket_timeout=120))

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        jobs = [Queue.prepare_data(f"peers.bodies.{body}", (value,)) for value in values]
        return list(self.queue.enqueue_many(jobs))

    def submit(self, body: str, value: int) -> object:
        return self.queue.enqueue(f"peers.bodies.{body}", value)

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        values = []
        for job in handles:
            result = job.latest_result(timeout=round(within_s))
            if result is None:  # a job whose last two dependencies end at one time may never be started
                waiting = self.queue.deferred_job_registry.count
                raise TimeoutError(f"a job had not ended after {within_s:.0f} s; {waiting} wait for others")
            values.append(result.return_value)
        return values

    def run_graph(self, layers: int, width: int, within_s: float) -> None:
        before: list[object] = []
        for _ in range(layers):
            pairs = [[before[i], before[(i + 1) % width]] if before else None for i in range(width)]
            before = [self.queue.enqueue("peers.bodies.noop", i, depends_on=pair) for i, pair in enumerate(pairs)]
        self.results(before, within_s)
