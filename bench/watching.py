"""What it costs that people look on: tasks per second, and CPU of the server, with and without a hundred open pages.

    python bench/watching.py [--tasks N] [--pages N] [--followers N] [--rounds N]

Pages read ``/api/v1/live`` with the topics of the overview, followers ``/api/v1/events`` of a task each. They are
sockets of one program, which looks at nothing that it reads: what it costs is told apart. Rounds with and without them
take turns on one server. ``late`` is how long after a task was submitted a page was told of it, on an idle server.
"""

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter_ns, sleep

import cases
import measure
import programs

from taskd.client import profile as profiles

TOPICS = "overview,queues,agents"
READ_BYTES = 1 << 16
LATE_TRIES = 20
BATCH, BATCH_EVERY_S = 1_000, 0.2
PACED_S = 5.0


def read_all(address: str, token: str, paths: list[str]) -> None:
    """Open a stream for each path and read until ended; say on standard output when all are open, and what came."""
    host, _, port = address.rpartition(":")
    selector, read_bytes = selectors.DefaultSelector(), 0
    for stream in [open_stream(host, int(port), token, path) for path in paths]:
        stream.recv(READ_BYTES)  # it is answered
        stream.settimeout(0)
        selector.register(stream, selectors.EVENT_READ)
    print("open", flush=True)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    while not ended:
        for key, _ in selector.select(0.2):
            assert isinstance(key.fileobj, socket.socket)
            with contextlib.suppress(BlockingIOError):
                read_bytes += len(key.fileobj.recv(READ_BYTES))
    print(read_bytes, flush=True)


def open_stream(host: str, port: int, token: str, path: str) -> socket.socket:
    """Ask for a stream; return its socket."""
    stream = socket.create_connection((host, port))
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    stream.sendall(request.encode())
    return stream


@contextmanager
def readers(directory: Path, address: str, token: str, paths: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Have everybody look on while the body runs."""
    arguments = directory / "readers.json"
    arguments.write_text(json.dumps([address, token, paths]))
    argv = [sys.executable, str(Path(__file__).resolve()), "--readers", str(arguments)]
    with programs.program(argv, directory / "readers.log", heard=True) as process:
        assert programs.line(process, cases.START_WITHIN_S) == "open"
        yield process


def late_ms(address: str, token: str) -> list[float]:
    """Return how long after each submit a page was told that something is new."""
    import bench_tasks  # noqa: PLC0415 - looks for the profile

    host, _, port = address.rpartition(":")
    found = []
    with open_stream(host, int(port), token, "/api/v1/live?topics=tasks") as stream:
        stream.recv(READ_BYTES)
        for _ in range(LATE_TRIES):
            sleep(0.7)
            _drain(stream)
            began = perf_counter_ns()
            handle = bench_tasks.noop.submit(1)
            stream.recv(READ_BYTES)
            found.append((perf_counter_ns() - began) / 1e6)
            handle.result(timeout=10)
    return found


def _drain(stream: socket.socket) -> None:
    stream.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while stream.recv(READ_BYTES):
            pass
    stream.settimeout(None)


def round_of(running: cases.Cluster, count: int) -> measure.Facts:
    """Have so many tasks done; return what that took."""
    import bench_tasks  # noqa: PLC0415 - looks for the profile

    pids, stats_before = running.pids(), cases.stats()
    cpu_before, began = measure.cpu_ns(pids), perf_counter_ns()
    for handle in bench_tasks.noop.map(range(count)):
        handle.result(timeout=cases.SECONDS_MAX)
    seconds, cpu_after = (perf_counter_ns() - began) / 1e9, measure.cpu_ns(pids)
    stages = {
        stage: (spent - stats_before.stages_ns.get(stage, 0)) / count / 1e3
        for stage, spent in cases.stats().stages_ns.items()
    }
    server_us = (cpu_after["server"] - cpu_before["server"]) / count / 1e3
    return {"tasks_per_s": count / seconds, "server_us": server_us, "loop_us": sum(stages.values())}


def share_of(running: cases.Cluster, seconds: float) -> float:
    """Have 5,000 tasks a second done for so long; return what the server uses of a core."""
    import bench_tasks  # noqa: PLC0415 - looks for the profile

    pids = {"server": [running.servers[-1].pid]}
    before, began = measure.cpu_ns(pids), perf_counter_ns()
    for number in range(round(seconds / BATCH_EVERY_S)):
        for handle in bench_tasks.noop.map(range(BATCH)):
            handle.result(timeout=cases.SECONDS_MAX)
        sleep(max(0, (number + 1) * BATCH_EVERY_S - (perf_counter_ns() - began) / 1e9))
    return (measure.cpu_ns(pids)["server"] - before["server"]) / (perf_counter_ns() - began)


def main() -> None:
    """Take turns, and print."""
    parser = argparse.ArgumentParser(description="What it costs that people look on.")
    parser.add_argument("--tasks", type=int, default=40_000)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--followers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--readers", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    if options.readers:
        read_all(*json.loads(options.readers.read_text()))
        return
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="watching-", dir=options.data_dir)).resolve()
    paths = [f"/api/v1/live?topics={TOPICS}"] * options.pages
    paths += [f"/api/v1/events?tasks={uuid.UUID(int=7 << 76 | 2 << 62 | n)}" for n in range(options.followers)]
    rounds: dict[str, list[measure.Facts]] = {"alone": [], "watched": []}
    with cases.cluster(directory, tls=True) as running, ExitStack() as stack:
        [profile] = profiles.profiles()
        address = profile.http.partition("://")[2]
        round_of(running, options.tasks // 4)
        late = late_ms(address, profile.token)
        shares = {"alone": share_of(running, PACED_S)}
        with readers(directory, address, profile.token, paths):
            shares["watched"] = share_of(running, PACED_S)
        for _ in range(options.rounds):
            rounds["alone"].append(round_of(running, options.tasks))
            with readers(directory, address, profile.token, paths) as process:
                before = measure.cpu_ns({"readers": [process.pid]})["readers"]
                facts = round_of(running, options.tasks)
                spent = measure.cpu_ns({"readers": [process.pid]})["readers"] - before
                rounds["watched"].append({**facts, "readers_us": spent / options.tasks / 1e3})
                process.send_signal(signal.SIGTERM)
                rounds["watched"][-1]["read_kb"] = int(programs.line(process, 10)) / 1e3
        stack.close()
    print("late: " + measure.in_words({"p50_ms": measure.quantile(late, 0.5), "max_ms": max(late)}))
    print("at 5,000 tasks/s, of a core: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    for name, facts in rounds.items():
        print(name, json.dumps([{key: round(float(value), 2) for key, value in each.items()} for each in facts]))
    rates = {name: [float(each["tasks_per_s"]) for each in facts] for name, facts in rounds.items()}
    best = {name: measure.quantile(each, 0.5) for name, each in rates.items()}
    print(f"watched / alone: {best['watched'] / best['alone']:.3f}; {os.getloadavg()[0]:.1f} load")


if __name__ == "__main__":
    main()
