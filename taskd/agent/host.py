"""What the agent measures of its host: for people, and as evidence when a process was killed."""

import os
from pathlib import Path

import psutil

from taskd_protocol.messages import HostStats

_CGROUP = Path("/sys/fs/cgroup")


def host_stats() -> HostStats:
    """Measure; CPU is since the last call. A cgroup's memory limit stands for the host's memory when it is less."""
    memory = psutil.virtual_memory()
    used, total = memory.total - memory.available, memory.total
    limit = _number(_own_cgroup() / "memory.max")
    if limit is not None and limit < total:
        used, total = _number(_own_cgroup() / "memory.current") or used, limit
    return HostStats(psutil.cpu_percent(), os.getloadavg()[0], used, total)


def oom_kills() -> int:
    """Return how often the kernel has killed a process for memory: in our cgroup and below, or on the host."""
    return _counter(_own_cgroup() / "memory.events") + _counter(Path("/proc/vmstat"))


def _own_cgroup() -> Path:
    """Return the folder of our cgroup of version 2; of the root where there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return _CGROUP
    for line in lines:
        if line.startswith("0::"):
            return _CGROUP / line[3:].lstrip("/")
    return _CGROUP


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number: there is no limit
        return None


def _counter(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line[9:]) for line in lines if line.startswith("oom_kill ")), 0)
