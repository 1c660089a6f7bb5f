"""Fsck: is the store whole, and does it agree with itself?

Everything is read. Every index and counter is derived again from the tasks'
specs, states and leases, and compared with what is stored. A task, and the counts,
are in memory at a time, never the tasks.

Knows nothing of how to mend what it finds.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rocksdict import Rdict

from taskd.core import records
from taskd.core.endings import weight_of
from taskd.core.fingerprint import FINGERPRINT_BYTES
from taskd.core.gates import WAKE, is_parked
from taskd.core.lifecycle import State
from taskd.core.lines import line_id
from taskd.core.records import (
    COUNTS,
    DEAD,
    DEAD_GROUP,
    FINISHED,
    HELD,
    LAPSE,
    LINE,
    META,
    OPEN,
    PARKED,
    READY,
    TIMER,
    UNIQUE,
    CountersRecord,
    CountsRecord,
    DeadGroupRecord,
    EpochRecord,
    FairRecord,
    FinishedRecord,
    Key,
    Kind,
    LineRecord,
    PaceRecord,
    UniqueRecord,
)
from taskd.core.timers import INSTANT_BYTES
from taskd.core.working import EPOCH_BITS
from taskd.store import engine
from taskd.store.codec import decode, decode_as
from taskd.store.fsck_lapses import check_lapses
from taskd.store.fsck_schedules import check_schedules
from taskd.store.fsck_workflows import check_workflows, timers_of_nodes
from taskd.store.head import read_current_head
from taskd.store.history import check_history
from taskd.store.keys import ID_START, SHARD, STORE, describe_key, make_key, split_key, successor
from taskd.store.stored_tasks import StoredTask, chunks, held_value, index_entries, load_tasks, read_tasks
from taskd_protocol.errors import StoreCorrupt, TaskdError
from taskd_protocol.ids import TASK_ID_BYTES
from taskd_protocol.workflow import is_workflow_id

FINDINGS_MAX: Final = 1000
"""Findings kept with their text; beyond it they are counted."""

_NUMBER_BYTES: Final = 8
_ID_MASK: Final = (1 << 128) - 1
_PARTS: Final = 16
"""Pieces in which ids are compared when they differ: a piece of ten million takes some 60 MB."""

_KINDS: Final = frozenset(
    {
        STORE,
        META,
        READY,
        TIMER,
        DEAD,
        LAPSE,
        records.RESULT,
        records.DETAILS,
        OPEN,
        records.SIGNAL,
        PARKED,
        HELD,
        *records.READERS,
    }
)
_STATES: Final = frozenset(State)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    rule: str
    """A stable word."""
    key: str
    """Where, as people read it."""
    text: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        lineage: Of the store, in hexadecimal.
        sequence: Of its last batch.
        counts: Tasks by state.
        findings: The first ``FINDINGS_MAX``.
        findings_count: All of them.
    """

    lineage: str = ""
    sequence: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    findings_count: int = 0

    @property
    def is_clean(self) -> bool:
        """Nothing was found."""
        return not self.findings_count


def fsck(path: Path, *, progress: Callable[[int], None] | None = None) -> Report:
    """Check the store in a folder, which nobody else may have open.

    Args:
        path: The folder.
        progress: Told now and then how many tasks were looked at.

    Raises:
        DataDirInUse: It is open.
        StoreCorrupt: It does not open. What cannot be read once it is open is a finding.
        StoreFailed: There is none.
        StoreTooNew: A newer taskd wrote it.
        StoreTooOld: An older taskd wrote it, and no server has opened it since.
    """
    database = engine.open_database(path)
    check = _Check(database, path, progress or (lambda _: None))
    try:
        return check.run()
    finally:
        check.close()


