"""That every nominal time of a schedule has exactly one decision: one checker, of what a disk holds.

Shown a disk from batch to batch, also in the simulation. It remembers what it has seen, so that neither the
history's bound nor a crash hides a second decision, or one that is gone.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from taskd.core.firings import plan
from taskd.core.schedule_looks import HISTORY_KEPT
from taskd.core.schedule_records import FiringRecord, ScheduleRecord, StandingRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd_protocol.schedule import SCHEDULE_HEADER, firing_headers
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import workflow_of

BESIDE = frozenset({"triggered", "backfilled"})
"""Outcomes of firings that are none of the nominal times."""

OUTCOMES = frozenset({"fired", "waiting", "skipped", "coalesced"}) | BESIDE


@dataclass
class Seen:
    """What was decided of the times of one schedule since its timing became what it is."""

    created_at_ms: int
    foreign: set[bytes] = field(default_factory=set)
    """Tasks of one of its name before it, whose ids a clock that was put back may make younger than it."""
    decided: dict[int, FiringRecord] = field(default_factory=dict)
    """By nominal time."""
    kept: dict[int, FiringRecord] = field(default_factory=dict)
    """What was looked at, by sequence."""
    decided_to_ms: int = 0


class Decisions:
    """See the module's docstring.

    Attributes:
        fired: Nominal times of which a task was submitted, in all.
        passed_over: Those of which none was.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self.fired = 0
        self.passed_over = 0

    def check(
        self,
        schedules: dict[str, ScheduleRecord],
        standings: dict[str, StandingRecord],
        firings: dict[str, dict[int, FiringRecord]],
        specs: Iterable[TaskSpec],
        workflows: Iterable[WorkflowRecord],
        *,
        begun: Mapping[str, int],
    ) -> None:
        """Compare with what was seen before.

        Args:
            schedules: By name.
            standings: By name.
            firings: By name and sequence.
            specs: Of all tasks that are stored.
            workflows: All that are.
            begun: By name, the sequence of the first decision under the timing of now, where somebody has followed
                each batch; else it is inferred.
        """
        assert schedules.keys() == standings.keys(), "of each schedule it is known where it stands"
        assert {name for name, kept in firings.items() if kept} <= schedules.keys(), "decisions are of a schedule"
        started = {record.spec.id: record for record in workflows if record.schedule}
        submitted = _submitted(specs, started)
        for name in list(self._seen):
            if name not in schedules:
                del self._seen[name]
        for name, record in schedules.items():
            kept = firings.get(name, {})
            assert {firing.outcome for firing in kept.values()} <= OUTCOMES
            _check_numbers(name, standings[name], kept)
            seen = self._seen.get(name)
            if seen is None or seen.created_at_ms != record.created_at_ms:
                ids = {firing.task_id for firing in kept.values()}
                foreign = {task_id for task_id in submitted.get(name, ()) if task_id not in ids}
                seen = self._seen[name] = Seen(record.created_at_ms, foreign)
            own = _own(record, standings[name], kept, begun.get(name))
            self._check_one(name, record, standings[name], {each: kept[each] for each in own}, seen)
            _check_work(record, kept, set(submitted.get(name, ())) - seen.foreign)
            _check_workflows(name, kept, started)

    def _check_one(
        self, name: str, record: ScheduleRecord, standing: StandingRecord, kept: dict[int, FiringRecord], seen: Seen
    ) -> None:
        timing = plan(record.schedule.timing, record.created_at_ms)
        assert standing.decided_to_ms >= seen.decided_to_ms, f"{name} forgot what was decided"
        new: list[int] = []
        for sequence, firing in kept.items():
            if seen.kept.get(sequence) == firing:
                continue
            seen.kept[sequence] = firing
            times = [each.at_ms for each in timing.after(firing.at_ms - 1, firing.until_ms)]
            assert len(times) == firing.count
            assert (times[0], times[-1]) == (firing.at_ms, firing.until_ms)
            for at_ms in times:
                before = seen.decided.get(at_ms)
                assert before is None or _may_follow(before, firing), f"{name} decided twice on {at_ms}"
                seen.decided[at_ms] = firing
                if before is None:
                    new.append(at_ms)
                    self.fired += firing.outcome in {"fired", "waiting"}
                    self.passed_over += firing.outcome not in {"fired", "waiting"}
        after_ms = max(seen.decided_to_ms, record.created_at_ms)
        due = [each.at_ms for each in timing.after(after_ms, standing.decided_to_ms)]
        assert due == sorted(new), f"{name} has not decided on each of its times, in their order"
        seen.decided_to_ms = standing.decided_to_ms


