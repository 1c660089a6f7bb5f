"""Restoring: a backup becomes the store of a data directory that has none.

All work is done on a copy beside the store's place, which gets there when it holds
together; until then no server starts on the directory. What was cut short is begun again.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from taskd.store import engine
from taskd.store.anew import begin_anew
from taskd.store.backup import (
    KEY_FILES,
    STORE,
    Manifest,
    copy_store,
    read_manifest,
    refused,
    store_files,
    weigh,
    write_file,
)
from taskd.store.disk import RESERVE_BYTES_MIN, read_space
from taskd.store.fsck import Report, fsck
from taskd.store.head import read_head
from taskd.store.history import check_history
from taskd.store.migrate import migrate
from taskd.store.rocksdb import sync_folder
from taskd_protocol.errors import ConfigInvalid, DiskFull, StoreCorrupt, TaskdError

Progress = Callable[[str, int], None]
"""Told a step, and how many bytes or tasks of it are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore came to."""

    manifest: Manifest
    report: Report
    """Of fsck over the restored store."""


def restore(
    backup: Path, root: Path, *, new_lineage: bytes, now_ms: int, progress: Progress = lambda *_: None
) -> Restored:
    """Make a backup the store of a data directory.

    Args:
        backup: Its folder; left as it is.
        root: The data directory, which is ours alone and has no store.
        new_lineage: 16 random bytes.
        now_ms: UTC milliseconds.
        progress: Told of each step.

    Raises:
        ConfigInvalid: It is no finished backup, or there is a store already.
        DiskFull: There is no room.
        StoreCorrupt: The backup is not what was written.
        StoreFailed: The disk refuses.
        StoreTooNew: A newer taskd made the backup.
    """
    manifest = read_manifest(backup)
    store, work = root / STORE, engine.restoring_beside(root / STORE)
    if not (backup / STORE).is_dir():
        raise ConfigInvalid(f"{backup} has lost its {STORE} folder; choose another backup")
    if store.exists():
        raise ConfigInvalid(f"{root} holds a store already; restore into an empty directory")
    try:
        shutil.rmtree(work, ignore_errors=True)
        _check_room(backup / STORE, root)
        copy_store(backup / STORE, work, lambda done: progress("copied bytes", done))
        _begin(work, manifest, new_lineage, now_ms, lambda done: progress("renumbered tasks", done))
        report = fsck(work, progress=lambda done: progress("checked tasks", done))
        if not report.is_clean:
            first = report.findings[0]
            raise StoreCorrupt(f"the backup {backup} does not hold together: {first.rule} {first.key} {first.text}")
        if manifest.keys:
            for name in KEY_FILES:
                (root / name).unlink(missing_ok=True)
                write_file(root / name, (backup / name).read_bytes())
        for folder in (work, root):
            sync_folder(folder)
        work.rename(store)
        sync_folder(root)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise refused(root, error) from None
    except TaskdError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Restored(manifest=manifest, report=report)


def _check_room(source: Path, root: Path) -> None:
    needed, space = weigh(store_files(source)), read_space(root)
    if space.free_bytes < needed + RESERVE_BYTES_MIN:
        raise DiskFull(
            f"the restored store takes {needed >> 20} MiB, and {root} has {space.free_bytes >> 20}; free some"
        )


def _begin(work: Path, manifest: Manifest, lineage: bytes, now_ms: int, progress: Callable[[int], None]) -> None:
    database = engine.open_database(work)
    try:
        head = read_head(database, work)
        if head is None or head.lineage.hex() != manifest.lineage:
            raise StoreCorrupt("the backup's store is another than its backup.json tells of; choose another backup")
        sequence = check_history(database, work).sequence
        if sequence != manifest.sequence:
            raise StoreCorrupt(
                f"the backup ends at commit {sequence} and had {manifest.sequence} when it was made; choose another"
            )
        migrate(database, work, head.format)
        begin_anew(database, work, lineage=lineage, now_ms=now_ms, progress=progress)
    finally:
        with suppress(TaskdError):  # fsck, next, tells what is wrong with it
            engine.close_database(database, work)
