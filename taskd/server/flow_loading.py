"""Flow loading: what the core wants to have read of workflows.

What is read may be older than what was decided since; the core takes up after it what
has happened meanwhile. Specs are read before states, and those before nodes: so what
has moved on in between is seen where it moved to, or is told to the core anyway.
"""

from array import array
from collections.abc import AsyncIterator
from itertools import accumulate, pairwise
from typing import Final

import msgspec

from taskd.core import records
from taskd.core.effects import WantFlow, WantItems
from taskd.core.graph import FAILED, RELEASED, SUCCEEDED
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.records import Kind, StateRecord
from taskd.core.workflow_commands import MapItems, TakeFlow
from taskd.core.workflow_records import NodeRecord, NodesRecord
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.errors import BadRequest, StoreCorrupt
from taskd_protocol.workflow import CHILDREN_MAX, NIL, STEM_BYTES, check_packed, member_id, place_of

PAGE: Final = 1_000
"""Entries read at once."""

_SHORT_LIST: Final = 0x90
_LIST_HEADS: Final = {0xDC: 2, 0xDD: 4}
"""How MessagePack begins a list: of up to 15 items; of more, in so many bytes."""

LISTS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Lists that nodes map over, kept from one piece to the next: of more, that which was asked for least recently is read
again for its next one. At least three of the largest."""

RESULTS_AT_ONCE: Final = 16
RESULTS_BYTES: Final = 4 * 1024 * 1024
"""Large results read at once, and after how many bytes of them the others are left for later: each may be 16 MiB."""

_items = msgspec.msgpack.Decoder(list[msgspec.Raw])


class _List:
    """A list that a node maps over, packed.

    Attributes:
        longest: Of its items, in bytes.
    """

    def __init__(self, packed: bytes) -> None:
        """Cut it apart.

        Raises:
            MsgspecError: It is none.
            RecursionError: It is nested too deeply.
        """
        lengths = list(map(len, _items.decode(packed)))
        self._packed = packed
        self._starts = array("I", accumulate(lengths, initial=len(packed) - sum(lengths)))
        self.longest = max(lengths, default=0)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def weight(self) -> int:
        """What it takes in memory, in bytes."""
        return len(self._packed) + self._starts.itemsize * len(self._starts)

    def piece(self, first: int, limit: int) -> list[bytes]:
        """Return some items."""
        starts = self._starts[first : first + limit + 1]
        return [self._packed[start:end] for start, end in pairwise(starts)]


class FlowLoader:
    """Reads workflows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lists: dict[tuple[bytes, int], _List] = {}  # by the node that maps: what was asked for last, at the end

    async def read_flow(self, want: WantFlow) -> TakeFlow:
        """Read a workflow's nodes, and what is stored of each; one that cannot be read stops nothing else."""
        try:
            return await self._read_flow(want)
        except StoreCorrupt as error:
            return TakeFlow(
                id=want.id,
                nodes=[],
                made=[],
                ended=[],
                records=[],
                children={},
                void=[],
                signals={},
                broken=error.message,
            )

    async def _read_flow(self, want: WantFlow) -> TakeFlow:
        workflow, stem = want.id, want.id[:STEM_BYTES]
        nodes: list[msgspec.Raw] = []
        async for record_id, value in self._walk(records.NODES, workflow):
            nodes += codec.decode_as(NodesRecord, records.NODES, record_id, value).nodes
        made: list[int] = []
        children: dict[int, bytearray] = {}
        async for task_id, _ in self._walk(records.SPEC, stem):
            node, child = place_of(task_id)
            if child < 0:
                made.append(node)
            else:
                _set(children.setdefault(node, bytearray()), child, RELEASED)
        ended: list[tuple[int, bool, bytes | None]] = []
        async for task_id, value in self._walk(records.STATE, stem):
            state = codec.decode_as(StateRecord, records.STATE, task_id, value)
            if state.state in TERMINAL:
                node, child = place_of(task_id)
                succeeded = state.state == State.SUCCEEDED
                if child < 0:
                    ended.append((node, succeeded, None if state.result_apart else state.result))
                else:
                    _set(children.setdefault(node, bytearray()), child, SUCCEEDED if succeeded else FAILED)
        found: list[tuple[int, NodeRecord]] = []
        void: list[tuple[int, int, bytes]] = []
        async for task_id, value in self._walk(records.NODE, stem):
            record = codec.decode_as(NodeRecord, records.NODE, task_id, value)
            node, child = place_of(task_id)
            if child < 0:
                found.append((node, record))
            else:
                void.append((node, child, record.packed))
        signals = {
            _signal_name(record_id[len(workflow) :], value): value
            async for record_id, value in self._walk(records.SIGNAL, workflow)
        }
        return TakeFlow(
            id=workflow,
            nodes=nodes,
            made=made,
            ended=ended,
            records=found,
            children={node: bytes(statuses) for node, statuses in children.items()},
            void=void,
            signals=signals,
        )

    async def read_items(self, want: WantItems) -> MapItems:
        """Read some of what a node maps over; if that cannot be read, it stops nothing else."""
        try:
            return await self._read_items(want)
        except StoreCorrupt as error:
            return MapItems(id=want.id, node=want.node, total=-1, first=want.first, items=[], broken=error.message)

    async def _read_items(self, want: WantItems) -> MapItems:
        if want.children >= 0:
            count = min(want.limit, want.children - want.first)
            ids = [member_id(want.source, place_of(want.source)[0], want.first + k) for k in range(count)]
            items = [result or NIL for result in await read_results(self._store, ids)]
            return _piece(want, want.children, items, max(map(len, items), default=0))
        key = want.id, want.node
        whole = self._lists.pop(key, None)
        if whole is None or want.first == 0:
            (packed,) = await read_results(self._store, [want.source])
            count = _count(packed or NIL)
            if not 0 <= count <= CHILDREN_MAX:  # each item would take some hundred bytes to be refused
                return _piece(want, count, [])
            try:
                whole = _List(packed or NIL)
            except (msgspec.MsgspecError, RecursionError):
                return _piece(want, -1, [])
        items = whole.piece(want.first, want.limit)
        if want.first + len(items) < len(whole):
            self._keep(key, whole)
        return _piece(want, len(whole), items, whole.longest if want.first == 0 else 0)

    def _keep(self, key: tuple[bytes, int], whole: _List) -> None:
        self._lists[key] = whole
        weight = sum([each.weight for each in self._lists.values()])
        while weight > LISTS_BYTES_MAX and len(self._lists) > 1:
            weight -= self._lists.pop(next(iter(self._lists))).weight

    async def _walk(self, kind: Kind, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        after = b""
        while True:
            page = await self._store.scan(kind, prefix, after=after, limit=PAGE)
            for entry in page:
                yield entry
            if len(page) < PAGE:
                return
            after = page[-1][0]


async def read_results(store: Store, ids: list[bytes]) -> list[bytes | None]:
    """Read the packed results of tasks and nodes; None of one that has none, or did not succeed.

    Of the first ones alone, where all would be much: of at least one.
    """
    values = await store.load([(kind, i) for i in ids for kind in (records.STATE, records.NODE)])
    results: list[bytes | None] = []
    apart: list[int] = []
    for index, task_id in enumerate(ids):
        state, node = values[2 * index], values[2 * index + 1]
        result: bytes | None = None
        if state is not None:
            stored = codec.decode_as(StateRecord, records.STATE, task_id, state)
            if stored.state == State.SUCCEEDED:
                result = stored.result
                if stored.result_apart:
                    apart.append(index)
        elif node is not None:
            record = codec.decode_as(NodeRecord, records.NODE, task_id, node)
            result = record.packed if record.state == "succeeded" else None
        results.append(result)
    large = await load_large(store, [ids[index] for index in apart])
    for index, value in zip(apart, large, strict=False):
        results[index] = value
    return results if len(large) == len(apart) else results[: apart[len(large)]]


async def load_large(store: Store, ids: list[bytes]) -> list[bytes | None]:
    """Load large results, in order, until they are much; at least one, if any is asked for."""
    found: list[bytes | None] = []
    total = 0
    while len(found) < len(ids) and total < RESULTS_BYTES:
        at_once = ids[len(found) : len(found) + min(len(found) + 1, RESULTS_AT_ONCE)]  # the first shows what they are
        values = await store.load([(records.RESULT, each) for each in at_once])
        found += values
        total += sum([len(value) for value in values if value is not None])
    return found


def _piece(want: WantItems, total: int, items: list[bytes], longest: int = 0) -> MapItems:
    return MapItems(id=want.id, node=want.node, total=total, longest=longest, first=want.first, items=items)


def _signal_name(name: bytes, value: bytes) -> str:
    """Return the name of a signal that came.

    Raises:
        StoreCorrupt: It is none, or its value is no data.
    """
    try:
        text = name.decode()
        check_packed("its value", value)
    except (UnicodeDecodeError, BadRequest) as error:
        raise StoreCorrupt(f"signal {name[:64]!r} of it does not decode: {error}; run `taskd fsck`") from None
    return text


def _count(packed: bytes) -> int:
    """Return how many items a packed list says that it has; -1: it is none."""
    first = packed[0] if packed else 0
    if first & 0xF0 == _SHORT_LIST:
        return first & 0x0F
    head = _LIST_HEADS.get(first, 0)
    return int.from_bytes(packed[1 : 1 + head], "big") if head else -1


def _set(statuses: bytearray, child: int, status: int) -> None:
    if child >= len(statuses):
        statuses.extend(bytes(child + 1 - len(statuses)))
    statuses[child] = status
