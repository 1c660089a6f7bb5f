"""taskd as shipped: TLS, tokens, an fsync before each acknowledgement, results stored."""

import asyncio
from collections.abc import Sequence

from peers import bodies
from peers.adapters import running
from peers.interface import Argv, Broker, GraphAdapter, tool
from taskd import App

app = App()
functions = {name: app.task(getattr(bodies, name), name=name) for name in ("noop", "burn", "told")}
coroutines = {name: app.task(getattr(running, name), name=f"a{name}") for name in ("noop", "burn", "told")}


@app.task(name="after")
def after(value: int) -> int:
    """Do nothing, after others."""
    return bodies.noop(value)


class Peer(GraphAdapter):
    """taskd."""

    packages = ("taskd",)
    modes = {
        "functions": "as shipped: TLS, fsync before each acknowledgement; two agents of a worker process",
        "coroutines": "the same with coroutines on a worker's event loop",
    }
    durable = ("functions", "coroutines")

    def broker(self) -> Broker:
        words = ["server", "--data-dir", f"{self.place.directory}/data", "--listen", f"127.0.0.1:{self.place.port}"]
        argv, version = [tool("taskd"), *words, "--http", "127.0.0.1:0"], [tool("taskd"), "--version"]
        return Broker(argv, version, marker=f"{self.place.directory}/config/taskd/current")

    def workers(self) -> list[Argv]:
        words = ["agent", "peers.adapters.taskd", "--processes", "1", "--name"]
        return [[tool("taskd"), *words, f"agent-{number}"] for number in range(self.place.workers)]

    def _task(self, body: str) -> object:
        return (coroutines if self.place.mode == "coroutines" else functions)[body]

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        return list(self._task(body).map(values))

    def submit(self, body: str, value: int) -> object:
        return self._task(body).submit(value)

    def submit_at_once(self, body: str, count: int, submitters: int) -> None:
        if self.place.mode == "coroutines":
            asyncio.run(running.at_once(self._task(body).asubmit, count, submitters))
        else:
            super().submit_at_once(body, count, submitters)

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        return [handle.result(timeout=within_s) for handle in handles]

    def run_graph(self, layers: int, width: int, within_s: float) -> None:
        with app.workflow("layers") as made:
            before: list[object] = []
            for _ in range(layers):
                pairs = [[before[i], before[(i + 1) % width]] if before else [] for i in range(width)]
                before = [after.node(i, after=pair) for i, pair in enumerate(pairs)]
        assert made.submit().wait(timeout=within_s) == "succeeded"

    def close(self) -> None:
        app.close()
