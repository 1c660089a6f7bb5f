"""The door: HTTP while the server reads its store, and passed on from then on.

Until it is opened, the process is alive and not ready, and all else is put off, under the rules that hold later, too.
"""

from collections.abc import Iterable
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from taskd.http.app import is_persons, path_prefix, probe_paths
from taskd.http.errors import Starting, refusal
from taskd.http.guard import Guard, SecurityHeaders
from taskd.http.hosts import HostAllowList
from taskd.http.rates import Rates

AGAIN_MS: Final = 1_000
"""When to ask again: most stores are read in less."""

_WHY: Final = "the server reads its store; ask again when it serves"

_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>taskd</title>'
    "<p>taskd is starting: it reads its store. This page goes on by itself.</p></html>"
)

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Door:
    """An application in front of another that is not there yet."""

    def __init__(self, hosts: Iterable[str], prefix: str = "") -> None:
        """Prepare; see ``make_app``."""
        probes = [
            Route(f"{at}{path}", answer)
            for at in {"", path_prefix(prefix)}
            for path, answer in (("/healthz", _alive), ("/readyz", _not_ready))
        ]
        self._app: ASGIApp = Starlette(
            routes=[*probes, Route("/{path:path}", _later, methods=_METHODS)],
            middleware=[
                Middleware(SecurityHeaders),
                Middleware(HostAllowList, hosts=tuple(hosts)),
                Middleware(Guard, rates=Rates(), probes=probe_paths(path_prefix(prefix))),
            ],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        await self._app(scope, receive, send)

    def open(self, app: ASGIApp) -> None:
        """Pass on to this from now on."""
        self._app = app


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _not_ready(_request: Request) -> Response:
    return PlainTextResponse("not ready: reading the store\n", 503)


async def _later(request: Request) -> Response:
    if is_persons(request):
        return HTMLResponse(_PAGE, 503, {"refresh": "1", "retry-after": str(AGAIN_MS // 1_000)})
    return refusal(Starting(_WHY, retry_after_ms=AGAIN_MS))
