"""The disk under the store: how much room is left."""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

RESERVE_BYTES_MIN: Final = 64 * 1024 * 1024
"""Kept free on any disk, so that what was accepted can still be finished and recorded."""

RESERVE_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Enough on a large disk: the log, a flush and a compaction of the store."""

RESERVE_SHARE: Final = 0.05
"""Of a disk between the two."""


class Space(NamedTuple):
    """Of the disk that holds a path, in bytes, as a user without privileges may use it."""

    free_bytes: int
    total_bytes: int

    @property
    def is_short(self) -> bool:
        """New work must be refused: what is left is kept for the work that was accepted."""
        return self.free_bytes < reserve_bytes(self.total_bytes)


def reserve_bytes(total_bytes: int) -> int:
    """Return what is to be kept free of a disk of that size."""
    share = min(int(total_bytes * RESERVE_SHARE), RESERVE_BYTES_MAX)
    return max(share, RESERVE_BYTES_MIN)


def read_space(path: Path) -> Space:
    """Ask the system; microseconds.

    Raises:
        OSError: The path is not there.
    """
    usage = shutil.disk_usage(path)
    return Space(usage.free, usage.total)
