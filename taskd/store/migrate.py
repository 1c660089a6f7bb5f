"""Migrate: brings a store of an older format to today's, step by step.

A step goes through one kind's records and writes what the next format has in their
stead. Each batch carries the cursor, so that a step that was cut short goes on where it
was; the format changes with the last batch. A step must come to the same when a
batch of it is applied twice.

For a new format: raise ``head.FORMAT``, add its steps here under the format that they
lead away from, and let ``tests/store/test_migrate.py`` write what they find.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace
from rocksdict import Rdict

from taskd.core import dead
from taskd.core.commands import Now
from taskd.core.endings import weight_of
from taskd.core.lapses import lapse_id
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.lines import LINE_ID_BYTES, rank_in, ready_id
from taskd.core.records import (
    COUNTS,
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
    DeadGroupRecord,
    FinishedRecord,
    KeyRecord,
    Kind,
    Mutation,
    SpecRecord,
    StateRecord,
)
from taskd.core.working import KEY_RETENTION_MS, Settings, Working
from taskd.store import engine
from taskd.store.codec import decode_as, encode
from taskd.store.head import FORMAT
from taskd.store.keys import FORMAT_KEY, MIGRATION_KEY, make_key, split_key, successor
from taskd_protocol.errors import TaskdError
from taskd_protocol.ids import TaskId, task_id_unix_ms

BATCH_RECORDS: Final = 1_000
"""Looked at for one batch: a few MB with large arguments, and work of a few milliseconds to do again."""

_OLD_READY_BYTES: Final = LINE_ID_BYTES + 9

Entries = Sequence[tuple[bytes, bytes]]
"""Ids and values, in order."""


class Step(NamedTuple):
    """What one kind's records become."""

    kind: Kind
    change: Callable[[Rdict, Entries], Sequence[Mutation]]


def migrate(database: Rdict, path: Path, stored: int) -> None:
    """Bring an open store from the format that it has to today's; durable when this returns.

    Args:
        database: Of the store; nobody else writes.
        path: Its folder, for messages.
        stored: The format that it has, at least 1 and at most ``FORMAT``.

    Raises:
        StoreCorrupt: A record is not what was written.
        StoreFailed: The disk refuses; run again, it goes on where it was.
    """
    try:
        for older in range(stored, FORMAT):
            _leave(database, older)
            database.flush_wal(True)  # noqa: FBT003 - sync, by position in rocksdict
    except TaskdError:
        raise
    except Exception as error:  # noqa: BLE001 - rocksdict has no narrower class
        raise engine.translate(error, path) from None


def _leave(database: Rdict, older: int) -> None:
    [cursor] = engine.get_many(database, [MIGRATION_KEY])
    done, after = (cursor[0], cursor[1:]) if cursor else (0, b"")
    for index, step in enumerate(STEPS[older]):
        if index < done:
            continue
        for entries in _chunks(database, step.kind, after if index == done else b""):
            cursor_now = (MIGRATION_KEY, bytes([index]) + entries[-1][0])
            database.write(engine.batch_of([*encode(step.change(database, entries)), cursor_now]))
    database.write(engine.batch_of([(FORMAT_KEY, b"%d" % (older + 1)), (MIGRATION_KEY, None)]))


def _chunks(database: Rdict, kind: Kind, after: bytes) -> Iterator[Entries]:
    lower = make_key(kind, b"")
    walked = engine.walk(database, make_key(kind, after) + b"\x00" if after else lower, successor(lower))
    while chunk := list(islice(walked, BATCH_RECORDS)):
        yield [(split_key(key)[1], value) for key, value in chunk]


def _date_keys(database: Rdict, entries: Entries) -> list[Mutation]:
    """Give idempotency keys the instant at which they were taken, their task's, and the end of the usual time."""
    keys = [(record_id, decode_as(KeyRecord, KEY, record_id, value)) for record_id, value in entries]
    specs = engine.get_many(database, [make_key(SPEC, key.task_id) for _, key in keys])
    changed: list[Mutation] = []
    for (record_id, key), spec in zip(keys, specs, strict=True):
        created_at_ms = _created_at_ms(key.task_id, spec)
        until_ms = created_at_ms + KEY_RETENTION_MS
        changed.append((KEY, record_id, replace(key, created_at_ms=created_at_ms, until_ms=until_ms)))
        changed.append((LAPSE, lapse_id(until_ms, KEY, record_id), b""))
    return changed


