"""Tables and their directory, damaged: reading raises, or shows everything. Never a silently shorter list."""

import random
import shutil
import struct
from pathlib import Path

import pytest
import trio
from rocksdict import DBRecoveryMode

from crash.images import STAGED, Content, copy_of, expected, open_at, read_all, says_what_to_do, write_batch
from taskd.store.engine import open_database
from taskd.store.fsck import fsck
from taskd_protocol.errors import StoreCorrupt

NOTHING = Content(None, [], [])


async def closed_image(folder: Path) -> Path:
    """A store that was closed: all of it lies in tables."""
    path = folder / "image"
    store = open_at(path)
    for sequence in range(1, STAGED + 1):
        write_batch(store, sequence)
    await store.close()
    return path


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trio.run(closed_image, tmp_path_factory.mktemp("closed"))


def largest_table(path: Path) -> Path:
    return max(path.glob("*.sst"), key=lambda file: file.stat().st_size)


def newest(path: Path, name: str) -> Path:
    return max(path.glob(f"{name}*"))


def flip(file: Path, at: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)


async def shown(path: Path) -> Content | None:
    """What the store shows; None: it is refused, at the door or when it is read, with what to do."""
    try:
        store = open_at(path)
    except StoreCorrupt as refused:
        return None if says_what_to_do(refused) else NOTHING
    try:
        return await read_all(store)
    except StoreCorrupt as refused:
        return None if says_what_to_do(refused) else NOTHING
    finally:
        await store.close()


async def test_the_image_itself_holds_all(closed: Path, tmp_path: Path) -> None:
    with copy_of(closed, tmp_path) as path:
        assert await shown(path) == expected(STAGED)


async def test_a_flipped_bit_in_a_table_never_shortens_what_is_shown(closed: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    size = largest_table(closed).stat().st_size
    refused = 0
    for at in sorted(rng.sample(range(size), 60)):
        with copy_of(closed, tmp_path) as path:
            flip(largest_table(path), at, rng.randrange(8))
            content = await shown(path)
            assert content in (None, expected(STAGED)), at
            refused += content is None
    assert refused > 45  # the rest hits what no read needs


async def test_a_damaged_block_is_refused_by_scan_and_load_alike(closed: Path, tmp_path: Path) -> None:
    with copy_of(closed, tmp_path) as path:
        table = largest_table(path)
        flip(table, table.stat().st_size // 2, 0)
        assert await shown(path) is None
        assert [finding.rule for finding in fsck(path).findings] == ["unreadable"]


async def test_a_lost_table_is_refused(closed: Path, tmp_path: Path) -> None:
    with copy_of(closed, tmp_path) as path:
        largest_table(path).unlink()
        with pytest.raises(StoreCorrupt, match="taskd recover"):
            open_at(path)


async def test_a_cut_table_is_refused(closed: Path, tmp_path: Path) -> None:
    size = largest_table(closed).stat().st_size
    for kept in (0, 1, size // 2, size - 1):
        with copy_of(closed, tmp_path) as path:
            with largest_table(path).open("r+b") as file:
                file.truncate(kept)
            assert await shown(path) is None


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST"])
async def test_a_damaged_directory_is_refused_or_shows_all(closed: Path, tmp_path: Path, name: str) -> None:
    rng = random.Random(2)
    size = newest(closed, name).stat().st_size
    for at in range(0, size, max(1, size // 40)):
        with copy_of(closed, tmp_path) as path:
            flip(newest(path, name), at, rng.randrange(8))
            assert await shown(path) in (None, expected(STAGED)), at
        with copy_of(closed, tmp_path) as path:
            with newest(path, name).open("r+b") as file:
                file.truncate(at)
            assert await shown(path) in (None, expected(STAGED)), at


async def test_a_directory_with_a_foreign_record_is_refused(closed: Path, tmp_path: Path) -> None:
    """RocksDB would read some of them for ever, deaf to any time limit; recovering does not open it either."""
    for kind in (5, 6, 7, 9, 11, 130, 255):
        with copy_of(closed, tmp_path) as path:
            with newest(path, "MANIFEST").open("ab") as file:
                file.write(struct.pack("<IHB", 7, 100, kind) + bytes(100))
            assert await shown(path) is None, kind
            with pytest.raises(StoreCorrupt, match="restore a backup"):
                open_database(path, recovery=DBRecoveryMode.point_in_time())


async def test_what_rocksdict_keeps_for_itself_may_be_lost(closed: Path, tmp_path: Path) -> None:
    for damage in ("lost", "emptied"):
        with copy_of(closed, tmp_path) as path:
            for file in [*path.glob("rocksdict-config.json"), *path.glob("OPTIONS*"), *path.glob("LOG*")]:
                file.unlink() if damage == "lost" else file.write_bytes(b"")
            assert await shown(path) == expected(STAGED)


async def test_a_store_that_moved_is_the_same(closed: Path, tmp_path: Path) -> None:
    shutil.copytree(closed, tmp_path / "elsewhere" / "store")
    assert await shown(tmp_path / "elsewhere" / "store") == expected(STAGED)
