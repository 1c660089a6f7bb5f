"""Recover gives up what cannot be read, tells what that is, and keeps the damaged store."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from crash.images import LINEAGE, open_at
from store.driver import Driver
from taskd.core.records import SPEC
from taskd.store import engine
from taskd.store.anew import ATTEMPTS_JUMP
from taskd.store.fsck import fsck
from taskd.store.recover import Recovery, recover
from taskd.store.stored_tasks import read_tasks
from taskd_protocol.errors import DataDirInUse, StoreCorrupt, StoreFailed

NEW_LINEAGE = b"n" * 16
NOW_MS = 1_800_000_000_000
TURNS = 40


class Killed:
    """A store with real tasks, killed; and the ids that each batch added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added: dict[int, list[bytes]] = {}
        self.sizes: dict[int, int] = {}
        self.log = ""


async def make_killed(folder: Path) -> Killed:
    killed = Killed(folder / "image")
    live = folder / "live"
    store = open_at(live)
    killed.log = max(live.glob("*.log")).name
    driver = Driver(store)
    for _ in range(TURNS):
        ids = await driver.submit(driver.specs(5))
        killed.added[store.staged_sequence] = ids
        grants = await driver.lease("a1", ["app.f"], 2)
        await driver.ack("a1", grants, result=random.Random(store.staged_sequence).randbytes(700))
        await store.flush()
        killed.sizes[store.staged_sequence] = (live / killed.log).stat().st_size
    shutil.copytree(live, killed.folder)
    await store.close()
    return killed


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    return trio.run(make_killed, tmp_path_factory.mktemp("killed"))


@pytest.fixture
def path(killed: Killed, tmp_path: Path) -> Path:
    shutil.copytree(killed.folder, tmp_path / "store")
    return tmp_path / "store"


def flip(file: Path, at: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)


def largest_table(path: Path) -> Path:
    return max(path.glob("*.sst"), key=size_of)


def size_of(file: Path) -> int:
    return file.stat().st_size


def move(path: Path, to: Path) -> None:
    path.rename(to)


async def ids_at(path: Path) -> list[bytes]:
    store = open_at(path)
    found = [task_id for task_id, _ in await store.scan(SPEC, limit=10_000)]
    await store.close()
    return found


def run(path: Path, *, accept_loss: bool) -> Recovery:
    return recover(path, new_lineage=NEW_LINEAGE, now_ms=NOW_MS, accept_loss=accept_loss)


