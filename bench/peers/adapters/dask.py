"""Dask distributed."""

from collections.abc import Sequence
from time import monotonic, sleep

from distributed import Client, wait

from peers import bodies
from peers.interface import Argv, Broker, GraphAdapter, tool


class Peer(GraphAdapter):
    """Dask distributed."""

    packages = ("distributed", "dask")
    modes = {"fast": "a worker process of one thread each"}
    durable = ()
    without = ("submitters",)  # it acknowledges nothing
    differs = "Keeps everything in memory, and says nothing when it has taken a task: a submit returns at once."

    def broker(self) -> Broker:
        words = ["scheduler", "--host", "127.0.0.1", "--port", str(self.place.port), "--no-dashboard"]
        return Broker([tool("dask"), *words], [tool("dask"), "--version"])

    def workers(self) -> list[Argv]:
        address = f"tcp://127.0.0.1:{self.place.port}"
        words = ["worker", address, "--nworkers", str(self.place.workers), "--nthreads", "1", "--no-dashboard"]
        return [[tool("dask"), *words, "--local-directory", self.place.directory]]

    def open(self) -> None:
        self.client = Client(f"tcp://127.0.0.1:{self.place.port}", timeout=30)
        self.held: list[object] = []

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        handles = self.client.map(getattr(bodies, body), values, pure=False)
        if not self.place.workers:
            self.held += handles  # else they are cancelled
            self._until_known(len(self.held))
        return handles

    def submit(self, body: str, value: int) -> object:
        return self.client.submit(getattr(bodies, body), value, pure=False)

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        wait(list(handles), timeout=within_s)
        return self.client.gather(list(handles))

    def run_graph(self, layers: int, width: int, within_s: float) -> None:
        before: list[object] = []
        for _ in range(layers):
            pairs = [[before[i], before[(i + 1) % width]] if before else [] for i in range(width)]
            before = [self.client.submit(_after, i, *pair, pure=False) for i, pair in enumerate(pairs)]
        wait(before, timeout=within_s)

    def _until_known(self, count: int) -> None:
        until = monotonic() + 60
        while self.client.run_on_scheduler(_count) < count:
            assert monotonic() < until
            sleep(0.01)

    def close(self) -> None:
        self.client.close()


def _after(value: int, *_before: int) -> int:
    return bodies.noop(value)


def _count(dask_scheduler: object) -> int:
    return len(dask_scheduler.tasks)
