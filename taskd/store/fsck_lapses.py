"""Fsck of what counts until an instant: it has its LAPSE entry there, and fits its task while that is stored."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rocksdict import Rdict

from taskd.core.claims import claim_id
from taskd.core.lapses import lapse_id, record_of
from taskd.core.records import BUCKET, KEY, LAPSE, UNIQUE, BucketRecord, Key, KeyRecord, Kind, SpecRecord, UniqueRecord
from taskd.store import engine
from taskd.store.codec import decode, decode_as
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
    there = buckets = 0
    for chunk in chunks(_lasting(database)):
        lapses = [make_key(LAPSE, lapse_id(each.until_ms, *each.key)) for each in chunk]
        found = engine.get_many(database, lapses)
        tasks = load_tasks(database, [each.task_id for each in chunk])
        for each, at, entry, task in zip(chunk, lapses, found, tasks, strict=True):
            if entry is None:
                note("missing-entry", at, f"a record counts until then and has no such entry: {each.key[1].hex()}")
            else:
                there += 1
                buckets += each.key[0] == BUCKET
            if task.spec is not None and not each.fits(task.spec):
                note("foreign-entry", make_key(*each.key), f"it names task {task.id.hex()}, which left no such record")
    if sum(record_of(lapse)[1][0] != BUCKET for lapse, _ in _walk(database, LAPSE)) != there - buckets:
        _check_strays(database, note)


def _lasting(database: Rdict) -> Iterator[_Lasting]:
    for record_id, value in _walk(database, KEY):
        yield _of_key(record_id, decode_as(KeyRecord, KEY, record_id, value))
    for record_id, value in _walk(database, BUCKET):
        until_ms = decode_as(BucketRecord, BUCKET, record_id, value).until_ms
        yield _Lasting((BUCKET, record_id), until_ms, b"", lambda _: True)
    for record_id, value in _walk(database, UNIQUE):
        claim = decode_as(UniqueRecord, UNIQUE, record_id, value)
        if claim.until_ms:
            yield _of_claim(record_id, claim)


def _of_key(record_id: bytes, key: KeyRecord) -> _Lasting:
    def fits(task: SpecRecord) -> bool:
        return (task.spec.key.encode(), task.created_at_ms) == (record_id, key.created_at_ms)

    return _Lasting((KEY, record_id), key.until_ms, key.task_id, fits)


def _of_claim(record_id: bytes, claim: UniqueRecord) -> _Lasting:
    def fits(task: SpecRecord) -> bool:
        unique = task.spec.rules.unique
        return (
            unique is not None
            and claim_id(task.spec, unique) == record_id
            and task.created_at_ms + unique.window_ms == claim.until_ms
        )

    return _Lasting((UNIQUE, record_id), claim.until_ms, claim.task_id, fits)


def _check_strays(database: Rdict, note: Note) -> None:
    for every in chunks(_walk(database, LAPSE)):
        chunk = [entry for entry in every if record_of(entry[0])[1][0] != BUCKET]  # one too many goes in its time
        named = [record_of(lapse) for lapse, _ in chunk]
        values = engine.get_many(database, [make_key(*key) for _, key in named])
        for (lapse, _), (until_ms, key), value in zip(chunk, named, values, strict=True):
            if value is None or _until_ms(key, value) != until_ms:
                note("stray-entry", make_key(LAPSE, lapse), "it names no record that counts until then")


def _until_ms(key: Key, value: bytes) -> int:
    record = decode(*key, value) if key[0] in {KEY, UNIQUE} else None
    return record.until_ms if isinstance(record, KeyRecord | UniqueRecord) else 0


def _walk(database: Rdict, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
    lower = make_key(kind, b"")
    for at, value in engine.walk(database, lower, successor(lower)):
        yield split_key(at)[1], value
