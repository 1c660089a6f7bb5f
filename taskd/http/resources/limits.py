"""Limits: how many tasks run at a time, and how many begin in a time."""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from taskd.client.rates import read_rate
from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.text.documents import LimitDocument, limit_document
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import LimitUnknown
from taskd_protocol.limit_messages import LimitList, LimitPage, LimitRemove, LimitSet
from taskd_protocol.limiting import Limit, check_limit


class LimitAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A limit."""

    name: str


class LimitBody(msgspec.Struct, forbid_unknown_fields=True):
    """What holds from now on; what was said before is replaced as a whole."""

    concurrency: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 0
    """At most so many run at a time; 0: any number."""
    rate: str = ""
    """At most so many begin in a time: ``100/s``, ``10/m``, ``5/2h``; empty: any number."""
    burst: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 0
    """So many may begin at once after a lull; 0: as the rate says."""


class Limits(msgspec.Struct):
    """The limits, by name."""

    limits: list[LimitDocument]


class RemovedDocument(msgspec.Struct):
    """What is there no longer."""

    name: str
    removed: bool


async def list_limits(call: Call[Nothing, Nothing]) -> Limits:
    """List the limits, and how far each is used."""
    return Limits([limit_document(view) for view in (await call.ask(LimitList(0), LimitPage)).limits])


async def set_limit(call: Call[LimitAsked, LimitBody]) -> LimitDocument:
    """Have a limit hold: ``queue:NAME``, for what is in that queue, or ``task:NAME``, for all tasks of that name."""
    body, name = call.body, call.asked.name
    tokens, period_ms = read_rate(body.rate) if body.rate else (0, 0)
    wanted = Limit(name, body.concurrency, tokens, period_ms, body.burst)
    check_limit(wanted)
    await call.ask(LimitSet(0, wanted), Done)
    for view in (await call.ask(LimitList(0), LimitPage)).limits:
        if view.limit.name == name:
            return limit_document(view)
    raise LimitUnknown(f"limit {name[:64]!r} was removed meanwhile")


async def remove_limit(call: Call[LimitAsked, Nothing]) -> RemovedDocument:
    """Remove a limit."""
    await call.ask(LimitRemove(0, call.asked.name), Done)
    return RemovedDocument(call.asked.name, removed=True)


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/limits", list_limits, Nothing, Limits, LimitList),
    post("/limits/{name:path}/set", set_limit, LimitAsked, LimitBody, LimitDocument, LimitSet, LimitList),
    post("/limits/{name:path}/remove", remove_limit, LimitAsked, Nothing, RemovedDocument, LimitRemove),
)
