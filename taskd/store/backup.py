"""Backups: what a store holds, in a folder of its own that shares nothing with it.

``NAME/backup.json``, ``NAME/store/``, and the server's CA and certificate where they were asked for.

Invariants:
- A backup has its name only when a check found it whole and all of it is on disk. Before that it is
  ``NAME.partial``, without ``backup.json``: nothing that a restore takes.
- It holds no durable mark: that tells of the store it was taken from, which went on.
- Folders are 0700, files 0600.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from taskd.store import durable_mark
from taskd.store.disk import RESERVE_BYTES_MIN, read_space, reserve_bytes
from taskd.store.rocksdb import sync_folder
from taskd_protocol.errors import BadRequest, ConfigInvalid, DiskFull, StoreFailed, TaskdError

MANIFEST: Final = "backup.json"
STORE: Final = "store"
KEY_FILES: Final = ("ca.pem", "ca.key", "server.pem")
"""Without them a restored server makes a CA of its own, which its peers must be told."""

VERSION: Final = 1
"""Of the layout."""

_PARTIAL: Final = ".partial"
_LEFT_OUT: Final = frozenset({durable_mark.NAME, durable_mark.LOSS_NAME, "LOCK"})
_PIECE_BYTES: Final = 8 * 1024 * 1024
"""Copied between two syncs: a server that goes on beside it must not find the disk's queue full of ours."""

Progress = Callable[[int], None]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself."""

    version: int = VERSION
    software: str
    created_at_ms: int
    lineage: str
    """Of the store that it was taken from, in hexadecimal."""
    sequence: int
    """Of its last batch."""
    tasks: dict[str, int]
    """By state."""
    keys: bool
    """The CA and its key are with it."""


class Draft:
    """A backup that is being written. Made by ``open_draft``; ended by ``complete`` or ``discard``."""

    def __init__(self, target: Path, folder: Path, lock_fd: int) -> None:
        self.target = target
        self.folder = folder
        self._lock_fd = lock_fd

    @property
    def store(self) -> Path:
        """Where the copy of the store is to be."""
        return self.folder / STORE

    def complete(self, manifest: Manifest, keys_from: Path | None) -> None:
        """Put the rest into it, make sure of it, and give it its name.

        Args:
            manifest: What was found in it.
            keys_from: The data directory whose CA and certificate go with it; None: they stay out.

        Raises:
            BadRequest: Something has taken its name meanwhile.
            DiskFull: There is no room.
            StoreFailed: The disk refuses.
        """
        try:
            if keys_from is not None:
                for name in KEY_FILES:
                    write_file(self.folder / name, (keys_from / name).read_bytes())
            write_file(self.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
            for folder in (self.store, self.folder):
                sync_folder(folder)
            if os.path.lexists(self.target):
                raise _taken(self.target)
            self.folder.rename(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise refused(self.folder, error) from None
        os.close(self._lock_fd)

    def discard(self) -> None:
        """Leave nothing of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock_fd)


def open_draft(target: Path, data_dir: Path) -> Draft:
    """Begin a backup; one of that name that was cut short is removed first.

    Args:
        target: The folder to be made.
        data_dir: Where the store lives: no place for its backups.

    Raises:
        BadRequest: The name cannot be used; the message says why.
    """
    if not target.is_absolute() or ".." in target.parts or target.name.endswith(_PARTIAL):
        raise BadRequest(f"a backup goes into a new folder with its whole path, not {str(target)[:200]!r}")
    if target.is_relative_to(data_dir):
        raise BadRequest(f"{target} is in the data directory: what takes that takes its backup, too; choose another")
    if os.path.lexists(target):
        raise _taken(target)
    folder = target.with_name(target.name + _PARTIAL)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise BadRequest(f"no backup can be written to {target}: {error.strerror}; choose another folder") from None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    except OSError as error:
        os.close(lock_fd)
        if error.errno == errno.EWOULDBLOCK:
            raise BadRequest(f"another process writes {folder}; wait for it, or choose another name") from None
        raise BadRequest(f"{folder} is in the way: {error.strerror}; remove it") from None
    return Draft(target, folder, lock_fd)


def check_room(target: Path, data_dir: Path, needed_bytes: int) -> None:
    """Refuse a backup for which there is no room, before anything of it is written.

    Raises:
        DiskFull: There is none.
        OSError: The disk refuses.
    """
    space = read_space(target.parent)
    same_disk = target.parent.stat().st_dev == data_dir.stat().st_dev
    kept = reserve_bytes(space.total_bytes) if same_disk else RESERVE_BYTES_MIN
    if space.free_bytes < needed_bytes + kept:
        raise DiskFull(
            f"the backup takes {_mib(needed_bytes)} MiB, and {target.parent} has {_mib(space.free_bytes)}, of which"
            f" {_mib(kept)} are kept free; choose another disk"
        )


def read_manifest(backup: Path) -> Manifest:
    """Read what a backup says of itself.

    Raises:
        ConfigInvalid: It is none, or one that was not finished, or of a newer taskd.
    """
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise ConfigInvalid(f"{backup} is no finished backup: it has no {MANIFEST}; choose another") from None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigInvalid(f"{backup / MANIFEST} cannot be read ({error}); choose another backup") from None
    if manifest.version > VERSION:
        raise ConfigInvalid(f"{backup} was made by a newer taskd ({manifest.software}): restore it with that one")
    return manifest


def copy_store(source: Path, copy: Path, progress: Progress = lambda _: None) -> None:
    """Copy a store's files, which nobody changes meanwhile, without its durable mark; on disk when this returns.

    Raises:
        OSError: The disk refuses.
    """
    copy.mkdir(mode=0o700)
    done = 0
    for file in store_files(source):
        with file.open("rb") as reads, _new_file(copy / file.name) as writes:
            while piece := reads.read(_PIECE_BYTES):
                writes.write(piece)
                writes.flush()
                os.fsync(writes.fileno())
                done += len(piece)
                progress(done)
    sync_folder(copy)


def store_files(folder: Path) -> Sequence[Path]:
    """Return the files of a store that a copy needs. RocksDB's own diary is not among them."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name not in _LEFT_OUT and not file.name.startswith("LOG")
    )


def weigh(files: Iterable[Path]) -> int:
    """Return how many bytes they hold."""
    return sum(file.stat().st_size for file in files)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file that only its owner reads, and make sure of it.

    Raises:
        OSError: The disk refuses.
    """
    with _new_file(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def refused(folder: Path, error: OSError) -> TaskdError:
    """Return the error of ours for a disk that refuses a copy."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"no room for {folder}: {error.strerror}; free some, or choose another disk")
    return StoreFailed(f"cannot copy to {folder}: {error}; see to the disk, then try again")


def _new_file(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def _taken(target: Path) -> BadRequest:
    return BadRequest(f"{target} is there already; a backup goes into a new folder")


def _mib(size: int) -> int:
    return (size + (1 << 20) - 1) >> 20
