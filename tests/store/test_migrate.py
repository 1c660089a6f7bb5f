"""A store of an older format becomes one of today's, whatever cuts the way there short."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from rocksdict import Rdict

from store.driver import Driver
from store.houses import LINEAGE
from taskd.core.lapses import lapse_id
from taskd.core.lines import LINE_ID_BYTES
from taskd.core.records import (
    COUNTS,
    DEAD,
    DEAD_GROUP,
    FINISHED,
    KEY,
    LAPSE,
    META,
    READY,
    SPEC,
    STATE,
    CountersRecord,
    CountsRecord,
    FinishedRecord,
    KeyRecord,
    Kind,
    SpecRecord,
    StateRecord,
)
from taskd.store import engine, migrate
from taskd.store.codec import decode_as, encode
from taskd.store.fsck import fsck
from taskd.store.head import FORMAT, read_head
from taskd.store.keys import FORMAT_KEY, MIGRATION_KEY, make_key, split_key, successor
from taskd.store.rocksdb import open_store
from taskd_protocol.errors import StoreCorrupt, StoreTooOld
from taskd_protocol.limits import PRIORITY_MAX

TASKS = 40
DEAD_TASKS = 7


@pytest.fixture(scope="module")
def first_format(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of format 1.

    Its keys tell no time and count as long as their tasks; its dead tasks are not listed; ready ones stand in line by
    their priority.
    """
    path = tmp_path_factory.mktemp("first") / "store"

    async def build() -> None:
        store = open_store(path, offload=trio.to_thread.run_sync, new_lineage=LINEAGE)
        driver = Driver(store)
        await driver.submit(driver.specs(TASKS, key="order"))
        await driver.submit(driver.specs(5))
        await driver.fail("a1", await driver.lease("a1", ["app.f"], 3))
        await driver.submit(driver.specs(DEAD_TASKS, name="app.g", max_attempts=1))
        await driver.fail("a2", await driver.lease("a2", ["app.g"], DEAD_TASKS))
        await store.close()

    trio.run(build)
    database = engine.open_database(path)
    for record_id, key in keys_of(database):
        [(at, value)] = encode([(KEY, record_id, KeyRecord(key.task_id, key.digest))])
        assert value is not None
        database.put(at, value[:1].replace(b"\x95", b"\x93") + value[1:-2])  # as it was before the fields
        database.delete(make_key(LAPSE, lapse_id(key.until_ms, KEY, record_id)))
    for at, value in list(engine.walk(database, b"", b"\xff")):
        kind, record_id = split_key(at)
        if kind in {DEAD, DEAD_GROUP}:
            database.delete(at)
        elif kind == STATE and (state := decode_as(StateRecord, kind, record_id, value)).fingerprint:
            [(_, bare)] = encode([(kind, record_id, replace(state, fingerprint=b"", end_order=0))])
            assert bare is not None
            database.put(at, bare)
    _place_as_of_old(database)
    _count_as_of_old(database)
    database.put(FORMAT_KEY, b"1")
    engine.close_database(database, path)
    return path


def _place_as_of_old(database: Rdict) -> None:
    """Have ready tasks stand by (priority, order), and specs say nothing of a place."""
    for task_id, value in of_kind(database, SPEC):
        spec = decode_as(SpecRecord, SPEC, task_id, value)
        [(at, whole)] = encode([(SPEC, task_id, replace(spec, place=0))])
        assert whole is not None
        database.put(at, whole[:1].replace(b"\x96", b"\x95") + whole[1:-1])
    for ready, task_id in of_kind(database, READY):
        [spec_now] = engine.get_many(database, [make_key(SPEC, task_id)])
        assert spec_now is not None
        spec = decode_as(SpecRecord, SPEC, task_id, spec_now)
        database.delete(make_key(READY, ready))
        old = bytes([PRIORITY_MAX - spec.spec.priority]) + spec.order.to_bytes(8, "big")
        database.put(make_key(READY, ready[:LINE_ID_BYTES] + old), task_id)


