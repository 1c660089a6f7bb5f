"""The store on disk: RocksDB, one process, group commit.

A batch goes into RocksDB's log at once and is durable when ``flush`` has synced
the log: rocksdict holds the interpreter's lock inside ``write``, which touches
memory only, and frees it inside ``flush_wal``, which may run in a thread.

Invariants:
- No write is ever synced, none ever waits: a write stall is an error that has written nothing.
- Every batch carries a commit record, its number and a digest of the record before it, so that a
  missing piece in the middle of the history shows at the next start.
- After any error but a stall nothing is done any more: what reached the disk is unknown.

Knows nothing of what the records mean.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import trio
from rocksdict import Rdict, WriteBatch, WriteOptions

from taskd.core.records import Key, Kind
from taskd.store import engine
from taskd.store.durable_mark import DurableMark, marked_sequence, note_loss, noted_loss
from taskd.store.head import FORMAT, read_head
from taskd.store.history import COMMITS_KEPT, Commit, check_history
from taskd.store.interface import Offload, Write
from taskd.store.keys import (
    FORMAT_KEY,
    ID_START,
    LINEAGE_KEY,
    commit_key,
    make_key,
    successor,
)
from taskd.store.migrate import migrate
from taskd_protocol.errors import StoreCorrupt, StoreFailed, StoreStalled, TaskdError

INLINE_KEYS_MAX: Final = 16
"""Keys read on the loop: in less time than handing them to a thread takes, and few when each waits for the disk."""

SLICE_ENTRIES: Final = 256
"""Entries read between two turns of the scheduler: iterators hold the interpreter's lock, in threads too."""


