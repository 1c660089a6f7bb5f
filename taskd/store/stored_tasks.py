"""Tasks as they are stored: read in the order of their ids, with what each implies.

The spec, the state and the lease are what is known of a task; every index entry
follows from them.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

from rocksdict import Rdict

from taskd.core import expiry, gates
from taskd.core.attempts import kept_ordinals
from taskd.core.claims import claim_id, is_held
from taskd.core.dead import dead_id
from taskd.core.lifecycle import TERMINAL, State
from taskd.core.lines import is_fair, line_id, rank_before, rank_in, ready_id, where_of
from taskd.core.log_retention import is_swept_mark
from taskd.core.records import (
    ATTEMPT,
    DEAD,
    DETAILS,
    HELD,
    LEASE,
    LOG,
    PARKED,
    READY,
    RESULT,
    SPEC,
    STATE,
    TIMER,
    UNIQUE,
    AttemptRecord,
    Key,
    Kind,
    LeaseRecord,
    LogRecord,
    SpecRecord,
    StateRecord,
)
from taskd.core.timers import timer_id
from taskd.store import engine
from taskd.store.codec import decode_as
from taskd.store.keys import ID_START, make_key, successor
from taskd_protocol.ids import TASK_ID_BYTES
from taskd_protocol.task import TaskSpec, Unique

CHUNK: Final = 500
"""Tasks, or entries, that are looked up at once."""

_T = TypeVar("_T")


class StoredTask(NamedTuple):
    """All that is stored under a task's id."""

    id: bytes
    spec: SpecRecord | None = None
    last: StateRecord | None = None
    lease: LeaseRecord | None = None
    has_result: bool = False
    """A RESULT of its own."""
    has_details: bool = False
    """DETAILS."""
    logs: int = 0
    """Entries in LOG, with those that retention took away; -1: of others some are missing."""
    attempts: tuple[int, ...] = ()
    """The ordinals in ATTEMPT, in order."""

    @property
    def state(self) -> str:
        """Where it stands, by its primary records."""
        if self.lease is not None:
            return State.CANCELLING.value if self.lease.cancelling else State.RUNNING.value
        return State.READY.value if self.last is None else self.last.state

    @property
    def attempts_kept(self) -> tuple[int, ...]:
        """What its primary records say of ``attempts``."""
        holder = self.lease or self.last
        if holder is None or holder.past is None:
            return ()
        last = holder.attempt - (self.lease is not None or self.state == State.SUCCEEDED)
        return tuple(kept_ordinals(last, holder.past))

    @property
    def has_ended(self) -> bool:
        """It is in a terminal state."""
        return self.state in TERMINAL


def index_entries(task: StoredTask) -> Iterator[Key]:
    """Yield what indexes must hold of a task that has a spec."""
    assert task.spec is not None
    spec = task.spec.spec
    yield from _gate_entries(task, spec)
    if task.state == State.READY and not _is_parked(task, spec):
        where = where_of(spec, task.last.past if task.last else None)
        yield READY, ready_id(line_id(spec.queue, spec.name, where, fair=is_fair(spec)), rank_in(task.spec))
    elif task.state == State.SCHEDULED and task.last is not None:
        yield TIMER, timer_id(task.last.due_at_ms, task.id)
    elif task.last is not None and task.last.fingerprint:
        yield DEAD, dead_id(task.last.fingerprint, task.last.finished_at_ms, task.id)
    if task.state in {State.READY, State.SCHEDULED, State.BLOCKED}:
        since_ms = (task.last.revived_at_ms if task.last else 0) or task.spec.created_at_ms
        limit_ms = expiry.limit_at_ms(spec, since_ms, task.last.attempt if task.last else 0)
        if limit_ms:
            yield TIMER, timer_id(limit_ms, task.id)
    unique = spec.rules.unique
    if unique is not None and _has_claim(task, unique):
        yield UNIQUE, claim_id(spec, unique)


def _is_parked(task: StoredTask, spec: TaskSpec) -> bool:
    return gates.is_parked(spec, task.last.gates if task.last else 0)