def _count_as_of_old(database: Rdict) -> None:
    """Count as finished what FINISHED says, and that alone."""
    weight = sum([decode_as(FinishedRecord, FINISHED, *entry).stored_bytes for entry in of_kind(database, FINISHED)])
    at = make_key(META, b"counters")
    [stored] = engine.get_many(database, [at])
    assert stored is not None
    counters = decode_as(CountersRecord, META, b"counters", stored)
    [(_, value)] = encode([(META, b"counters", replace(counters, finished_bytes=weight))])
    assert value is not None
    database.put(at, value)
    _count_in_one(database)


def _count_in_one(database: Rdict, *, logs_bytes: int | None = None) -> None:
    """Have the counts of all queues stand in one record, as up to format 3; and output weigh so much."""
    at = make_key(META, b"counters")
    [stored] = engine.get_many(database, [at])
    assert stored is not None
    counts = {queue.decode(): decode_as(CountsRecord, COUNTS, queue, it) for queue, it in of_kind(database, COUNTS)}
    counters = replace(
        decode_as(CountersRecord, META, b"counters", stored),
        by_queue={queue: record.states for queue, record in counts.items()},
        parked={queue: record.parked for queue, record in counts.items() if record.parked},
    )
    if logs_bytes is not None:
        assert counters.logs_bytes != logs_bytes
        counters = replace(counters, logs_bytes=logs_bytes)
    [(_, value)] = encode([(META, b"counters", counters)])
    assert value is not None
    database.put(at, value)
    for queue in counts:
        database.delete(make_key(COUNTS, queue.encode()))


@pytest.fixture
def path(first_format: Path, tmp_path: Path) -> Path:
    shutil.copytree(first_format, tmp_path / "store")
    return tmp_path / "store"


def of_kind(database: Rdict, kind: Kind) -> list[tuple[bytes, bytes]]:
    lower = make_key(kind, b"")
    return [(split_key(at)[1], value) for at, value in engine.walk(database, lower, successor(lower))]


def keys_of(database: Rdict) -> Iterator[tuple[bytes, KeyRecord]]:
    for record_id, value in of_kind(database, KEY):
        yield record_id, decode_as(KeyRecord, KEY, record_id, value)


def content(path: Path) -> list[tuple[bytes, bytes]]:
    database = engine.open_database(path)
    try:
        return list(engine.walk(database, b"", b"\xff"))
    finally:
        database.close()


async def start(path: Path) -> list[int]:
    """Open the store as a server does; return the formats that it was brought from."""
    told: list[int] = []
    store = open_store(path, offload=trio.to_thread.run_sync, new_lineage=bytes(16), on_migration=told.append)
    await store.close()
    return told


async def test_a_start_brings_an_older_store_to_this_format(path: Path) -> None:
    """Keys count for a day from their task's submit then, dead tasks are listed and weighed, ready ones get places."""
    before = dict(content(path))
    assert await start(path) == [1]
    after = dict(content(path))
    assert {split_key(at)[0] for at in before if before[at] != after.get(at, before[at])} == {
        *(KEY, STATE, META, split_key(FORMAT_KEY)[0])
    }
    new = [split_key(at)[0] for at in sorted(after.keys() - before.keys())]
    in_line = [READY] * (TASKS + 5 - 3)
    listed = [COUNTS, DEAD_GROUP, *[LAPSE] * TASKS, *in_line, *[DEAD] * DEAD_TASKS]
    assert (after[FORMAT_KEY], new) == (b"%d" % FORMAT, listed)
    gone = sorted(before.keys() - after.keys())
    assert [split_key(at)[0] for at in gone] == in_line
    assert [before[at] for at in gone] == [after[at] for at in sorted(after.keys() - before.keys()) if is_ready(at)]
    assert fsck(path).is_clean
    assert await start(path) == []


