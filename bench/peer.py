"""The peer: Huey with Redis, as people run it today, doing the same work on the same machine.

Redis with its built-in defaults (no fsync before an acknowledgement), a Huey consumer with two
worker processes, and this client, which submits with ``map`` and fetches every result.

    python bench/peer.py [--tasks 20000] [--json]
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns

import measure
import programs

WORKERS = 2
START_WITHIN_S = 20.0
SECONDS_MAX = 300


def run(count: int, directory: Path) -> measure.Facts:
    """Measure from the first submit to the last result held."""
    port = _free_port()
    os.environ["BENCH_REDIS_PORT"] = str(port)
    redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory.resolve())]
    consumer = [sys.executable, "-m", "huey.bin.huey_consumer", "peer_tasks.huey"]
    options = ["--workers", str(WORKERS), "--worker-type", "process", "--quiet"]
    with (
        programs.program(redis, directory / "redis.log") as server,
        programs.program(consumer + options, directory / "consumer.log") as agent,
    ):
        from peer_tasks import huey, noop  # noqa: PLC0415 - reads the port

        _wait_for(port)
        assert noop(0).get(blocking=True, timeout=START_WITHIN_S) == 0  # the consumer is there
        pids: measure.Pids = {
            "server": [server.pid],
            "agents": [agent.pid],
            "workers": programs.descendants([agent]),
            "client": [os.getpid()],
        }
        cpu_before, began = measure.cpu_ns(pids), perf_counter_ns()
        results = noop.map(range(count)).get(blocking=True, timeout=SECONDS_MAX)
        ended, cpu_after = perf_counter_ns(), measure.cpu_ns(pids)
        assert results == list(range(count))
        huey.storage.conn.connection_pool.disconnect()
    return {
        "tasks": count,
        "seconds": (ended - began) / 1e9,
        "tasks_per_s": count * 1e9 / (ended - began),
        "cpu_us": measure.cpu_us(cpu_before, cpu_after, count),
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in programs.until("Redis answers", START_WITHIN_S):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return


def missing() -> str:
    """Return why this peer cannot be measured here, and what to do; empty when it can."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed (Debian, Ubuntu: apt-get install redis-server)"
    try:
        import huey  # type: ignore[import-untyped]  # noqa: F401, PLC0415 - only asked for
        import redis  # noqa: F401, PLC0415 - likewise
    except ImportError as error:
        return f"{error.name} is not installed (pip install 'taskd[bench]')"
    return ""


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description="Huey with Redis, measured.")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    if why_not := missing():
        sys.exit(why_not)
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done within {SECONDS_MAX} s"))
    signal.alarm(SECONDS_MAX)
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="peer-", dir=options.data_dir))
    facts = run(options.tasks, directory)
    shutil.rmtree(directory)  # kept when something went wrong: the logs are in it
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
