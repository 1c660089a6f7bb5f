"""What clients ask of limits and paused queues, and how they are answered."""

from functools import partial

from taskd.core.bounds import Gauge
from taskd.core.commands import Answer, Command, LimitsChanged, OrderQueue, RemoveLimit, SetLimit, SyncLimits
from taskd.server.services import Services
from taskd.server.session import Talk, error_message
from taskd_protocol import limit_messages as lm
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import TaskdError

LimitRequest = lm.QueuePause | lm.LimitSet | lm.LimitSync | lm.LimitRemove | lm.LimitList


class Limiting:
    """The part of one session that is about limits."""

    def __init__(self, session: Talk, services: Services) -> None:
        self._session = session
        self._services = services

    def receive(self, message: LimitRequest) -> None:
        """Take a request; it is answered in its turn.

        Raises:
            TaskdError: It is refused at once.
        """
        match message:
            case lm.QueuePause():
                self._ask(message.request_id, OrderQueue(message.queue, drain=False, pause=True))
            case lm.LimitSet():
                self._ask(message.request_id, SetLimit(message.limit))
            case lm.LimitSync():
                self._ask(message.request_id, SyncLimits(message.source, message.limits))
            case lm.LimitRemove():
                self._ask(message.request_id, RemoveLimit(message.name))
            case lm.LimitList():
                page = lm.LimitPage(message.request_id, self._views())
                self._services.loop.after_durable(partial(self._session.send, page))

    def _views(self) -> list[lm.LimitView]:
        mono_ms = self._services.loop.now().mono_ms
        return [_view(gauge, mono_ms) for _, gauge in sorted(self._services.working.limits.items())]

    def _ask(self, request_id: int, command: Command) -> None:
        self._services.loop.ask(command, partial(self._answered, request_id))

    def _answered(self, request_id: int, answer: Answer | TaskdError) -> None:
        match answer:
            case TaskdError():
                self._session.send(error_message(request_id, answer))
            case LimitsChanged():
                self._session.send(lm.LimitChanges(request_id, *answer))
            case _:
                self._session.send(Done(request_id))


def _view(gauge: Gauge, mono_ms: int) -> lm.LimitView:
    limit = gauge.limit
    left = gauge.level_at(mono_ms) // limit.period_ms if limit.tokens and not limit.is_by_key else -1
    return lm.LimitView(limit, gauge.running, left)
