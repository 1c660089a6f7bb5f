"""Starting: reading what is in motion out of the store."""

from collections.abc import Sequence
from typing import NamedTuple

from taskd.core import records
from taskd.core.buckets import bucket_id
from taskd.core.lapses import id_of_key
from taskd.core.records import (
    AgentRecord,
    AgeRecord,
    BucketRecord,
    CountersRecord,
    CountsRecord,
    DeadGroupRecord,
    EpochRecord,
    JobRecord,
    Kind,
    LeaseRecord,
    LimitRecord,
    LineRecord,
    PaceRecord,
    PeaksRecord,
    QueueRecord,
    Record,
    SpecRecord,
    TokenRecord,
)
from taskd.core.restore import Stored
from taskd.core.schedule_looks import firing_prefix, sequence_of
from taskd.core.schedule_records import FiringRecord, RemovedRecord, StandingRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd.store import codec
from taskd.store.interface import Store
from taskd_protocol.errors import StoreCorrupt
from taskd_protocol.limiting import Limit

PAGE = 5_000
"""Entries read at once."""


async def read_stored(store: Store) -> Stored:
    """Read what ``restore`` wants: everything that is in motion, and none of the backlog.

    Raises:
        StoreCorrupt: A record is not what was written.
    """
    counters, epoch = await store.load([(records.META, b"counters"), (records.META, b"epoch")])
    newest = await store.scan(records.SPEC, limit=1, reverse=True)
    newest_key = await store.scan(records.KEY, limit=1, reverse=True)
    [age] = await store.load([(records.META, b"age")])
    limits = [(i, r) for i, r in await _read_all(store, records.LIMIT) if isinstance(r, LimitRecord)]
    flows = await _read_open_workflows(store)
    standings = await _read_standings(store)
    return Stored(
        counters=None if counters is None else codec.decode_as(CountersRecord, records.META, b"counters", counters),
        epoch=None if epoch is None else codec.decode_as(EpochRecord, records.META, b"epoch", epoch),
        sequence=store.staged_sequence,
        tokens=[(i, r) for i, r in await _read_all(store, records.TOKEN) if isinstance(r, TokenRecord)],
        lines=[(i, r) for i, r in await _read_all(store, records.LINE) if isinstance(r, LineRecord)],
        leases=await _read_leases(store),
        newest_id=max([record_id for record_id, _ in newest] + [id_of_key(key) for key, _ in newest_key], default=b""),
        dead_groups=[(i, r) for i, r in await _read_all(store, records.DEAD_GROUP) if isinstance(r, DeadGroupRecord)],
        jobs=[(i, r) for i, r in await _read_all(store, records.JOB) if isinstance(r, JobRecord)],
        peaks=[(i, r) for i, r in await _read_all(store, records.PEAKS) if isinstance(r, PeaksRecord)],
        queues=[(i, r) for i, r in await _read_all(store, records.QUEUE) if isinstance(r, QueueRecord)],
        counts=[(i, r) for i, r in await _read_all(store, records.COUNTS) if isinstance(r, CountsRecord)],
        limits=limits,
        buckets=await _read_buckets(store, [limit.limit for _, limit in limits]),
        age=None if age is None else codec.decode_as(AgeRecord, records.META, b"age", age),
        paces=[(i, r) for i, r in await _read_all(store, records.PACE) if isinstance(r, PaceRecord)],
        flows=flows.read,
        unread_flows=flows.unread,
        lost_flows=flows.lost,
        drained_agents=[(i, r) for i, r in await _read_all(store, records.AGENT) if isinstance(r, AgentRecord)],
        standings=standings.read,
        removed=[(i, r) for i, r in await _read_all(store, records.REMOVED) if isinstance(r, RemovedRecord)],
        unread_standings=standings.unread,
    )


async def _read_all(store: Store, kind: Kind) -> list[tuple[bytes, Record]]:
    found: list[tuple[bytes, Record]] = []
    after = b""
    while page := await store.scan(kind, after=after, limit=PAGE):
        found += [(record_id, codec.decode(kind, record_id, value)) for record_id, value in page]
        after = page[-1][0]
    return found


async def _read_buckets(store: Store, limits: list[Limit]) -> list[tuple[bytes, BucketRecord]]:
    """Read what is left of the rates of queues and task names; those of keys are read with their gates."""
    ids = [bucket_id(limit.name) for limit in limits if limit.tokens]
    values = await store.load([(records.BUCKET, i) for i in ids])
    return [
        (i, codec.decode_as(BucketRecord, records.BUCKET, i, value))
        for i, value in zip(ids, values, strict=True)
        if value is not None
    ]


class _Flows(NamedTuple):
    """Workflows that go on; of those that cannot be read, or are not there, ids and why."""

    read: list[WorkflowRecord]
    unread: list[tuple[bytes, str]]
    lost: list[bytes]


async def _read_open_workflows(store: Store) -> _Flows:
    """Read the workflows that go on; one that cannot be read stops no other."""
    found = _Flows([], [], [])
    after = b""
    while page := await store.scan(records.OPEN, after=after, limit=PAGE):
        after = page[-1][0]
        ids = [workflow for workflow, _ in page]
        for workflow, value in zip(ids, await store.load([(records.WORKFLOW, i) for i in ids]), strict=True):
            if value is None:
                found.lost.append(workflow)
                continue
            try:
                found.read.append(codec.decode_as(WorkflowRecord, records.WORKFLOW, workflow, value))
            except StoreCorrupt as error:
                found.unread.append((workflow, error.message))
    return found


class _Standings(NamedTuple):
    """Where schedules stand; for those of which that cannot be read, see ``Stored``."""

    read: list[tuple[bytes, StandingRecord]]
    unread: list[tuple[bytes, str, int, FiringRecord | None]]


async def _read_standings(store: Store) -> _Standings:
    """Read where schedules stand; one of which that cannot be read stops no other."""
    found = _Standings([], [])
    after = b""
    while page := await store.scan(records.STANDING, after=after, limit=PAGE):
        after = page[-1][0]
        for name, value in page:
            try:
                found.read.append((name, codec.decode_as(StandingRecord, records.STANDING, name, value)))
            except StoreCorrupt as error:
                found.unread.append((name, error.message, *await _newest_decision(store, name)))
    return found


async def _newest_decision(store: Store, name: bytes) -> tuple[int, FiringRecord | None]:
    """Return how many decisions there were of a schedule, and the last of them; if not even that can be read, none."""
    for record_id, value in await store.scan(records.FIRING, firing_prefix(name.decode()), limit=1, reverse=True):
        try:
            last = codec.decode_as(FiringRecord, records.FIRING, record_id, value)
        except StoreCorrupt:
            break
        return sequence_of(record_id) + 1, last
    return 0, None


async def _read_leases(store: Store) -> Sequence[tuple[bytes, LeaseRecord, SpecRecord | None, bytes]]:
    leases = await _read_all(store, records.LEASE)
    values = await store.load([(records.SPEC, task_id) for task_id, _ in leases])
    telling = [task_id for task_id, lease in leases if isinstance(lease, LeaseRecord) and lease.has_details]
    details = dict(zip(telling, await store.load([(records.DETAILS, task_id) for task_id in telling]), strict=True))
    return [
        (
            task_id,
            lease,
            None if value is None else codec.decode_as(SpecRecord, records.SPEC, task_id, value),
            details.get(task_id) or b"",
        )
        for (task_id, lease), value in zip(leases, values, strict=True)
        if isinstance(lease, LeaseRecord)
    ]
