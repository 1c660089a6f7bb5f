"""Schedules: what clients ask of them, by chance."""

import random
from contextlib import suppress
from typing import TypeVar

from msgspec.structs import replace

from simulation.bodies import BLOCKING, Body
from simulation.clients import ClientMachine, perform
from taskd.client import operations
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import TaskdError
from taskd_protocol.messages import ToPeer, ToServer
from taskd_protocol.schedule import MISSED, NO_TASK, NO_TASK_ID, OVERLAPS, Schedule, ScheduledWorkflow, Timing
from taskd_protocol.schedule_messages import (
    ScheduleBackfill,
    ScheduleBackfilled,
    ScheduleChanges,
    ScheduleList,
    ScheduleOrder,
    SchedulePage,
    ScheduleSet,
    ScheduleTrigger,
    ScheduleTriggered,
)
from taskd_protocol.task import Retry, TaskSpec
from taskd_protocol.workflow import ON_FAILURE, Node

ReplyT = TypeVar("ReplyT", bound=ToPeer)

NAMES = ("s0", "s1", "s2")
GRAPH = "s2"
"""The one whose work is a workflow."""
TIMINGS = (
    Timing(every_ms=3_000),
    Timing(every_ms=7_000),
    Timing(cron=("*/10 * * * * *",), not_cron=("30 * * * * *",)),
    Timing(cron=("* * * * *", "*/20 30-59 * * * *"), zone="Europe/Oslo", fold="both"),
)
BACKFILL_MS = 20_000


async def ask_of_schedules(machine: ClientMachine, rng: random.Random) -> None:
    """Make, order, trigger or fill in one."""
    name, chance = rng.choice(NAMES), rng.random()
    if chance < 0.5:
        await _call(machine, ScheduleSet(0, _make(name, rng)), ScheduleChanges)
    elif chance < 0.8:
        await _call(machine, ScheduleOrder(0, name, rng.choice(["pause", "resume", "resume", "remove"])), Done)
    elif chance < 0.9:
        [task_id] = machine.make_ids(1)
        await _call(machine, ScheduleTrigger(0, name, task_id), ScheduleTriggered)
    else:
        [request] = machine.make_ids(1)
        now_ms = int.from_bytes(request[:6], "big")
        ask = ScheduleBackfill(0, name, request, now_ms - BACKFILL_MS, now_ms - 1_000)
        await _call(machine, ask, ScheduleBackfilled)


async def remove_schedules(machine: ClientMachine) -> None:
    """Remove all, so that what is left can end."""
    page = await _call(machine, ScheduleList(0), SchedulePage)
    for view in page.schedules if page is not None else ():
        await _call(machine, ScheduleOrder(0, view.schedule.name, "remove"), Done)


def _make(name: str, rng: random.Random) -> Schedule:
    body = Body(rng.choice([0, 200, 4_000]), rng.choice(["return", "return", "raise"]), rng.choice([2, 1_000]))
    task = TaskSpec(NO_TASK_ID, BLOCKING, body.pack(), retry=Retry(rng.randint(1, 2), base_ms=300))
    missed = rng.choice(MISSED)
    made = Schedule(
        name,
        rng.choice(TIMINGS),
        task,
        rng.choice([0, 0, 2_000]),
        rng.choice(OVERLAPS),
        missed,
        3 if missed == "all" else 0,
        rng.choice([0, 2]),
    )
    return replace(made, task=NO_TASK, jitter_ms=0, workflow=_graph(task)) if name == GRAPH else made


def _graph(task: TaskSpec) -> ScheduledWorkflow:
    """Return the task, one after it, and one for when they fail."""
    task = replace(task, id=b"")
    first, second = Node("first", task=task), Node("second", task=task, after=[0], when="all_done")
    return ScheduledWorkflow(
        "night", [first, second, Node("tell", task=task, after=[1], phase=ON_FAILURE, when="all_done")]
    )


async def _call(machine: ClientMachine, message: ToServer, reply: type[ReplyT]) -> ReplyT | None:
    """Ask, and put up with a refusal: there is no such schedule, or its queue is drained."""
    assert machine.link is not None
    with suppress(TaskdError):
        return await perform(operations.call(machine.link, message, reply, None))
    return None
