"""What every store promises, whatever is behind it."""

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from store.houses import LINEAGE, House
from taskd.core.records import LINE, META, READY, SPEC, STATE, Key, Kind
from taskd.store.interface import Store, Write
from taskd.store.keys import make_key
from taskd_protocol.errors import StoreFailed


def put(kind: Kind, record_id: bytes, value: bytes = b"v") -> Write:
    return make_key(kind, record_id), value


def delete(kind: Kind, record_id: bytes) -> Write:
    return make_key(kind, record_id), None


async def ids_of(store: Store, kind: Kind) -> list[bytes]:
    return [record_id for record_id, _ in await store.scan(kind, limit=100_000)]


async def test_what_is_staged_is_visible_at_once(house: House) -> None:
    store = house.open()
    store.stage([put(SPEC, b"a", b"1"), put(STATE, b"a", b"2")])
    assert await store.load([(STATE, b"a"), (SPEC, b"a"), (SPEC, b"b")]) == [b"2", b"1", None]
    assert await store.scan(SPEC, limit=9) == [(b"a", b"1")]
    assert store.durable_sequence == 0
    await store.close()


async def test_ids_sort_bytewise_within_their_kind(house: House) -> None:
    ids = [b"", b"\x00", b"\x00\xff", b"a", b"a\x00", b"aa", b"b", b"\xff", b"\xff\x00", b"\xff\xff"]
    store = house.open()
    store.stage([put(kind, record_id) for kind in (READY, META, SPEC) for record_id in reversed(ids)])
    for kind in (READY, META, SPEC):
        assert await ids_of(store, kind) == ids
        found = await store.scan(kind, limit=99, reverse=True)
        assert [record_id for record_id, _ in found] == ids[::-1]
    assert await ids_of(store, STATE) == []
    await store.close()


async def test_a_scan_keeps_to_its_prefix(house: House) -> None:
    store = house.open()
    store.stage(
        [put(READY, record_id) for record_id in (b"a", b"b", b"b1", b"b2", b"b3", b"b\xff", b"c", b"\xff", b"\xff1")]
    )
    assert [i for i, _ in await store.scan(READY, b"b", limit=99)] == [b"b", b"b1", b"b2", b"b3", b"b\xff"]
    assert [i for i, _ in await store.scan(READY, b"b", limit=2)] == [b"b", b"b1"]
    assert [i for i, _ in await store.scan(READY, b"b", limit=2, reverse=True)] == [b"b\xff", b"b3"]
    assert [i for i, _ in await store.scan(READY, b"\xff", limit=9)] == [b"\xff", b"\xff1"]
    assert await store.scan(READY, b"bb", limit=9) == []
    assert await store.scan(READY, b"b", limit=0) == []
    await store.close()


async def test_a_scan_begins_beyond_after(house: House) -> None:
    store = house.open()
    store.stage([put(READY, b"q%d" % n) for n in range(10)])
    assert [i for i, _ in await store.scan(READY, after=b"q7", limit=9)] == [b"q8", b"q9"]
    assert [i for i, _ in await store.scan(READY, after=b"q71", limit=9)] == [b"q8", b"q9"]
    assert [i for i, _ in await store.scan(READY, after=b"q2", limit=9, reverse=True)] == [b"q1", b"q0"]
    assert [i for i, _ in await store.scan(READY, b"q", after=b"a", limit=2)] == [b"q0", b"q1"]
    assert [i for i, _ in await store.scan(READY, b"q", after=b"z", limit=2, reverse=True)] == [b"q9", b"q8"]
    assert await store.scan(READY, b"q", after=b"z", limit=9) == []
    assert await store.scan(READY, b"q", after=b"a", limit=9, reverse=True) == []
    await store.close()


async def test_a_long_scan_shows_the_state_at_its_call(house: House) -> None:
    store = house.open()
    store.stage([put(READY, n.to_bytes(4, "big")) for n in range(3000)])
    async with trio.open_nursery() as nursery:
        found: list[tuple[bytes, bytes]] = []

        async def scan() -> None:
            found.extend(await store.scan(READY, limit=5000))

        nursery.start_soon(scan)
        for n in range(0, 3000, 10):
            await trio.lowlevel.checkpoint()
            store.stage([delete(READY, n.to_bytes(4, "big")), put(READY, n.to_bytes(4, "big") + b"x")])
    # Nothing is seen half: each of these ids as it was, or as it is, and none of the others lost.
    steady = [n.to_bytes(4, "big") for n in range(3000) if n % 10]
    assert [i for i, _ in found if len(i) == 4 and int.from_bytes(i, "big") % 10] == steady
    assert len({i[:4] for i, _ in found}) == 3000
    await store.close()


async def test_the_later_write_to_a_key_counts(house: House) -> None:
    store = house.open()
    store.stage([put(SPEC, b"a", b"1"), put(SPEC, b"a", b"2"), put(SPEC, b"b"), delete(SPEC, b"b")])
    store.stage([delete(SPEC, b"c"), put(SPEC, b"c", b"3"), delete(SPEC, b"nowhere")])
    assert await store.scan(SPEC, limit=9) == [(b"a", b"2"), (b"c", b"3")]
    store.stage([delete(SPEC, b"a")])
    assert await store.load([(SPEC, b"a"), (SPEC, b"c")]) == [None, b"3"]
    await store.close()


