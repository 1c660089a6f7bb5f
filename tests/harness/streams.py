"""Streams of server-sent events, read as a page reads them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from starlette.types import Message

from harness.http import HOST, Browser, scope

PATIENCE_SECONDS = 60.0


class Sent:
    """One event."""

    def __init__(self, kind: str, place: str, data: str) -> None:
        self.kind = kind
        self.id = place
        self._data = data

    @property
    def data(self) -> Any:  # type: ignore[explicit-any]  # noqa: ANN401 - a test says what it expects
        """What it holds."""
        return json.loads(self._data)


class Stream:
    """An answer that goes on.

    Attributes:
        status: Of the answer.
        headers: Of the answer.
    """

    def __init__(self, head: Message, pieces: trio.MemoryReceiveChannel[bytes]) -> None:
        self.status: int = head["status"]
        self.headers = {name.decode(): value.decode("latin-1") for name, value in head["headers"]}
        self._pieces = pieces

    async def next(self) -> Sent:
        """Return the next event; signs of life are passed over."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                piece = await self._pieces.receive()
                if not piece.startswith(b":"):
                    return _read(piece)

    async def rest(self, within_s: float) -> list[Sent]:
        """Return what comes in that time."""
        found: list[Sent] = []
        with trio.move_on_after(within_s):
            while True:
                found.append(await self.next())
        return found


@asynccontextmanager
async def stream(
    browser: Browser, path: str, *, role: str = "viewer", buffered: float = 10_000, **headers: str
) -> AsyncIterator[Stream]:
    """Open a stream of the API while the body runs; ``buffered`` pieces are taken from it before they are asked for."""
    said = {"host": HOST, "authorization": f"Bearer {browser.server.tokens[role]}"}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    head_into, head_out = trio.open_memory_channel[Message](1)
    into, out = trio.open_memory_channel[bytes](buffered)
    gone = trio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            await head_into.send(message)
        elif message["body"]:
            await into.send(message["body"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.app, scope("GET", f"/api/v1{path}", said), receive, send)
        yield Stream(await head_out.receive(), out)
        gone.set()
        out.close()
        nursery.cancel_scope.deadline = trio.current_time() + 5


def _read(piece: bytes) -> Sent:
    lines = dict(line.split(": ", 1) for line in piece.decode().strip().split("\n"))
    return Sent(lines.get("event", "message"), lines.get("id", ""), lines["data"])