class _Check:
    """One run over one store."""

    def __init__(self, database: Rdict, path: Path, progress: Callable[[int], None]) -> None:
        self.report = Report()
        self._database = database
        self._path = path
        self._progress = progress
        self._by_queue: dict[str, Counter[str]] = {}
        self._ended: Counter[str] = Counter()
        self._parked: Counter[str] = Counter()
        self._order_max = 0
        self._expected: Counter[Kind] = Counter()  # entries that tasks imply and that are there
        self._ended_sum = 0  # of ids, modulo 2^128: two sets of equal count and sum are taken to be equal
        self._epoch = 0
        self._finished_bytes = 0  # of tasks that did not succeed
        self._logs_bytes = 0

    def run(self) -> Report:
        report = self.report
        try:
            head = read_current_head(self._database, self._path)
            report.lineage = "" if head is None else head.lineage.hex()
            report.sequence = check_history(self._database, self._path).sequence
            self._check_kinds()
            self._check_meta()
            self._check_tasks()
            self._check_strays()
            check_lapses(self._database, self._note)
            check_workflows(self._database, self._note)
            check_schedules(self._database, self._note)
            self._check_lines()
            self._check_fair()
            self._check_dead_groups()
            self._finished_bytes += self._check_finished()
            self._check_counters()
        except StoreCorrupt as error:  # what was not reached is not known to be whole
            self._note("unreadable", b"", error.message)
        for states in (*self._by_queue.values(), self._ended):
            for state, count in states.items():
                report.counts[state] = report.counts.get(state, 0) + count
        return report

    def close(self) -> None:
        """Close the store. What RocksDB's own background met is a finding, if nothing else was."""
        try:
            engine.close_database(self._database, self._path)
        except TaskdError as error:
            if isinstance(error, StoreCorrupt) and self.report.is_clean:
                self._note("unreadable", b"", error.message)

    def _check_kinds(self) -> None:
        """Find keys of no known shard and kind; decode what no other rule reads."""
        at = b""
        while (entry := next(engine.walk(self._database, at, b"\xff" * 9), None)) is not None:
            key, _ = entry
            kind = key[len(SHARD) : ID_START]
            if key[: len(SHARD)] != SHARD or kind not in _KINDS:
                self._note("unknown-kind", key, "no record of this kind is known")
            at = successor(key[:ID_START]) if len(key) >= ID_START else key + b"\x00"
        for kind in (records.TOKEN, records.JOB, records.QUEUE, records.PACE, records.LIMIT, records.AGENT, META):
            for record_id, value in self._walk(kind):
                decode(kind, record_id, value)

    def _check_meta(self) -> None:
        stored = engine.get_many(self._database, [make_key(META, b"epoch")])[0]
        if stored is not None:
            self._epoch = decode_as(EpochRecord, META, b"epoch", stored).epoch

    def _check_tasks(self) -> None:
        seen = 0
        for tasks in chunks(read_tasks(self._database)):
            whole = [task for task in tasks if self._check_task(task)]
            entries = [(task, key) for task in whole for key in index_entries(task)]
            values = engine.get_many(self._database, [make_key(*key) for _, key in entries])
            for (task, key), value in zip(entries, values, strict=True):
                self._check_entry(task, key, value)
            seen += len(tasks)
            self._progress(seen)

    def _check_task(self, task: StoredTask) -> bool:
        """Check what is stored under one id, and count it; tell whether it is a task."""
        key = make_key(records.SPEC, task.id)
        if task.spec is None:
            self._note("orphan", key, "something is stored of a task that is not there")
            return False
        if task.spec.spec.id != task.id:
            self._note("foreign-id", key, "the spec is another task's")
            return False
        self._check_state(task, key)
        if task.has_result != (task.last is not None and task.last.result_apart):
            self._note("result", key, "the state record and the RESULT record do not agree")
        holder = task.lease or task.last
        if task.has_details != (holder is not None and holder.has_details):
            self._note("details", key, "the task's record and DETAILS do not agree")
        if task.logs != (holder.logs if holder else 0):
            self._note("logs", key, f"{holder.logs if holder else 0} log entries are noted, {task.logs} are numbered")
        if task.attempts != task.attempts_kept:
            text = f"attempts {list(task.attempts_kept)} are noted, {list(task.attempts)} are there"
            self._note("attempts", key, text)
        if task.lease is not None and task.lease.token >> EPOCH_BITS > self._epoch:
            self._note("epoch", key, "the lease's token is of an epoch that has not begun")
        self._count(task)
        return True

    def _check_state(self, task: StoredTask, key: bytes) -> None:
        if task.last is not None and task.lease is not None:
            self._note("two-states", key, "the task is leased and has a state record")
        if task.last is not None and task.last.state in {State.RUNNING, State.CANCELLING}:
            self._note("state", key, f"a state record cannot say {task.last.state!r}")
        elif task.state not in _STATES:
            self._note("state", key, f"{task.state!r} is no state")

    def _count(self, task: StoredTask) -> None:
        assert task.spec is not None
        self._order_max = max(self._order_max, task.spec.order)
        if task.has_ended:
            assert task.last is not None
            self._ended[task.state] += 1
            self._logs_bytes += task.last.log_bytes
            if task.state != State.SUCCEEDED:
                self._finished_bytes += weight_of(task.spec.spec, task.last)
            self._ended_sum += int.from_bytes(task.id, "big")
        else:
            self._by_queue.setdefault(task.spec.spec.queue, Counter())[task.state] += 1
            if task.state == State.READY and is_parked(task.spec.spec, task.last.gates if task.last else 0):
                self._parked[task.spec.spec.queue] += 1

    def _check_entry(self, task: StoredTask, key: Key, value: bytes | None) -> None:
        kind, record_id = key
        if value is None:
            self._note("missing-entry", make_key(*key), f"task {task.id.hex()} is {task.state} and has no such entry")
        elif self._task_of(kind, record_id, value) != task.id:
            self._note("foreign-entry", make_key(*key), f"the entry of task {task.id.hex()} names another task")
        else:
            self._expected[kind] += 1
            if kind == HELD and value != held_value(task, record_id):
                self._note("held", make_key(*key), f"it is not what task {task.id.hex()} takes of the limit")

    @staticmethod
    def _task_of(kind: Kind, record_id: bytes, value: bytes) -> bytes:
        """Return the task that an index entry points to."""
        if kind == UNIQUE:
            return decode_as(UniqueRecord, kind, record_id, value).task_id
        return value[:TASK_ID_BYTES] if kind in {READY, PARKED} else record_id[-TASK_ID_BYTES:]

    def _check_strays(self) -> None:
        """Find entries that no task implies: there are some iff there are more entries than were expected."""
        self._expected[TIMER] += sum(1 for _ in timers_of_nodes(self._database))
        for kind in (READY, TIMER, DEAD, UNIQUE, PARKED, HELD):
            if sum(1 for _ in self._implied(kind)) == self._expected[kind]:
                continue
            for entries in chunks(self._implied(kind)):
                ids = [self._task_of(kind, *entry) for entry in entries]
                for (record_id, _), task in zip(entries, load_tasks(self._database, ids), strict=True):
                    if kind == TIMER and task.spec is None and record_id in set(timers_of_nodes(self._database)):
                        continue
                    if task.spec is None or (kind, record_id) not in index_entries(task):
                        self._note(
                            "stray-entry", make_key(kind, record_id), f"no task implies it; {task.id.hex()} is named"
                        )

    def _implied(self, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
        """Yield what tasks imply of a kind: of claims, all but those that count until an instant."""
        for record_id, value in self._walk(kind):
            if kind == TIMER and record_id[INSTANT_BYTES:].startswith(WAKE):
                continue
            if kind != UNIQUE or not decode_as(UniqueRecord, kind, record_id, value).until_ms:
                yield record_id, value

    def _check_lines(self) -> None:
        ready: Counter[bytes] = Counter(record_id[:TASK_ID_BYTES] for record_id, _ in self._walk(READY))
        for record_id, value in self._walk(LINE):
            line = decode_as(LineRecord, LINE, record_id, value)
            if line_id(line.queue, line.name, line.where, fair=line.fair) != record_id:
                self._note("line", make_key(LINE, record_id), "the line stands under a foreign id")
            if line.ready != ready[record_id]:
                text = f"the line counts {line.ready} ready tasks, {ready[record_id]} are there"
                self._note("line", make_key(LINE, record_id), text)
            del ready[record_id]
        for record_id, count in ready.items():
            self._note("line", make_key(LINE, record_id), f"{count} entries stand in a line that is not there")

    def _check_fair(self) -> None:
        paces = {queue: decode_as(PaceRecord, records.PACE, queue, value) for queue, value in self._walk(records.PACE)}
        for record_id, value in self._walk(records.FAIR):
            record = decode_as(FairRecord, records.FAIR, record_id, value)
            pace = paces.get(record.queue.encode())
            if pace is None or not record.ends or max(end for _, end in record.ends) > pace.highest:
                text = f"a fair key of queue {record.queue!r} ends later than the queue knows of"
                self._note("fair", make_key(records.FAIR, record_id), text)

    def _check_dead_groups(self) -> None:
        counts: Counter[bytes] = Counter(record_id[:FINGERPRINT_BYTES] for record_id, _ in self._walk(DEAD))
        for record_id, value in self._walk(DEAD_GROUP):
            group = decode_as(DeadGroupRecord, DEAD_GROUP, record_id, value)
            if group.count != counts[record_id]:
                text = f"the group counts {group.count} dead tasks, {counts[record_id]} are listed"
                self._note("dead-group", make_key(DEAD_GROUP, record_id), text)
            del counts[record_id]
        for record_id, count in counts.items():
            self._note(
                "dead-group", make_key(DEAD_GROUP, record_id), f"{count} are listed in a group that is not there"
            )

    def _check_finished(self) -> int:
        """Compare the tasks that retention knows of with those that have ended; return what it says they weigh."""
        weight = listed = total = 0
        for _, finished in self._finished_by_order():
            weight += finished.stored_bytes
            ids = [task_id for task_id in finished.ids if not is_workflow_id(task_id)]
            listed += len(ids)
            total += sum(int.from_bytes(task_id, "big") for task_id in ids)
        if (listed, total & _ID_MASK) != (sum(self._ended.values()), self._ended_sum & _ID_MASK):
            for part in range(_PARTS):
                self._compare_finished(part)
        return weight

    def _compare_finished(self, part: int) -> None:
        """Compare them one by one.

        A task that was retried since, or taken away before its time, is still listed where it was.
        """
        ended = {
            task.id: task.last.end_order
            for task in read_tasks(self._database)
            if _part_of(task.id) == part and task.has_ended and task.last is not None
        }
        listed = Counter(
            task_id
            for order, finished in self._finished_by_order()
            for task_id in finished.ids
            if _part_of(task_id) == part and ended.get(task_id, order + 1) <= order
        )
        for task_id in sorted(ended.keys() - listed.keys()):
            self._note(
                "finished", make_key(records.STATE, task_id), "the task has ended and retention does not know it"
            )
        for task_id, count in sorted(listed.items()):
            if count > 1:
                self._note("finished", make_key(records.STATE, task_id), f"retention lists it {count} times")

    def _check_counters(self) -> None:
        key = make_key(META, b"counters")
        stored = engine.get_many(self._database, [key])[0]
        counters = decode_as(CountersRecord, META, b"counters", stored) if stored else CountersRecord({}, {}, 1, 0)
        self._check_counts()
        if _nonzero(counters.ended) != _nonzero(self._ended):
            text = f"{_nonzero(counters.ended)} are counted as ended, there are {_nonzero(self._ended)}"
            self._note("counters", key, text)
        if counters.next_order <= self._order_max:
            self._note("counters", key, f"the next order is {counters.next_order}, {self._order_max} is taken")
        if counters.finished_bytes != self._finished_bytes:
            text = f"finished tasks are counted with {counters.finished_bytes} bytes and weigh {self._finished_bytes}"
            self._note("counters", key, text)
        if counters.logs_bytes != self._logs_bytes:
            text = f"their output is counted with {counters.logs_bytes} bytes and weighs {self._logs_bytes}"
            self._note("counters", key, text)

    def _check_counts(self) -> None:
        found = {
            queue.encode(): CountsRecord(_nonzero(states), self._parked[queue])
            for queue, states in self._by_queue.items()
        }
        counted = {queue: decode_as(CountsRecord, COUNTS, queue, value) for queue, value in self._walk(COUNTS)}
        for queue in sorted(found.keys() | counted.keys()):
            if found.get(queue) != counted.get(queue):
                text = f"it is counted as {_told(counted.get(queue))}, there are {_told(found.get(queue))}"
                self._note("counters", make_key(COUNTS, queue), text)

    def _finished_by_order(self) -> Iterator[tuple[int, FinishedRecord]]:
        for record_id, value in self._walk(FINISHED):
            order = int.from_bytes(record_id[_NUMBER_BYTES:], "big")
            yield order, decode_as(FinishedRecord, FINISHED, record_id, value)

    def _walk(self, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
        lower = make_key(kind, b"")
        for key, value in engine.walk(self._database, lower, successor(lower)):
            yield split_key(key)[1], value

    def _note(self, rule: str, key: bytes, text: str) -> None:
        self.report.findings_count += 1
        if len(self.report.findings) < FINDINGS_MAX:
            self.report.findings.append(Finding(rule, describe_key(key) if key else "", text))


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {str(name): count for name, count in sorted(counts.items()) if count}


def _told(counts: CountsRecord | None) -> str:
    if counts is None:
        return "no tasks"
    return f"{counts.states}, {counts.parked} of them parked"


def _part_of(task_id: bytes) -> int:
    return task_id[-1] % _PARTS
