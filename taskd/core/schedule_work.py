"""What a firing of a schedule does: it submits a task, or a workflow.

The one place that turns a schedule and an instant into work, told by the id that it is followed by: of the
task, or of the workflow. Either is kept in the batch that carries the decision.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from taskd.core import records, submit, workflows
from taskd.core.commands import Loaded, Now
from taskd.core.flows import stem_of
from taskd.core.records import Key, SpecRecord
from taskd.core.schedule_records import ScheduleRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd.core.working import Working
from taskd_protocol.errors import QueueDraining
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.limits import SCHEDULE_BACKFILL_MAX
from taskd_protocol.schedule import SCHEDULE_NODES_AT_ONCE_MAX, Schedule, firing_headers
from taskd_protocol.task import TaskSpec
from taskd_protocol.tracing import root_of
from taskd_protocol.workflow import WorkflowSpec, is_workflow_id, make_workflow_id

_JITTER_BYTES: Final = 8
_TRACE_BYTES: Final = 16
_ID_BITS: Final = 34
"""Of a workflow's id, that tell apart what was made in one millisecond."""


def check(w: Working, schedule: Schedule) -> None:
    """Refuse a schedule whose workflow is no graph that can run; its nodes, each by itself, were looked at.

    Raises:
        WorkflowInvalid: Says why.
    """
    if schedule.workflow is not None:
        workflows.check_whole(w, schedule.workflow.nodes)


def why_not(w: Working, record: ScheduleRecord) -> str:
    """Return why nothing can be submitted now; empty: it can."""
    workflow = record.schedule.workflow
    nodes = [] if workflow is None else workflow.nodes
    tasks = [record.schedule.task] if workflow is None else [node.task for node in nodes if node.task is not None]
    try:
        submit.check_queues(w, tasks)
    except QueueDraining as refusal:
        return refusal.message
    return ""


def nodes_of(record: ScheduleRecord) -> int:
    """Return how much a firing is: of how many nodes, or one task."""
    workflow = record.schedule.workflow
    return 1 if workflow is None else len(workflow.nodes)


def most_at_once(record: ScheduleRecord) -> int:
    """Return for how many nominal times one backfill may be."""
    return max(1, min(SCHEDULE_BACKFILL_MAX, SCHEDULE_NODES_AT_ONCE_MAX // nodes_of(record)))


def fresh_id(w: Working, record: ScheduleRecord, at_ms: int, now: Now) -> bytes:
    """Return the id of the work of one nominal time, of which no other is."""
    salt = b""
    while stem_of(made := id_of(record, at_ms, now, salt)) in w.flows:
        salt += b"+"
    return made


def id_of(record: ScheduleRecord, at_ms: int, now: Now, salt: bytes = b"") -> bytes:
    """Return the id of the work of one nominal time; it follows from that, so that nothing is drawn.

    A workflow's has few bits to tell it apart by, so those of one schedule count its times: no two are the same.

    Args:
        record: The schedule.
        at_ms: The nominal time.
        now: When it is submitted: no work with that id is older.
        salt: Of firings beside the nominal times.
    """
    name, created = record.schedule.name.encode(), record.created_at_ms.to_bytes(8, "big")
    if record.schedule.workflow is not None:
        return _workflow_id(hashlib.blake2b(name, key=created + salt), at_ms, now)
    key = created + at_ms.to_bytes(8, "big") + salt
    entropy = hashlib.blake2b(name, key=key, digest_size=RANDOM_BYTES_PER_TASK_ID)
    return make_task_ids(1, now.wall_ms, entropy.digest())[0]


def id_of_trigger(record: ScheduleRecord, request: bytes, now: Now) -> bytes:
    """Return the id of the work that a request triggers: the same one again finds it, whatever changed meanwhile."""
    if record.schedule.workflow is None:
        return request
    return _workflow_id(hashlib.blake2b(record.schedule.name.encode(), key=request), 0, now)


def _workflow_id(digest: hashlib.blake2b, steps: int, now: Now) -> bytes:
    """Return the workflow id that is so many behind the one that a digest comes to."""
    number = (int.from_bytes(digest.digest()[:8], "big") + steps) % (1 << _ID_BITS)
    high = bytes([number >> 30, number >> 22 & 0xFF, number >> 16 & 0x3F])
    return make_workflow_id(now.wall_ms, high + (number & 0xFFFF).to_bytes(2, "big"))


def stored(w: Working, ids: Sequence[bytes], loaded: Loaded, more: Sequence[Key] = ()) -> set[bytes]:
    """Return which of these ids are kept already.

    Raises:
        NeedRecords: They, or ``more``, are not loaded.
    """
    tasks = [each for each in ids if not is_workflow_id(each)]
    asked = w.recent.may_be_stored(tasks) if tasks else set()
    keys: list[Key] = [
        (records.WORKFLOW if is_workflow_id(each) else records.SPEC, each)
        for each in ids
        if each in asked or is_workflow_id(each)
    ]
    w.need([*more, *keys], loaded)
    return {key[1] for key in keys if isinstance(loaded[key], SpecRecord | WorkflowRecord)}


def start(w: Working, record: ScheduleRecord, firings: Sequence[tuple[bytes, int]], now: Now) -> None:
    """Submit the work of some nominal times.

    Args:
        w: The working set.
        record: The schedule.
        firings: For each the work's id and the nominal time.
        now: This instant.
    """
    workflow = record.schedule.workflow
    if workflow is None:
        submit.keep(w, [_spec(record, task_id, at_ms) for task_id, at_ms in firings], record.owner, now)
        return
    name, count, policy = workflow.name, len(workflow.nodes), workflow.policy
    for raw_id, at_ms in firings:
        spec = WorkflowSpec(raw_id, name, count, policy, _traceparent(raw_id))
        workflows.begin(w, spec, workflow.nodes, record.owner, now, schedule=record.schedule.name, for_ms=at_ms)


def _spec(record: ScheduleRecord, task_id: bytes, at_ms: int) -> TaskSpec:
    schedule = record.schedule
    task = schedule.task
    delay_ms = task.delay_ms
    if schedule.jitter_ms:
        nominal = hashlib.blake2b(schedule.name.encode(), key=at_ms.to_bytes(8, "big"), digest_size=_JITTER_BYTES)
        delay_ms += int.from_bytes(nominal.digest(), "big") % (schedule.jitter_ms + 1)
    headers = {**(task.rules.headers or {}), **firing_headers(schedule.name, at_ms)}
    return replace(
        task,
        id=task_id,
        delay_ms=delay_ms,
        traceparent=_traceparent(task_id),
        given=replace(task.rules, headers=headers),
    )


def _traceparent(work: bytes) -> str:
    """Return a context of the work's own, the same whenever it is decided: there is no span above it."""
    trace = hashlib.blake2b(work, digest_size=_TRACE_BYTES).hexdigest()
    return f"00-{trace}-{root_of(work):016x}-01"
