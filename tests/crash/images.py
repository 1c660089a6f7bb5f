"""Stores as a crash leaves them: files to be copied, damaged and opened again."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from taskd.core.records import LINE, READY, SPEC
from taskd.store.interface import Store
from taskd.store.keys import make_key
from taskd.store.rocksdb import RocksStore, open_store
from taskd_protocol.errors import StoreCorrupt

LINEAGE = bytes(range(16))
FLUSHED = 30
STAGED = 40


class Content(NamedTuple):
    """All that a store of ``write_batches`` shows."""

    last: bytes | None
    specs: list[tuple[bytes, bytes]]
    ready: list[tuple[bytes, bytes]]


class Image(NamedTuple):
    """A store that was killed: batches 1 to ``FLUSHED`` are durable, those up to ``STAGED`` are not."""

    folder: Path
    log: str
    """Name of the log that all of it stands in."""
    sizes: list[int]
    """Of the log after each batch, from none to ``STAGED``."""


def open_at(path: Path) -> RocksStore:
    return open_store(path, offload=trio.to_thread.run_sync, new_lineage=LINEAGE)


def number(sequence: int) -> bytes:
    return sequence.to_bytes(4, "big")


def write_batch(store: Store, sequence: int) -> None:
    """A counter, a trail and a moving entry: a batch that came through in part would show in one of them."""
    rng = random.Random(sequence)
    store.stage(
        [
            (make_key(LINE, b"count"), number(sequence)),
            (make_key(SPEC, number(sequence)), rng.randbytes(rng.randint(1, 1800))),
            (make_key(READY, number(sequence)), b""),
            (make_key(READY, number(sequence - 1)), None),
        ]
    )


def expected(sequence: int) -> Content:
    """What the first batches, up to that number, come to."""
    specs = []
    for n in range(1, sequence + 1):
        rng = random.Random(n)
        specs.append((number(n), rng.randbytes(rng.randint(1, 1800))))
    return Content(number(sequence) if sequence else None, specs, [(number(sequence), b"")] if sequence else [])


async def read_all(store: Store) -> Content:
    specs = await store.scan(SPEC, limit=100_000)
    loaded = await store.load([(SPEC, record_id) for record_id, _ in specs])
    assert loaded == [value for _, value in specs]
    [last] = await store.load([(LINE, b"count")])
    return Content(last, specs, await store.scan(READY, limit=9))


async def kill_image(folder: Path) -> Image:
    """Write the batches, and copy the files under the store's hands."""
    live = folder / "live"
    store = open_at(live)
    log = max(live.glob("*.log")).name
    sizes = [(live / log).stat().st_size]
    for sequence in range(1, STAGED + 1):
        write_batch(store, sequence)
        sizes.append((live / log).stat().st_size)
        if sequence <= FLUSHED:
            await store.flush()
    shutil.copytree(live, folder / "image")
    await store.close()
    assert sizes == sorted(set(sizes))
    return Image(folder / "image", log, sizes)


def says_what_to_do(refused: StoreCorrupt) -> bool:
    """Tell whether the error is one line that leads on."""
    return "\n" not in refused.message and "restore a backup" in refused.message


@contextmanager
def copy_of(folder: Path, work: Path) -> Iterator[Path]:
    """A copy to damage, gone afterwards."""
    copy = work / "store"
    shutil.copytree(folder, copy)
    try:
        yield copy
    finally:
        shutil.rmtree(work)
        work.mkdir()
