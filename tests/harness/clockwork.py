"""Schedules over the core's shell: made and looked at, with every decision checked between batches."""

from collections.abc import Iterable, Mapping, Sequence

from harness.core import Disk, Shell
from harness.decisions import Decisions
from taskd.core import records
from taskd.core.records import SpecRecord
from taskd.core.schedule_commands import PutSchedule, SchedulesChanged
from taskd.core.schedule_looks import firing_prefix, sequence_of
from taskd.core.schedule_records import FiringRecord, RemovedRecord, ScheduleRecord, StandingRecord
from taskd.core.workflow_records import WorkflowRecord
from taskd_protocol.schedule import NO_TASK, NO_TASK_ID, Schedule, ScheduledWorkflow, Timing
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import Node, is_workflow_id

MINUTE_MS = 60_000
EACH_MINUTE = Timing(cron=("* * * * *",))


def a_schedule(
    name: str = "tick",
    timing: Timing = EACH_MINUTE,
    *,
    task: TaskSpec | None = None,
    overlap: str = "allow",
    missed: str = "latest",
    missed_max: int = 0,
    pause_after: int = 0,
    jitter_ms: int = 0,
    nodes: Sequence[Node] = (),
) -> Schedule:
    """Return a schedule of ``m.f``, or of a workflow of these nodes, each minute, but for what is said."""
    return Schedule(
        name,
        timing,
        NO_TASK if nodes else task or TaskSpec(NO_TASK_ID, "m.f", b"\x90"),
        jitter_ms,
        overlap,
        missed,
        missed_max,
        pause_after,
        workflow=ScheduledWorkflow("wf", list(nodes)) if nodes else None,
    )


def put(shell: Shell, schedule: Schedule) -> SchedulesChanged:
    """Keep a schedule."""
    answer = shell.do(PutSchedule("client", schedule))
    assert isinstance(answer, SchedulesChanged)
    return answer


def firings_of(disk: Disk, name: str = "tick") -> list[FiringRecord]:
    """Return what is kept of a schedule's decisions, in order."""
    prefix = firing_prefix(name)
    return [disk.get(records.FIRING, i, FiringRecord) for i in disk.scan(records.FIRING, prefix)]


def outcomes_of(disk: Disk, name: str = "tick") -> list[tuple[str, int]]:
    """Return what became of the times, in order: outcome, and of how many."""
    return [(firing.outcome, firing.count) for firing in firings_of(disk, name)]


def check_schedules(disk: Disk, decisions: Decisions, begun: Mapping[str, int] | None = None) -> None:
    """Check the decisions on a disk, between two batches; ``begun`` as ``Decisions.check`` has it."""
    schedules = {i.decode(): record for i, record in disk.of(records.SCHEDULE, ScheduleRecord).items()}
    names = {firing_prefix(name): name for name in schedules}
    firings: dict[str, dict[int, FiringRecord]] = {}
    removed = disk.of(records.REMOVED, RemovedRecord)
    for firing_id, firing in disk.of(records.FIRING, FiringRecord).items():
        if firing_id[:16] in removed:
            assert firing_id[:16] not in names, "a schedule has none of before"
            assert removed[firing_id[:16]].first <= sequence_of(firing_id) < removed[firing_id[:16]].end
            continue
        name = names.get(firing_id[:16], firing_id[:16].hex())
        firings.setdefault(name, {})[int.from_bytes(firing_id[16:], "big")] = firing
    standings = {i.decode(): record for i, record in disk.of(records.STANDING, StandingRecord).items()}
    workflows = disk.of(records.WORKFLOW, WorkflowRecord)
    decisions.check(schedules, standings, firings, _specs(disk), workflows.values(), begun=begun or {})
    _check_running(disk, standings)


def _check_running(disk: Disk, standings: dict[str, StandingRecord]) -> None:
    """What a schedule waits for goes on."""
    for standing in standings.values():
        for task_id in standing.running:
            if is_workflow_id(task_id):
                assert (records.OPEN, task_id) in disk.values
                continue
            assert disk.find(records.SPEC, task_id, SpecRecord) is not None
            state = disk.find(records.STATE, task_id, records.StateRecord)
            assert state is None or not state.finished_at_ms


def _specs(disk: Disk) -> Iterable[TaskSpec]:
    return [record.spec for record in disk.of(records.SPEC, SpecRecord).values()]
