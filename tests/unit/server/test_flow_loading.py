"""Flow loading: what nodes map over is read once, though it is asked for in pieces."""

from collections.abc import Sequence

import pytest

from harness.core import at_once
from taskd.core import records
from taskd.core.effects import WantItems
from taskd.core.records import Key, StateRecord
from taskd.server import flow_loading
from taskd.server.flow_loading import FlowLoader
from taskd.store import codec
from taskd.store.memory import MemoryStore
from taskd_protocol.payload import pack
from taskd_protocol.workflow import make_workflow_id, member_id

WORKFLOW = make_workflow_id(1_763_760_000_000, bytes(5))
COUNT = 1_200
LIMIT = 500


class Counted(MemoryStore):
    """A store that counts how often a result was read from it."""

    def __init__(self) -> None:
        super().__init__(lineage=bytes(16), sync=_never)
        self.loads = 0
        for node, packed in enumerate([pack(list(range(COUNT))), pack([bytes(n % 7) for n in range(COUNT)])]):
            state = StateRecord("succeeded", 1, 0, 1, "a", 1, 2, result_apart=True)
            member = member_id(WORKFLOW, node)
            self.stage(codec.encode([(records.STATE, member, state), (records.RESULT, member, packed)]))

    async def load(self, keys: Sequence[Key]) -> list[bytes | None]:
        self.loads += any(kind == records.RESULT for kind, _ in keys)
        return await super().load(keys)


async def _never() -> None:
    raise AssertionError("it is only read")


def read(loader: FlowLoader, node: int, source: int, first: int) -> list[bytes]:
    want = WantItems(WORKFLOW, node, member_id(WORKFLOW, source), -1, first, LIMIT)
    found = at_once(loader.read_items(want))
    assert (found.node, found.first, found.total) == (node, first, COUNT)
    assert found.longest == (0 if first else (3 if source == 0 else 8))
    return list(found.items)


def test_two_maps_at_a_time_read_their_lists_once_each() -> None:
    store = Counted()
    loader = FlowLoader(store)
    items: dict[int, list[bytes]] = {0: [], 1: []}
    for first in range(0, COUNT, LIMIT):
        for source in (0, 1):
            items[source] += read(loader, 10 + source, source, first)
    assert items == {0: [pack(n) for n in range(COUNT)], 1: [pack(bytes(n % 7)) for n in range(COUNT)]}
    assert store.loads == 2


def test_lists_that_are_too_much_together_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And come to the same."""
    monkeypatch.setattr(flow_loading, "LISTS_BYTES_MAX", 10_000)
    store = Counted()
    loader = FlowLoader(store)
    items = [
        item for first in range(0, COUNT, LIMIT) for item in read(loader, 10, 0, first) + read(loader, 11, 1, first)
    ]
    assert len(items) == 2 * COUNT
    assert store.loads == 5  # when the one has come to its end, the other is kept


def test_a_list_is_read_anew_for_a_map_that_begins() -> None:
    """It may be another one since."""
    store = Counted()
    loader = FlowLoader(store)
    read(loader, 10, 0, 0)
    read(loader, 10, 0, 0)
    assert store.loads == 2


class Children(MemoryStore):
    """A store with the children of a node that maps, whose results are large; it notes the most read at once."""

    def __init__(self) -> None:
        super().__init__(lineage=bytes(16), sync=_never)
        self.most = 0
        self.results = [pack(bytes(200_000 if n % 3 else n)) for n in range(90)]
        for child, packed in enumerate(self.results):
            member = member_id(WORKFLOW, 2, child)
            apart = len(packed) > records.INLINE_RESULT_BYTES
            state = StateRecord("succeeded", 1, 0, 1, "a", 1, 2, result=None if apart else packed, result_apart=apart)
            self.stage(codec.encode([(records.STATE, member, state)]))
            if apart:
                self.stage(codec.encode([(records.RESULT, member, packed)]))

    async def load(self, keys: Sequence[Key]) -> list[bytes | None]:
        found = await super().load(keys)
        self.most = max(self.most, sum(len(value) for value in found if value is not None))
        return found


def test_large_results_of_a_map_are_read_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By who maps over them: 500 of the largest would fill any machine's memory."""
    monkeypatch.setattr(flow_loading, "RESULTS_BYTES", 1_000_000)
    store = Children()
    loader = FlowLoader(store)
    items: list[bytes] = []
    while len(items) < len(store.results):
        want = WantItems(WORKFLOW, 12, member_id(WORKFLOW, 2), len(store.results), len(items), LIMIT)
        found = at_once(loader.read_items(want))
        assert (found.total, found.longest > 0, len(found.items) > 0) == (len(store.results), True, True)
        items += found.items
    assert items == store.results
    assert store.most < flow_loading.RESULTS_AT_ONCE * 210_000
