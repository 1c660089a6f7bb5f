"""Restore: the working set, built again from what is stored.

Leases are taken up as they were. Their agents get a full period to come back and
claim them; what time did to timers is made up for when they are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from taskd.core import gates, jobs, lapses, limiting, records
from taskd.core.commands import Now
from taskd.core.effects import ScheduleStopped, WorkflowBroken
from taskd.core.fleet import Agent
from taskd.core.flows import Flow, stem_of
from taskd.core.lifecycle import State
from taskd.core.lines import Line, Task, rank_in
from taskd.core.recent import RecentIds
from taskd.core.records import (
    AgentRecord,
    AgeRecord,
    BucketRecord,
    CountersRecord,
    CountsRecord,
    DeadGroupRecord,
    EpochRecord,
    JobRecord,
    LeaseRecord,
    LimitRecord,
    LineRecord,
    PaceRecord,
    PeaksRecord,
    QueueRecord,
    SpecRecord,
    TokenRecord,
)
from taskd.core.schedule_records import FiringRecord, RemovedRecord, StandingRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd.core.working import Working
from taskd_protocol.errors import StoreCorrupt
from taskd_protocol.ids import format_task_id

LOST = "it is listed as going on, and is not there; run `taskd fsck`"
"""Of a workflow."""

LIVES_MAX = 1_000
"""Starts of which it is known how far each came: a peer that was away for longer is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a start reads: all that is in motion, and none of the backlog."""

    counters: CountersRecord | None
    """None: a new store."""
    epoch: EpochRecord | None
    sequence: int = 0
    """Commits in the store."""
    tokens: Sequence[tuple[bytes, TokenRecord]]
    lines: Sequence[tuple[bytes, LineRecord]]
    leases: Sequence[tuple[bytes, LeaseRecord, SpecRecord | None, bytes]]
    """With DETAILS, empty if there are none."""
    newest_id: bytes
    """The last SPEC id; empty in an empty store."""
    dead_groups: Sequence[tuple[bytes, DeadGroupRecord]] = ()
    jobs: Sequence[tuple[bytes, JobRecord]] = ()
    queues: Sequence[tuple[bytes, QueueRecord]] = ()
    counts: Sequence[tuple[bytes, CountsRecord]] = ()
    paces: Sequence[tuple[bytes, PaceRecord]] = ()
    peaks: Sequence[tuple[bytes, PeaksRecord]] = ()
    limits: Sequence[tuple[bytes, LimitRecord]] = ()
    buckets: Sequence[tuple[bytes, BucketRecord]] = ()
    """Of these, by BUCKET id."""
    age: AgeRecord | None = None
    """None: no token was ever taken."""
    drained_agents: Sequence[tuple[bytes, AgentRecord]] = ()
    flows: Sequence[WorkflowRecord] = ()
    """Workflows that have not ended."""
    unread_flows: Sequence[tuple[bytes, str]] = ()
    """Others of which the record cannot be read, and why."""
    lost_flows: Sequence[bytes] = ()
    """Others, by id, of which it is not there."""
    standings: Sequence[tuple[bytes, StandingRecord]] = ()
    removed: Sequence[tuple[bytes, RemovedRecord]] = ()
    """What is left of schedules."""
    unread_standings: Sequence[tuple[bytes, str, int, FiringRecord | None]] = ()
    """Of schedules of which that cannot be read: the name, why, how many decisions there were, the last."""


def restore(w: Working, stored: Stored, now: Now) -> None:
    """Fill an empty working set; the new epoch goes into its first turn.

    Raises:
        StoreCorrupt: The records contradict each other.
    """
    w.epoch = max(stored.epoch.epoch + 1 if stored.epoch else 1, now.wall_ms // 1000)
    lives = stored.epoch.lives if stored.epoch else []
    w.lives = [*lives[1 - LIVES_MAX :], (w.epoch, stored.sequence)]
    w.put(records.META, b"epoch", EpochRecord(w.epoch, w.lives))
    w.ticked_mono_ms = now.mono_ms
    w.age_ahead_ms = (stored.age.age_ms if stored.age else 0) - now.mono_ms
    w.next_lapse_mono_ms = now.mono_ms + lapses.CHECK_MS
    w.timers.wall_ahead_ms = max(_latest_wall_ms(stored), now.wall_ms) - now.mono_ms
    w.tokens = {key_id.decode(): record for key_id, record in stored.tokens}
    w.dead_groups = dict(stored.dead_groups)
    w.queues = {name.decode(): record for name, record in stored.queues}
    w.fair.weights = {
        (queue, key): weight for queue, record in w.queues.items() for key, weight in record.fair_weights.items()
    }
    w.peaks = {name.decode(): record for name, record in stored.peaks}
    w.fair.restore((name.decode(), record) for name, record in stored.paces)
    w.drained_agents = {name.decode(): record for name, record in stored.drained_agents}
    _restore_schedules(w, stored, now)
    w.jobs = dict(stored.jobs)
    for job_id, job in stored.jobs:
        if not job.finished_at_ms:
            jobs.go_on(w, job_id, job)
    _restore_flows(w, stored)
    if stored.counters is not None:
        _restore_counters(w, stored.counters, stored.counts)
    # An id that was purged may be younger than all that are stored, and must not pass for a new one.
    newest_purged = w.counters.purged_to_ms.to_bytes(6, "big") + b"\xff" * 10 if w.counters.purged_to_ms else b""
    w.recent = RecentIds(max(stored.newest_id, newest_purged))
    for line_id, stored_line in stored.lines:
        queue, name, where, fair = stored_line.queue, stored_line.name, stored_line.where, stored_line.fair
        try:
            line = Line(queue, name, where, fair=fair, ready=stored_line.ready)
        except msgspec.MsgspecError:
            line = None
        if line is None or line.id != line_id:
            raise StoreCorrupt(f"line {queue!r}/{name!r} stands under a foreign id; run `taskd fsck`")
        w.adopt_line(line)
        w.dirty_lines[line.id] = line  # the first turn asks for its window
    for task_id, lease, spec, details in stored.leases:
        if spec is None:
            raise StoreCorrupt(f"task {format_task_id(task_id)} is leased and has no spec; run `taskd fsck`")
        _take_up(w, lease, spec, details, now)
    limiting.restore(w, [record for _, record in stored.limits], dict(stored.buckets), now)


def _restore_flows(w: Working, stored: Stored) -> None:
    for record in stored.flows:
        flow = Flow(record)
        w.flows[stem_of(flow.id)] = w.unread[stem_of(flow.id)] = flow
    w.lost_flows = dict.fromkeys(stored.lost_flows, LOST)
    for flow_id, why in (*stored.unread_flows, *w.lost_flows.items()):
        w.effects.append(WorkflowBroken(flow_id, "", why))


def _restore_schedules(w: Working, stored: Stored, now: Now) -> None:
    for name, standing in stored.standings:
        w.schedules.restore(name.decode(), standing)
    w.schedules.left = dict(stored.removed)
    for name, why, sequence, last in stored.unread_standings:
        w.effects.append(ScheduleStopped(name.decode(), why, broken=True))
        # nothing before now fires once it is mended: what was decided of that is not known
        lost = StandingRecord(now.wall_ms, 0, sequence, now.wall_ms, broken=why, last=last)
        w.schedules.adopt(name.decode(), lost)


def _latest_wall_ms(stored: Stored) -> int:
    """Return the latest time that the wall clock is known to have shown: epochs, ids and timers are made by it."""
    epoch_ms = stored.epoch.epoch * 1_000 if stored.epoch else 0
    timers_ms = stored.counters.latest_wall_ms if stored.counters else 0
    return max(epoch_ms, timers_ms, int.from_bytes(stored.newest_id[:6], "big"))


def _restore_counters(w: Working, stored: CountersRecord, of_queues: Sequence[tuple[bytes, CountsRecord]]) -> None:
    counters = w.counters
    for queue, counts in of_queues:
        counters.by_queue[queue.decode()] = {State(state): count for state, count in counts.states.items()}
        if counts.parked:
            counters.parked[queue.decode()] = counts.parked
    counters.ended = {State(state): count for state, count in stored.ended.items()}
    counters.next_order = stored.next_order
    counters.finished_bytes = stored.finished_bytes
    counters.purged_to_ms = stored.purged_to_ms
    counters.latest_wall_ms = stored.latest_wall_ms
    counters.logs_bytes, counters.swept_to = stored.logs_bytes, stored.swept_to
    if counters.parked:
        gates.walk(w)
    w.first_order = counters.next_order


def _take_up(w: Working, lease: LeaseRecord, spec: SpecRecord, details: bytes, now: Now) -> None:
    task = Task(
        spec.spec,
        rank_in(spec),
        spec.created_at_ms,
        spec.owner,
        fresh=False,
        attempt=lease.attempt,
        failures=lease.failures,
        failure=lease.failure,
        past=lease.past,
        logs=lease.logs,
        log_bytes=lease.log_bytes,
        log_bytes_before=lease.log_bytes_before,
        token=lease.token,
        agent=lease.agent,
        granted_at_ms=lease.granted_at_ms,
        cancelling=lease.cancelling,
        details=details,
        revived_at_ms=lease.revived_at_ms,
        started=lease.started,
        granted=lease.granted,
        gates=len(gates.ways(spec.spec)),
        preempted=lease.preempted,
        log_number=lease.log_number,
    )
    if spec.spec.rules.preemptible:
        w.yielding.tasks[spec.spec.id] = task
    agent = w.agents.get(lease.agent)
    if agent is None:
        agent = w.agents[lease.agent] = Agent(name=lease.agent, seen_mono_ms=now.mono_ms)
    agent.leases[lease.token] = task
    agent.granted_bytes += len(spec.spec.payload) + len(details)
    w.tasks[spec.spec.id] = task
