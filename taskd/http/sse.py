"""Streams of server-sent events: a source of events, sent as they come, with a sign of life in between.

Invariants:
- A stream ends when its reader is gone, when its source ends, and with its session: then an event says why.
- A reader that is slower than its source holds the source up, and nothing else: nothing is kept for it here.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, NamedTuple

import msgspec
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskd.http.errors import ErrorBody
from taskd_protocol.errors import TaskdError

KEEPALIVE_SECONDS: Final = 15.0
"""Proxies cut what is silent for longer than some tens of seconds."""

MEDIA_TYPE: Final = "text/event-stream"

ERROR: Final = "error"
"""The name of the event that says why a stream ends before its source does."""


class Event(NamedTuple):
    """One event."""

    data: bytes
    """One line: JSON."""
    kind: str = ""
    """Empty: ``message``."""
    id: str = ""
    """What the reader says in ``Last-Event-ID`` to go on behind it; empty: it keeps the one before."""

    def encode(self) -> bytes:
        """Return it as it is sent."""
        head = (f"id: {self.id}\n" if self.id else "") + (f"event: {self.kind}\n" if self.kind else "")
        return head.encode() + b"data: " + self.data + b"\n\n"


class EventStream(Response):
    """The answer that goes on."""

    def __init__(self, events: AsyncGenerator[Event]) -> None:
        """Prepare to send what a generator yields; it is closed with the stream."""
        super().__init__(headers={"x-accel-buffering": "no"}, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until either side ends it; to HEAD, that there is a stream."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await self._events.aclose()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        async with aclosing(self._events) as events, trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            into, out = trio.open_memory_channel[Event](0)
            nursery.start_soon(_pump, events, into)
            while (data := await _next(out)) is not None:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _next(out: trio.MemoryReceiveChannel[Event]) -> bytes | None:
    """Return what is to be sent next; None: that was all."""
    with trio.move_on_after(KEEPALIVE_SECONDS):
        try:
            return (await out.receive()).encode()
        except trio.EndOfChannel:
            return None
    return b": keepalive\n\n"


async def _pump(events: AsyncGenerator[Event], into: trio.MemorySendChannel[Event]) -> None:
    with into:
        try:
            async for event in events:
                await into.send(event)
        except TaskdError as why:
            await into.send(Event(msgspec.json.encode(ErrorBody(why.code, why.message)), ERROR))


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
