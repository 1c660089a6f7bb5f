"""Where the microseconds go: flame graphs of server, agent, worker and client under load, stages, and system calls.

    python bench/flames.py [--function noop|anoop] [--seconds N] [--tasks N]     # as `make profile` runs it

The programs are those of ``cases.py throughput``, as shipped, and are kept busy by 20,000 tasks after 20,000. py-spy
looks at each of them from outside, 400 times a second, into one SVG each under ``build/profile``; a frame is as wide as
the share of looks that found it. System calls are counted by strace, where it is installed, in a run after that: it
makes each call several times as dear, so its run tells no times.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import measure
from cases import SECONDS_MAX, Cluster, cluster, stats

LOOKS_PER_S = 400
ROUND = 20_000
"""Tasks submitted at once."""
ATTACH_S = 1.0
"""Given to who looks on, before the load begins."""
END_WITHIN_S = 30.0


def main() -> None:
    """Look on for some seconds, and print what was found and where."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--function", choices=("noop", "anoop"), default="noop")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--tasks", type=int, default=10_000, help="of the run whose system calls are counted")
    arguments = parser.parse_args()
    folder = Path("build/profile").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="taskd-flames-") as scratch, cluster(Path(scratch), tls=True) as running:
        _look_on(running, arguments.function, arguments.seconds, folder)
        if shutil.which("strace"):
            _count_calls(running, arguments.function, arguments.tasks, folder)
        else:
            print("no system calls counted: strace is not installed (apt-get install strace)")


def _busiest(running: Cluster, function: str) -> dict[str, int]:
    """Return of each role the process that works most: of an agent's children most are none of its workers."""
    pids = running.pids()
    before = {pid: measure.cpu_ns({"": [pid]})[""] for group in pids.values() for pid in group}
    _work(function, ROUND)
    return {
        role: max(group, key=lambda pid: measure.cpu_ns({"": [pid]})[""] - before[pid]) for role, group in pids.items()
    }


def _look_on(running: Cluster, function: str, seconds: float, folder: Path) -> None:
    """Draw each role's flames while it works, and tell what each stage took meanwhile."""
    with _onlookers(_busiest(running, function), seconds, folder):
        time.sleep(ATTACH_S)
        before, cpu_before, done = stats(), measure.cpu_ns(running.pids()), 0
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            _work(function, ROUND)
            done += ROUND
        after, cpu_after = stats(), measure.cpu_ns(running.pids())
    print(f"{done:,} tasks; us of CPU a task, py-spy looking on")
    print(measure.in_words({"by process": measure.cpu_us(cpu_before, cpu_after, done)}))
    stages = {name: (ns - before.stages_ns.get(name, 0)) / done / 1e3 for name, ns in after.stages_ns.items()}
    print(measure.in_words({"by stage of the loop": stages}))
    for path in sorted(folder.glob("*.svg")):
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextmanager
def _onlookers(roles: Mapping[str, int], seconds: float, folder: Path) -> Iterator[None]:
    """Have py-spy look at each process, a second more than it works."""
    looking = []
    for role, pid in roles.items():
        argv = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid)]
        argv += ["--rate", str(LOOKS_PER_S), "--duration", str(int(seconds + ATTACH_S)), "--nonblocking"]
        argv += ["--format", "flamegraph", "--output", str(folder / f"{role}.svg")]
        looking.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    yield
    for onlooker in looking:
        _, said = onlooker.communicate(timeout=END_WITHIN_S)
        if onlooker.returncode:
            sys.exit(f"py-spy: {said.decode().strip()}")


def _count_calls(running: Cluster, function: str, tasks: int, folder: Path) -> None:
    """Count the system calls of each role but the client, which holds the load."""
    roles = {role: pid for role, pid in _busiest(running, function).items() if role != "client"}
    tracers = {}
    for role, pid in roles.items():
        argv = ["strace", "-f", "-c", "-p", str(pid), "-o", str(folder / f"{role}.strace")]
        tracers[role] = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(ATTACH_S)
    _work(function, tasks)
    for role, tracer in tracers.items():
        tracer.send_signal(signal.SIGINT)
        tracer.wait(END_WITHIN_S)
        calls = _read_calls(folder / f"{role}.strace")
        most = ", ".join(f"{name} {count * 1000 / tasks:.0f}" for name, count in calls.most_common(6))
        print(f"{role}: {calls.total() * 1000 / tasks:,.0f} system calls per 1,000 tasks: {most}")


def _read_calls(path: Path) -> Counter[str]:
    """Read strace's table: share, seconds, us a call, calls, errors or nothing, name."""
    lines = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", path.read_text(), re.MULTILINE)
    return Counter({name: int(calls) for calls, name in lines if name != "total"})


def _work(function: str, count: int) -> None:
    """Submit so many tasks and hold all results."""
    import bench_tasks  # noqa: PLC0415 - looks for the profile

    handles = getattr(bench_tasks, function).map(range(count))
    for handle in handles:
        handle.result(timeout=SECONDS_MAX)


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    main()
