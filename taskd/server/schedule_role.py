"""What clients ask of schedules, and how they are answered."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from taskd.core import schedule_commands as sc
from taskd.core.commands import Answer
from taskd.server import schedule_views
from taskd.server.services import Services
from taskd.server.session import Talk, error_message
from taskd_protocol import messages as m
from taskd_protocol import schedule_messages as sm
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import TaskdError

ScheduleRequest = (
    sm.ScheduleSet
    | sm.ScheduleSync
    | sm.ScheduleList
    | sm.ScheduleOrder
    | sm.ScheduleTrigger
    | sm.ScheduleBackfill
    | sm.ScheduleHistory
    | sm.SchedulePreview
)


class Read(Protocol):
    """Answers a request by a read, beside others."""

    def __call__(self, request_id: int, work: Callable[[], Awaitable[m.Message]], /) -> None:
        """Begin it."""


class Scheduling:
    """The part of one session that is about schedules."""

    def __init__(self, session: Talk, services: Services, read: Read) -> None:
        self._session = session
        self._services = services
        self._read = read

    def receive(self, message: ScheduleRequest) -> None:
        """Take a request; it is answered in its turn.

        Raises:
            TaskdError: It is refused at once.
        """
        services, owner = self._services, self._session.key_id
        match message:
            case sm.ScheduleSet():
                self._ask(message.request_id, sc.PutSchedule(owner, message.schedule, message.only_new))
            case sm.ScheduleSync():
                self._ask(message.request_id, sc.SyncSchedules(owner, message.source, message.schedules, message.prune))
            case sm.ScheduleOrder():
                self._ask(message.request_id, sc.OrderSchedule(message.name, message.action))
            case sm.ScheduleTrigger():
                self._refuse_when_full()
                self._ask(message.request_id, sc.TriggerSchedule(message.name, message.id))
            case sm.ScheduleBackfill(dry_run=True):
                self._read(message.request_id, partial(schedule_views.dry_run, services, message))
            case sm.ScheduleBackfill():
                self._refuse_when_full()
                command = sc.BackfillSchedule(message.name, message.id, message.from_ms, message.until_ms)
                self._ask(message.request_id, command)
            case sm.ScheduleList():
                self._read(message.request_id, partial(schedule_views.list_schedules, services, message))
            case sm.ScheduleHistory():
                self._read(message.request_id, partial(schedule_views.list_firings, services, message))
            case sm.SchedulePreview():
                self._read(message.request_id, partial(schedule_views.preview, services, message))

    def _refuse_when_full(self) -> None:
        full = self._services.room_on_disk()
        if full is not None:
            raise full

    def _ask(self, request_id: int, command: sc.ScheduleCommand) -> None:
        self._services.loop.ask(command, partial(self._answered, request_id))

    def _answered(self, request_id: int, answer: Answer | TaskdError) -> None:
        match answer:
            case TaskdError():
                self._session.send(error_message(request_id, answer))
            case sc.SchedulesChanged():
                added, changed, removed, same, orphaned = answer
                self._session.send(sm.ScheduleChanges(request_id, added, changed, removed, same, list(orphaned)))
            case sc.ScheduleTriggered():
                self._session.send(sm.ScheduleTriggered(request_id, answer.id))
            case sc.ScheduleBackfilled():
                self._session.send(sm.ScheduleBackfilled(request_id, answer.at_ms, answer.until_ms))
            case _:
                self._session.send(Done(request_id))
