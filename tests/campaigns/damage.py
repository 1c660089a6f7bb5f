"""Files of a store, changed behind its back: it opens with everything that was acknowledged, or refuses. Never less.

A case makes two stores by its number, one that was killed and one that was closed and lived on, and damages copies of
both: logs, tables, the list of tables and what names it.
"""

import random
from collections.abc import Callable
from pathlib import Path

import trio

from campaigns.report import Found
from crash.images import (
    FLUSHED,
    STAGED,
    Content,
    copy_of,
    expected,
    kill_image,
    open_at,
    read_all,
    says_what_to_do,
    write_batch,
)
from taskd_protocol.errors import StoreCorrupt

MUTATIONS = 10
LIVES = 3
"""Of the store that was closed: so that there is more than one table, and a list of tables that has grown."""

TAIL_BYTES = 8_192
BLOCK_BYTES = 4_096
WRITTEN = ("*.log", "*.sst", "MANIFEST-*", "CURRENT")

Damage = Callable[[Path, random.Random], None]


def cut(file: Path, rng: random.Random) -> None:
    """End it early, within its last 8 KiB."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(rng.randrange(max(0, size - TAIL_BYTES), size))


def flip(file: Path, rng: random.Random) -> None:
    """Turn one bit over."""
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def blank(file: Path, rng: random.Random) -> None:
    """Zero a block."""
    content = bytearray(file.read_bytes())
    start = rng.randrange(0, len(content), BLOCK_BYTES)
    end = min(start + BLOCK_BYTES, len(content))
    content[start:end] = bytes(end - start)
    file.write_bytes(content)


def extend(file: Path, rng: random.Random) -> None:
    """Write on behind its end."""
    with file.open("ab") as opened:
        opened.write(rng.choice([bytes(rng.randint(1, 2_000)), rng.randbytes(rng.randint(1, 2_000))]))


def lose(file: Path, _rng: random.Random) -> None:
    """Remove it."""
    file.unlink()


DAMAGES: dict[str, Damage] = {"cut": cut, "flip": flip, "zeroed block": blank, "garbage tail": extend, "missing": lose}


async def make_killed(path: Path) -> None:
    """Write as a store that is killed does: batches up to ``FLUSHED`` are durable."""
    image = await kill_image(path)
    image.folder.rename(path / "store")


async def make_closed(path: Path) -> None:
    """Write the batches over some lives, each closed in order: all of them are durable."""
    for life in range(LIVES):
        store = open_at(path / "store")
        for sequence in range(store.staged_sequence + 1, STAGED * (life + 1) // LIVES + 1):
            write_batch(store, sequence)
        await store.close()


async def shown(path: Path) -> tuple[int, Content] | None:
    """Return the last batch and all that the store shows; None if it is refused, with what to do."""
    try:
        store = open_at(path)
        try:
            return store.staged_sequence, await read_all(store)
        finally:
            await store.close()
    except StoreCorrupt as refused:
        if says_what_to_do(refused):
            return None
        raise


async def damage(rng: random.Random, home: Path, found: Found) -> None:
    """Damage copies of both stores."""
    made = {"killed": FLUSHED, "closed": STAGED}
    for name, make in (("killed", make_killed), ("closed", make_closed)):
        (home / name).mkdir()
        await make(home / name)
    (home / "work").mkdir()
    for _ in range(MUTATIONS):
        image = rng.choice(list(made))
        kind = rng.choice(list(DAMAGES))
        with copy_of(home / image / "store", home / "work") as copy:
            files = sorted(file for pattern in WRITTEN for file in copy.glob(pattern) if file.stat().st_size)
            file = rng.choice(files)
            found.fault(kind)
            found.ops += 1
            DAMAGES[kind](file, rng)
            what = f"{kind} of {file.name} in a store that was {image}"
            try:
                seen = await shown(copy)
            except Exception as error:
                raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
            found.reach("refused" if seen is None else "opened with all")
            if seen is not None:
                last, content = seen
                assert last >= made[image], f"{what}: opened with {last} batches, {made[image]} were acknowledged"
                assert content == expected(last), f"{what}: what is shown is not what was written"


def play(case: int, home: Path, found: Found) -> None:
    """Damage some files by chance."""
    trio.run(damage, random.Random(case), home, found)
