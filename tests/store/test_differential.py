"""The store in memory and RocksDB, given the same, show the same: so what is proven over one holds over the other."""

import random
import tempfile
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from store.houses import MemoryHouse, RocksHouse
from taskd.core.records import LEASE, READY, SPEC, Key, Kind
from taskd.store.interface import Store, Write
from taskd.store.keys import make_key

kinds = st.sampled_from([SPEC, READY, LEASE])
ids = st.lists(st.sampled_from([b"\x00", b"\x01", b"a", b"b", b"\xfe", b"\xff"]), max_size=3).map(b"".join)
writes = st.builds(
    lambda kind, record_id, value: (make_key(kind, record_id), value), kinds, ids, st.none() | st.binary(max_size=40)
)


class Stage(NamedTuple):
    batch: list[Write]


class Load(NamedTuple):
    keys: list[Key]


class Scan(NamedTuple):
    kind: Kind
    prefix: bytes
    after: bytes
    limit: int
    reverse: bool


class Event(Enum):
    FLUSH = auto()
    REOPEN = auto()
    POWER_CUT = auto()


Step = Stage | Load | Scan | Event

steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.builds(Stage, st.lists(writes, max_size=12)),
        st.builds(Load, st.lists(st.tuples(kinds, ids), max_size=20)),
        st.builds(Scan, kinds, ids, ids, st.integers(min_value=0, max_value=9), st.booleans()),
        st.sampled_from(Event),
    ),
    max_size=25,
)


async def everything(store: Store) -> list[object]:
    return [await store.scan(kind, limit=10_000) for kind in (SPEC, READY, LEASE)]


async def run(plan: list[Step], root: Path) -> None:
    memory_house, rocks_house = MemoryHouse(), RocksHouse(root)
    memory, rocks = memory_house.open(), rocks_house.open()
    history: list[list[Write]] = []
    for step in plan:
        match step:
            case Stage(batch):
                assert memory.stage(batch) == rocks.stage(batch)
                history.append(batch)
            case Event.FLUSH:
                assert await memory_house.flush(memory) == await rocks_house.flush(rocks)
            case Event.REOPEN:
                await memory.close()
                await rocks.close()
                memory, rocks = memory_house.open(), rocks_house.open()
            case Event.POWER_CUT:
                rocks = await rocks_house.cut_power(rocks, random.Random(len(history)))
                assert memory.durable_sequence <= rocks.staged_sequence <= memory.staged_sequence
                # Which prefix is left is chance; it must be what that prefix of the batches makes.
                del history[rocks.staged_sequence :]
                memory_house = MemoryHouse()
                memory = memory_house.open()
                for batch in history:
                    memory.stage(batch)
                await memory.flush()
            case Load(keys):
                assert await memory.load(keys) == await rocks.load(keys)
            case Scan(kind, prefix, after, limit, reverse):
                expected = await memory.scan(kind, prefix, after=after, limit=limit, reverse=reverse)
                assert await rocks.scan(kind, prefix, after=after, limit=limit, reverse=reverse) == expected
        assert (memory.staged_sequence, memory.durable_sequence) == (rocks.staged_sequence, rocks.durable_sequence)
        assert await everything(memory) == await everything(rocks)
    await rocks.close()
    await memory.close()


@settings(max_examples=60)
@given(steps)
def test_memory_and_rocksdb_agree(plan: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as root:
        trio.run(run, plan, Path(root))