def _gate_entries(task: StoredTask, spec: TaskSpec) -> Iterator[Key]:
    """Yield what gates know of a task: those that it has passed, and the one that it waits at."""
    ways = gates.ways(spec)
    if not ways or task.has_ended:
        return
    passed = len(ways) if task.lease is not None else task.last.gates if task.last else 0
    for way in ways[:passed]:
        yield HELD, gates.held_id(way, task.id)
    if task.state == State.READY and passed < len(ways):
        assert task.spec is not None
        yield PARKED, gates.parked_id(ways[passed], rank_before(task.spec))


def held_value(task: StoredTask, held: bytes) -> bytes:
    """Return what HELD must tell of a task at a gate."""
    assert task.spec is not None
    [way] = [way for way in gates.ways(task.spec.spec) if gates.held_id(way, task.id) == held]
    return gates.places(way)


def _has_claim(task: StoredTask, unique: Unique) -> bool:
    holder = task.lease or task.last
    revived_attempt = task.last.revived_attempt if task.last else 0
    return is_held(unique, task.state, holder.attempt if holder else 0, revived_attempt)


_KINDS: Final = (SPEC, STATE, LEASE, RESULT, DETAILS, LOG, ATTEMPT)
"""What is stored under a task's id."""


def read_tasks(database: Rdict, kinds: Sequence[Kind] = _KINDS) -> Iterator[StoredTask]:
    """Yield every id under which anything is stored, in order; one task is in memory at a time.

    Args:
        database: Open; what is written meanwhile is not seen.
        kinds: What is read of each.

    Raises:
        StoreCorrupt: A block, or a record, cannot be read.
    """
    entries = heapq.merge(*(_entries(database, kind) for kind in kinds), key=itemgetter(0))
    for task_id, group in groupby(entries, key=itemgetter(0)):
        yield _assemble(task_id, group)


def load_tasks(database: Rdict, ids: list[bytes]) -> list[StoredTask]:
    """Return these tasks, without their logs and results."""
    values = engine.get_many(database, [make_key(kind, task_id) for task_id in ids for kind in (SPEC, STATE, LEASE)])
    tasks = []
    for start, task_id in zip(range(0, len(values), 3), ids, strict=True):
        found = zip((SPEC, STATE, LEASE), values[start : start + 3], strict=True)
        tasks.append(_assemble(task_id, [(task_id, kind, b"", value) for kind, value in found if value is not None]))
    return tasks


def chunks(entries: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield them, so many at once."""
    iterator = iter(entries)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


_Entry = tuple[bytes, Kind, bytes, bytes]
"""Task id, kind, the rest of the id, value."""


def _entries(database: Rdict, kind: Kind) -> Iterator[_Entry]:
    lower = make_key(kind, b"")
    for key, value in engine.walk(database, lower, successor(lower)):
        record_id = key[ID_START:]
        yield record_id[:TASK_ID_BYTES], kind, record_id[TASK_ID_BYTES:], value


def _assemble(task_id: bytes, entries: Iterable[_Entry]) -> StoredTask:
    task = StoredTask(task_id)
    logs = 0
    attempts: list[int] = []
    for _, kind, rest, value in entries:
        if kind == SPEC:
            task = task._replace(spec=decode_as(SpecRecord, kind, task_id, value))
        elif kind == STATE:
            task = task._replace(last=decode_as(StateRecord, kind, task_id, value))
        elif kind == LEASE:
            task = task._replace(lease=decode_as(LeaseRecord, kind, task_id, value))
        elif kind == RESULT:
            task = task._replace(has_result=True)
        elif kind == DETAILS:
            task = task._replace(has_details=True)
        elif kind == ATTEMPT:
            decode_as(AttemptRecord, kind, task_id + rest, value)
            attempts.append(int.from_bytes(rest, "big"))
        else:
            said = decode_as(LogRecord, kind, task_id + rest, value)
            sequence = int.from_bytes(rest, "big")
            follows = sequence == logs or (sequence > logs and is_swept_mark(said))
            logs = sequence + 1 if logs >= 0 and follows else -1
    return task._replace(logs=logs, attempts=tuple(attempts))
