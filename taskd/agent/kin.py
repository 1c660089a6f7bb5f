"""Kin: what the agent's own processes use of CPU and memory, they and all that come from them.

Invariants:
- Only what is asked about is looked at: nothing here walks through all processes of the machine.
- A process that ends meanwhile counts with what its parent was told of it.

Asked with each heartbeat, of a hundred workers or more: so files of ``/proc`` that are read each time stay open.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

_STAT_BYTES: Final = 1_024
_CHILDREN_BYTES: Final = 64 * 1024

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Use(NamedTuple):
    """What processes use."""

    cpu_ticks: int = 0
    """Since they began, with children of theirs that have ended; in what ``SC_CLK_TCK`` counts."""
    memory_bytes: int = 0
    """Resident; what they share is counted for each."""


class Kin:
    """The agent's workers and commands.

    Attributes:
        others: Processes whose CPU time is the agent's, too, without those that come from them: itself, its warden.
    """

    def __init__(self) -> None:
        self.others: list[int] = [os.getpid()]
        self._roots: Final[dict[int, _Root]] = {}

    def add(self, pid: int) -> None:
        """Count a process from now on, with all that comes from it."""
        with contextlib.suppress(OSError):  # it has ended, or no more files may be opened: it counts as somebody else
            self._roots[pid] = _Root(pid)

    def discard(self, pid: int) -> None:
        """Count it no longer; no matter if it is not counted."""
        root = self._roots.pop(pid, None)
        if root is not None:
            root.close()

    def use(self) -> Use:
        """Return what all use."""
        ticks = memory = 0
        for pid in self.others:
            found = _plain_stat(pid)
            if found is not None:
                ticks += found.ticks
                memory += found.rss_bytes
        for root in self._roots.values():
            more_ticks, more_memory = root.use()
            ticks += more_ticks
            memory += more_memory
        return Use(ticks, memory)

    def close(self) -> None:
        """Close the files."""
        for pid in list(self._roots):
            self.discard(pid)


def memory_of(pid: int, enough_bytes: int) -> int:
    """Return how many bytes of memory a worker or command and all that came from it hold.

    What several of them share is counted once, where it matters: which costs more, and is looked at only where the sum
    is over ``enough_bytes``.
    """
    pids = [pid, *_descendants(pid)]
    runner = _plain_stat(pid)
    if runner is not None:
        pids += [other for orphan in _children(runner.parent) if orphan != pid for other in _with_descendants(orphan)]
    found = sum([stat.rss_bytes for each in pids if (stat := _plain_stat(each)) is not None])
    return found if found <= enough_bytes else min(found, sum([_share(each) for each in pids]))


class _Stat(NamedTuple):
    parent: int
    ticks: int
    threads: int
    rss_bytes: int


class _Root:
    """One process that is asked about again and again: its files, and those of its runner, which adopts its orphans."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fds: list[int] = []
        try:
            self._stat_fd = self._open(f"/proc/{pid}/stat")
            self._children_fd = self._open(f"/proc/{pid}/task/{pid}/children")
            parent = _read_stat(os.pread(self._stat_fd, _STAT_BYTES, 0)).parent
            self._siblings_fd = self._open(f"/proc/{parent}/task/{parent}/children")
        except OSError:
            self.close()
            raise

    def use(self) -> Use:
        try:
            own = _read_stat(os.pread(self._stat_fd, _STAT_BYTES, 0))
            children = _numbers(os.pread(self._children_fd, _CHILDREN_BYTES, 0))
            if own.threads > 1:
                children = list(_children(self._pid))
            children += [pid for pid in _numbers(os.pread(self._siblings_fd, _CHILDREN_BYTES, 0)) if pid != self._pid]
        except OSError:
            return Use()
        ticks, memory = own.ticks, own.rss_bytes
        for pid in [other for child in children for other in _with_descendants(child)]:
            found = _plain_stat(pid)
            if found is not None:
                ticks += found.ticks
                memory += found.rss_bytes
        return Use(ticks, memory)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _open(self, path: str) -> int:
        self._fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return self._fds[-1]


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    yield from _descendants(pid)


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> Iterator[int]:
    """Give the children of all of a process's threads; none where the kernel does not tell."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a path object for each costs as much again
            yield from _numbers(_read(f"/proc/{pid}/task/{thread}/children"))


def _plain_stat(pid: int) -> _Stat | None:
    try:
        return _read_stat(_read(f"/proc/{pid}/stat"))
    except (OSError, IndexError):
        return None


def _read_stat(data: bytes) -> _Stat:
    fields = data[data.rindex(b")") + 2 :].split(b" ", 23)
    ticks = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
    return _Stat(int(fields[1]), ticks, int(fields[17]), int(fields[21]) * PAGE_BYTES)


def _share(pid: int) -> int:
    """Return what a process holds, of what it shares its part; as much as is resident where that is not told."""
    with contextlib.suppress(OSError):
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    found = _plain_stat(pid)
    return 0 if found is None else found.rss_bytes


def _numbers(data: bytes) -> list[int]:
    return [int(word) for word in data.split()]


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _CHILDREN_BYTES)
    finally:
        os.close(fd)
