"""Schedules, as users make them: in code beside a task or a workflow, or by a call; and handles to those kept."""

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, ParamSpec, TypeAlias, TypedDict, TypeVar, cast

import msgspec

from taskd.client import operations
from taskd.client.client import TIMEOUT_S
from taskd.client.handle import Batch, TaskHandle
from taskd.client.timing import Missed, Overlap, When
from taskd.client.waiting import Steps, arun, run
from taskd.client.workflow import Workflow
from taskd_protocol import schedule as wire
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest, ScheduleUnknown
from taskd_protocol.limits import PAYLOAD_BYTES_MAX
from taskd_protocol.schedule_messages import (
    ScheduleChanges,
    ScheduleList,
    ScheduleOrder,
    SchedulePage,
    ScheduleSet,
    ScheduleTrigger,
    ScheduleTriggered,
    ScheduleView,
)

if TYPE_CHECKING:
    from taskd.client.client import Client
    from taskd.client.middleware import TaskFunction
    from taskd.client.runs import WorkflowRun
    from taskd.client.task import Submitter

P = ParamSpec("P")
R = TypeVar("R")

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule beside what it submits: ``@app.task(schedule=Schedule(when=Cron("@daily"), args=(3,)))``.

    Of a workflow, its rules are about workflows where they say *task*.
    """

    when: When
    name: str = ""
    """Empty: the task's name, or the workflow's."""
    args: Sequence[object] = ()
    """What the task is called with, or the function that writes the workflow."""
    kwargs: Mapping[str, object] = {}
    overlap: Overlap = "skip"
    """While the task of a firing before has not ended: ``"skip"`` this one, ``"allow"`` both, ``"queue_one"`` until the
    end, or ``"cancel_running"``."""
    missed: Missed = "latest"
    """Of the times that passed while the server was down or the schedule paused fire the ``"latest"``, none,
    ``"skip"``, or ``"all"``, the last ``missed_max`` of them."""
    missed_max: int = 0
    jitter: float = 0.0
    """Seconds that each task waits at most, so that not all begin at once; a workflow begins with a sleep instead."""
    pause_after: int = 0
    """It is paused after so many tasks in a row have failed; 0: never."""

    def to_wire(self, work: "Submitter[P, R] | Workflow") -> wire.Schedule:
        """Return it as the server is told, for this task or workflow.

        Raises:
            BadRequest: A field is out of its range.
            WorkflowInvalid: The workflow cannot run as it is written.
            TypeError: The task does not take these arguments.
            PayloadUnpackable: An argument is no data that can travel.
        """
        if not isinstance(self.when, When):
            raise BadRequest(f'schedule of {work.name!r} says no time: write it as Cron("0 3 * * *") or Every(60)')
        if not math.isfinite(self.jitter):
            raise BadRequest("jitter is a finite number of seconds")
        workflow = None
        if isinstance(work, Workflow):
            if self.args or self.kwargs:
                raise BadRequest(f"workflow {work.name!r} takes no arguments: its nodes have theirs")
            work.check()
            workflow = wire.ScheduledWorkflow(work.name, work.nodes, work.policy)
        made = wire.Schedule(
            self.name or work.name,
            self.when.timing,
            wire.NO_TASK if isinstance(work, Workflow) else work.work(self.args, self.kwargs),
            round(self.jitter * 1000),
            self.overlap,
            self.missed,
            self.missed_max,
            self.pause_after,
            workflow=workflow,
        )
        wire.check_schedule(made, PAYLOAD_BYTES_MAX)
        return made


class ScheduleRules(TypedDict, total=False):
    """What ``App.schedule`` takes beside when and what; each as in ``Schedule``."""

    overlap: Overlap
    missed: Missed
    missed_max: int
    jitter: float
    pause_after: int


Declared: TypeAlias = When | Schedule | Sequence[When | Schedule] | None
"""What ``@app.task(schedule=…)`` takes, and ``@app.scheduled(…)``."""


def declared(schedules: Declared, task: "Submitter[P, R]") -> list[wire.Schedule]:
    """Return what a task's decorator says of schedules, as the server is told.

    Raises:
        BadRequest: A field is out of its range, or two of one task have one name.
    """
    made = [each.to_wire(task) for each in _each(schedules)]
    if len({each.name for each in made}) < len(made):
        raise BadRequest(f"two schedules of task {task.name!r} have one name: give each a name= of its own")
    return made


def written(schedules: Declared, write: Callable[P, Workflow]) -> list[wire.Schedule]:
    """Return what is said of schedules of the workflow that a function writes, as the server is told.

    Raises:
        BadRequest: A field is out of its range, or the function returns no workflow.
        WorkflowInvalid: What it writes cannot run.
        TypeError: It does not take the arguments of one.
    """
    made: list[wire.Schedule] = []
    for each in _each(schedules):
        workflow = cast("TaskFunction", write)(*each.args, **each.kwargs)
        if not isinstance(workflow, Workflow):
            raise BadRequest(f"{write.__qualname__}() returns {workflow!r:.40}, and no workflow: end it with return wf")
        made.append(msgspec.structs.replace(each, args=(), kwargs={}).to_wire(workflow))
    return made


def _each(schedules: Declared) -> list[Schedule]:
    if schedules is None:
        return []
    several: Iterable[When | Schedule] = [schedules] if isinstance(schedules, When | Schedule) else schedules
    return [each if isinstance(each, Schedule) else Schedule(when=each) for each in several]


def keep(client: "Client", schedule: wire.Schedule, timeout_s: float) -> "Steps[ScheduleHandle]":
    """Have a server keep a schedule, as it is now."""
    yield from operations.call(client.link, ScheduleSet(0, schedule), ScheduleChanges, timeout_s)
    return ScheduleHandle(client, schedule.name, timeout_s)


class ScheduleHandle:
    """A schedule that a server keeps. The names with an ``a`` are for asyncio and trio."""

    __slots__ = ("_client", "_timeout_s", "name")

    def __init__(self, client: "Client", name: str, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self.name = name

    def pause(self) -> None:
        """Have it fire no more, until it is resumed."""
        run(self._order("pause"))

    async def apause(self) -> None:
        """Have it fire no more; see ``pause``."""
        await arun(self._order("pause"))

    def resume(self) -> None:
        """Have it fire again; what it missed meanwhile is as its ``missed`` says."""
        run(self._order("resume"))

    async def aresume(self) -> None:
        """Have it fire again; see ``resume``."""
        await arun(self._order("resume"))

    def remove(self) -> None:
        """Remove it, with its history. What it has submitted goes on."""
        run(self._order("remove"))

    async def aremove(self) -> None:
        """Remove it; see ``remove``."""
        await arun(self._order("remove"))

    def trigger(self) -> TaskHandle[object]:
        """Submit its task now, beside its times, also while it is paused.

        Raises:
            BadRequest: It starts a workflow: ``trigger_workflow`` does.
        """
        return run(self._trigger())

    async def atrigger(self) -> TaskHandle[object]:
        """Submit its work now; see ``trigger``."""
        return await arun(self._trigger())

    def trigger_workflow(self) -> "WorkflowRun":
        """Start its workflow now, beside its times, also while it is paused.

        Raises:
            BadRequest: It submits a task: ``trigger`` does.
        """
        return run(self._trigger_workflow())

    async def atrigger_workflow(self) -> "WorkflowRun":
        """Start its workflow now; see ``trigger_workflow``."""
        return await arun(self._trigger_workflow())

    def state(self) -> str:
        """Return ``active``, ``paused``, ``broken``, or ``done``: it fires no more.

        Raises:
            ScheduleUnknown: It is not kept any more.
        """
        return run(self._view()).state

    async def astate(self) -> str:
        """Return where it stands; see ``state``."""
        return (await arun(self._view())).state

    def next(self) -> dt.datetime | None:
        """Return when it fires next, in UTC; None: not any more, as it stands."""
        return _next(run(self._view()))

    async def anext(self) -> dt.datetime | None:
        """Return when it fires next; see ``next``."""
        return _next(await arun(self._view()))

    def _order(self, action: str) -> Steps[None]:
        yield from operations.call(self._client.link, ScheduleOrder(0, self.name, action), Done, self._timeout_s)

    def _trigger(self) -> Steps[TaskHandle[object]]:
        task_id = yield from self._start(is_workflow=False)
        return TaskHandle(task_id, Batch(self._client.link))

    def _trigger_workflow(self) -> "Steps[WorkflowRun]":
        from taskd.client.runs import WorkflowRun  # noqa: PLC0415 - not for workers that start none

        workflow_id = yield from self._start(is_workflow=True)
        return WorkflowRun(workflow_id, self._client.link)

    def _start(self, *, is_workflow: bool) -> Steps[bytes]:
        view = yield from self._view()
        if (view.schedule.workflow is not None) != is_workflow:
            what, other = ("a task", "trigger()") if is_workflow else ("a workflow", "trigger_workflow()")
            raise BadRequest(f"schedule {self.name[:64]!r} submits {what}: call {other}")
        [request], _ = self._client.make_ids_nowait(1, 0)
        message = ScheduleTrigger(0, self.name, request)
        told = yield from operations.call(self._client.link, message, ScheduleTriggered, self._timeout_s)
        return told.id

    def _view(self) -> Steps[ScheduleView]:
        message = ScheduleList(0, [self.name])
        page = yield from operations.call(self._client.link, message, SchedulePage, self._timeout_s)
        if not page.schedules:
            raise ScheduleUnknown(f"no schedule named {self.name[:64]!r} is kept; `taskd schedule ls` lists them")
        return page.schedules[0]

    def __repr__(self) -> str:
        """Show the name."""
        return f"<ScheduleHandle {self.name}>"


def _next(view: ScheduleView) -> dt.datetime | None:
    return None if view.next_at_ms is None else _EPOCH + dt.timedelta(milliseconds=view.next_at_ms)
