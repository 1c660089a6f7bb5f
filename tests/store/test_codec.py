"""Keys, and records to bytes and back. The golden bytes are what stores on disk hold: a change of them loses data."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.core import records
from taskd.core.events import EventsHeadRecord, EventsRecord, Noted, TasksMoved
from taskd.core.points import HistoryRecord, Loads
from taskd.core.records import Key, Record
from taskd.core.schedule_records import FiringRecord, RemovedRecord, ScheduleRecord, StandingRecord
from taskd.core.webhook_records import LetterRecord, WebhookRecord
from taskd.core.workflow_records import NodeRecord, NodesRecord, WorkflowRecord
from taskd.store import codec, keys
from taskd_protocol.errors import StoreCorrupt
from taskd_protocol.explanation import Waited
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.limiting import Limit
from taskd_protocol.point import Depth, Point, Shares
from taskd_protocol.resources import Granted, Hold, LabelRule, Need, Preference, Request, Where
from taskd_protocol.schedule import NO_TASK, NO_TASK_ID, Schedule, ScheduledWorkflow, Timing
from taskd_protocol.task import Failure, Given, Member, Retry, Rules, TaskSpec, Unique, Use
from taskd_protocol.workflow import Node, WorkflowSpec

GOLDEN = Path(__file__).parent.parent / "golden" / "records.json"

TASK_ID = bytes.fromhex("0197c1a07d3c7c4e9f000123456789ab")
WORKFLOW_ID = bytes.fromhex("0197c1a07d3c8c4e9f00010000000000")
WAITED = [Waited("agent.resource", "memory", 40_000), Waited("agents.none", "", 3_000)]
FAILURE = Failure("task.raised", "boom", "builtins.ValueError", "Traceback…", None)

FIRING = FiringRecord(1_763_760_000_000, 1_763_763_600_000, 61, "coalesced", "missed", b"", 1_763_763_601_000)

MOVED = TasksMoved("task.succeeded", "images", "app.tasks.add", "a1", 2, [TASK_ID], [1_250], trace_id="ab" * 16)

POINT = Point(
    *(1_763_760_000_000, 2_000, 50, 40, 30, 2, 1, 3, 900, 12, 1, 8, 2),
    waits_ms=Shares(5, 80, 416),
    runs_ms=Shares(-1, -1, -1),
    queues=[Depth("images", 900, 8)],
)

SAMPLES: dict[str, tuple[Key, Record]] = {
    "events": (
        (records.EVENTS, (7).to_bytes(8, "big")),
        EventsRecord(1_763_760_000_000, [MOVED], [Noted("workflow.running", "report", WORKFLOW_ID)]),
    ),
    "events head": (
        (records.META, b"events"),
        EventsHeadRecord([(1, 1_763_760_000_000, 2_000_000), (901, 1_763_760_600_000, 0)]),
    ),
    "webhook": (
        (records.WEBHOOK, b"chat"),
        WebhookRecord(
            "https://example.org/hook",
            b"secret",
            ["task.dead"],
            "images",
            "thumb*",
            1_763_760_000_000,
            7,
            paused=True,
            failures=2,
            error="it answered 500",
            until=9,
            lost=1,
        ),
    ),
    "letter": (
        (records.LETTER, b"chat\x00" + (7).to_bytes(8, "big")),
        LetterRecord(1_763_760_000_000, 12, "it answered 500", 3, b"{}"),
    ),
    "history": ((records.HISTORY, b"\x00" + (3).to_bytes(4, "big")), HistoryRecord([POINT])),
    "history, of agents": (
        (records.HISTORY, b"\x04" + (3).to_bytes(4, "big")),
        HistoryRecord([], [Loads(1_763_760_000_000, ["a1", "a2"], [12, 100], [2_048, 512], [3, 0])]),
    ),
    "spec, all fields": (
        (records.SPEC, TASK_ID),
        records.SpecRecord(
            7,
            1_763_760_000_000,
            "key1",
            TaskSpec(
                TASK_ID,
                "app.tasks.add",
                b"\x92\x01\x02",
                "images",
                -5,
                60_000,
                Retry(5, 100, 1.5, 9_000, 0.1),
                "k",
                "00-a-b-01",
                Rules(
                    9_000,
                    8_000,
                    70_000,
                    80_000,
                    True,  # noqa: FBT003 - in the order of the fields
                    5_000,
                    headers={"user": "u-1"},
                    unique=Unique("window", 60_000, "u-1", replace=True),
                    where=Where(
                        [Request([Need("cpu", 500), Need("gpu", 1_000, "a100")]), Request([Need("cpu", 8_000)])],
                        [LabelRule("zone", "in", ["a", "b"])],
                        [Preference(LabelRule("disk", "=", ["ssd"]), 10)],
                        60_000,
                        True,  # noqa: FBT003 - in the order of the fields
                        "db",
                        "rack",
                        True,  # noqa: FBT003
                    ),
                    due_ms=1_763_760_060_000,
                    limits=[Use("stripe", "acme", 3)],
                    fifo_key="order/7",
                ),
            ),
        ),
    ),
    "spec, in its place": (
        (records.SPEC, TASK_ID),
        records.SpecRecord(3, 1_763_760_000_000, "k", TaskSpec(TASK_ID, "f"), 1_763_766_000_000),
    ),
    "spec, defaults": ((records.SPEC, TASK_ID), records.SpecRecord(1, 2, "", TaskSpec(TASK_ID, "f"))),
    "state, succeeded": (
        (records.STATE, TASK_ID),
        records.StateRecord("succeeded", 2, 1, 1 << 62, "agent-1", 10, 20, 0, b"\xc0", logs=3, log_bytes=4096),
    ),
    "state, result apart": (
        (records.STATE, TASK_ID),
        records.StateRecord("succeeded", 1, 0, 5, "agent-1", 10, 20, result_apart=True),
    ),
    "state, scheduled": (
        (records.STATE, TASK_ID),
        records.StateRecord(
            "scheduled",
            1,
            1,
            5,
            "agent-1",
            10,
            due_at_ms=99,
            failure=FAILURE,
            has_details=True,
            revived_at_ms=7,
            gates=1,
        ),
    ),
    "state, dead": (
        (records.STATE, TASK_ID),
        records.StateRecord(
            "dead", 3, 3, 5, "agent-1", 10, 20, failure=FAILURE, end_order=300, fingerprint=bytes(range(16))
        ),
    ),
    "lease": (
        (records.LEASE, TASK_ID),
        records.LeaseRecord(
            (1 << 62) + 1,
            3,
            2,
            "agent-2",
            30,
            cancelling=True,
            failure=FAILURE,
            logs=2,
            log_bytes=100,
            log_bytes_before=40,
            has_details=True,
            revived_at_ms=8,
            log_number=3,
        ),
    ),
    "state, tried before": (
        (records.STATE, TASK_ID),
        records.StateRecord(
            "ready",
            4,
            1,
            0,
            "agent-1",
            10,
            failure=FAILURE,
            past=records.Past(3, 1, 2, 0, 1, WORKFLOW_ID, 1 << 30, WAITED),
            revived_attempt=3,
        ),
    ),
    "lease, started": (
        (records.LEASE, TASK_ID),
        records.LeaseRecord(5, 2, 0, "agent-2", 30, past=records.Past(1, 0, 1), started=True),
    ),
    "lease, to be stopped for another": (
        (records.LEASE, TASK_ID),
        records.LeaseRecord(5, 2, 0, "agent-2", 30, past=records.Past(1, preempted=1), preempted=True),
    ),
    "lease, of resources": (
        (records.LEASE, TASK_ID),
        records.LeaseRecord(
            5,
            1,
            0,
            "agent-2",
            30,
            granted=Granted([Hold("cpu", 500), Hold("gpu", 1_000, ["0"])], 1, True),  # noqa: FBT003
        ),
    ),
    "attempt": (
        (records.ATTEMPT, TASK_ID + bytes((0, 0, 0, 2))),
        records.AttemptRecord((1 << 62) + 1, "agent-2", 30, 40, "crashed", FAILURE, 1, WAITED),
    ),
    "line": ((records.LINE, bytes(16)), records.LineRecord("default", "app.tasks.add", 12)),
    "line, of resources": (
        (records.LINE, bytes(16)),
        records.LineRecord("default", "app.tasks.add", 12, b"\x91\x01"),
    ),
    "peaks": ((records.PEAKS, b"app.tasks.add"), records.PeaksRecord({98: 2, 113: 1}, 1 << 30)),
    "key": (
        (records.KEY, b"order-42"),
        records.KeyRecord(TASK_ID, bytes(range(16)), 1_763_760_000_000, 1_763_846_400_000),
    ),
    "claim": ((records.UNIQUE, bytes(range(16))), records.UniqueRecord(TASK_ID, 1_763_760_009_000)),
    "finished": ((records.FINISHED, bytes(16)), records.FinishedRecord([TASK_ID, bytes(16)], 1234)),
    "dead group": (
        (records.DEAD_GROUP, bytes(range(16))),
        records.DeadGroupRecord("builtins.ValueError", "tasks.py:add", "boom", 3, 10, 20),
    ),
    "job": (
        (records.JOB, TASK_ID),
        records.JobRecord(
            "retry",
            TaskFilter(
                "dead", "images", "app.*", "timeout", 9, bytes(16), [TASK_ID], 11, -1, 9, "a1", "zone=a", "order-42"
            ),
            "key1",
            1,
            b"c",
            5,
            4,
            10,
        ),
    ),
    "spec of a workflow's task": (
        (records.SPEC, TASK_ID),
        records.SpecRecord(
            1, 2, "", TaskSpec(TASK_ID, "f", given=Rules(member=Member([Given(b"\xc0"), Given(id=TASK_ID, count=3)])))
        ),
    ),
    "workflow": (
        (records.WORKFLOW, WORKFLOW_ID),
        WorkflowRecord(
            WorkflowSpec(WORKFLOW_ID, "report", 3, "fail_fast", "00-1"),
            "key1",
            1,
            "failed",
            {"succeeded": 2, "failed": 1},
            9,
            2,
            "merge",
            stopped=True,
            stage=2,
            order="rerun",
            order_node=1,
            signals=["go"],
            compensated=True,
            digest=bytes(range(16)),
            parts=[0, 1000],
            parent=TASK_ID,
            spawned=3,
            waiting=True,
            parent_ended=True,
            swept=5,
            orders=[bytes(range(16))],
        ),
    ),
    "workflow of a schedule": (
        (records.WORKFLOW, WORKFLOW_ID),
        WorkflowRecord(
            WorkflowSpec(WORKFLOW_ID, "etl", 1),
            "key1",
            1,
            "running",
            {},
            schedule="nightly",
            scheduled_for_ms=1_763_760_000_000,
        ),
    ),
    "nodes": (
        (records.NODES, WORKFLOW_ID + bytes(4)),
        NodesRecord([msgspec.Raw(msgspec.msgpack.encode(Node("wait", kind="sleep", after=[0], wait_ms=5)))]),
    ),
    "node": (
        (records.NODE, WORKFLOW_ID),
        NodeRecord("dead", 1, 2, 3, 50, 7, 4, b"\xc0", FAILURE, 9),
    ),
    "schedule": (
        (records.SCHEDULE, b"nightly"),
        ScheduleRecord(
            Schedule(
                "nightly",
                Timing(
                    ("0 3 * * mon-fri", "@weekly"),
                    0,
                    (),
                    "Europe/Oslo",
                    "shift",
                    "both",
                    1,
                    2,
                    ("2026-12-24",),
                    ("* 4 * * *",),
                ),
                TaskSpec(NO_TASK_ID, "app.tasks.report", b"\x90", "slow", 3),
                60_000,
                "queue_one",
                "all",
                5,
                3,
                "app.tasks",
            ),
            "key1",
            1_763_760_000_000,
        ),
    ),
    "schedule, interval": (
        (records.SCHEDULE, b"beat"),
        ScheduleRecord(Schedule("beat", Timing(every_ms=90_000), TaskSpec(NO_TASK_ID, "app.beat")), "key1", 7),
    ),
    "schedule of a workflow": (
        (records.SCHEDULE, b"etl"),
        ScheduleRecord(
            Schedule(
                "etl",
                Timing(("@daily",)),
                NO_TASK,
                workflow=ScheduledWorkflow("etl", [Node("wait", kind="sleep", wait_ms=5)], "fail_fast"),
            ),
            "key1",
            7,
        ),
    ),
    "standing": (
        (records.STANDING, b"nightly"),
        StandingRecord(
            1_763_760_000_000,
            1_763_846_400_000,
            9,
            1_763_000_000_000,
            "app.tasks",
            3,
            1,
            [TASK_ID],
            1_763_760_000_001,
            "by hand",
            "time zone 'Old/Zone' is unknown",
            FIRING,
            FiringRecord(10, 10, 1, "waiting", "the task before has not ended", b"", 11),
            7,
            orphaned=True,
            begun_sequence=5,
        ),
    ),
    "removed": ((records.REMOVED, bytes(16)), RemovedRecord(500, 1_000)),
    "firing": ((records.FIRING, bytes(16) + bytes((0,) * 7 + (8,))), FIRING),
    "queue": (
        (records.QUEUE, b"images"),
        records.QueueRecord(draining=True, weight=5, paused=True, fair_weights={"acme": 3}),
    ),
    "limit": (
        (records.LIMIT, b"queue:images"),
        records.LimitRecord(Limit("queue:images", 4, 100, 1_000, 20, "shop"), 9_000),
    ),
    "bucket": ((records.BUCKET, bytes(16)), records.BucketRecord(-1_500_000, 8_000, 100, 1_000, 20, 1_763_760_060_000)),
    "age": ((records.META, b"age"), records.AgeRecord(86_400_000)),
    "pace": ((records.PACE, b"images"), records.PaceRecord(5 << 20, 9 << 20)),
    "fair key": ((records.FAIR, bytes(16)), records.FairRecord("images", [(-1, 9 << 20), (5, 7 << 20)])),
    "line of fair keys": (
        (records.LINE, bytes(16)),
        records.LineRecord("default", "app.tasks.add", 12, fair=True),
    ),
    "spec of a fair key": (
        (records.SPEC, TASK_ID),
        records.SpecRecord(1, 2, "", TaskSpec(TASK_ID, "f", given=Rules(fair_key="tenant-1")), 5 << 20),
    ),
    "agent": ((records.AGENT, b"ash"), records.AgentRecord(drained=True)),
    "token": (
        (records.TOKEN, b"key1"),
        records.TokenRecord(
            "client", bytes(range(32)), "ci", 1, 2, revoked=True, logged_out=[("abc", 3)], sessions_after_ms=4
        ),
    ),
    "log": ((records.LOG, TASK_ID + bytes(8)), records.LogRecord(1, 2, 3, b"hello\n")),
    "counts": ((records.COUNTS, b"images"), records.CountsRecord({"ready": 3, "running": 1}, 2)),
    "counters": (
        (records.META, b"counters"),
        records.CountersRecord(
            {"default": {"ready": 3, "running": 1}},
            {"succeeded": 9, "dead": 1},
            14,
            5000,
            77,
            88,
            {"default": 2},
            2000,
            b"fin",
        ),
    ),
    "epoch": ((records.META, b"epoch"), records.EpochRecord(1_763_760_000, [(1_763_750_000, 0), (1_763_760_000, 77)])),
}


def golden() -> dict[str, str]:
    stored: dict[str, str] = json.loads(GOLDEN.read_text())
    return stored


@pytest.mark.parametrize("name", SAMPLES)
def test_a_record_is_written_as_it_always_was(name: str) -> None:
    (kind, record_id), record = SAMPLES[name]
    [(key, value)] = codec.encode([(kind, record_id, record)])
    assert value is not None
    assert f"{key.hex()} {value.hex()}" == golden()[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_record_of_old_is_read(name: str) -> None:
    (kind, record_id), record = SAMPLES[name]
    key, value = (bytes.fromhex(part) for part in golden()[name].split())
    assert keys.split_key(key) == (kind, record_id)
    assert codec.decode(kind, record_id, value) == record
    assert codec.decode_as(type(record), kind, record_id, value) == record


def test_a_spec_of_the_first_release_is_read() -> None:
    """Release 0.1.0 wrote neither rules, nor a retry's exception types and crash limit."""
    value = bytes.fromhex(
        "950107cf0000019aa849cc00a46b65793199c4100197c1a07d3c7c4e9f000123456789abad6170702e7461736b732e616464c403920102"
        "a6696d61676573fbcdea60950564cb3ff8000000000000cd2328cb3fb999999999999aa16ba930302d612d622d3031"
    )
    record = SAMPLES["spec, all fields"][1]
    assert isinstance(record, records.SpecRecord)
    first = msgspec.structs.replace(record.spec, retry=Retry(5, 100, 1.5, 9_000, 0.1), given=None)
    assert codec.decode(records.SPEC, TASK_ID, value) == msgspec.structs.replace(record, spec=first)


