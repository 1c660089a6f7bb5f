"""The HTTP application: which paths there are.

Knows neither sockets nor the server that runs it; what it shows is handed in.
"""

from collections.abc import Callable, Iterable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from taskd.http.hosts import HostAllowList


def make_app(*, ready: Callable[[], bool], hosts: Iterable[str]) -> Starlette:
    """Put the application together.

    Args:
        ready: Whether the server takes work.
        hosts: Names and addresses that the server goes by.
    """

    async def healthz(_request: Request) -> Response:
        """The process is alive: its loop got as far as this."""
        return _never_cached("ok\n", 200)

    async def readyz(_request: Request) -> Response:
        """The server takes work; it does not while it starts or stops."""
        return _never_cached("ready\n", 200) if ready() else _never_cached("not ready\n", 503)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz)],
        middleware=[Middleware(HostAllowList, hosts=tuple(hosts))],
    )


def _never_cached(text: str, status: int) -> Response:
    return PlainTextResponse(text, status_code=status, headers={"cache-control": "no-store"})
