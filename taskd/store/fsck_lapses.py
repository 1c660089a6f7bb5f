"""Fsck of what counts until an instant: it has its LAPSE entry there, and fits its task while that is stored."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rocksdict import Rdict

from taskd.core.lapses import lapse_id, record_of
from taskd.core.records import KEY, LAPSE, Key, KeyRecord, SpecRecord
from taskd.store import engine
from taskd.store.codec import decode_as
from taskd.store.keys import make_key, split_key, successor
from taskd.store.stored_tasks import chunks, load_tasks

Note = Callable[[str, bytes, str], None]
"""Takes a rule, a stored key and a text."""


class _Lasting(NamedTuple):
    """A record that counts until an instant."""

    key: Key
    until_ms: int
    task_id: bytes
    fits: Callable[[SpecRecord], bool]
    """Tells whether it is what that task has left."""


def check_lapses(database: Rdict, note: Note) -> None:
    """Note what is not as it should be.

    Raises:
        StoreCorrupt: A record cannot be read.
    """
    there = 0
    for chunk in chunks(_lasting(database)):
        lapses = [make_key(LAPSE, lapse_id(each.until_ms, *each.key)) for each in chunk]
        found = engine.get_many(database, lapses)
        tasks = load_tasks(database, [each.task_id for each in chunk])
        for each, at, entry, task in zip(chunk, lapses, found, tasks, strict=True):
            if entry is None:
                note("missing-entry", at, f"a record counts until then and has no such entry: {each.key[1].hex()}")
            else:
                there += 1
            if task.spec is not None and not each.fits(task.spec):
                note("foreign-entry", make_key(*each.key), f"it names task {task.id.hex()}, which left no such record")
    if sum(1 for _ in _walk(database)) != there:
        _check_strays(database, note)


def _lasting(database: Rdict) -> Iterator[_Lasting]:
    lower = make_key(KEY, b"")
    for at, value in engine.walk(database, lower, successor(lower)):
        record_id = split_key(at)[1]
        yield _of_key(record_id, decode_as(KeyRecord, KEY, record_id, value))


def _of_key(record_id: bytes, key: KeyRecord) -> _Lasting:
    def fits(task: SpecRecord) -> bool:
        return (task.spec.key.encode(), task.created_at_ms) == (record_id, key.created_at_ms)

    return _Lasting((KEY, record_id), key.until_ms, key.task_id, fits)


def _check_strays(database: Rdict, note: Note) -> None:
    for chunk in chunks(_walk(database)):
        named = [record_of(lapse) for lapse in chunk]
        values = engine.get_many(database, [make_key(*key) for _, key in named])
        for lapse, (until_ms, (kind, record_id)), value in zip(chunk, named, values, strict=True):
            if kind != KEY or value is None or decode_as(KeyRecord, kind, record_id, value).until_ms != until_ms:
                note("stray-entry", make_key(LAPSE, lapse), "it names no record that counts until then")


def _walk(database: Rdict) -> Iterator[bytes]:
    lower = make_key(LAPSE, b"")
    for at, _ in engine.walk(database, lower, successor(lower)):
        yield split_key(at)[1]