def test_every_record_class_has_golden_bytes() -> None:
    assert set(golden()) == set(SAMPLES)
    assert {type(record) for _, record in SAMPLES.values()} == {
        *records.READERS.values(),
        *records.META_READERS.values(),
    }


def test_a_kind_is_written_together_and_in_order() -> None:
    mutations: list[records.Mutation] = [
        (records.STATE, b"2", b"a"),
        (records.READY, b"9", None),
        (records.STATE, b"1", None),
        (records.READY, b"1", b"x"),
        (records.STATE, b"2", None),
    ]
    assert codec.encode(mutations) == [
        (b"\x00r9", None),
        (b"\x00r1", b"x"),
        (b"\x00t2", b"a"),
        (b"\x00t1", None),
        (b"\x00t2", None),
    ]
    assert codec.encode([]) == []


def test_what_is_no_record_is_named() -> None:
    for kind, record_id, value in [
        (records.SPEC, TASK_ID, b""),
        (records.SPEC, TASK_ID, b"\xc1"),
        (records.SPEC, TASK_ID, golden_value("lease")),
        (records.SPEC, TASK_ID, golden_value("spec, defaults")[:-1]),
        (records.META, b"counters", b"\x91\x09"),  # a version to come
        (records.LINE, TASK_ID, b"\x94\x02\xa1q\xa1n\x01"),
    ]:
        with pytest.raises(StoreCorrupt, match="does not decode") as caught:
            codec.decode(kind, record_id, value)
        assert f"{kind.decode()}/" in str(caught.value)
        assert "\n" not in str(caught.value)
    for kind, record_id in [(records.META, b"unheard-of"), (records.READY, b"x"), (records.Kind(b"!"), b"x")]:
        with pytest.raises(StoreCorrupt, match="no record is known"):
            codec.decode(kind, record_id, b"\x90")


