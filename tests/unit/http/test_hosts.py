"""The Host header: an allow-list, on every path and method."""

import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Scope

from taskd.http.hosts import HostAllowList

HOSTS = ["localhost", "127.0.0.1", "::1", "Box.example"]


async def status_of(headers: list[tuple[bytes, bytes]], method: str = "GET", path: str = "/anything") -> int:
    """Ask an application that allows everything, behind the list."""

    async def app(scope: Scope, receive: object, send: object) -> None:
        await PlainTextResponse("in")(scope, receive, send)  # type: ignore[arg-type]

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": method, "path": path, "headers": headers}
    assert Request(scope).method == method
    await HostAllowList(app, HOSTS)(scope, receive, send)
    status = sent[0]["status"]
    assert isinstance(status, int)
    return status


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:80", b"127.0.0.1:7071", b"[::1]:7071", b"[::1]", b"box.example.", b"Box.Example"]
)
async def test_names_of_the_server_are_answered(host: bytes) -> None:
    """With or without a port, however they are spelled."""
    assert await status_of([(b"accept", b"*/*"), (b"host", host)]) == 200


@pytest.mark.parametrize(
    "host",
    [b"", b"evil.example", b"localhost.evil.example", b"evil.example:127.0.0.1", b"[::2]", b"\xff", b"a@localhost"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
async def test_other_names_are_refused(host: bytes, method: str) -> None:
    """Whatever the method."""
    assert await status_of([(b"host", host)], method) == 400


async def test_no_host_and_two_hosts_are_refused() -> None:
    """What cannot be told is not allowed."""
    assert await status_of([]) == 400
    assert await status_of([(b"host", b"localhost"), (b"host", b"evil.example")]) == 400
    await trio.lowlevel.checkpoint()