def is_ready(at: bytes) -> bool:
    return split_key(at)[0] == READY


async def test_a_store_of_the_format_before_becomes_what_it_would_be_now(tmp_path: Path) -> None:
    """Queues' counts leave the one record that held them all, and what ended tasks have said is weighed."""
    path = tmp_path / "store"
    store = open_store(path, offload=trio.to_thread.run_sync, new_lineage=LINEAGE)
    driver = Driver(store)
    for queue in ("mail", "bilder/groß", "rest"):
        await driver.submit(driver.specs(3, queue=queue))
    await driver.lease("a1", ["app.f"], 4)
    await driver.submit(driver.specs(2, name="app.g", max_attempts=1))
    await driver.fail("a2", await driver.lease("a2", ["app.g"], 2))
    await store.close()
    now = content(path)
    database = engine.open_database(path)
    _count_in_one(database, logs_bytes=0)
    database.put(FORMAT_KEY, b"3")
    engine.close_database(database, path)
    assert content(path) != now

    for writes in range(3):
        cut = path.with_name(f"cut-{writes}")
        shutil.copytree(path, cut)
        assert not await cut_short(cut, writes)
        assert await start(cut) == [3]
        assert content(cut) == now
    assert await start(path) == [3]
    assert content(path) == now
    assert fsck(path).is_clean


async def test_an_older_store_is_not_checked_but_told_of(path: Path) -> None:
    """Fsck knows the rules of one format; to check must not make a store unreadable for the taskd that wrote it."""
    with pytest.raises(StoreTooOld, match="start the server on it once"):
        fsck(path)
    assert dict(content(path))[FORMAT_KEY] == b"1"


async def test_a_record_that_cannot_be_read_is_damage(path: Path) -> None:
    """And no failure of the disk: to start again would not help."""
    database = engine.open_database(path)
    database.put(make_key(KEY, b"order-0"), b"\xc1")
    engine.close_database(database, path)
    with pytest.raises(StoreCorrupt, match="k/order-0"):
        await start(path)


@pytest.mark.parametrize("seed", range(20))
async def test_a_migration_that_is_cut_short_goes_on_where_it_was(
    path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any write, and the runs after it again: the end is the same as without."""
    whole = path.with_name("whole")
    shutil.copytree(path, whole)
    await start(whole)

    monkeypatch.setattr(migrate, "BATCH_RECORDS", 3)
    rng = random.Random(seed)
    cursors: list[tuple[bytes, bytes]] = []
    while not await cut_short(path, rng.randint(0, 4)):
        database = engine.open_database(path)
        stored, cursor = engine.get_many(database, [FORMAT_KEY, MIGRATION_KEY])
        cursors.append((stored or b"", cursor or b""))
        engine.close_database(database, path)
    assert len(cursors) > 2
    assert {stored for stored, _ in cursors} >= {b"1", b"2"}, "each step was cut short but the last: that is two writes"
    assert cursors == sorted(cursors)
    assert content(path) == content(whole)
    assert fsck(path).is_clean


async def cut_short(path: Path, writes: int) -> bool:
    """Migrate, killed before the write after so many; return whether it came to its end."""
    database = Dying(engine.open_database(path), writes)
    try:
        head = read_head(database.real, path)
        assert head is not None
        migrate.migrate(database, path, head.format)  # type: ignore[arg-type]
    except KilledError:
        return False
    finally:
        database.real.close()
    return True


class KilledError(BaseException):
    """As a kill: nothing is handled any more."""


class Dying:
    """A database whose process dies before one of its writes."""

    def __init__(self, real: Rdict, writes: int) -> None:
        self.real = real
        self._writes = writes

    def __getattr__(self, name: str) -> object:
        return self._write if name == "write" else getattr(self.real, name)

    def _write(self, batch: object) -> None:
        if not self._writes:
            raise KilledError
        self._writes -= 1
        self.real.write(batch)  # type: ignore[arg-type]
