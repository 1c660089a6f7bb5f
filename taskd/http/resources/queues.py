"""Queues: how much waits where; pausing, draining, resuming and weighing them."""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.text.documents import QueueDocument, queue_document
from taskd_protocol.connection_messages import Done
from taskd_protocol.house_messages import QueueDrain, QueueList, QueuePage, QueueWeigh
from taskd_protocol.limit_messages import QueuePause
from taskd_protocol.limits import QUEUE_WEIGHT_MAX
from taskd_protocol.messages import ToServer


class Queues(msgspec.Struct):
    """The queues, by name."""

    queues: list[QueueDocument]


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A queue."""

    name: str


class Weight(msgspec.Struct, forbid_unknown_fields=True):
    """A queue's share."""

    weight: Annotated[int, msgspec.Meta(ge=1, le=QUEUE_WEIGHT_MAX)]
    """Tasks it is granted for each one of a queue of weight 1, when both wait."""


async def list_queues(call: Call[Nothing, Nothing]) -> Queues:
    """List the queues that hold tasks which have not ended, and those of which something was ordered."""
    page = await call.ask(QueueList(0), QueuePage)
    return Queues([queue_document(view) for view in page.queues])


async def pause_queue(call: Call[Named, Nothing]) -> QueueDocument:
    """Have nothing of a queue begin; it takes tasks, and what runs goes on."""
    return await _ordered(call, QueuePause(0, call.asked.name))


async def drain_queue(call: Call[Named, Nothing]) -> QueueDocument:
    """Have a queue refuse new tasks; what is in it runs."""
    return await _ordered(call, QueueDrain(0, call.asked.name))


async def resume_queue(call: Call[Named, Nothing]) -> QueueDocument:
    """Have a queue take tasks, and have them run, again."""
    return await _ordered(call, QueueDrain(0, call.asked.name, resume=True))


async def weigh_queue(call: Call[Named, Weight]) -> QueueDocument:
    """Give a queue its share beside others."""
    return await _ordered(call, QueueWeigh(0, call.asked.name, call.body.weight))


async def _ordered(call: Call[Named, Nothing] | Call[Named, Weight], order: ToServer) -> QueueDocument:
    await call.ask(order, Done)
    page = await call.ask(QueueList(0), QueuePage)
    views = [view for view in page.queues if view.name == call.asked.name]
    if views:
        return queue_document(views[0])
    return QueueDocument(call.asked.name, 0, 0, 0, paused=False, draining=False, weight=1)


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/queues", list_queues, Nothing, Queues, QueueList),
    post("/queues/{name:path}/pause", pause_queue, Named, Nothing, QueueDocument, QueuePause, QueueList),
    post("/queues/{name:path}/drain", drain_queue, Named, Nothing, QueueDocument, QueueDrain, QueueList),
    post("/queues/{name:path}/resume", resume_queue, Named, Nothing, QueueDocument, QueueDrain, QueueList),
    post("/queues/{name:path}/weight", weigh_queue, Named, Weight, QueueDocument, QueueWeigh, QueueList),
)
