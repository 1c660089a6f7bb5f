"""Backups and restores: whole, or not there; and what is restored gives nothing out twice."""

import fcntl
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec

import msgspec
import pytest
import trio

from harness.specs import changed
from store.driver import WALL_MS, Driver
from store.houses import LINEAGE
from taskd.core.lifecycle import State
from taskd.core.records import META, EpochRecord
from taskd.core.working import EPOCH_BITS
from taskd.store import backup as backups
from taskd.store import engine
from taskd.store.anew import ATTEMPTS_JUMP
from taskd.store.backup import MANIFEST, Manifest, check_room, copy_store, open_draft, read_manifest
from taskd.store.codec import decode_as
from taskd.store.disk import Space
from taskd.store.fsck import fsck
from taskd.store.head import FORMAT
from taskd.store.keys import FORMAT_KEY, make_key
from taskd.store.restoring import Restored, restore
from taskd.store.rocksdb import open_store
from taskd.store.stored_tasks import StoredTask, read_tasks
from taskd_protocol.errors import BadRequest, ConfigInvalid, DiskFull, StoreCorrupt, TaskdError

P = ParamSpec("P")
NEW_LINEAGE = b"n" * 16
KEYS = {name: f"{name} of the old server".encode() for name in backups.KEY_FILES}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with tasks in every state, of a server that was stopped."""
    root = tmp_path_factory.mktemp("filled")
    for name, content in KEYS.items():
        (root / name).write_bytes(content)

    async def build() -> None:
        store = open_store(root / "store", offload=trio.to_thread.run_sync, new_lineage=LINEAGE)
        driver = Driver(store)
        await driver.submit(driver.specs(20, name="app.waits", key="order"))
        delayed = await driver.submit(driver.specs(4, name="app.f", delay_ms=60_000))
        await driver.submit(driver.specs(12))
        grants = await driver.lease("a1", ["app.f"], 10)
        await driver.log("a1", grants[:3], 4)
        await driver.ack("a1", grants[:2], result=bytes(2000))
        await driver.fail("a1", grants[3:5])
        await driver.cancel([grants[5].spec.id, delayed[0]])
        limited = driver.specs(4, name="app.limited")
        limits = [(60_000, 0), (60_000, 90_000), (90_000, 60_000), (0, 60_000)]
        await driver.submit(
            [changed(spec, ttl_ms=ttl, deadline_ms=end) for spec, (ttl, end) in zip(limited, limits, strict=True)]
        )
        await driver.submit(driver.specs(2, name="app.once", max_attempts=1))
        await driver.fail("a2", await driver.lease("a2", ["app.once"], 1))
        await store.close()

    trio.run(build)
    return root


@pytest.fixture
def root(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "data")
    return tmp_path / "data"


def back_up(root: Path, target: Path, *, with_keys: bool = True) -> Path:
    """Make a backup, step by step, as whoever makes one does."""
    draft = open_draft(target, root)
    try:
        copy_store(root / "store", draft.store)
        report = fsck(draft.store)
        assert report.is_clean
        manifest = Manifest(
            software="taskd test",
            created_at_ms=WALL_MS,
            lineage=report.lineage,
            sequence=report.sequence,
            tasks=report.counts,
            keys=with_keys,
        )
        draft.complete(manifest, root if with_keys else None)
    except KilledError:
        os.close(draft._lock_fd)  # as the kernel does
        raise
    return target


@pytest.fixture
def backup(root: Path, tmp_path: Path) -> Path:
    return back_up(root, tmp_path / "backup")


def restore_to(backup: Path, root: Path) -> Restored:
    root.mkdir(exist_ok=True)
    return restore(backup, root, new_lineage=NEW_LINEAGE, now_ms=WALL_MS)


def tasks_of(store: Path) -> list[StoredTask]:
    database = engine.open_database(store)
    try:
        return list(read_tasks(database))
    finally:
        database.close()


def epoch_of(store: Path) -> int:
    database = engine.open_database(store)
    try:
        [stored] = engine.get_many(database, [make_key(META, b"epoch")])
        assert stored is not None
        return decode_as(EpochRecord, META, b"epoch", stored).epoch
    finally:
        database.close()


def attempt_of(task: StoredTask) -> int:
    holder = task.lease or task.last
    return 0 if holder is None else holder.attempt


# -- what is in it ------------------------------------------------------------------------------


def test_a_backup_is_for_its_owner_alone_and_tells_of_itself(root: Path, backup: Path) -> None:
    """Its keys are secrets, its store holds every argument; the mark of what was durable is the server's own."""
    made = [backup, *backup.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o700}
    ours = [backup / MANIFEST, *(backup / name for name in KEYS)]
    assert {path.stat().st_mode & 0o777 for path in ours} == {0o600}
    assert {name: (backup / name).read_bytes() for name in KEYS} == KEYS
    assert (root / "store" / "durable.mark").exists()
    assert not (backup / "store" / "durable.mark").exists()
    shared = {path.stat().st_ino for path in root.rglob("*")} & {path.stat().st_ino for path in made}
    assert not shared
    told = read_manifest(backup)
    assert (told.lineage, told.sequence) == (fsck(root / "store").lineage, fsck(root / "store").sequence)
    assert not backup.with_name("backup.partial").exists()


