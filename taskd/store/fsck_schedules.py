"""Fsck of schedules: each stands somewhere, and what was decided of its times is told once, in their order."""

from collections.abc import Callable, Iterator
from typing import Final

from rocksdict import Rdict

from taskd.core.records import FIRING, OPEN, REMOVED, SCHEDULE, STANDING, Kind
from taskd.core.schedule_looks import firing_id, firing_prefix, kept_from, sequence_of
from taskd.core.schedule_records import FiringRecord, RemovedRecord, ScheduleRecord, StandingRecord
from taskd.store import engine
from taskd.store.codec import decode_as
from taskd.store.fsck_workflows import read_noted
from taskd.store.keys import make_key, split_key, successor
from taskd.store.stored_tasks import chunks, load_tasks
from taskd_protocol.workflow import is_workflow_id

Note = Callable[[str, bytes, str], None]
"""Takes a rule, a stored key and a text."""

_PREFIX_BYTES: Final = 16
_BESIDE: Final = frozenset({"triggered", "backfilled"})


def check_schedules(database: Rdict, note: Note) -> None:
    """Note what is not as it should be.

    Raises:
        StoreCorrupt: A block, or a decision, cannot be read.
    """
    standings, unread = _read_standings(database, note)
    seen = 0
    for name, value in _walk(database, SCHEDULE):
        record = read_noted(ScheduleRecord, SCHEDULE, name, value, note)
        standing = standings.get(name)
        if record is None or name in unread:
            seen += standing is not None
        elif record.schedule.name.encode() != name:
            note("schedule", make_key(SCHEDULE, name), "the schedule stands under a foreign name")
        elif standing is None:
            note("schedule", make_key(SCHEDULE, name), "it is not known where the schedule stands")
        else:
            seen += 1
            facts = (standing.source, standing.pause_after, standing.begun_ms)
            if facts != (record.schedule.source, record.schedule.pause_after, record.created_at_ms):
                note("schedule", make_key(STANDING, name), "the schedule says otherwise")
    if seen != len(standings):
        for name in standings:
            if engine.get_many(database, [make_key(SCHEDULE, name)]) == [None]:
                note("schedule", make_key(STANDING, name), "no schedule of that name is there")
    _check_running(database, standings, note)
    _check_firings(database, standings, {firing_prefix(name.decode()) for name in unread if _is_name(name)}, note)


def _read_standings(database: Rdict, note: Note) -> tuple[dict[bytes, StandingRecord], set[bytes]]:
    """Read where schedules stand; tell, too, of which that cannot be read."""
    unread: set[bytes] = set()
    standings: dict[bytes, StandingRecord] = {}
    for name, value in _walk(database, STANDING):
        standing = read_noted(StandingRecord, STANDING, name, value, note)
        if standing is None:
            unread.add(name)
        else:
            standings[name] = standing
    return standings, unread


def _is_name(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_running(database: Rdict, standings: dict[bytes, StandingRecord], note: Note) -> None:
    running = [(name, work) for name, standing in standings.items() for work in standing.running]
    for name, work in running:
        if is_workflow_id(work) and engine.get_many(database, [make_key(OPEN, work)]) == [None]:
            note("schedule", make_key(STANDING, name), f"it waits for workflow {work.hex()}, which does not go on")
    for chunk in chunks(each for each in running if not is_workflow_id(each[1])):
        for (name, _), task in zip(chunk, load_tasks(database, [task_id for _, task_id in chunk]), strict=True):
            if task.spec is None or task.has_ended:
                note("schedule", make_key(STANDING, name), f"it waits for task {task.id.hex()}, which does not go on")


def _check_firings(database: Rdict, standings: dict[bytes, StandingRecord], unread: set[bytes], note: Note) -> None:
    removed = {i: decode_as(RemovedRecord, REMOVED, i, value) for i, value in _walk(database, REMOVED)}
    by_prefix = {firing_prefix(name.decode()): name for name in standings}
    kept: dict[bytes, int] = {}
    last_ms: dict[bytes, int] = {}
    for record_id, value in _walk(database, FIRING):
        if record_id[:_PREFIX_BYTES] in unread:
            continue
        firing = decode_as(FiringRecord, FIRING, record_id, value)
        name = by_prefix.get(record_id[:_PREFIX_BYTES])
        left = removed.get(record_id[:_PREFIX_BYTES])
        if name is None and left is not None and left.first <= sequence_of(record_id) < left.end:
            continue
        if name is None:
            note("firing", make_key(FIRING, record_id), "it is a decision of no schedule")
            continue
        kept[name] = kept.get(name, 0) + 1
        standing, sequence = standings[name], int.from_bytes(record_id[_PREFIX_BYTES:], "big")
        for text in _what_is_wrong(standing, sequence, firing, last_ms.get(name, 0)):
            note("firing", make_key(FIRING, record_id), text)
        if firing.outcome not in _BESIDE and sequence >= standing.begun_sequence:
            last_ms[name] = max(last_ms.get(name, 0), firing.until_ms)
    for name, standing in standings.items():
        count = standing.sequence - kept_from(standing)
        if kept.get(name, 0) < count:
            key = make_key(FIRING, firing_id(name.decode(), standing.sequence - 1))
            note("firing", key, f"{count} decisions are noted, {kept.get(name, 0)} are there")


def _what_is_wrong(standing: StandingRecord, sequence: int, firing: FiringRecord, last_ms: int) -> Iterator[str]:
    """Tell what is wrong with a decision that follows one on a time of ``last_ms``."""
    if not kept_from(standing) <= sequence < standing.sequence:
        yield "its number is none of those that are kept"
    if sequence == standing.sequence - 1 and firing != standing.last:
        yield "it is another than the schedule's last"
    if firing.outcome == "waiting" and (standing.waiting, standing.waiting_sequence) != (firing, sequence):
        yield "it waits, and the schedule does not know it"
    if firing.outcome in _BESIDE or sequence < standing.begun_sequence or firing.at_ms <= standing.begun_ms:
        return
    if firing.at_ms <= last_ms and last_ms > standing.begun_ms:
        yield "its time was decided on before"
    if firing.until_ms > standing.decided_to_ms:
        yield "its time is not yet decided on"


def _walk(database: Rdict, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
    lower = make_key(kind, b"")
    for at, value in engine.walk(database, lower, successor(lower)):
        yield split_key(at)[1], value