def golden_value(name: str) -> bytes:
    return bytes.fromhex(golden()[name].split()[1])


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=6))
def test_the_successor_bounds_a_prefix(tail: bytes, other: bytes) -> None:
    """A key is below the bound, and not below the prefix, iff it begins with the prefix."""
    prefix, key = keys.SHARD + tail, keys.SHARD + other
    for candidate in (key, prefix + other, prefix[:-1] + other):
        assert (prefix <= candidate < keys.successor(prefix)) == candidate.startswith(prefix)


def test_keys_read_as_people_read() -> None:
    assert keys.describe_key(keys.make_key(records.META, b"counters")) == "m/counters"
    assert keys.describe_key(keys.make_key(records.SPEC, TASK_ID)) == f"s/{TASK_ID.hex()}"
    assert keys.describe_key(keys.FORMAT_KEY) == "store/format"


def write_golden() -> None:
    """For a record that is new, or was changed before any release held it: ``python tests/store/test_codec.py``."""
    encoded = {name: codec.encode([(*key, record)])[0] for name, (key, record) in SAMPLES.items()}
    lines = {name: f"{key.hex()} {(value or b'').hex()}" for name, (key, value) in encoded.items()}
    GOLDEN.write_text(json.dumps(lines, indent=2) + "\n")


if __name__ == "__main__":
    write_golden()