def test_a_backup_without_keys_holds_none(root: Path, tmp_path: Path) -> None:
    made = back_up(root, tmp_path / "bare", with_keys=False)
    assert {path.name for path in made.iterdir()} == {MANIFEST, "store"}
    restore_to(made, tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"store"}


# -- what a restore makes of it -----------------------------------------------------------------


def test_a_restored_store_gives_nothing_out_twice(root: Path, backup: Path, tmp_path: Path) -> None:
    """What may be granted again has a number that the lost part cannot have given; the rest is as before."""
    before = {task.id: task for task in tasks_of(root / "store")}
    done = restore_to(backup, tmp_path / "again")
    store = tmp_path / "again" / "store"
    after = {task.id: task for task in tasks_of(store)}
    assert after.keys() == before.keys()
    assert {task.state for task in after.values()} >= {
        "ready",
        "scheduled",
        "running",
        "succeeded",
        "dead",
        "cancelled",
    }
    for task_id, task in after.items():
        was = before[task_id]
        assert (task.spec, task.state, task.has_result, task.logs) == (was.spec, was.state, was.has_result, was.logs)
        over = task.state == State.SUCCEEDED
        jump = 0 if over else ATTEMPTS_JUMP
        assert attempt_of(task) == attempt_of(was) + jump
        assert task.attempts == tuple(attempt + jump for attempt in was.attempts)
    assert any(task.attempts for task in after.values())
    assert done.report.lineage == NEW_LINEAGE.hex()
    assert done.report.is_clean
    assert epoch_of(store) > max(epoch_of(root / "store"), WALL_MS // 1000)
    assert all(task.lease.token >> EPOCH_BITS < epoch_of(store) for task in after.values() if task.lease)
    assert fsck(backup / "store").lineage == LINEAGE.hex()  # left as it was


def test_restores_of_restores_go_on_upwards(backup: Path, tmp_path: Path) -> None:
    restore_to(backup, tmp_path / "first")
    restore_to(back_up(tmp_path / "first", tmp_path / "backup-2"), tmp_path / "second")
    assert epoch_of(tmp_path / "second" / "store") > epoch_of(tmp_path / "first" / "store")
    unfinished = [task for task in tasks_of(tmp_path / "second" / "store") if not task.has_ended]
    assert all(2 * ATTEMPTS_JUMP <= attempt_of(task) < 3 * ATTEMPTS_JUMP for task in unfinished)


def test_a_backup_of_an_older_format_is_restored_in_this_one(backup: Path, tmp_path: Path) -> None:
    database = engine.open_database(backup / "store")
    database.put(FORMAT_KEY, b"1")
    engine.close_database(database, backup / "store")
    assert restore_to(backup, tmp_path / "again").report.is_clean
    database = engine.open_database(tmp_path / "again" / "store")
    assert engine.get_many(database, [FORMAT_KEY]) == [b"%d" % FORMAT]
    database.close()


# -- cut short ----------------------------------------------------------------------------------


class KilledError(BaseException):
    """As a kill: nothing is handled any more."""


def die_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Kill whoever syncs a file or renames one for the time of that number, from 1."""
    steps = 0

    def dying(real: Callable[P, None]) -> Callable[P, None]:
        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                raise KilledError
            real(*args, **kwargs)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


def test_a_backup_that_is_killed_passes_for_none(root: Path, tmp_path: Path) -> None:
    """At each step: nothing has its name, what is left is refused, and the next one of that name is whole."""
    target = tmp_path / "backup"
    step = 0
    while not target.exists():
        step += 1
        with pytest.MonkeyPatch.context() as monkeypatch:
            die_at(monkeypatch, step)
            try:
                back_up(root, target)
            except KilledError:
                left = tmp_path / "backup.partial"
        if not target.exists():
            if not (left / MANIFEST).exists():  # else it lacks nothing but its name
                with pytest.raises(ConfigInvalid, match="no finished backup"):
                    restore_to(left, tmp_path / "again")
            if step % 4 == 0:  # the next begins with what a kill has left, or without
                shutil.rmtree(left)
    assert step > 8
    assert restore_to(target, tmp_path / "again").report.is_clean


def test_a_restore_that_is_killed_is_run_again(backup: Path, tmp_path: Path) -> None:
    """At each step: no server makes an empty store there meanwhile, and the last run is as if it were the only one."""
    root = tmp_path / "again"
    step = 0
    while True:
        step += 1
        with pytest.MonkeyPatch.context() as monkeypatch:
            die_at(monkeypatch, step)
            try:
                restore_to(backup, root)
            except KilledError:
                pass
            else:
                break
        if (root / "store").exists():  # all but the last sync of its name
            break
        with pytest.raises(StoreCorrupt, match="run `taskd restore` again"):
            open_store(root / "store", offload=trio.to_thread.run_sync, new_lineage=bytes(16))
    assert step > 8
    assert fsck(root / "store").is_clean
    assert {attempt_of(task) // ATTEMPTS_JUMP for task in tasks_of(root / "store") if not task.has_ended} == {1}
    assert {name: (root / name).read_bytes() for name in KEYS} == KEYS


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("taken", "is there already"),
        ("link", "is there already"),
        ("data/inside", "in the data directory"),
        ("missing/backup", "No such file"),
        ("taken/file/backup", "Not a directory"),
        ("x.partial", "whole path"),
        ("a/../b", "whole path"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_no_backup_can_have(root: Path, tmp_path: Path, name: str, why: str) -> None:
    """It is refused in a line that says what to do, and nothing is made there."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadRequest, match=why) as refused:
        open_draft(tmp_path / name, root)
    assert "\n" not in refused.value.message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_relative_place_is_refused(root: Path) -> None:
    with pytest.raises(BadRequest, match="whole path"):
        open_draft(Path("backup"), root)


def test_a_backup_that_another_process_writes_is_left_alone(root: Path, tmp_path: Path) -> None:
    writing = open_draft(tmp_path / "backup", root)
    (writing.folder / "file").write_bytes(b"")
    with pytest.raises(BadRequest, match="another process writes"):
        open_draft(tmp_path / "backup", root)
    assert (writing.folder / "file").exists()
    writing.discard()
    assert not writing.folder.exists()
    lock = os.open(tmp_path, os.O_RDONLY)  # of what is discarded nothing is held
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


def test_what_has_no_room_is_not_begun(
    root: Path, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a backup beside a server that needs the room, nor a restore."""
    for module in ("backup", "restoring"):
        monkeypatch.setattr(f"taskd.store.{module}.read_space", lambda _: Space(64 << 20, 1 << 30))
    with pytest.raises(DiskFull, match="choose another disk"):
        check_room(tmp_path / "more", root, 1 << 20)
    with pytest.raises(DiskFull):
        restore_to(backup, tmp_path / "again")
    assert list((tmp_path / "again").iterdir()) == []


def test_a_name_taken_meanwhile_is_not_written_over(root: Path, tmp_path: Path) -> None:
    draft = open_draft(tmp_path / "backup", root)
    copy_store(root / "store", draft.store)
    (tmp_path / "backup").mkdir()
    manifest = Manifest(software="", created_at_ms=0, lineage="", sequence=0, tasks={}, keys=False)
    with pytest.raises(BadRequest, match="is there already"):
        draft.complete(manifest, None)
    draft.discard()
    assert list((tmp_path / "backup").iterdir()) == []


def test_a_store_is_not_restored_over_another(root: Path, backup: Path) -> None:
    before = fsck(root / "store")
    with pytest.raises(ConfigInvalid, match="holds a store already"):
        restore_to(backup, root)
    assert fsck(root / "store") == before


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_backup_is_refused_and_leaves_nothing(backup: Path, tmp_path: Path, seed: int) -> None:
    """Whichever byte of its tables has changed: it is refused, or none of what it holds."""
    rng = random.Random(seed)
    table = rng.choice(sorted((backup / "store").glob("*.sst")))
    content = bytearray(table.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    table.write_bytes(content)
    with suppress(StoreCorrupt):
        assert restore_to(backup, tmp_path / "again").report.counts == read_manifest(backup).tasks
        return
    assert list((tmp_path / "again").iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("sequence", 10_000, StoreCorrupt),
        ("lineage", "00" * 16, StoreCorrupt),
        ("version", 2, ConfigInvalid),
        ("tasks", "many", ConfigInvalid),
    ],
)
def test_a_backup_that_is_not_what_it_says_is_refused(
    backup: Path, tmp_path: Path, field: str, value: object, error: type[TaskdError]
) -> None:
    told = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=dict[str, object])
    (backup / MANIFEST).write_bytes(msgspec.json.encode({**told, field: value}))
    with pytest.raises(error, match=r"another|restore it with"):
        restore_to(backup, tmp_path / "again")
    assert list((tmp_path / "again").iterdir()) == []


def test_a_backup_that_lost_its_store_is_refused(backup: Path, tmp_path: Path) -> None:
    shutil.rmtree(backup / "store")
    with pytest.raises(ConfigInvalid, match="lost its store"):
        restore_to(backup, tmp_path / "again")
