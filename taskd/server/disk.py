"""Room on disk: new tasks are refused while enough is left to finish those there are."""

import os
from pathlib import Path

from taskd.server.clock import Clock
from taskd_protocol.errors import DiskFull, TaskdError

KEPT_SHARE = 0.05
KEPT_BYTES_MAX = 1024**3
"""Submits are refused below 5 % of the disk, or 1 GiB if that is less."""

LOOK_MS = 500
"""A look at the filesystem costs a system call; between two of them the answer stands."""

RETRY_MS = 5_000


class DiskWatch:
    """Watches the filesystem of the data directory."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._next_look_ns = 0
        self._refusal: TaskdError | None = None

    def refusal(self) -> TaskdError | None:
        """Return why no new task can be taken, or None."""
        now_ns = self._clock.mono_ns()
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_MS * 1_000_000
            self._refusal = self._look()
        return self._refusal

    def _look(self) -> TaskdError | None:
        stat = os.statvfs(self._root)
        free, total = stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
        kept = min(int(total * KEPT_SHARE), KEPT_BYTES_MAX)
        if free >= kept:
            return None
        return DiskFull(
            f"the server's disk has {free >> 20} MiB left and keeps {kept >> 20} MiB to finish what it has; free some",
            retry_after_ms=RETRY_MS,
        )
