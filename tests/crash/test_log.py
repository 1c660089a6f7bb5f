"""Logs that were torn or damaged: what was acknowledged is there, or the store is refused. Never silently shorter."""

import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from crash.images import FLUSHED, STAGED, Image, copy_of, expected, open_at, read_all, says_what_to_do
from taskd.store.wal import BLOCK_BYTES
from taskd_protocol.errors import StoreCorrupt

HEADER_BYTES = 7


async def outcome(image: Image, work: Path, log: bytes | None, *, marked: bool = True) -> int | None:
    """Open a copy with that log; return its last batch, None when it is refused. What it shows is checked."""
    with copy_of(image.folder, work) as path:
        if not marked:
            (path / "durable.mark").unlink()
        if log is None:
            (path / image.log).unlink()
        else:
            (path / image.log).write_bytes(log)
        try:
            store = open_at(path)
        except StoreCorrupt as refused:
            return None if says_what_to_do(refused) else 0
        last = store.staged_sequence
        assert await read_all(store) == expected(last)
        await store.close()
        return last


def log_of(image: Image) -> bytes:
    return (image.folder / image.log).read_bytes()


def headers(log: bytes) -> Iterator[int]:
    """Yield where the headers of the log's records begin."""
    at = 0
    while at + HEADER_BYTES <= len(log):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER_BYTES:
            at += left
            continue
        yield at
        at += HEADER_BYTES + struct.unpack_from("<H", log, at + 4)[0]


def flipped(log: bytes, at: int, bit: int) -> bytes:
    damaged = bytearray(log)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


async def test_the_image_itself_holds_all(image: Image, tmp_path: Path) -> None:
    """A kill loses nothing at all: the page cache is not lost with the process."""
    assert await outcome(image, tmp_path, log_of(image)) == STAGED
    assert image.sizes[FLUSHED] > BLOCK_BYTES / 2
    assert image.sizes[STAGED] > BLOCK_BYTES


async def test_a_tail_torn_after_the_last_flush_leaves_whole_batches(image: Image, tmp_path: Path) -> None:
    log = log_of(image)
    near_ends = {size + step for size in image.sizes[FLUSHED:] for step in (-8, -1, 0, 1, 7)}
    anywhere = random.Random(1).sample(range(image.sizes[FLUSHED], len(log)), 60)
    for cut in sorted(near_ends | set(anywhere)):
        if image.sizes[FLUSHED] <= cut <= len(log):
            whole = max(n for n in range(FLUSHED, STAGED + 1) if image.sizes[n] <= cut)
            assert await outcome(image, tmp_path, log[:cut]) == whole, cut


async def test_a_log_that_lost_what_was_flushed_is_refused(image: Image, tmp_path: Path) -> None:
    log = log_of(image)
    ends = {image.sizes[FLUSHED] - step for step in (1, 2, 8)} | set(image.sizes[:FLUSHED:5])
    for cut in sorted(ends | set(random.Random(2).sample(range(image.sizes[FLUSHED]), 30))):
        assert await outcome(image, tmp_path, log[:cut]) is None, cut


async def test_a_lost_log_is_refused(image: Image, tmp_path: Path) -> None:
    assert await outcome(image, tmp_path, None) is None


async def test_a_flipped_bit_in_a_header_is_refused(image: Image, tmp_path: Path) -> None:
    """Lengths and types too: some of them make RocksDB stop early without a word, or never."""
    log, rng = log_of(image), random.Random(3)
    for at in [header for header in headers(log) if header < image.sizes[FLUSHED]]:
        for offset in (0, 4, 5, 6):
            flip = flipped(log, at + offset, rng.randrange(8))
            assert await outcome(image, tmp_path, flip) is None, (at, offset)


OPEN_EACH = """
import sys
from pathlib import Path
from crash.images import open_at
from taskd_protocol.errors import StoreCorrupt
for folder in Path(sys.argv[1]).iterdir():
    try:
        open_at(folder)
    except StoreCorrupt:
        print(folder.name, flush=True)
"""


async def test_a_foreign_record_type_is_refused(image: Image, tmp_path: Path) -> None:
    """In a process of its own: RocksDB would read some of them for ever, deaf to any time limit."""
    pieces = [0, 2, 5, 6, 7, 8, 9, 10, 11, 12, 130, 255]
    at = list(headers(log_of(image)))[10]
    for piece in pieces:
        path = tmp_path / "each" / str(piece)
        shutil.copytree(image.folder, path)
        log = bytearray(log_of(image))
        log[at + 6] = piece
        (path / image.log).write_bytes(log)
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", OPEN_EACH, str(tmp_path / "each")],
            env={"PYTHONPATH": str(Path(__file__).parent.parent)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=30,
        )
    )
    assert sorted(int(line) for line in done.stdout.split()) == pieces


async def test_a_flipped_bit_in_what_was_flushed_is_refused(image: Image, tmp_path: Path) -> None:
    """By RocksDB itself too, with no mark of what was durable; only a length may then look like a torn end."""
    log, rng = log_of(image), random.Random(4)
    lengths = {header + offset for header in headers(log) for offset in (4, 5)}
    for at in sorted(rng.sample(range(image.sizes[FLUSHED]), 80)):
        flip = flipped(log, at, rng.randrange(8))
        assert await outcome(image, tmp_path, flip) is None, at
        assert await outcome(image, tmp_path, flip, marked=at in lengths) is None, at


async def test_a_flipped_bit_behind_the_last_flush_costs_no_flushed_batch(image: Image, tmp_path: Path) -> None:
    log, rng = log_of(image), random.Random(5)
    for at in sorted(rng.sample(range(image.sizes[FLUSHED], len(log)), 40)):
        last = await outcome(image, tmp_path, flipped(log, at, rng.randrange(8)))
        assert last is None or FLUSHED <= last < STAGED, at


async def test_zeroed_blocks_are_refused(image: Image, tmp_path: Path) -> None:
    log = log_of(image)
    for start in range(0, image.sizes[FLUSHED] - 4096, 4096):
        assert await outcome(image, tmp_path, log[:start] + bytes(4096) + log[start + 4096 :]) is None, start


async def test_what_follows_the_log_hides_nothing(image: Image, tmp_path: Path) -> None:
    log, rng = log_of(image), random.Random(6)
    for tail in (b"\x00", bytes(500), bytes(2 * BLOCK_BYTES), rng.randbytes(3), rng.randbytes(700), log[:1000]):
        assert await outcome(image, tmp_path, log + tail) in {STAGED, None}, tail[:20]
