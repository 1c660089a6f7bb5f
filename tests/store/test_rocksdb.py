"""What RocksDB adds to a store's promises: one process, one format, stalls, and a first start that may be cut short."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from store.houses import LINEAGE, RocksHouse
from taskd.core.records import READY, SPEC
from taskd.store import engine
from taskd.store.head import FORMAT
from taskd.store.history import COMMITS_KEPT
from taskd.store.keys import COMMIT_PREFIX, FORMAT_KEY, commit_key, make_key, successor
from taskd.store.rocksdb import RocksStore, open_store
from taskd_protocol.errors import DataDirInUse, StoreCorrupt, StoreFailed, StoreStalled, StoreTooNew, TaskdError

if TYPE_CHECKING:
    from rocksdict import Rdict

OPEN_FROM_ANOTHER_PROCESS = """
import sys, trio
from pathlib import Path
from taskd.store.rocksdb import open_store
from taskd_protocol.errors import TaskdError
try:
    open_store(Path(sys.argv[1]), offload=trio.to_thread.run_sync, new_lineage=bytes(16))
except TaskdError as error:
    print(error.code)
"""


def reopen(path: Path) -> RocksStore:
    return open_store(path, offload=trio.to_thread.run_sync, new_lineage=LINEAGE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store"


async def write_some(path: Path, batches: int = 3) -> None:
    store = reopen(path)
    for n in range(batches):
        store.stage([(make_key(SPEC, n.to_bytes(4, "big")), b"v")])
    await store.close()


async def test_a_folder_is_made_for_the_owner_alone(path: Path) -> None:
    await write_some(path)
    assert (await trio.Path(path).stat()).st_mode & 0o777 == 0o700


async def test_a_second_process_is_refused(path: Path) -> None:
    store = reopen(path)
    with pytest.raises(DataDirInUse, match="stop it"):
        reopen(path)
    answer = await trio.run_process([sys.executable, "-c", OPEN_FROM_ANOTHER_PROCESS, str(path)], capture_stdout=True)
    assert answer.stdout == b"store.in_use\n"
    store.stage([(make_key(SPEC, b"a"), b"v")])
    await store.close()
    await reopen(path).close()


async def test_a_newer_format_is_refused_and_left_alone(path: Path) -> None:
    await write_some(path)
    with_format(path, b"%d" % (FORMAT + 1))
    with pytest.raises(StoreTooNew, match=f"format {FORMAT + 1}, this taskd knows {FORMAT}"):
        reopen(path)
    with_format(path, b"%d" % FORMAT)
    store = reopen(path)
    assert len(await store.scan(SPEC, limit=9)) == 3
    await store.close()


@pytest.mark.parametrize("mark", [b"", b"one", b"-1"])
async def test_a_format_that_is_no_number_is_refused(path: Path, mark: bytes) -> None:
    await write_some(path)
    with_format(path, mark)
    with pytest.raises(StoreCorrupt, match="format mark"):
        reopen(path)


def with_format(path: Path, mark: bytes) -> None:
    database = engine.open_database(path)
    database.put(FORMAT_KEY, mark)
    database.close()


async def test_a_store_without_its_head_is_refused(path: Path) -> None:
    await write_some(path)
    database = engine.open_database(path)
    database.delete(FORMAT_KEY)
    database.close()
    with pytest.raises(StoreCorrupt, match="lost its format mark"):
        reopen(path)


async def test_a_lost_current_file_is_refused_not_replaced_by_an_empty_store(path: Path) -> None:
    await write_some(path)
    (path / "CURRENT").unlink()
    with pytest.raises(StoreCorrupt, match="no CURRENT file"):
        reopen(path)
    assert tables(path)


async def test_a_first_start_cut_short_begins_again(path: Path) -> None:
    engine.open_database(_folder(path), create=True).close()  # everything but the head
    await write_some(path)
    only_frame = path.with_name("other")
    _folder(only_frame)
    for name in ("LOCK", "LOG", "IDENTITY"):
        (only_frame / name).write_bytes(b"")
    await write_some(only_frame)


def tables(path: Path) -> set[str]:
    return {file.name for file in path.glob("*.sst")}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match="cannot make the folder"):
        reopen(tmp_path / "file" / "store")


async def test_a_stall_writes_nothing_and_the_same_batch_goes_in_later(path: Path) -> None:
    store = reopen(path)
    database: Rdict = store._database
    store.stage([(make_key(SPEC, b"a"), b"1")])
    # The table that holds the head is one more on level 0 than is allowed now.
    database.set_options({"level0_slowdown_writes_trigger": "1", "level0_stop_writes_trigger": "1"})
    batch = [(make_key(SPEC, b"b"), b"2"), (make_key(READY, b"b"), b"2")]
    for _ in range(3):
        with pytest.raises(StoreStalled) as stalled:
            store.stage(batch)
    assert stalled.value.retryable
    assert store.staged_sequence == 1
    assert await store.load([(SPEC, b"b")]) == [None]
    database.set_options({"level0_slowdown_writes_trigger": "20", "level0_stop_writes_trigger": "36"})
    assert store.stage(batch) == 2
    assert await store.load([(SPEC, b"a"), (SPEC, b"b"), (READY, b"b")]) == [b"1", b"2", b"2"]
    await store.close()
    again = reopen(path)
    assert again.staged_sequence == 2
    await again.close()


async def test_what_a_start_has_read_is_durable(tmp_path: Path) -> None:
    """After a kill the log may be in the page cache alone; before anyone is told, its content is in a synced table."""
    house = RocksHouse(tmp_path / "lives")
    store = house.open()
    store.stage([(make_key(SPEC, b"a"), b"1")])
    await house.flush(store)
    before = tables(house.path)
    again = await house.cut_power(store, random.Random(0))
    assert tables(house.path) - before
    assert again.durable_sequence == 1
    await again.close()


async def test_a_gap_in_the_history_is_refused(path: Path) -> None:
    await write_some(path, batches=20)
    for lost in (1, 7, 19):
        database = engine.open_database(path)
        record = database.get(commit_key(lost))
        database.delete(commit_key(lost))
        database.close()
        if lost == 1:  # what is no longer kept is no gap
            await reopen(path).close()
            continue
        with pytest.raises(StoreCorrupt, match=f"between {lost - 1} and {lost + 1}"):
            reopen(path)
        database = engine.open_database(path)
        database.put(commit_key(lost), record)
        database.close()
        await reopen(path).close()


async def test_a_changed_history_is_refused(path: Path) -> None:
    await write_some(path, batches=5)
    database = engine.open_database(path)
    database.put(commit_key(3), bytes(20))
    database.close()
    with pytest.raises(StoreCorrupt, match="restore a backup"):
        reopen(path)


async def test_the_history_is_kept_so_far_back_and_no_further(path: Path) -> None:
    store = reopen(path)
    for _ in range(COMMITS_KEPT + 50):
        store.stage([])
    await store.close()
    database = engine.open_database(path)
    commits = [key for key, _ in engine.walk(database, COMMIT_PREFIX, successor(COMMIT_PREFIX))]
    database.close()
    assert commits == [commit_key(n) for n in range(51, COMMITS_KEPT + 51)]
    store = reopen(path)
    assert store.staged_sequence == COMMITS_KEPT + 50
    await store.close()


async def test_the_head_of_an_eaten_queue_is_found_at_once(path: Path) -> None:
    """A scan that begins where the last one ended does not step over what was deleted before."""
    store = reopen(path)
    ids = [n.to_bytes(8, "big") for n in range(50_000)]
    for start in range(0, len(ids), 1000):
        store.stage([(make_key(READY, record_id), b"v") for record_id in ids[start : start + 1000]])
    for start in range(0, len(ids) - 1000, 1000):
        store.stage([(make_key(READY, record_id), None) for record_id in ids[start : start + 1000]])
    database: Rdict = store._database
    cursor = ids[len(ids) - 1001]
    from_head, from_cursor = [], []
    for _ in range(5):
        begin = time.thread_time()
        next(engine.walk(database, make_key(READY, b""), successor(make_key(READY, b""))))
        middle = time.thread_time()
        [(found, _)] = await store.scan(READY, after=cursor, limit=1)
        from_cursor.append(time.thread_time() - middle)
        from_head.append(middle - begin)
        assert found == ids[len(ids) - 1000]
    assert min(from_cursor) * 5 < min(from_head)
    await store.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IO error: While lock file: /d/LOCK: Resource temporarily unavailable", DataDirInUse),
        ("IO error: lock hold by current process, acquire time 1: /d/LOCK: No locks available", DataDirInUse),
        ("IO error: While lock file: /d/LOCK: No locks available", StoreFailed),
        ("IO error: While open a file for lock: /d/LOCK: Permission denied", StoreFailed),
        ("IO error: No space left on device: While appending to file: /srv/block/store/000004.log", StoreFailed),
        ("IO error: No such file or directory: While open a file for random read: /d/000012.sst", StoreCorrupt),
        ("Corruption: checksum mismatch", StoreCorrupt),
        ("Something that no one\nhas seen before", StoreFailed),
    ],
)
def test_what_rocksdb_says_at_the_door_is_translated(text: str, expected: type[TaskdError]) -> None:
    translated = engine.translate_open(Exception(text), Path("/d"))
    assert type(translated) is expected
    assert "\n" not in translated.message


def test_no_code_of_the_store_syncs_a_write_or_uses_what_hides_damage() -> None:
    """The rules of the engine's first lines, for every module that names RocksDB."""
    sources = [file.read_text() for file in Path(engine.__file__).parent.glob("*.py")]
    users = [source for source in sources if "rocksdict" in source]
    assert len(users) >= 4
    for source in users:
        for forbidden in (
            ".sync = True",
            ".items(backwards",
            "database.items()",
            "database.keys()",
            "database.values()",
        ):
            assert forbidden not in source
        assert "WriteBatch()" not in source
        assert "Options()" not in source.replace("ReadOptions()", "").replace("WriteOptions()", "").replace(
            "BlockBasedOptions()", ""
        )


def test_the_store_is_usable_as_a_program_starts_it(path: Path) -> None:
    """Closing at the end of a program leaves nothing that would hold it up."""
    program = OPEN_FROM_ANOTHER_PROCESS + "print('done')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(path)], check=True, capture_output=True, timeout=60
    )
    assert done.stdout == b"done\n"
    assert done.stderr == b""
