"""What is asked of schedules, and what is answered; see ``taskd.core.commands``."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from taskd_protocol.schedule import Schedule


class PutSchedule(msgspec.Struct, frozen=True):
    """Keep this schedule, or change the one of its name, which was made by hand. Answer: ``SchedulesChanged``."""

    owner: str
    """Key id of the token that asks; its firings submit in its name."""
    schedule: Schedule
    only_new: bool = False
    """Refuse to change another one."""


class SyncSchedules(msgspec.Struct, frozen=True):
    """Have a module's schedules be these; others that it defined fire no more. Answer: ``SchedulesChanged``."""

    owner: str
    source: str
    """The module."""
    schedules: Sequence[Schedule]
    prune: bool = False
    """Remove those that it defines no longer."""


class SchedulesChanged(NamedTuple):
    """So it stands in the store. Names, sorted."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    same: list[str]
    orphaned: tuple[str, ...] = ()
    """Of those that are kept, what the module of a sync has defined and defines no longer."""


class OrderSchedule(msgspec.Struct, frozen=True):
    """Pause, resume or remove a schedule."""

    name: str
    action: str


class TriggerSchedule(msgspec.Struct, frozen=True):
    """Submit a schedule's work now, beside its times. Answer: ``ScheduleTriggered``."""

    name: str
    id: bytes
    """Of the task: 16 bytes, UUIDv7, made before the first try."""


class ScheduleTriggered(NamedTuple):
    """The task is kept."""

    id: bytes


class BackfillSchedule(msgspec.Struct, frozen=True):
    """Submit a schedule's work for its times in the past. Answer: ``ScheduleBackfilled``."""

    name: str
    id: bytes
    """16 bytes, UUIDv7, made before the first try; the tasks' ids follow from it."""
    from_ms: int
    until_ms: int


class ScheduleBackfilled(NamedTuple):
    """Their tasks are kept."""

    at_ms: list[int]
    until_ms: int
    """Up to here; less than was asked if these were as many as one request may be for."""


class LookAtSchedules(msgspec.Struct, frozen=True):
    """Decide on what is due of these schedules."""

    names: Sequence[str]


ScheduleCommand = PutSchedule | SyncSchedules | OrderSchedule | TriggerSchedule | BackfillSchedule | LookAtSchedules
ScheduleAnswer = SchedulesChanged | ScheduleTriggered | ScheduleBackfilled
