"""The disk under the store: how much room is left, and whether it is one to trust."""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

import psutil

RESERVE_BYTES_MIN: Final = 64 * 1024 * 1024
"""Kept free on any disk, so that what was accepted can still be finished and recorded."""

RESERVE_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Enough on a large disk: the log, a flush and a compaction of the store."""

RESERVE_SHARE: Final = 0.05
"""Of a disk between the two."""

DOUBTFUL: Final = frozenset(
    {"tmpfs", "ramfs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"}
)
"""File systems in memory, and of other machines: there a sync may not be one, or a lock not hold."""


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


def doubtful_file_system(path: Path) -> str | None:
    """Return the name of the file system that holds ``path`` if durability on it is in doubt, else None."""
    resolved = path.resolve()
    holders = [
        partition for partition in psutil.disk_partitions(all=True) if resolved.is_relative_to(partition.mountpoint)
    ]
    if not holders:
        return None
    kind: str = max(holders, key=lambda partition: len(partition.mountpoint)).fstype
    return kind if kind in DOUBTFUL else None
