"""Room on disk: new tasks are refused while enough is left to finish those there are."""

from pathlib import Path

from taskd.server.platform import Platform
from taskd.store.disk import reserve_bytes
from taskd_protocol.errors import DiskFull, TaskdError

LOOK_MS = 500
"""A look at the filesystem costs a system call; between two of them the answer stands."""

RETRY_MS = 5_000


class DiskWatch:
    """Watches the filesystem of the data directory."""

    def __init__(self, root: Path, platform: Platform) -> None:
        self._root = root
        self._platform = platform
        self._next_look_ns = 0
        self._refusal: TaskdError | None = None

    def refusal(self) -> TaskdError | None:
        """Return why no new task can be taken, or None."""
        now_ns = self._platform.clock.mono_ns()
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_MS * 1_000_000
            self._refusal = self._look()
        return self._refusal

    def _look(self) -> TaskdError | None:
        space = self._platform.space(self._root)
        if not space.is_short:
            return None
        free, kept = space.free_bytes >> 20, reserve_bytes(space.total_bytes) >> 20
        return DiskFull(
            f"the server's disk has {free} MiB left and keeps {kept} MiB to finish what it has; free some",
            retry_after_ms=RETRY_MS,
        )
