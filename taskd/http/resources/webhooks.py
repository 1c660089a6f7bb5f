"""Webhooks: having events posted elsewhere."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.text.values import iso
from taskd_protocol.connection_messages import Done
from taskd_protocol.event_messages import (
    WebhookList,
    WebhookMade,
    WebhookOrder,
    WebhookPage,
    WebhookSet,
    WebhookView,
)

_Word = Annotated[str, msgspec.Meta(max_length=256)]


class WebhookDocument(msgspec.Struct):
    """A webhook."""

    name: str
    url: str
    topics: list[str]
    queue: str | None
    task_name: str | None
    created_at: str | None
    paused: bool
    after: int
    """The number of the last event that was delivered, or is a dead letter."""
    failures: int
    """In a row."""
    error: str | None
    """Of the last of them."""
    dead: int
    """Dead letters."""
    lost: int
    """How often events were lost to it: they were kept no longer, or there was no room for another dead letter."""


class WebhooksDocument(msgspec.Struct):
    """All webhooks, by name."""

    webhooks: list[WebhookDocument]


class WebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook to be made, or changed."""

    name: _Word
    url: Annotated[str, msgspec.Meta(max_length=2_000)]
    topics: Annotated[list[_Word], msgspec.Meta(max_length=32)] = []
    """How the words of its events begin; empty: all."""
    queue: _Word = ""
    task_name: _Word = ""


class MadeDocument(msgspec.Struct):
    """It is kept."""

    secret: str | None
    """What its posts are signed with, told this once; null: it had one."""


class Ordered(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook, and what is to become of it."""

    name: str
    order: Literal["pause", "resume", "remove", "redrive", "drop"]
    """``redrive`` posts its dead letters once more, ``drop`` drops them."""


async def list_webhooks(call: Call[Nothing, Nothing]) -> WebhooksDocument:
    """List the webhooks: where they post, and whether that is taken."""
    page = await call.ask(WebhookList(0), WebhookPage)
    return WebhooksDocument([_document(view) for view in page.webhooks])


async def set_webhook(call: Call[Nothing, WebhookBody]) -> MadeDocument:
    """Post events to a URL from now on; one of the name is changed, and keeps its secret and its place."""
    body = call.body
    made = await call.ask(WebhookSet(0, body.name, body.url, body.topics, body.queue, body.task_name), WebhookMade)
    return MadeDocument(made.secret or None)


async def order_webhook(call: Call[Ordered, Nothing]) -> WebhooksDocument:
    """Pause, resume or remove a webhook, or have its dead letters posted once more, or dropped."""
    await call.ask(WebhookOrder(0, call.asked.name, call.asked.order), Done)
    page = await call.ask(WebhookList(0), WebhookPage)
    return WebhooksDocument([_document(view) for view in page.webhooks])


def _document(view: WebhookView) -> WebhookDocument:
    return WebhookDocument(
        name=view.name,
        url=view.url,
        topics=list(view.topics),
        queue=view.queue or None,
        task_name=view.task_name or None,
        created_at=iso(view.created_at_ms),
        paused=view.paused,
        after=view.after,
        failures=view.failures,
        error=view.error or None,
        dead=view.letters,
        lost=view.lost,
    )


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/webhooks", list_webhooks, Nothing, WebhooksDocument, WebhookList),
    post("/webhooks", set_webhook, Nothing, WebhookBody, MadeDocument, WebhookSet),
    post("/webhooks/{name:path}/{order}", order_webhook, Ordered, Nothing, WebhooksDocument, WebhookOrder, WebhookList),
)
