"""What the agent measures of its host: for people, for placement, and as evidence when a process was killed."""

import functools
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import psutil

from taskd.agent.cgroup import Cgroups, counter
from taskd.agent.kin import Use
from taskd_protocol.agent_messages import HostStats
from taskd_protocol.resources import ONE

_STAT: Final = Path("/proc/stat")
_IDLE: Final = slice(3, 5)
"""Of a CPU's times: idle, and idle while something waits for a disk."""
_GUEST: Final = 8
"""From here on they are counted among those before already."""


class Host:
    """The machine, measured from heartbeat to heartbeat."""

    def __init__(
        self,
        own: Callable[[], Use],
        *,
        groups: Cgroups | None = None,
        cpus: Collection[int] | None = None,
        stat: Path = _STAT,
        spare_cpu: int = 0,
        spare_bytes: int = 0,
    ) -> None:
        """Prepare.

        Args:
            own: Tells what the agent's own processes use.
            groups: Of the agent; None: those that it is in.
            cpus: Those that it may run on; None: as the system says.
            stat: Where the kernel tells of each CPU.
            spare_cpu: Thousandths of a CPU that are there, and that the agent does not offer: who uses these, takes
                nothing from it.
            spare_bytes: The same of memory.
        """
        self._own = own
        self._groups = Cgroups() if groups is None else groups
        self._cpus = frozenset(os.sched_getaffinity(0) if cpus is None else cpus)
        self._stat = stat
        self._spare_cpu = spare_cpu
        self._spare_bytes = spare_bytes
        self._before = self._times()
        self._own_before = own()

    def stats(self) -> HostStats:
        """Measure; CPU is since the last call. A cgroup's memory limit stands for the host's memory when it is less."""
        own = self._own()
        memory = psutil.virtual_memory()
        used, total = memory.total - memory.available, memory.total
        limit = self._groups.memory()
        if limit is not None and limit < total:
            used, total = self._groups.memory_used() or used, limit
        return HostStats(
            psutil.cpu_percent(),
            os.getloadavg()[0],
            used,
            total,
            self._cpu_outside(own),
            max(0, used - own.memory_bytes - self._spare_bytes),
        )

    def _cpu_outside(self, own: Use) -> int:
        """Return what others use of what the agent may use, in thousandths of a CPU, since the last call."""
        total, idle = (now - before for now, before in zip(self._times(), self._before, strict=True))
        own_ticks = max(0, own.cpu_ticks - self._own_before.cpu_ticks)
        self._before = self._before[0] + total, self._before[1] + idle
        self._own_before = own
        if total <= 0:
            return 0
        count = len(self._cpus)
        others = max(0.0, (total - idle - own_ticks) / total * count)
        quota = self._groups.cpus()
        if quota is not None and quota < count:
            others = max(0.0, quota - (count - others))  # what they use beyond that, nobody would have given to us
        return max(0, round(others * ONE) - self._spare_cpu)

    def _times(self) -> tuple[int, int]:
        """Return how many ticks the agent's CPUs have had, and how many of these nothing ran."""
        total = idle = 0
        for line in self._stat.read_text().splitlines():
            name, _, rest = line.partition(" ")
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in self._cpus:
                ticks = [int(word) for word in rest.split()[:_GUEST]]
                total += sum(ticks)
                idle += sum(ticks[_IDLE])
        return total, idle


def oom_kills() -> int:
    """Return how often the kernel has killed a process for memory: in our cgroup and below, or on the host."""
    return _groups().oom_kills() + counter(Path("/proc/vmstat").read_text(), "oom_kill")


_groups = functools.cache(Cgroups)
"""Which these are is looked up once: a process that started something asks twice each time."""
