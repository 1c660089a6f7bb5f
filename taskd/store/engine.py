"""RocksDB as taskd uses it: options, opening, walking, and its errors in our words.

The one room that names rocksdict's traps, so that no other has to know them:
- Raw mode only: the default mode unpickles what it reads.
- Recovery refuses what it cannot read; its default would silently drop all that was written after a
  flipped bit.
- An iterator ends at a damaged block as it does at the end, so ``status`` is asked after every walk;
  ``keys``, ``items`` and ``values`` have no status and are not used.
- ``create_if_missing`` would put an empty store over one that lost its CURRENT file, so ``is_new`` decides.
- ``set_iterate_lower_bound`` sets the upper bound (0.3.29): a walk begins with a seek, or compares.
- Damaged headers of a log, or of the list of tables, make RocksDB read for ever: ``wal`` looks at them first.
- Errors are bare ``Exception``s and told apart by their text; an unknown text is a failure.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from taskd.store.interface import Write
from taskd.store.wal import check_logs, check_manifests
from taskd_protocol.errors import DataDirInUse, StoreCorrupt, StoreFailed, StoreStalled, TaskdError

MEMTABLE_BYTES = 64 * 1024 * 1024
"""Most entries of lines and leases are deleted within it and never reach a table: at 16 MiB, flushes and
compactions cost 6 us a task in the background, at 64 MiB a fraction of one. A start replays at most this."""
MEMTABLES_MAX = 3
WAL_BYTES_MAX = 256 * 1024 * 1024
CACHE_BYTES = 32 * 1024 * 1024
"""Blocks, indexes and filters together: what the server reads of its backlog is read once."""
OPEN_FILES_MAX = 512
LOG_FILE_BYTES_MAX = 1024 * 1024
LOG_FILES = 2
BLOCK_BYTES = 16 * 1024
BLOOM_BITS_PER_KEY = 10
BACKGROUND_JOBS = 2


def is_new(path: Path) -> bool:
    """Tell whether no store was ever completed there.

    Raises:
        StoreCorrupt: There are data of a store that has lost its CURRENT file.
    """
    if not path.is_dir():
        recovering = path.with_name(f"{path.name}.recovering")
        if recovering.exists():
            raise StoreCorrupt(f"a recovery was cut short and left {recovering}; run `taskd recover` again")
        restoring = restoring_beside(path)
        if restoring.exists():
            raise StoreCorrupt(f"a restore was cut short and left {restoring}; run `taskd restore` again")
        return True
    if (path / "CURRENT").exists():
        return False
    # A first start that was cut short leaves a LOCK, a LOG, an IDENTITY and a MANIFEST, but no data.
    if any(path.glob("*.sst")) or any(path.glob("*.log")):
        raise StoreCorrupt(f"{path} holds data and no CURRENT file; {RECOVER_ADVICE}")
    return True


def restoring_beside(path: Path) -> Path:
    """Return where a backup becomes the store of that path: while it is there, no new store is made."""
    return path.with_name(f"{path.name}.restoring")


def open_database(
    path: Path, *, create: bool = False, recovery: DBRecoveryMode | None = None, access: AccessType | None = None
) -> Rdict:
    """Open the files.

    Args:
        path: The folder.
        create: Make what is missing; else it must be there.
        recovery: How to read the log; None: refuse all but a torn end.
        access: None: to read and write, exclusively.

    Raises:
        DataDirInUse: Another process, or this one, has it open.
        StoreCorrupt: What is there is not what was written.
        StoreFailed: Anything else.
    """
    if not create and is_new(path):
        raise StoreFailed(f"there is no store at {path}; name the data directory of a server that has run")
    options = make_options(recovery or DBRecoveryMode.tolerate_corrupted_tail_records())
    options.create_if_missing(create)
    check_manifests(path)
    if recovery is None:
        check_logs(path, RECOVER_ADVICE)
    try:
        return Rdict(str(path), options, access_type=access or AccessType.read_write())
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise translate_open(error, path) from None


def close_database(database: Rdict, path: Path) -> None:
    """Close the files; what was written and not flushed stays in the log, whatever this raises.

    Raises:
        StoreCorrupt: What the background read meanwhile is not what was written.
        StoreFailed: Anything else.
    """
    try:
        database.close()
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise translate(error, path) from None


def checkpoint(database: Rdict, path: Path, folder: Path) -> None:
    """Link the files of an open store into a new folder, as they are at one moment. Blocks, and frees the lock.

    Raises:
        StoreFailed: The disk refuses.
    """
    try:
        database.flush()  # it would else be done with the interpreter's lock held
        Checkpoint(database).create_checkpoint(str(folder))
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise translate(error, path) from None


def batch_of(writes: Iterable[Write]) -> WriteBatch:
    """Return a batch to be written."""
    batch = WriteBatch(raw_mode=True)
    for key, value in writes:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
    return batch


def make_options(recovery: DBRecoveryMode) -> Options:
    """Return the options of a store, for many small records of which most are gone within seconds."""
    options = Options(raw_mode=True)
    options.set_wal_recovery_mode(recovery)
    options.set_paranoid_checks(enabled=True)

    options.set_write_buffer_size(MEMTABLE_BYTES)
    options.set_max_write_buffer_number(MEMTABLES_MAX)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_allow_concurrent_memtable_write(allow=False)  # one writer: the plain insert is a tenth faster

    options.set_compression_type(DBCompressionType.lz4())
    options.set_bottommost_compression_type(DBCompressionType.zstd())
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.set_bytes_per_sync(LOG_FILE_BYTES_MAX)  # write back as it goes: no burst in front of a log's fsync
    options.set_max_open_files(OPEN_FILES_MAX)
    options.set_skip_stats_update_on_db_open(skip=True)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_max_log_file_size(LOG_FILE_BYTES_MAX)
    options.set_keep_log_file_num(LOG_FILES)
    options.set_block_based_table_factory(_table_options())
    return options


def _table_options() -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES))
    table.set_block_size(BLOCK_BYTES)
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, block_based=False)
    # Index and filter in pieces, in the cache: ten million tasks' filters would else lie in memory beside it.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(size=True)
    table.set_cache_index_and_filter_blocks(v=True)
    table.set_pin_top_level_index_and_filter(v=True)
    table.set_format_version(6)
    return table


def walk(database: Rdict, lower: bytes, upper: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values from ``lower`` up to, and without, ``upper``, as they are when the walk begins.

    Raises:
        StoreCorrupt: A block on the way does not hold what was written.
        StoreFailed: It cannot be read.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(upper)
    entries = database.iter(options)
    valid, key, value = entries.valid, entries.key, entries.value
    if reverse:
        entries.seek_to_last()
        step = entries.prev
        while valid() and (at := key()) >= lower:
            yield at, value()
            step()
    else:
        entries.seek(lower)
        step = entries.next
        while valid():
            yield key(), value()
            step()
    try:
        entries.status()
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise translate(error, Path(database.path())) from None


def get_many(database: Rdict, keys: Iterable[bytes]) -> list[bytes | None]:
    """Return the values of the keys in their order, None where there is none. Frees the interpreter's lock.

    Raises:
        StoreCorrupt: A block does not hold what was written.
        StoreFailed: It cannot be read.
    """
    wanted: list[str | int | float | bytes | bool] = [*keys]
    try:
        found = database.get(wanted)
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise translate(error, Path(database.path())) from None
    assert found is not None
    values: list[bytes | None] = found
    return values


RECOVER_ADVICE = "restore a backup, or give up what cannot be read with `taskd recover`"


_LOCKED_HERE = "IO error: lock hold by current process"
_LOCKED = "IO error: While lock file:"
_LOCKED_ELSEWHERE = "Resource temporarily unavailable"


def translate(error: Exception, path: Path) -> TaskdError:
    """Return the error of ours for one of an open store."""
    text = _one_line(error)
    if text.startswith("Result incomplete: Write stall"):
        return StoreStalled(f"the store at {path} asks to wait; try again")
    if text.startswith("Corruption:"):
        return StoreCorrupt(f"the store at {path} does not hold what was written: {text}; restore a backup")
    return StoreFailed(f"the store at {path} failed: {text}; see to the disk and its free space, then start again")


def translate_open(error: Exception, path: Path) -> TaskdError:
    """Return the error of ours for one of a store that does not open."""
    text = _one_line(error)
    if text.startswith(_LOCKED_HERE) or (text.startswith(_LOCKED) and _LOCKED_ELSEWHERE in text):
        return DataDirInUse(f"{path} is in use by another process; stop it, or choose another data directory")
    if text.startswith("IO error: No such file"):
        return StoreCorrupt(f"the store at {path} lacks a file: {text}; {RECOVER_ADVICE}")
    if text.startswith("Corruption:"):
        return StoreCorrupt(f"the store at {path} does not hold what was written: {text}; {RECOVER_ADVICE}")
    return translate(error, path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
