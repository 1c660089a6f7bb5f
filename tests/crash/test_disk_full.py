"""A full disk: the store fails, tells so once, and opens again with every batch that it had flushed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.images import expected, open_at, read_all, write_batch
from e2e.disks import small_disk
from taskd.core.records import SPEC
from taskd.store.interface import Store
from taskd.store.keys import make_key
from taskd_protocol.errors import StoreFailed

SMALL_MIB = 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB, of this test alone."""
    with small_disk(tmp_path / "disk", SMALL_MIB) as point:
        yield point


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


async def fill(store: Store) -> int:
    """Write and flush until the store fails; return the last batch that was flushed."""
    flushed = 0
    try:
        while True:
            write_batch(store, store.staged_sequence + 1)
            flushed = await store.flush()
    except StoreFailed as failed:
        message = failed.message
    assert "No space left" in message
    assert "free space" in message
    return flushed


async def test_a_full_disk_loses_nothing_that_was_flushed(disk: Path) -> None:
    path = disk / "store"
    store = open_at(path)
    flushed = await fill(store)
    assert flushed > 500
    with pytest.raises(StoreFailed):
        store.stage([(make_key(SPEC, b"x"), b"")])
    with pytest.raises(StoreFailed):
        await store.flush()
    await store.close()

    mount("-o", "remount,size=64m", str(disk))
    again = open_at(path)
    assert flushed <= again.staged_sequence <= flushed + 1
    assert await read_all(again) == expected(again.staged_sequence)
    write_batch(again, again.staged_sequence + 1)
    assert await again.flush() == again.staged_sequence
    await again.close()


async def test_a_disk_that_is_still_full_is_told_at_the_start(disk: Path) -> None:
    path = disk / "store"
    store = open_at(path)
    flushed = await fill(store)
    await store.close()
    with pytest.raises(StoreFailed, match="No space left"):
        open_at(path)

    mount("-o", "remount,size=64m", str(disk))
    again = open_at(path)
    assert again.staged_sequence >= flushed
    assert await read_all(again) == expected(again.staged_sequence)
    await again.close()
