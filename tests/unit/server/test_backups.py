"""Backups of a running server: one at a time, told as it goes, and nothing left of what did not come to its end."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from harness.server import Server
from harness.waiting import until
from store.driver import Driver
from taskd.server import apart
from taskd.server.backups import LINKS, Backups
from taskd.server.checking import Checked, check_store
from taskd.server.platform import system_platform
from taskd.store.backup import read_manifest
from taskd.store.rocksdb import RocksStore, open_store
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import BadRequest, StoreCorrupt, StoreFailed
from taskd_protocol.house_messages import Backup, BackupView

PATIENCE = 20.0


class Checker:
    """The real check, when it may begin.

    Attributes:
        may_begin: Set at first.
        failure: Raised instead.
        lacks: So many commits are missing in what it finds.
    """

    def __init__(self) -> None:
        self.may_begin = trio.Event()
        self.may_begin.set()
        self.failure: StoreCorrupt | None = None
        self.lacks = 0

    async def __call__(self, store: Path, /) -> Checked:
        await self.may_begin.wait()
        if self.failure is not None:
            raise self.failure
        found = await check_store(store)
        return Checked(clean=True, sequence=found.sequence - self.lacks, tasks=found.tasks)


@dataclass
class Rig:
    """A data directory with a running store, and who makes backups of it."""

    root: Path
    store: RocksStore
    checker: Checker
    backups: Backups
    running: trio.CancelScope

    async def make(self, path: Path, number: int = 1) -> BackupView:
        """Ask until it has ended."""
        wanted = Backup(1, bytes([number]) * 16, str(path), without_keys=True)
        with trio.fail_after(PATIENCE):
            while (view := await self.backups.tell(wanted)).stage not in {"done", "failed"}:
                pass
        return view


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    root = tmp_path / "data"
    store = open_store(root / "store", offload=system_platform().offload, new_lineage=bytes(16))
    driver = Driver(store)
    await driver.submit(driver.specs(50))
    await store.flush()
    (root / LINKS).mkdir()  # of a server that was killed
    checker = Checker()
    backups = Backups(store, root, replace(system_platform(), check_store=checker), "taskd test")
    running = trio.CancelScope()

    async def run() -> None:
        with running:
            await backups.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield Rig(root, store, checker, backups, running)
        running.cancel()
    await store.close()


def left(rig: Rig) -> set[str]:
    """Return what is in the data directory, and beside it."""
    return {path.name for folder in (rig.root, rig.root.parent) for path in folder.iterdir()}


async def test_a_backup_of_a_store_at_work(rig: Rig) -> None:
    """It holds all that was durable when it was asked for; the links that it was made from are gone."""
    view = await rig.make(rig.root.parent / "backup")
    assert (view.code, view.stage, view.tasks, view.copied_bytes) == ("", "done", {"ready": 50}, view.total_bytes)
    assert view.sequence >= rig.store.durable_sequence
    assert read_manifest(rig.root.parent / "backup").tasks == {"ready": 50}
    assert left(rig) == {"store", "data", "backup"}


async def test_one_at_a_time(rig: Rig) -> None:
    """Who asks again under its id is told how far it is; who wants another one is told to wait for it."""
    rig.checker.may_begin = trio.Event()
    wanted = Backup(1, bytes(16), str(rig.root.parent / "backup"), without_keys=True)
    with trio.fail_after(PATIENCE):
        while (await rig.backups.tell(wanted)).stage != "checking":
            pass
        with pytest.raises(BadRequest, match="is being made"):
            await rig.backups.tell(Backup(2, b"2" * 16, str(rig.root.parent / "other")))
        assert not (rig.root.parent / "backup").exists()
        rig.checker.may_begin.set()
        while (view := await rig.backups.tell(wanted)).stage != "done":
            pass
    assert await rig.backups.tell(wanted) == view
    assert (await rig.make(rig.root.parent / "other", 2)).stage == "done"


async def test_a_copy_that_does_not_pass_is_no_backup(rig: Rig) -> None:
    """Neither is one that lacks what was on disk before; the server goes on, and so does the next backup."""
    rig.checker.failure = StoreCorrupt("findings: 1")
    view = await rig.make(rig.root.parent / "backup")
    assert (view.stage, view.code, view.message) == ("failed", "store.corrupt", "findings: 1")
    assert left(rig) == {"store", "data"}
    rig.checker.failure, rig.checker.lacks = None, 1
    view = await rig.make(rig.root.parent / "backup", 2)
    assert (view.stage, view.code) == ("failed", "store.corrupt")
    assert "was on disk" in view.message
    assert left(rig) == {"store", "data"}
    rig.checker.lacks = 0
    assert (await rig.make(rig.root.parent / "backup", 3)).stage == "done"


async def test_a_place_that_cannot_be_is_told(rig: Rig) -> None:
    view = await rig.make(Path("backup"))
    assert (view.stage, view.code) == ("failed", "request.invalid")
    assert left(rig) == {"store", "data"}


async def test_a_server_that_stops_leaves_nothing_half_made(rig: Rig) -> None:
    rig.checker.may_begin = trio.Event()
    wanted = Backup(1, bytes(16), str(rig.root.parent / "backup"), without_keys=True)
    with trio.fail_after(PATIENCE):
        while (await rig.backups.tell(wanted)).stage != "checking":
            pass
    rig.running.cancel()
    await until(lambda: left(rig) == {"store", "data"}, PATIENCE)


# -- the check ----------------------------------------------------------------------------------


async def test_the_check_is_another_process(rig: Rig) -> None:
    """What it cannot open, or finds wrong, it says in the words of fsck; whoever does not wait for it, ends it."""
    with pytest.raises(StoreFailed, match="no store at"):
        await check_store(rig.root / "nothing")
    assert (await rig.make(rig.root.parent / "backup")).stage == "done"
    copy = rig.root.parent / "copy"
    shutil.copytree(rig.root.parent / "backup" / "store", copy)
    (copy / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(StoreCorrupt, match="does not pass its check"):
        await check_store(copy)


async def test_a_check_that_nobody_waits_for_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed and reaped at once."""
    monkeypatch.setattr(apart, "program", lambda _: ["sleep", "1000"])
    with trio.move_on_after(0.1) as patience:
        await check_store(tmp_path)
    assert patience.cancelled_caught


# -- over the wire ------------------------------------------------------------------------------


async def test_a_store_in_memory_has_no_backups(server: Server) -> None:
    operator = await server.client("operator")
    await operator.send(Backup(1, bytes(16), "/backup"))
    assert (await operator.take(Error)).code == "request.invalid"