def _list_dead(database: Rdict, entries: Entries) -> list[Mutation]:
    """List dead tasks by what they died of, as the core would have."""
    w = Working(Settings(), random.Random(0))  # noqa: S311 - nothing is drawn
    lower = make_key(DEAD_GROUP, b"")
    for at, value in engine.walk(database, lower, successor(lower)):
        fingerprint = split_key(at)[1]
        w.dead_groups[fingerprint] = decode_as(DeadGroupRecord, DEAD_GROUP, fingerprint, value)
    for task_id, value in entries:
        state = decode_as(StateRecord, STATE, task_id, value)
        if state.state == State.DEAD and state.failure is not None and not state.fingerprint:
            fingerprint = dead.enter(w, task_id, state.failure, Now(0, state.finished_at_ms))
            w.put(STATE, task_id, replace(state, fingerprint=fingerprint))
    for fingerprint in w.dirty_dead_groups:
        w.put(DEAD_GROUP, fingerprint, w.dead_groups[fingerprint])
    return w.mutations


def _weigh_finished(database: Rdict, entries: Entries) -> list[Mutation]:
    """Count what has ended anew: what FINISHED says, and each task that did not succeed beside it until that goes."""
    changed: list[Mutation] = []
    for record_id, value in entries:
        if record_id == b"counters":
            weight = said = 0
            for finished in _chunks(database, FINISHED, b""):
                weight += sum([decode_as(FinishedRecord, FINISHED, *entry).stored_bytes for entry in finished])
            for states in _chunks(database, STATE, b""):
                weight += _weight_of_unsuccessful(database, states)
                said += sum([state.log_bytes for _, state in _ended_of(states)])
            counters = decode_as(CountersRecord, META, record_id, value)
            changed.append((META, record_id, replace(counters, finished_bytes=weight, logs_bytes=said)))
    return changed


def _ended_of(entries: Entries) -> list[tuple[bytes, StateRecord]]:
    states = [(task_id, decode_as(StateRecord, STATE, task_id, value)) for task_id, value in entries]
    return [(task_id, state) for task_id, state in states if state.state in TERMINAL]


def _weight_of_unsuccessful(database: Rdict, entries: Entries) -> int:
    ended = [(task_id, state) for task_id, state in _ended_of(entries) if state.state != State.SUCCEEDED]
    specs = engine.get_many(database, [make_key(SPEC, task_id) for task_id, _ in ended])
    return sum(
        weight_of(decode_as(SpecRecord, SPEC, task_id, spec).spec, state)
        for (task_id, state), spec in zip(ended, specs, strict=True)
        if spec is not None
    )


def _created_at_ms(task_id: bytes, spec: bytes | None) -> int:
    if spec is None:  # no key is without its task; fsck tells of one that is
        return task_id_unix_ms(TaskId(task_id))
    return decode_as(SpecRecord, SPEC, task_id, spec).created_at_ms


def _widen_ranks(database: Rdict, entries: Entries) -> list[Mutation]:
    """Give ready tasks their places by the clock: entries told them by priority, in 9 bytes.

    Those that have theirs lie among the others, after a run that was cut short; their length tells.
    """
    old = [(record_id, task_id) for record_id, task_id in entries if len(record_id) == _OLD_READY_BYTES]
    specs = engine.get_many(database, [make_key(SPEC, task_id) for _, task_id in old])
    changed: list[Mutation] = []
    for (record_id, task_id), spec in zip(old, specs, strict=True):
        changed.append((READY, record_id, None))
        if spec is not None:  # no entry is without its task; fsck tells of one that is
            rank = rank_in(decode_as(SpecRecord, SPEC, task_id, spec))
            changed.append((READY, ready_id(record_id[:LINE_ID_BYTES], rank), task_id))
    return changed


def _split_counters(_database: Rdict, entries: Entries) -> list[Mutation]:
    """Give the counts of each queue a record of their own. Run again, there are none left to be given one."""
    changed: list[Mutation] = []
    for record_id, value in entries:
        if record_id == b"counters":
            counters = decode_as(CountersRecord, META, record_id, value)
            for queue, states in counters.by_queue.items():
                changed.append((COUNTS, queue.encode(), CountsRecord(states, counters.parked.get(queue, 0))))
            changed.append((META, record_id, replace(counters, by_queue={}, parked={})))
    return changed


STEPS: Final[Mapping[int, Sequence[Step]]] = {
    1: (Step(KEY, _date_keys), Step(STATE, _list_dead), Step(META, _weigh_finished)),
    2: (Step(READY, _widen_ranks),),
    3: (Step(META, _weigh_finished), Step(META, _split_counters)),  # output was not weighed all the time
}
"""By the format that they lead away from, in the order in which they are taken."""
