"""HyperQueue: its server and worker live in one process, as its Python package has them.

python -m peers.adapters.hyperqueue      is that process
"""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hyperqueue import Client, Job
from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.task.function import PythonEnv

from peers import bodies
from peers.interface import Argv, Broker, GraphAdapter, Place, python


class Peer(GraphAdapter):
    """HyperQueue."""

    packages = ("hyperqueue",)
    modes = {"fast": "a process for each task: a command for no-ops, Python for those that burn"}
    durable = ()
    without = ("crash", "submitters")  # a submit to it is a job of its own, and waits for the one before
    differs = (
        "Each task is a process of its own, which is what it is for. No results are kept but files and exit codes."
        " Its Python package has server and workers in one process, so the one cannot be killed without the others,"
        " and its client asks once a second whether a job has ended."
    )

    def broker(self) -> Broker:
        argv, version = python("peers.adapters.hyperqueue"), python("pip", "show", "hyperqueue")
        return Broker(argv, version, marker=f"{self.place.directory}/hq", port_of_its_own=True)

    def workers(self) -> list[Argv]:
        return []

    def open(self) -> None:
        marker = Path(self.place.directory) / "hq"
        self.client = Client(marker.read_text(), PythonEnv(python_bin=sys.executable))

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        job = self._job()
        for value in values:
            self._add(job, body, value)
        return [self.client.submit(job)] + [None] * (len(values) - 1)

    def results(self, handles: Sequence[object], within_s: float) -> None:
        del within_s  # it waits without a bound; the runner has one
        self.client.wait_for_jobs([handle for handle in handles if handle is not None])

    def run_graph(self, layers: int, width: int, within_s: float) -> None:
        job = self._job()
        before: list[object] = []
        for _ in range(layers):
            pairs = [[before[i], before[(i + 1) % width]] if before else [] for i in range(width)]
            before = [job.program(["/bin/true"], deps=pair, stdout=None, stderr=None) for pair in pairs]
        self.results([self.client.submit(job)], within_s)

    def _job(self) -> Job:
        return Job(default_workdir=self.place.directory)

    def _add(self, job: Job, body: str, value: int) -> None:
        if body == "noop":
            job.program(["/bin/true"], stdout=None, stderr=None)
        else:
            job.function(getattr(bodies, body), args=(value,), stdout=None, stderr=None)


def main() -> None:
    """Be server and worker until killed."""
    place = Place.here()
    server = Path(place.directory) / "server"
    server.mkdir()
    cluster = LocalCluster(str(server), WorkerConfig(cores=place.workers) if place.workers else None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which its server takes, and does nothing about
    marker = Path(place.directory) / "hq"
    marker.with_suffix(".new").write_text(str(cluster.cluster.server_dir))
    marker.with_suffix(".new").rename(marker)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