async def test_a_sound_store_is_left_alone(path: Path, killed: Killed) -> None:
    recovery = run(path, accept_loss=True)
    assert not recovery.needed
    assert recovery.report.is_clean
    assert recovery.damaged is None
    assert recovery.sequence == max(killed.sizes)
    assert fsck(path).lineage == LINEAGE.hex()
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("seed", range(12))
async def test_what_lies_before_the_damage_is_kept(path: Path, killed: Killed, seed: int) -> None:
    rng = random.Random(seed)
    size = (path / killed.log).stat().st_size
    at = rng.randrange(size // 10, size)
    flip(path / killed.log, at, rng.randrange(8))
    with pytest.raises(StoreCorrupt):
        open_at(path)

    told = run(path, accept_loss=False)
    assert told.needed
    assert told.damaged is None
    with pytest.raises(StoreCorrupt):
        open_at(path)

    done = run(path, accept_loss=True)
    whole = max([n for n, end in killed.sizes.items() if end <= at], default=0)
    assert whole <= done.sequence < max(killed.sizes)
    assert done.sequence_seen == max(killed.sizes)
    kept = await ids_at(path)
    assert kept == sorted(task_id for n, ids in killed.added.items() if n <= done.sequence for task_id in ids)
    everything = {task_id for ids in killed.added.values() for task_id in ids}
    assert set(done.lost) <= everything - set(kept)
    assert done.lost_count == len(done.lost)
    assert (told.sequence, told.lost) == (done.sequence, done.lost)
    assert done.report.is_clean
    report = fsck(path)
    assert report.is_clean
    assert (report.lineage, report.sequence) == (NEW_LINEAGE.hex(), done.sequence)
    assert done.damaged is not None
    assert done.damaged.name == "store.damaged-1"
    with pytest.raises(StoreCorrupt):
        open_at(done.damaged)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["store", "store.damaged-1"]


RECOVER_EACH = """
import sys
from pathlib import Path
from taskd.store.recover import recover
for folder in sorted(Path(sys.argv[1]).iterdir()):
    done = recover(folder / "store", new_lineage=b"n" * 16, now_ms=0, accept_loss=True)
    print(folder.name, done.sequence, done.sequence_seen, flush=True)
"""


def test_a_header_that_hangs_rocksdb_is_no_obstacle(killed: Killed, tmp_path: Path) -> None:
    """In a process of its own: RocksDB would read such a record for ever, in every mode, deaf to any time limit."""
    before = sorted(killed.sizes)[4]
    log = (killed.folder / killed.log).read_bytes()
    for piece in (5, 6, 7, 8, 11, 200):
        damaged = bytearray(log)
        damaged[killed.sizes[before] + 6] = piece
        path = tmp_path / str(piece) / "store"
        shutil.copytree(killed.folder, path)
        (path / killed.log).write_bytes(damaged)
    done = subprocess.run(
        [sys.executable, "-c", RECOVER_EACH, str(tmp_path)], stdout=subprocess.PIPE, check=True, timeout=60
    )
    answers = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert sorted(answers) == [[piece, before, max(killed.sizes)] for piece in (5, 6, 7, 8, 11, 200)]


async def test_a_log_that_lost_its_end_is_a_case_for_it(path: Path, killed: Killed) -> None:
    middle = sorted(killed.sizes)[TURNS // 2]
    with (path / killed.log).open("r+b") as file:
        file.truncate(killed.sizes[middle])
    with pytest.raises(StoreCorrupt, match="lost its end"):
        open_at(path)
    recovery = run(path, accept_loss=True)
    assert (recovery.sequence, recovery.sequence_seen) == (middle, max(killed.sizes))
    assert await ids_at(path) == sorted(i for n, ids in killed.added.items() if n <= middle for i in ids)


async def test_a_store_that_is_older_than_what_it_told_is_a_case_for_it(path: Path, killed: Killed) -> None:
    """A whole one, of which a peer has proof that it was newer: it stays refused until the loss is accepted."""
    store = open_at(path)
    store.note_loss(max(killed.sizes) + 9)
    store.stage([])
    await store.close()
    with pytest.raises(StoreCorrupt, match=f"told of commit {max(killed.sizes) + 9}, which it does not hold"):
        open_at(path)
    told = run(path, accept_loss=False)
    assert (told.needed, told.sequence, told.sequence_seen) == (True, max(killed.sizes) + 1, max(killed.sizes) + 9)
    done = run(path, accept_loss=True)
    assert done.report.lineage == NEW_LINEAGE.hex()
    await open_at(path).close()


async def test_what_is_left_begins_anew(path: Path, killed: Killed) -> None:
    """The lost part may have granted attempts: none of their numbers is given again."""
    flip(path / killed.log, killed.sizes[sorted(killed.sizes)[TURNS // 2]] + 20)
    run(path, accept_loss=True)
    database = engine.open_database(path)
    tasks = list(read_tasks(database))
    database.close()
    assert {task.state for task in tasks} == {"ready", "succeeded"}
    for task in tasks:
        assert task.last is not None
        assert (task.last.attempt >= ATTEMPTS_JUMP) == (task.state == "ready")


async def test_a_recovered_store_goes_on(path: Path, killed: Killed) -> None:
    flip(path / killed.log, killed.sizes[min(killed.sizes)] + 20)
    recovery = run(path, accept_loss=True)
    store = open_at(path)
    assert store.lineage == NEW_LINEAGE
    assert store.staged_sequence == recovery.sequence
    store.stage([])
    assert await store.flush() == recovery.sequence + 1
    await store.close()
    again = open_at(path)
    assert again.staged_sequence == recovery.sequence + 1
    await again.close()


async def test_damaged_tables_need_a_backup(path: Path) -> None:
    await open_at(path).close()
    table = largest_table(path)
    flip(table, size_of(table) * 2 // 3)
    with pytest.raises(StoreCorrupt, match=r"opens, but not all of it holds.*restore a backup"):
        run(path, accept_loss=True)
    table.unlink()
    with pytest.raises(StoreCorrupt, match="more than its log"):
        run(path, accept_loss=True)
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]


async def test_a_replacement_that_was_cut_short_is_finished(path: Path) -> None:
    move(path, path.with_name("store.recovering"))
    with pytest.raises(StoreCorrupt, match="cut short"):
        open_at(path)
    recovery = run(path, accept_loss=False)
    assert not recovery.needed
    assert recovery.report.is_clean
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]


async def test_a_store_in_use_and_a_missing_one_are_refused(path: Path) -> None:
    database = engine.open_database(path)
    with pytest.raises(DataDirInUse):
        run(path, accept_loss=True)
    database.close()
    with pytest.raises(StoreFailed, match="no store"):
        run(path.with_name("nowhere"), accept_loss=True)