def _own(
    record: ScheduleRecord, standing: StandingRecord, kept: dict[int, FiringRecord], begun: int | None
) -> list[int]:
    """Return which decisions are on times of the schedule as it is now, in order.

    Where nobody knows where they begin: times rise with the decisions on them, up to how far is decided; under a wall
    clock that was put back, those of before a change lie later, mostly.
    """
    if begun is not None:
        return [sequence for sequence in sorted(kept) if sequence >= begun and kept[sequence].outcome not in BESIDE]
    own: list[int] = []
    next_ms = standing.decided_to_ms + 1
    for sequence in sorted(kept, reverse=True):
        firing = kept[sequence]
        if firing.outcome in BESIDE:
            continue
        if not record.created_at_ms < firing.at_ms < next_ms:
            break
        own.append(sequence)
        next_ms = firing.at_ms
    return own[::-1]


def _may_follow(before: FiringRecord, after: FiringRecord) -> bool:
    """Tell whether one decision is the other, or what became of it."""
    if before.outcome == "waiting":
        return after.outcome in {"waiting", "fired", "skipped"}
    return (before.outcome, before.reason, before.task_id) == (after.outcome, after.reason, after.task_id)


def _check_numbers(name: str, standing: StandingRecord, kept: dict[int, FiringRecord]) -> None:
    first = max(0, standing.sequence - HISTORY_KEPT)
    assert sorted(kept) == list(range(first, standing.sequence)), f"the newest decisions of {name} are kept, no others"
    assert standing.last == kept.get(standing.sequence - 1)
    if standing.waiting is not None:
        assert standing.waiting_sequence < first or kept[standing.waiting_sequence] == standing.waiting
    assert sum(firing.outcome == "waiting" for firing in kept.values()) <= (standing.waiting is not None)


def _check_work(record: ScheduleRecord, kept: dict[int, FiringRecord], submitted: Collection[bytes]) -> None:
    """No task or workflow without its decision, as far as those are kept; and of a decision one of them."""
    name, firings = record.schedule.name, kept.values()
    ids = [firing.task_id for firing in firings if firing.task_id]
    assert len(ids) == len(set(ids)), f"two decisions of {name} have one task, or one workflow"
    if min(kept, default=0) or any(firing.outcome == "backfilled" for firing in firings):
        return  # some decisions are gone, or tell of several tasks
    own = {task_id for task_id in submitted if int.from_bytes(task_id[:6], "big") > record.created_at_ms}
    assert own <= set(ids), f"{name} submitted what no decision tells of"


def _check_workflows(name: str, kept: dict[int, FiringRecord], started: dict[bytes, WorkflowRecord]) -> None:
    """A workflow is of the schedule, and the time, that was decided on."""
    for firing in kept.values():
        workflow = started.get(firing.task_id)
        assert workflow is None or (workflow.schedule, workflow.scheduled_for_ms) == (name, firing.at_ms)


def _submitted(specs: Iterable[TaskSpec], started: dict[bytes, WorkflowRecord]) -> dict[str, list[bytes]]:
    """Return what schedules have submitted, by schedule: tasks, and workflows, whose tasks say of which they are."""
    found: dict[str, list[bytes]] = {}
    for workflow_id, record in started.items():
        found.setdefault(record.schedule, []).append(workflow_id)
    for spec in specs:
        headers, workflow = spec.rules.headers or {}, started.get(workflow_of(spec.id))
        if workflow is not None:
            assert headers.items() >= firing_headers(workflow.schedule, workflow.scheduled_for_ms).items()
        elif SCHEDULE_HEADER in headers:
            found.setdefault(headers[SCHEDULE_HEADER], []).append(spec.id)
    return found
