"""Fsck finds nothing in what the coordinator writes, and every kind of disagreement that is put there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import trio
from msgspec.structs import replace

from store.driver import Driver
from store.houses import LINEAGE, RocksHouse
from taskd.core import records
from taskd.core.commands import SetLimit
from taskd.core.records import (
    AttemptRecord,
    BucketRecord,
    CountersRecord,
    CountsRecord,
    DeadGroupRecord,
    EpochRecord,
    FairRecord,
    FinishedRecord,
    KeyRecord,
    Kind,
    LeaseRecord,
    LineRecord,
    LogRecord,
    Mutation,
    Record,
    SpecRecord,
    StateRecord,
    UniqueRecord,
)
from taskd.core.workflow_commands import SubmitWorkflow
from taskd.core.workflow_records import NodeRecord, WorkflowRecord
from taskd.store.codec import decode_as, encode
from taskd.store.fsck import Report, fsck
from taskd.store.interface import Store
from taskd_protocol.errors import DataDirInUse, StoreFailed
from taskd_protocol.limiting import Limit
from taskd_protocol.task import TaskSpec, Unique, Use
from taskd_protocol.workflow import Node, WorkflowSpec, make_workflow_id, member_id

WORKFLOW = make_workflow_id(1_763_760_000_100, bytes(5))

R = TypeVar("R", bound=Record)


async def fill(store: Store) -> None:
    """Write tasks in every state there is."""
    driver = Driver(store)
    await driver.submit(driver.specs(6, name="app.waits"))
    await driver.submit(driver.specs(3, name="app.waits", priority=5, queue="other"))
    delayed = await driver.submit(driver.specs(4, name="app.f", delay_ms=60_000, key="later"))
    await driver.submit(driver.specs(12, key="order"))
    grants = await driver.lease("a1", ["app.f"], 10)
    assert len(grants) == 10
    await driver.log("a1", grants[:3], 4)
    await driver.ack("a1", grants[:2])
    await driver.ack("a1", grants[2:3], result=bytes(2000))
    await driver.fail("a1", grants[3:5])
    await driver.cancel([grants[5].spec.id, delayed[0]])
    await driver.submit(driver.specs(3, name="app.timed", ttl_ms=50_000, deadline_ms=90_000))
    await driver.submit(driver.specs(1, name="app.timed", deadline_ms=90_000, delay_ms=60_000))
    timed = await driver.lease("a3", ["app.timed"], 2)
    await driver.checkpoint("a3", timed)
    await driver.fail("a3", timed[:1])
    await driver.submit(driver.specs(2, name="app.once", max_attempts=1))
    await driver.fail("a2", await driver.lease("a2", ["app.once"], 1))
    await driver.submit(driver.specs(1, name="app.waits", unique=Unique("queued")))
    await driver.submit(driver.specs(4, name="app.shared", fair_key="a"))
    await driver.submit(driver.specs(2, name="app.shared", fair_key="b", delay_ms=60_000))
    await driver.fail("a4", await driver.lease("a4", ["app.shared"], 1))
    await driver.submit(driver.specs(1, name="app.waits", unique=Unique("window", 60_000)))
    await driver.apply(SetLimit(Limit("stripe", 1)))
    await driver.submit(driver.specs(2, name="app.keyed", uses=[Use("stripe", "acme")], fifo_key="order/7"))
    nodes = [
        Node("wait", kind="signal", signal="go", wait_ms=9_000_000),
        Node("count", task=TaskSpec(b"", "app.flow")),
        Node("end", task=TaskSpec(b"", "app.flow"), needs=[0, 1]),
    ]
    await driver.apply(SubmitWorkflow("key1", WorkflowSpec(WORKFLOW, "report", 3), 0, nodes))


async def build(house: RocksHouse) -> None:
    store = house.open()
    await fill(store)
    await store.close()


@pytest.fixture
def house(tmp_path: Path) -> RocksHouse:
    house = RocksHouse(tmp_path)
    trio.run(build, house)
    return house


def test_what_the_coordinator_writes_is_clean(house: RocksHouse) -> None:
    seen: list[int] = []
    report = fsck(house.path, progress=seen.append)
    assert report.findings == []
    assert report.is_clean
    assert report.counts == {
        "ready": 6 + 3 + 2 + 2 + 1 + 1 + 1 + 3 + 2,
        "scheduled": 3 + 2 + 2 + 3,
        "running": 4 + 1,
        "cancelling": 1,
        "succeeded": 3,
        "cancelled": 1,
        "dead": 1,
    }
    assert report.lineage == LINEAGE.hex()
    assert report.sequence > 5
    assert seen == [sum(report.counts.values())]


BUCKET = BucketRecord(0, 0, 1, 1_000, 1, 9)


class Sample(NamedTuple):
    """One record of each sort, as stored."""

    spec: SpecRecord
    leased: bytes
    lease: LeaseRecord
    scheduled: bytes
    state: StateRecord
    """Of the scheduled task."""
    ready: bytes
    parked: bytes
    held: bytes
    timer: bytes
    limit: bytes
    """Timer of a task that is ready."""
    told: bytes
    """Task that has DETAILS."""
    line_id: bytes
    line: LineRecord
    key_id: bytes
    key: KeyRecord
    claim: bytes
    """Of a task that waits."""
    window: bytes
    """A claim that counts until an instant."""
    result: bytes
    log: bytes
    attempt: bytes
    ended: AttemptRecord
    finished_id: bytes
    finished: FinishedRecord
    dead: bytes
    group_id: bytes
    group: DeadGroupRecord
    counters: CountersRecord
    counts: CountsRecord
    workflow: WorkflowRecord


async def take_sample(store: Store) -> Sample:
    async def first(kind: Kind, reader: type[R]) -> tuple[bytes, R]:
        [(record_id, value)] = await store.scan(kind, limit=1)
        return record_id, decode_as(reader, kind, record_id, value)

    _, spec = await first(records.SPEC, SpecRecord)
    leased, lease = await first(records.LEASE, LeaseRecord)
    [(timer, _)] = await store.scan(records.TIMER, limit=1)
    scheduled = timer[8:]
    [state, counters, counts] = await store.load([(records.STATE, scheduled), COUNTERS, COUNTS])
    assert state is not None
    assert counts is not None
    assert counters is not None
    line_id, line = await first(records.LINE, LineRecord)
    key_id, key = await first(records.KEY, KeyRecord)
    stored = await store.scan(records.UNIQUE, limit=9)
    claims = {i: decode_as(UniqueRecord, records.UNIQUE, i, value).until_ms for i, value in stored}
    attempt, ended = await first(records.ATTEMPT, AttemptRecord)
    finished_id, finished = await first(records.FINISHED, FinishedRecord)
    group_id, group = await first(records.DEAD_GROUP, DeadGroupRecord)
    return Sample(
        spec=spec,
        leased=leased,
        lease=lease,
        scheduled=scheduled,
        state=decode_as(StateRecord, records.STATE, scheduled, state),
        ready=(await store.scan(records.READY, limit=1))[0][0],
        parked=(await store.scan(records.PARKED, limit=1))[0][0],
        held=(await store.scan(records.HELD, limit=1))[0][0],
        timer=timer,
        limit=await _limit(store),
        told=(await store.scan(records.DETAILS, limit=1))[0][0],
        line_id=line_id,
        line=line,
        key_id=key_id,
        key=key,
        claim=next(i for i, until_ms in claims.items() if not until_ms),
        window=next(i for i, until_ms in claims.items() if until_ms),
        result=(await store.scan(records.RESULT, limit=1))[0][0],
        log=(await store.scan(records.LOG, limit=1))[0][0],
        attempt=attempt,
        ended=ended,
        finished_id=finished_id,
        finished=finished,
        dead=(await store.scan(records.DEAD, limit=1))[0][0],
        group_id=group_id,
        group=group,
        counters=decode_as(CountersRecord, records.META, b"counters", counters),
        counts=decode_as(CountsRecord, *COUNTS, counts),
        workflow=(await first(records.WORKFLOW, WorkflowRecord))[1],
    )


async def _limit(store: Store) -> bytes:
    timers = [timer for timer, _ in await store.scan(records.TIMER, limit=100)]
    states = await store.load([(records.STATE, timer[8:]) for timer in timers])
    return next(timer for timer, state in zip(timers, states, strict=True) if state is None)


COUNTERS = records.META, b"counters"
COUNTS = records.COUNTS, b"default"
ODD = b"\xee"

# What is put into the store, and the rule that finds it.
DAMAGES: dict[str, tuple[str, Callable[[Sample], Mutation]]] = {
    "spec lost": ("orphan", lambda s: (records.SPEC, s.leased, None)),
    "spec of another": ("foreign-id", lambda s: (records.SPEC, s.leased, s.spec)),
    "state and lease": ("two-states", lambda s: (records.STATE, s.leased, s.state)),
    "state says running": ("state", lambda s: (records.STATE, s.scheduled, replace(s.state, state="running"))),
    "unheard-of state": ("state", lambda s: (records.STATE, s.scheduled, replace(s.state, state="asleep"))),
    "ready entry lost": ("missing-entry", lambda s: (records.READY, s.ready, None)),
    "ready entry of another": ("foreign-entry", lambda s: (records.READY, s.ready, s.leased)),
    "ready entry too many": ("stray-entry", lambda s: (records.READY, s.ready[:-1] + ODD, s.leased)),
    "ready entry of nobody": ("stray-entry", lambda s: (records.READY, s.ready[:-1] + ODD, bytes(16))),
    "ready entry in no line": ("line", lambda s: (records.READY, b"?" * 25, s.leased)),
    "parked entry lost": ("missing-entry", lambda s: (records.PARKED, s.parked, None)),
    "parked entry of another": ("foreign-entry", lambda s: (records.PARKED, s.parked, s.leased)),
    "parked entry too many": ("stray-entry", lambda s: (records.PARKED, ODD * 32, s.leased)),
    "held entry lost": ("missing-entry", lambda s: (records.HELD, s.held, None)),
    "held entry of another weight": ("held", lambda s: (records.HELD, s.held, (77).to_bytes(4, "big"))),
    "bucket without its lapse": ("missing-entry", lambda _: (records.BUCKET, ODD * 16, BUCKET)),
    "held entry too many": ("stray-entry", lambda s: (records.HELD, ODD * 16 + s.leased, bytes(4))),
    "undecodable limit": ("unreadable", lambda _: (records.LIMIT, b"stripe", b"\xc1")),
    "timer lost": ("missing-entry", lambda s: (records.TIMER, s.timer, None)),
    "timer too many": ("stray-entry", lambda s: (records.TIMER, bytes(8) + s.leased, bytes(8))),
    "key lost": ("stray-entry", lambda s: (records.KEY, s.key_id, None)),
    "key of another": ("foreign-entry", lambda s: (records.KEY, s.key_id, replace(s.key, task_id=s.leased))),
    "key of another time": ("foreign-entry", lambda s: (records.KEY, s.key_id, replace(s.key, created_at_ms=1))),
    "key that counts for longer": (
        "missing-entry",
        lambda s: (records.KEY, s.key_id, replace(s.key, until_ms=1 << 50)),
    ),
    "key without its end": ("missing-entry", lambda s: (records.KEY, b"unasked", s.key)),
    "end of nothing": ("stray-entry", lambda _: (records.LAPSE, bytes(8) + records.KEY + b"unasked", b"")),
    "claim lost": ("missing-entry", lambda s: (records.UNIQUE, s.claim, None)),
    "claim of another": ("foreign-entry", lambda s: (records.UNIQUE, s.claim, UniqueRecord(s.leased))),
    "claim that would end": ("stray-entry", lambda s: (records.UNIQUE, ODD * 16, UniqueRecord(s.leased))),
    "claim without its end": ("missing-entry", lambda s: (records.UNIQUE, s.window, UniqueRecord(bytes(16), 5))),
    "result lost": ("result", lambda s: (records.RESULT, s.result, None)),
    "result too many": ("result", lambda s: (records.RESULT, s.leased, b"\xc0")),
    "log entry lost": ("logs", lambda s: (records.LOG, s.log, None)),
    "log entry too many": ("logs", lambda s: (records.LOG, s.leased + ODD * 8, LogRecord(1, 1, 1, b"x"))),
    "attempt lost": ("attempts", lambda s: (records.ATTEMPT, s.attempt, None)),
    "attempt too many": ("attempts", lambda s: (records.ATTEMPT, s.attempt[:-1] + b"\x07", s.ended)),
    "attempt of nobody": ("orphan", lambda s: (records.ATTEMPT, ODD * 20, s.ended)),
    "undecodable attempt": ("unreadable", lambda s: (records.ATTEMPT, s.attempt, b"\xc1")),
    "details lost": ("details", lambda s: (records.DETAILS, s.told, None)),
    "details too many": ("details", lambda s: (records.DETAILS, s.leased, b"\x01")),
    "limit lost": ("missing-entry", lambda s: (records.TIMER, s.limit, None)),
    "line lost": ("line", lambda s: (records.LINE, s.line_id, None)),
    "line miscounted": ("line", lambda s: (records.LINE, s.line_id, replace(s.line, ready=s.line.ready + 1))),
    "line misnamed": ("line", lambda s: (records.LINE, s.line_id, replace(s.line, name="app.other"))),
    "finished lost": ("finished", lambda s: (records.FINISHED, s.finished_id, replace(s.finished, ids=[]))),
    "finished twice": (
        "finished",
        lambda s: (records.FINISHED, s.finished_id, replace(s.finished, ids=s.finished.ids * 2)),
    ),
    "finished while running": (
        "finished",
        lambda s: (records.FINISHED, s.finished_id, replace(s.finished, ids=[s.leased, *s.finished.ids[1:]])),
    ),
    "dead entry lost": ("missing-entry", lambda s: (records.DEAD, s.dead, None)),
    "dead entry too many": ("stray-entry", lambda s: (records.DEAD, s.dead[:-16] + s.leased, b"")),
    "dead entry in no group": ("dead-group", lambda s: (records.DEAD, ODD * 16 + s.dead[16:], b"")),
    "fair key without its queue": ("fair", lambda _: (records.FAIR, ODD * 16, FairRecord("images", [(0, 5)]))),
    "dead group lost": ("dead-group", lambda s: (records.DEAD_GROUP, s.group_id, None)),
    "dead group miscounted": ("dead-group", lambda s: (records.DEAD_GROUP, s.group_id, replace(s.group, count=7))),
    "workflow lost": ("orphan", lambda _: (records.WORKFLOW, WORKFLOW, None)),
    "workflow not listed": ("workflow", lambda _: (records.OPEN, WORKFLOW, None)),
    "workflow listed": ("workflow", lambda _: (records.OPEN, ODD * 16, b"")),
    "workflow of another": ("foreign-id", lambda s: (records.WORKFLOW, ODD * 16, s.workflow)),
    "workflow larger": (
        "nodes",
        lambda s: (records.WORKFLOW, WORKFLOW, replace(s.workflow, spec=replace(s.workflow.spec, nodes=4))),
    ),
    "workflow half gone": ("nodes", lambda s: (records.WORKFLOW, WORKFLOW, replace(s.workflow, swept=1))),
    "nodes lost": ("nodes", lambda _: (records.NODES, WORKFLOW + bytes(4), None)),
    "node that is none": ("orphan", lambda _: (records.NODE, member_id(WORKFLOW, 3), NodeRecord("running", 1))),
    "timer of a node lost": (
        "missing-entry",
        lambda _: (records.NODE, member_id(WORKFLOW, 0), NodeRecord("waiting", 1, due_at_ms=5)),
    ),
    "timer of a node too many": (
        "stray-entry",
        lambda _: (records.TIMER, bytes(8) + member_id(WORKFLOW, 0), bytes(8)),
    ),
    "signal of nobody": ("orphan", lambda _: (records.SIGNAL, ODD * 16 + b"go", b"\xc0")),
    "undecodable node": ("unreadable", lambda _: (records.NODE, member_id(WORKFLOW, 0), b"\xc1")),
    "weight": ("counters", lambda s: (*COUNTERS, replace(s.counters, finished_bytes=1))),
    "queue miscounted": ("counters", lambda s: (*COUNTS, replace(s.counts, states={"ready": 1}))),
    "queue uncounted": ("counters", lambda _: (*COUNTS, None)),
    "queue of no tasks counted": ("counters", lambda s: (records.COUNTS, b"odd", s.counts)),
    "parked miscounted": ("counters", lambda s: (*COUNTS, replace(s.counts, parked=s.counts.parked + 1))),
    "ended miscounted": ("counters", lambda s: (*COUNTERS, replace(s.counters, ended={}))),
    "order taken": ("counters", lambda s: (*COUNTERS, replace(s.counters, next_order=1))),
    "counters lost": ("counters", lambda _: (*COUNTERS, None)),
    "epoch behind": ("epoch", lambda _: (records.META, b"epoch", EpochRecord(1))),
    "lease ahead": ("epoch", lambda s: (records.LEASE, s.leased, replace(s.lease, token=(1 << 63) - 1))),
    "unknown kind": ("unknown-kind", lambda _: (Kind(b"!"), b"x", b"?")),
    "undecodable spec": ("unreadable", lambda s: (records.SPEC, s.leased, b"\xc1")),
    "undecodable token": ("unreadable", lambda _: (records.TOKEN, b"key9", b"\xc1")),
    "undecodable job": ("unreadable", lambda _: (records.JOB, bytes(16), b"\xc1")),
    "unknown meta": ("unreadable", lambda _: (records.META, b"unheard", b"\x90")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_disagreement_is_found_and_named(house: RocksHouse, damage: str) -> None:
    rule, mutate = DAMAGES[damage]

    async def put() -> None:
        store = house.open()
        store.stage(encode([mutate(await take_sample(store))]))
        await store.close()

    trio.run(put)
    report = fsck(house.path)
    assert rule in {finding.rule for finding in report.findings}, report.findings
    assert report.findings_count == len(report.findings)
    assert not report.is_clean
    assert all("\n" not in f"{finding.key}{finding.text}" for finding in report.findings)


def test_a_foreign_shard_is_found(house: RocksHouse) -> None:
    async def put() -> None:
        store = house.open()
        store.stage([(b"\x07sx", b"?")])
        await store.close()

    trio.run(put)
    assert [finding.rule for finding in fsck(house.path).findings] == ["unknown-kind"]


def test_an_empty_store_is_clean(tmp_path: Path) -> None:
    async def touch() -> None:
        await RocksHouse(tmp_path).open().close()

    trio.run(touch)
    report: Report = fsck(RocksHouse(tmp_path).path)
    assert report.is_clean
    assert report.counts == {}


def test_a_store_at_work_and_a_missing_one_are_refused(tmp_path: Path, house: RocksHouse) -> None:
    async def check_while_open() -> None:
        store = house.open()
        with pytest.raises(DataDirInUse):
            fsck(house.path)
        await store.close()

    trio.run(check_while_open)
    with pytest.raises(StoreFailed, match="no store"):
        fsck(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
