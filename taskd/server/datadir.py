"""The data directory: who may use it, and the files of it that are neither store nor certificate.

``lock``, ``mark.key``, ``ca.pem``, ``ca.key``, ``server.pem``, ``store/``. Mode 0700, one process at a time.

Invariants:
- A file is whole or absent: it is written beside its place, synced, renamed, and the directory synced.
- A directory that holds other people's files is refused before anything is written into it.

Knows nothing of what the store holds.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskd_protocol.errors import ConfigInvalid, DataDirInUse

MARK_KEY_BYTES: Final = 32

_OURS: Final = frozenset({"lock", "mark.key", "ca.pem", "ca.key", "server.pem", "store"})
_TEMPORARY: Final = ".new"
_PID_CHARS_MAX: Final = 16

NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.glusterfs", "afs", "ncpfs"})
"""Filesystems on which a lock or an fsync may mean nothing."""
VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
"""Filesystems that live in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDir:
    """An open data directory; ours alone until closed, or until the process ends."""

    root: Path
    mark_key: bytes
    """Keys the MAC of commit marks, so that no peer can invent one."""
    volatile: bool
    """Its filesystem lives in memory: what it holds is gone with the machine's next start."""
    lock_fd: int

    @property
    def store(self) -> Path:
        """Where the store keeps its files; made by the store."""
        return self.root / "store"

    def close(self) -> None:
        """Let others have the directory. Call it once, after the store was closed."""
        os.close(self.lock_fd)


def open_data_dir(root: Path, token_bytes: Callable[[int], bytes]) -> DataDir:
    """Take the data directory for this process; the first time, make it.

    Blocks: writes and syncs files.

    Args:
        root: Where; its parent must exist or be makeable.
        token_bytes: Gives so many unpredictable bytes.

    Raises:
        ConfigInvalid: It is no directory, not writable, on a network filesystem, or holds something else.
        DataDirInUse: Another process has it.
    """
    root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 - resolve() would hide the name the user knows
    _make(root)
    filesystem = filesystem_of(root)
    if filesystem in NETWORK:
        raise ConfigInvalid(f"{root} is on {filesystem}, where locks and syncs cannot be trusted; choose a local disk")
    _refuse_foreign(root)
    _close_to_others(root)
    lock_fd = _lock(root)
    try:
        mark_key = _mark_key(root, token_bytes)
    except BaseException:
        os.close(lock_fd)
        raise
    return DataDir(root=root, mark_key=mark_key, volatile=filesystem in VOLATILE, lock_fd=lock_fd)


def write_durably(path: Path, data: bytes, *, mode: int) -> None:
    """Put a file in its place, whole, and make sure of it before returning.

    Raises:
        ConfigInvalid: The directory cannot be written to.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        temporary.unlink(missing_ok=True)  # one left by a crash may have another mode
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor, opened with its mode from the start
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise _unusable(path.parent, error) from None


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make(root: Path) -> None:
    try:
        missing = [path for path in (root, *root.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700)
            sync_directory(path.parent)
        if not root.is_dir():
            raise ConfigInvalid(f"--data-dir {root} is no directory; choose another")
    except OSError as error:
        raise _unusable(root, error) from None


def _refuse_foreign(root: Path) -> None:
    """Refuse a directory that holds files and was never ours: nobody wants a server in their home by a typing slip."""
    try:
        names = {name.removesuffix(_TEMPORARY) for name in os.listdir(root)}  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise _unusable(root, error) from None
    foreign = sorted(names - _OURS - {"lost+found"})  # a file system of its own has that
    if foreign and "mark.key" not in names:
        raise ConfigInvalid(f"--data-dir {root} holds {foreign[0]!r} and no taskd data; choose an empty directory")


def _close_to_others(root: Path) -> None:
    try:
        if root.stat().st_mode & 0o077:
            root.chmod(0o700)
    except OSError as error:
        raise _unusable(root, error) from None


def _lock(root: Path) -> int:
    path = root / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(root, error) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(fd, _PID_CHARS_MAX, 0).decode(errors="replace").strip()
        os.close(fd)
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise _unusable(root, error) from None
        by = f"process {holder}" if holder.isdecimal() else "another process"
        raise DataDirInUse(f"{root} is in use by {by}; stop it, or choose another --data-dir") from None
    # For the message above only: the lock is the flock, which goes with the process, however it ends.
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _mark_key(root: Path, token_bytes: Callable[[int], bytes]) -> bytes:
    path = root / "mark.key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = None
    except OSError as error:
        raise _unusable(root, error) from None
    if key is None and not _holds_store(root):
        key = token_bytes(MARK_KEY_BYTES)
        write_durably(path, key, mode=0o600)
    if key is None or len(key) != MARK_KEY_BYTES:
        raise ConfigInvalid(
            f"{path} is missing or damaged beside a store; restore it from the backup that it came from"
        )
    return key


def _holds_store(root: Path) -> bool:
    store = root / "store"
    return store.is_dir() and any(store.iterdir())


def filesystem_of(root: Path) -> str:
    """Return the type of the filesystem that holds the directory; empty when the kernel does not tell."""
    device = os.stat(root).st_dev  # noqa: PTH116 - beside os.major
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        if mount.split(" ")[2] == wanted:
            return source.split(" ")[0]
    return ""


def _unusable(root: Path, error: OSError) -> ConfigInvalid:
    return ConfigInvalid(f"no data directory in {root}: {error.strerror or error}; choose another --data-dir")