class RocksStore:
    """A store in a folder. Made by ``open_store``."""

    def __init__(
        self,
        *,
        database: Rdict,
        path: Path,
        offload: Offload,
        flush: Offload,
        lineage: bytes,
        last: Commit,
        mark: DurableMark,
    ) -> None:
        self.lineage = lineage
        self._mark = mark
        self.staged_sequence = last.sequence
        # What a start reads from the log it writes into a synced table before it serves.
        self.durable_sequence = last.sequence
        self._digest = last.digest
        self._database = database
        self._finished = ""  # why nothing more is done
        self._closed = False
        self._path = path
        self._offload = offload
        self._offload_flush = flush
        self._flushing = False
        self._options = WriteOptions()
        self._options.no_slowdown = True

    async def load(self, keys: Sequence[Key]) -> list[bytes | None]:
        """See ``Store.load``."""
        if not keys:
            return []
        read = partial(engine.get_many, self._open_database(), [make_key(kind, record_id) for kind, record_id in keys])
        if len(keys) <= INLINE_KEYS_MAX:
            return read()
        return await self._offload(read)

    async def scan(
        self, kind: Kind, prefix: bytes = b"", *, after: bytes = b"", limit: int, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """See ``Store.scan``."""
        lower = make_key(kind, prefix)
        upper = successor(lower)
        if after and reverse:
            upper = min(upper, make_key(kind, after))
        elif after:
            lower = max(lower, make_key(kind, after) + b"\x00")
        if lower >= upper:
            return []
        found: list[tuple[bytes, bytes]] = []
        entries = engine.walk(self._open_database(), lower, upper, reverse=reverse)
        while len(found) < limit:
            wanted = min(SLICE_ENTRIES, limit - len(found))
            part = [(key[ID_START:], value) for key, value in islice(entries, wanted)]
            found += part
            if len(part) < wanted:
                break
            await trio.lowlevel.checkpoint()
        return found

    def stage(self, writes: Sequence[Write]) -> int:
        """See ``Store.stage``."""
        database = self._open_database()
        sequence = self.staged_sequence + 1
        commit = Commit.after(sequence, self._digest, len(writes))
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in writes:
            if value is None:
                delete(key)
            else:
                put(key, value)
        put(commit_key(sequence), commit.value)
        if sequence > COMMITS_KEPT:
            delete(commit_key(sequence - COMMITS_KEPT))
        try:
            database.write(batch, self._options)
        except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
            failure = engine.translate(error, self._path)
            if isinstance(failure, StoreStalled):
                raise failure from None
            self._finished = failure.message
            raise StoreFailed(failure.message) from None
        self.staged_sequence = sequence
        self._digest = commit.digest
        return sequence

    async def flush(self) -> int:
        """See ``Store.flush``."""
        database = self._open_database()
        assert not self._flushing, "one flush at a time"
        covered = self.staged_sequence
        if covered == self.durable_sequence:
            return covered
        self._flushing = True
        try:
            await self._offload_flush(partial(self._make_durable, database, covered))
        except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
            self._finished = engine.translate(error, self._path).message
            raise StoreFailed(self._finished) from None
        finally:
            self._flushing = False
        self.durable_sequence = covered
        return covered

    async def checkpoint(self, folder: Path) -> None:
        """Link the files into a new folder of the same disk, as they are at some moment after the call.

        Raises:
            StoreFailed: The disk refuses.
        """
        await self._offload(partial(engine.checkpoint, self._open_database(), self._path, folder))

    def note_loss(self, sequence: int) -> None:
        """Note what a peer has proved: a commit was durable once and is not there. No start will pass over it.

        Raises:
            OSError: The disk refuses.
        """
        note_loss(self._path, self.lineage, sequence)

    async def close(self) -> None:
        """See ``Store.close``. A store that has failed lets go of its files; nothing is written any more."""
        if self._closed:
            return
        failed = bool(self._finished)
        if not failed:
            await self.flush()
        self._closed = True
        self._finished = f"the store at {self._path} is closed; open it again"
        self._mark.close()
        try:
            await self._offload(partial(engine.close_database, self._database, self._path))
        except TaskdError:
            if not failed:
                raise

    def _make_durable(self, database: Rdict, covered: int) -> None:
        database.flush_wal(True)  # noqa: FBT003 - sync, by position in rocksdict
        self._mark.write(covered)  # after, so that the mark is never ahead

    def _open_database(self) -> Rdict:
        if self._finished:
            raise StoreFailed(self._finished)
        return self._database


def open_store(
    path: Path,
    *,
    offload: Offload,
    new_lineage: bytes,
    flush: Offload | None = None,
    on_migration: Callable[[int], None] = lambda _: None,
) -> RocksStore:
    """Open the store in a folder, or make it there.

    Blocks: before there is anything to serve.

    Args:
        path: The folder; made with its parents when it is missing.
        offload: Runs what blocks.
        new_lineage: 16 random bytes, for a store that is new.
        flush: Runs the flushes; None: ``offload`` does.
        on_migration: Told the store's format, when it is an older one that is brought to today's first.

    Raises:
        DataDirInUse: Another process has it open.
        StoreCorrupt: What is there is not what was written.
        StoreTooNew: A newer taskd wrote it.
        StoreFailed: The disk refused.
    """
    new = engine.is_new(path)
    if new:
        _make_folder(path)
    database = engine.open_database(path, create=new)
    try:
        head = read_head(database, path)
        if head is not None and head.format < FORMAT:
            on_migration(head.format)
            migrate(database, path, head.format)
        lineage = _write_head(database, path, new_lineage) if head is None else head.lineage
        last = check_history(database, path)
        _check_mark(path, lineage, last.sequence)
        mark = _open_mark(path, lineage, last.sequence)
    except TaskdError:
        with suppress(TaskdError):  # what is wrong with it is told already
            engine.close_database(database, path)
        raise
    return RocksStore(
        database=database, path=path, offload=offload, flush=flush or offload, lineage=lineage, last=last, mark=mark
    )


def _write_head(database: Rdict, path: Path, lineage: bytes) -> bytes:
    """Mark a new store as one, durably, down to its entry in the parent folder."""
    batch = WriteBatch(raw_mode=True)
    batch.put(FORMAT_KEY, b"%d" % FORMAT)
    batch.put(LINEAGE_KEY, lineage)
    try:
        database.write(batch)
        database.flush_wal(True)  # noqa: FBT003 - sync, by position in rocksdict
        database.flush()  # into a table: a log that is lost must not make the store look new
        for folder in (path, path.parent):
            sync_folder(folder)
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise StoreFailed(engine.translate(error, path).message) from None
    return lineage


def _check_mark(path: Path, lineage: bytes, sequence: int) -> None:
    durable = marked_sequence(path, lineage)
    if sequence < durable:
        raise StoreCorrupt(
            f"the store at {path} ends at batch {sequence} and had {durable} on disk: its log lost its end;"
            f" {engine.RECOVER_ADVICE}"
        )
    lost = noted_loss(path, lineage)
    if lost:
        raise StoreCorrupt(
            f"the store at {path} was rolled back: a peer was told of commit {lost}, which it does not hold;"
            f" bring the newest one back, {engine.RECOVER_ADVICE}"
        )


def _open_mark(path: Path, lineage: bytes, sequence: int) -> DurableMark:
    try:
        mark = DurableMark(path, lineage)
        mark.write(sequence)
    except OSError as error:
        raise StoreFailed(engine.translate(error, path).message) from None
    return mark


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFailed(f"cannot make the folder {path}: {error.strerror}; choose another data directory") from None


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
