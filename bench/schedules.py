"""Ten thousand schedules, each due at the same second of every minute: how late they are, and what they cost.

    python bench/schedules.py [--schedules N] [--minutes N] [--json]

The server is as shipped, with no agent: its tasks stay in line. Lateness is from the nominal time to the
decision, by the server's clock. Idle is what the server uses between two firings, of one core.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import measure
import programs
import psutil

from taskd.client import Client
from taskd_protocol.limits import SCHEDULE_SYNC_MAX
from taskd_protocol.schedule import NO_TASK_ID, Schedule, Timing
from taskd_protocol.schedule_messages import ScheduleChanges, ScheduleList, SchedulePage, ScheduleSync
from taskd_protocol.task import TaskSpec

START_WITHIN_S = 30.0
ZONES = ("UTC", "Europe/Oslo", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
IDLE_S = (15, 55)
"""Between these seconds of a minute nothing is due."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Schedules, measured.")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="taskd-", dir=options.data_dir)).resolve()
    os.environ["XDG_CONFIG_HOME"] = str(directory / "config")
    os.environ.pop("TASKD_URL", None)
    with ExitStack() as stack:
        argv = [str(Path(sys.executable).with_name("taskd")), "server", "--data-dir", str(directory / "data")]
        argv += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        server = stack.enter_context(programs.program(argv, directory / "server.log", heard=True))
        programs.line(server, START_WITHIN_S)
        process = psutil.Process(server.pid)
        memory_empty = process.memory_info().rss
        with closing(Client()) as client:
            sync(client, options.schedules)
            memory_full = process.memory_info().rss
            facts = [minute(client, process) for _ in range(options.minutes)]
    late = sorted(ms for each in facts for ms in each["late_ms"])
    told = {
        "schedules": options.schedules,
        "firings": len(late),
        "late_p50_ms": measure.quantile(late, 0.5),
        "late_p99_ms": measure.quantile(late, 0.99),
        "late_max_ms": max(late),
        "idle_cpu_percent": max(each["idle_percent"] for each in facts),
        "cpu_percent": max(each["percent"] for each in facts),
        "memory_bytes_each": (memory_full - memory_empty) / options.schedules,
    }
    shutil.rmtree(directory)
    print(
        json.dumps(told) if options.json else "\n".join(f"{name:<18} {value:>12,.1f}" for name, value in told.items())
    )


def sync(client: Client, count: int) -> None:
    """Make the schedules."""
    for start in range(0, count, SCHEDULE_SYNC_MAX):
        schedules = [
            Schedule(
                f"schedule {number:06}",
                Timing(cron=("* * * * *",), zone=ZONES[number % len(ZONES)]),
                TaskSpec(NO_TASK_ID, "bench.work", b"\x90"),
                overlap="allow",
            )
            for number in range(start, min(start + SCHEDULE_SYNC_MAX, count))
        ]
        client.call(ScheduleSync(0, f"module {start}", schedules), ScheduleChanges)


def minute(client: Client, process: psutil.Process) -> dict:
    """Measure from one idle stretch to the end of the next; return lateness and cost."""
    until(IDLE_S[0])
    began, cpu_began = time.monotonic(), cpu_s(process)
    until(IDLE_S[1])
    idle = (cpu_s(process) - cpu_began) / (time.monotonic() - began)
    until(IDLE_S[0])
    percent = (cpu_s(process) - cpu_began) / (time.monotonic() - began)
    late: list[int] = []
    after, more = "", True
    while more:
        page = client.call(ScheduleList(0, [], after, 1_000), SchedulePage)
        late += [v.last.decided_at_ms - v.last.at_ms for v in page.schedules if v.last and v.last.outcome == "fired"]
        more, after = page.more, page.schedules[-1].schedule.name
    return {"late_ms": late, "idle_percent": 100 * idle, "percent": 100 * percent}


def until(second: int) -> None:
    """Wait for a second of the minute."""
    time.sleep((second - time.time() % 60) % 60)


def cpu_s(process: psutil.Process) -> float:
    """Return the processor time that the server has used."""
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