async def test_values_and_loads_of_any_size(house: House) -> None:
    large = bytes(range(256)) * 8192
    store = house.open()
    store.stage([put(SPEC, b"empty", b""), put(SPEC, b"large", large)])
    store.stage([put(STATE, b"%d" % n, b"%d" % n) for n in range(500)])
    assert await store.load([]) == []
    assert await store.load([(SPEC, b"large"), (SPEC, b"empty")]) == [large, b""]
    many: list[Key] = [(STATE, b"%d" % (n % 600)) for n in range(1000, 0, -1)]
    assert await store.load(many) == [b"%d" % (n % 600) if n % 600 < 500 else None for n in range(1000, 0, -1)]
    await store.close()


async def test_batches_are_numbered_and_durable_when_flushed(house: House) -> None:
    store = house.open()
    assert (store.staged_sequence, store.durable_sequence) == (0, 0)
    assert [store.stage([put(SPEC, b"a")]), store.stage([]), store.stage([delete(SPEC, b"a")])] == [1, 2, 3]
    assert (store.staged_sequence, store.durable_sequence) == (3, 0)
    assert await store.flush() == 3
    assert (store.staged_sequence, store.durable_sequence) == (3, 3)
    assert await store.flush() == 3
    await store.close()


async def test_a_flush_covers_what_was_staged_before_it(house: House) -> None:
    store = house.open()
    release = trio.Event()
    house.flush_gate = release.wait
    store.stage([put(SPEC, b"a")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.flush)
        await wait_all_tasks_blocked()
        store.stage([put(SPEC, b"b")])
        with pytest.raises(AssertionError, match="one flush at a time"):
            await store.flush()
        assert store.durable_sequence == 0
        release.set()
    assert (store.staged_sequence, store.durable_sequence) == (2, 1)
    await store.close()


async def test_a_store_opens_as_it_was_closed(house: House) -> None:
    store = house.open()
    store.stage([put(SPEC, b"%d" % n) for n in range(100)])
    store.stage([delete(SPEC, b"%d" % n) for n in range(0, 100, 3)])
    kept = await store.scan(SPEC, limit=999)
    await store.close()
    again = house.open()
    assert await again.scan(SPEC, limit=999) == kept
    assert (again.staged_sequence, again.durable_sequence, again.lineage) == (2, 2, LINEAGE)
    assert again.stage([put(SPEC, b"more")]) == 3
    await again.close()


@pytest.mark.parametrize("seed", range(8))
async def test_a_power_cut_leaves_a_prefix_with_all_that_was_flushed(house: House, seed: int) -> None:
    """Each batch is there as a whole or not at all, with all before it; none that was flushed is missing."""
    rng = random.Random(seed)
    store = house.open()
    for life in range(3):
        start = store.staged_sequence
        for sequence in range(start + 1, start + rng.randint(1, 20)):
            mark = b"%d" % sequence
            # a counter, a trail, and a moving entry: a batch that came through in part would show in one of them
            store.stage(
                [
                    put(LINE, b"count", b"overwritten"),
                    put(LINE, b"count", mark),
                    put(SPEC, sequence.to_bytes(4, "big"), mark),
                    put(READY, sequence.to_bytes(4, "big"), bytes(rng.randint(0, 3000))),
                    delete(READY, (sequence - 1).to_bytes(4, "big")),
                ]
            )
            if rng.random() < 0.2:
                await house.flush(store)
        durable, staged = store.durable_sequence, store.staged_sequence
        store = await house.cut_power(store, rng)
        last = store.staged_sequence
        assert durable <= last <= staged, (life, durable, last, staged)
        assert store.durable_sequence == last
        assert store.lineage == LINEAGE
        trail = [n.to_bytes(4, "big") for n in range(1, last + 1)]
        assert await ids_of(store, SPEC) == trail
        assert await store.load([(LINE, b"count")]) == [b"%d" % last if last else None]
        assert await ids_of(store, READY) == trail[-1:]
    await store.close()


async def test_a_failed_flush_ends_the_store(house: House) -> None:
    store = house.open()
    store.stage([put(SPEC, b"a")])
    house.flush_fails = True
    with pytest.raises(StoreFailed):
        await store.flush()
    house.flush_fails = False
    assert store.durable_sequence == 0
    await refuses_everything(store)
    await store.close()


async def test_a_closed_store_refuses_and_closing_twice_is_harmless(house: House) -> None:
    store = house.open()
    store.stage([put(SPEC, b"a")])
    await store.close()
    await store.close()
    await refuses_everything(store)


async def refuses_everything(store: Store) -> None:
    with pytest.raises(StoreFailed):
        store.stage([put(SPEC, b"b")])
    with pytest.raises(StoreFailed):
        await store.flush()
    with pytest.raises(StoreFailed):
        await store.load([(SPEC, b"a")])
    with pytest.raises(StoreFailed):
        await store.scan(SPEC, limit=1)
