"""Recover: give up the end of a log that cannot be read, knowingly.

For a store that is refused because its log is damaged. All work is done on a
copy, which becomes the store only when it holds together; the damaged one is
kept beside it. What comes out begins anew: peers that hold a mark of the old
lineage learn that the history is another, and no attempt is given out twice.

Tables that are damaged are no case for this: what they held is spread over all of
the history, so only a backup holds together.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rocksdict import DBRecoveryMode, Rdict

from taskd.core.records import SPEC
from taskd.store import durable_mark, engine
from taskd.store.anew import begin_anew
from taskd.store.fsck import Report, fsck
from taskd.store.head import read_head
from taskd.store.history import check_history, last_commit
from taskd.store.keys import ID_START, make_key, successor
from taskd.store.migrate import migrate
from taskd.store.rocksdb import sync_folder
from taskd.store.wal import blank_damage
from taskd_protocol.errors import StoreCorrupt, StoreFailed, TaskdError

LOST_NAMED_MAX: Final = 1000
"""Lost tasks that are named; beyond it they are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What recovering came to."""

    needed: bool
    """False: the store opens, and nothing was done."""
    sequence: int
    """Of the last batch that is left."""
    sequence_seen: int
    """Of the last batch that is known to have been there; further ones may have been."""
    lost: list[bytes]
    """Ids of tasks whose submit can still be read beyond the damage: the first ``LOST_NAMED_MAX``, sorted."""
    lost_count: int
    """All of those."""
    report: Report
    """Of fsck over what is left."""
    damaged: Path | None
    """Where the damaged store is kept; None: nothing was replaced."""


def recover(
    path: Path,
    *,
    new_lineage: bytes,
    now_ms: int,
    accept_loss: bool,
    progress: Callable[[int], None] | None = None,
) -> Recovery:
    """Find out what is left of a store whose log is damaged, and make that the store.

    Args:
        path: The store's folder, which nobody else may have open.
        new_lineage: 16 random bytes.
        now_ms: UTC milliseconds.
        accept_loss: Replace the store; else only tell what would be lost.
        progress: Told now and then how many tasks of what is left were checked.

    Raises:
        DataDirInUse: It is open.
        StoreCorrupt: What is left cannot be read, or does not hold together: a backup is needed.
        StoreFailed: There is no store, or the disk refuses, such as for want of space for a copy of the log.
        StoreTooNew: A newer taskd wrote it.
    """
    left, seen = _beside(path, "recovering"), _beside(path, "examined")
    if left.exists() and not path.exists():  # cut short between the two renames at the end
        left.rename(path)
    if _opens(path):
        try:
            report = _check(path, progress)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{path} opens, but not all of it holds ({error.message}); restore a backup") from None
        return Recovery(
            needed=False,
            sequence=report.sequence,
            sequence_seen=report.sequence,
            lost=[],
            lost_count=0,
            report=report,
            damaged=None,
        )
    try:
        for copy in (left, seen):
            _copy(path, copy)
        sequence, marked = _cut_back(left, path, new_lineage, now_ms)
        report = _check(left, progress)
        sequence_seen, lost, lost_count = _examine(seen, left)
        damaged = _replace(path, left) if accept_loss else None
    except StoreCorrupt as error:
        raise StoreCorrupt(f"{path} is damaged in more than its log ({error.message}); restore a backup") from None
    except OSError as error:
        raise StoreFailed(f"cannot recover {path}: {error}; free space beside it and try again") from None
    finally:
        if path.exists():
            shutil.rmtree(left, ignore_errors=True)
        shutil.rmtree(seen, ignore_errors=True)
    return Recovery(
        needed=True,
        sequence=sequence,
        sequence_seen=max(sequence, marked, sequence_seen),
        lost=lost,
        lost_count=lost_count,
        report=report,
        damaged=damaged,
    )


def _opens(path: Path) -> bool:
    try:
        database = engine.open_database(path)
    except StoreCorrupt:
        return False
    try:
        head = read_head(database, path)
        lost = 0 if head is None else durable_mark.noted_loss(path, head.lineage)
        return not lost and last_commit(database).sequence >= _marked(database, path)
    except StoreCorrupt:
        return False
    finally:
        with suppress(TaskdError):  # fsck, next, tells what is wrong with it
            engine.close_database(database, path)


def _marked(database: Rdict, path: Path) -> int:
    """Return what is known to have been durable of the store in a folder, of which the database may be a copy."""
    head = read_head(database, path)
    if head is None:
        return 0
    return max(durable_mark.marked_sequence(path, head.lineage), durable_mark.noted_loss(path, head.lineage))


def _copy(path: Path, copy: Path) -> None:
    """Copy a store, but for the mark of what was durable. Tables are never written again, so they are shared."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(mode=0o700)
    for file in path.iterdir():
        if file.suffix == ".sst":
            os.link(file, copy / file.name)
        elif file.name not in {durable_mark.NAME, durable_mark.LOSS_NAME, "LOCK"}:
            shutil.copy2(file, copy / file.name)
    for log in copy.glob("*.log"):
        blank_damage(log)


def _cut_back(left: Path, path: Path, new_lineage: bytes, now_ms: int) -> tuple[int, int]:
    """End a copy before the damage; return the number of its last batch, and of the last known to be durable."""
    database = engine.open_database(left, recovery=DBRecoveryMode.point_in_time())
    try:
        sequence = check_history(database, left).sequence
        marked = _marked(database, path)
        head = read_head(database, left)
        if head is not None:
            migrate(database, left, head.format)
        begin_anew(database, left, lineage=new_lineage, now_ms=now_ms)
    finally:
        engine.close_database(database, left)
    return sequence, marked


def _check(left: Path, progress: Callable[[int], None] | None) -> Report:
    report = fsck(left, progress=progress)
    if not report.is_clean:
        first = report.findings[0]
        raise StoreCorrupt(f"findings: {report.findings_count}, the first: {first.rule} {first.key}".rstrip())
    return report


def _examine(seen: Path, left: Path) -> tuple[int, list[bytes], int]:
    """Read a copy past the damage; return its last batch, and the tasks that are not in what is left."""
    try:
        database = engine.open_database(seen, recovery=DBRecoveryMode.skip_any_corrupted_record())
    except StoreCorrupt:  # not even with gaps: what was lost cannot be told
        return 0, [], 0
    kept = engine.open_database(left)
    try:
        lost: list[bytes] = []
        count = 0
        for task_id in _missing(_task_ids(database), _task_ids(kept)):
            count += 1
            if count <= LOST_NAMED_MAX:
                lost.append(task_id)
        return last_commit(database).sequence, lost, count
    finally:
        engine.close_database(kept, left)
        engine.close_database(database, seen)


def _task_ids(database: Rdict) -> Iterator[bytes]:
    lower = make_key(SPEC, b"")
    for key, _ in engine.walk(database, lower, successor(lower)):
        yield key[ID_START:]


def _missing(all_ids: Iterator[bytes], kept_ids: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what is in the first and not in the second; both are sorted."""
    kept = next(kept_ids, None)
    for task_id in all_ids:
        while kept is not None and kept < task_id:
            kept = next(kept_ids, None)
        if kept != task_id:
            yield task_id


def _replace(path: Path, left: Path) -> Path:
    """Put what is left in the store's place; return where the damaged one is now."""
    number = 1
    while (damaged := _beside(path, f"damaged-{number}")).exists():
        number += 1
    path.rename(damaged)
    left.rename(path)
    sync_folder(path.parent)
    return damaged


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")
