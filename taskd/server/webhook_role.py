"""Webhooks, as a session asks of them."""

import base64
from typing import Final

from taskd.core.commands import GoOn
from taskd.core.webhook_records import WebhookRecord
from taskd.server.posting import check_url
from taskd.server.session import Talk
from taskd.server.watching import check_wanted
from taskd.server.webhooks import Webhooks
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest
from taskd_protocol.event_messages import (
    EventsFollow,
    WebhookList,
    WebhookMade,
    WebhookOrder,
    WebhookPage,
    WebhookSet,
    WebhookView,
)
from taskd_protocol.messages import ToPeer
from taskd_protocol.task import check_name

SECRET_BYTES: Final = 24

WebhookRequest = WebhookSet | WebhookList | WebhookOrder


class WebhookRole:
    """The part of one session that is about webhooks."""

    def __init__(self, session: Talk) -> None:
        self._session = session
        self._services = session.services

    def receive(self, message: WebhookRequest) -> None:
        """Take a message.

        Raises:
            BadRequest: Something in it is out of range, or there is no such webhook.
        """
        watch = self._services.watch
        if watch is None:
            raise BadRequest("this server keeps no events, and so has no webhooks")
        match message:
            case WebhookSet():
                self._set(watch.webhooks, message)
            case WebhookList():
                self._tell_kept(WebhookPage(message.request_id, _views(watch.webhooks)))
            case WebhookOrder():
                watch.webhooks.order(message.name, message.order, self._services.platform.clock.wall_ms())
                self._tell_kept(Done(message.request_id))

    def _set(self, webhooks: Webhooks, message: WebhookSet) -> None:
        check_name("webhook", message.name)
        check_url(message.url)
        check_wanted(EventsFollow(0, topics=message.topics, queue=message.queue, name=message.task_name))
        platform, before = self._services.platform, webhooks.hooks.get(message.name)
        watch = self._services.watch
        assert watch is not None
        record = WebhookRecord(
            url=message.url,
            secret=platform.token_bytes(SECRET_BYTES) if before is None else before.secret,
            topics=message.topics,
            queue=message.queue,
            name=message.task_name,
            created_at_ms=platform.clock.wall_ms() if before is None else before.created_at_ms,
            after=watch.journal.told if before is None else before.after,
            lost=0 if before is None else before.lost,
        )
        webhooks.put(message.name, record)
        secret = f"whsec_{base64.b64encode(record.secret).decode()}" if before is None else ""
        self._tell_kept(WebhookMade(message.request_id, secret))

    def _tell_kept(self, message: ToPeer) -> None:
        """Answer once what was ordered, or is shown, is durable: the next turn writes it."""
        self._services.loop.ask(GoOn(), lambda _: self._session.send(message))


def _views(webhooks: Webhooks) -> list[WebhookView]:
    return [
        WebhookView(
            name,
            hook.url,
            hook.topics,
            hook.queue,
            hook.name,
            hook.created_at_ms,
            hook.paused,
            hook.after,
            hook.failures,
            hook.error,
            sum(1 for _ in webhooks.letters_of(name)),
            hook.lost,
        )
        for name, hook in sorted(webhooks.hooks.items())
    ]
