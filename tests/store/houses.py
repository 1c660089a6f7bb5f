"""Where a store lives in a test: how it is opened, and what is left of it after a power cut."""

import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from taskd.store.interface import Store
from taskd.store.memory import MemoryStore
from taskd.store.rocksdb import open_store
from taskd_protocol.errors import StoreFailed

T = TypeVar("T")

LINEAGE = bytes(range(16))

COPIES_MAX = 50
"""A store of a few kilobytes is copied in a millisecond, and its compactions end within some more."""


class House(Protocol):
    """One store, over its restarts."""

    flush_gate: Callable[[], Awaitable[None]] | None
    """Awaited within each flush, before the disk is synced."""
    flush_fails: bool

    def open(self) -> Store:
        """Open it, new or as it was left."""

    async def flush(self, store: Store) -> int:
        """Flush through the house, so that it knows what a power cut keeps."""

    async def cut_power(self, store: Store, rng: random.Random) -> Store:
        """Lose what was not flushed, or a part of it; open what is left."""


class MemoryHouse:
    """A store in memory; what is left of it is what ``crash`` returns."""

    def __init__(self) -> None:
        self.flush_gate: Callable[[], Awaitable[None]] | None = None
        self.flush_fails = False
        self._store: MemoryStore | None = None

    def open(self) -> Store:
        if self._store is None:
            self._store = MemoryStore(lineage=LINEAGE, sync=self._sync)
        else:
            self._store = self._store.crash(random.Random(0))
        return self._store

    async def flush(self, store: Store) -> int:
        return await store.flush()

    async def cut_power(self, store: Store, rng: random.Random) -> Store:
        assert self._store is store
        self._store = self._store.crash(rng)
        return self._store

    async def _sync(self) -> None:
        if self.flush_gate is not None:
            await self.flush_gate()
        if self.flush_fails:
            raise StoreFailed("the disk of this test refuses")


class RocksHouse:
    """A store in a folder. A power cut leaves a copy of it, whose log ends anywhere after the last flush."""

    def __init__(self, root: Path) -> None:
        self.flush_gate: Callable[[], Awaitable[None]] | None = None
        self.flush_fails = False
        self._root = root
        self._lives = 0
        self._synced_bytes: dict[str, int] = {}

    @property
    def path(self) -> Path:
        return self._root / f"life-{self._lives}"

    def open(self) -> Store:
        store = open_store(self.path, offload=self._offload, new_lineage=LINEAGE)
        self._note_synced()
        return store

    async def flush(self, store: Store) -> int:
        sequence = await store.flush()
        self._note_synced()
        return sequence

    async def cut_power(self, store: Store, rng: random.Random) -> Store:
        before = self.path
        self._lives += 1
        await trio.to_thread.run_sync(copy_live, before, self.path)
        for log in self.path.glob("*.log"):
            kept = rng.randint(self._synced_bytes.get(log.name, 0), log.stat().st_size)
            with log.open("r+b") as file:
                file.truncate(kept)
        await store.close()
        return self.open()

    def _note_synced(self) -> None:
        self._synced_bytes = {log.name: log.stat().st_size for log in self.path.glob("*.log")}

    async def _offload(self, work: Callable[[], T], /) -> T:
        if getattr(getattr(work, "func", None), "__name__", "") == "_make_durable":
            if self.flush_gate is not None:
                await self.flush_gate()
            if self.flush_fails:
                raise OSError("IO error: No space left on device")
        return await trio.to_thread.run_sync(work)


def copy_live(store: Path, copy: Path) -> None:
    """Copy a store's files as they are at one instant, though a compaction may be at work: again, if one was."""
    for _ in range(COPIES_MAX):
        before = _tables(store)
        try:
            shutil.copytree(store, copy)
        except shutil.Error:  # one of them has gone meanwhile
            shutil.rmtree(copy)
            continue
        if _tables(store) == before:
            return
        shutil.rmtree(copy)
    raise AssertionError(f"{store} did not stand still for the length of a copy")


def _tables(store: Path) -> dict[str, int]:
    """Return the tables, and the list of them, with their sizes."""
    found = {}
    for path in store.iterdir():
        if path.suffix == ".sst" or path.name.startswith(("MANIFEST", "CURRENT")):
            with suppress(FileNotFoundError):
                found[path.name] = path.stat().st_size
    return found
