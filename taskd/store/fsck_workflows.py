"""Fsck of workflows: each has its nodes, those that go on are listed, and what a node waits for has its timer."""

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import msgspec
from rocksdict import Rdict

from taskd.core.flows import nodes_id
from taskd.core.records import NODE, NODES, OPEN, SIGNAL, TIMER, WORKFLOW, Kind, Record
from taskd.core.timers import timer_id
from taskd.core.workflow_records import NodeRecord, NodesRecord, WorkflowRecord
from taskd.store import engine
from taskd.store.codec import decode_as
from taskd.store.keys import make_key, split_key, successor
from taskd_protocol.errors import BadRequest, StoreCorrupt
from taskd_protocol.ids import TASK_ID_BYTES
from taskd_protocol.workflow import Node, check_packed, place_of, workflow_of

R = TypeVar("R", bound=Record)

UNKNOWN_SIZE: Final = 1 << 20
"""Nodes of a workflow that does not say how many it has: no position is beyond."""

_decode_node = msgspec.msgpack.Decoder(Node).decode

Note = Callable[[str, bytes, str], None]
"""Takes a rule, a stored key and a text."""


def check_workflows(database: Rdict, note: Note) -> None:
    """Note what is not as it should be.

    Raises:
        StoreCorrupt: A block cannot be read.
    """
    sizes: dict[bytes, int] = {}
    going: set[bytes] = set()
    unread: set[bytes] = set()
    for workflow, value in _walk(database, WORKFLOW):
        record = read_noted(WorkflowRecord, WORKFLOW, workflow, value, note)
        if record is None:
            unread.add(workflow)
            continue
        sizes[workflow] = record.spec.nodes
        if not record.finished_at_ms:
            going.add(workflow)
        _check_one(database, workflow, record, note)
    for workflow, _ in _walk(database, OPEN):
        if workflow not in going and workflow not in unread:
            note("workflow", make_key(OPEN, workflow), "it is listed as going on, and is not")
        going.discard(workflow)
    for workflow in sorted(going):
        note("workflow", make_key(WORKFLOW, workflow), "it goes on, and is not listed so")
    _check_parts(database, sizes | dict.fromkeys(unread, UNKNOWN_SIZE), note)


def _check_parts(database: Rdict, sizes: dict[bytes, int], note: Note) -> None:
    """Find what belongs to no workflow, what cannot be read, and what nodes wait for without a timer."""
    for kind in (NODES, SIGNAL):
        for record_id, value in _walk(database, kind):
            if record_id[:TASK_ID_BYTES] not in sizes:
                note("orphan", make_key(kind, record_id), "something is stored of a workflow that is not there")
            if kind == SIGNAL:
                _check_signal(record_id, value, note)
    for node_id, value in _walk(database, NODE):
        read_noted(NodeRecord, NODE, node_id, value, note)
        if place_of(node_id)[0] >= sizes.get(workflow_of(node_id), 0):
            note("orphan", make_key(NODE, node_id), "its workflow is not there, or has no such node")
    for timer in timers_of_nodes(database):
        if engine.get_many(database, [make_key(TIMER, timer)])[0] is None:
            note("missing-entry", make_key(TIMER, timer), "a node waits until then and has no such entry")


def _check_one(database: Rdict, workflow: bytes, record: WorkflowRecord, note: Note) -> None:
    key = make_key(WORKFLOW, workflow)
    if record.spec.id != workflow:
        note("foreign-id", key, "the record is another workflow's")
    parts = engine.get_many(database, [make_key(NODES, nodes_id(workflow, first)) for first in record.parts])
    there = 0
    for first, value in zip(record.parts, parts, strict=True):
        if value is None or first != there:
            note("nodes", key, f"its nodes from number {first} on are not there, or not in their place")
            return
        part = read_noted(NodesRecord, NODES, nodes_id(workflow, first), value, note)
        if part is None:
            return
        there += len(part.nodes)
        for number, packed in enumerate(part.nodes, first):
            _check_node(key, number, packed, note)
    if there != record.spec.nodes:
        note("nodes", key, f"it has {record.spec.nodes} nodes, {there} are there")
    if not record.finished_at_ms and record.swept:
        note("nodes", key, "it goes on, and some of its nodes were taken away")


def timers_of_nodes(database: Rdict) -> Iterator[bytes]:
    """Yield the TIMER ids that nodes imply: of those that sleep, or wait for a signal and not for ever."""
    for node_id, value in _walk(database, NODE):
        record = read_noted(NodeRecord, NODE, node_id, value, lambda *_: None)  # its own finding
        if record is not None and record.state == "waiting" and record.due_at_ms:
            yield timer_id(record.due_at_ms, node_id)


def _check_node(key: bytes, number: int, packed: msgspec.Raw, note: Note) -> None:
    try:
        _decode_node(packed)
    except msgspec.MsgspecError as error:
        note("unreadable", key, f"its node number {number} does not decode: {error}")


def _check_signal(record_id: bytes, value: bytes, note: Note) -> None:
    try:
        record_id[TASK_ID_BYTES:].decode()
        check_packed("its value", value)
    except (UnicodeDecodeError, BadRequest) as error:
        note("unreadable", make_key(SIGNAL, record_id), str(error))


def read_noted(reader: type[R], kind: Kind, record_id: bytes, value: bytes, note: Note) -> R | None:
    """Read a record of which a finding is made if it cannot be read: others are looked at still."""
    try:
        return decode_as(reader, kind, record_id, value)
    except StoreCorrupt as error:
        note("unreadable", make_key(kind, record_id), error.message)
        return None


def _walk(database: Rdict, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
    lower = make_key(kind, b"")
    for at, value in engine.walk(database, lower, successor(lower)):
        yield split_key(at)[1], value
