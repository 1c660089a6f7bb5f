"""The HTTP application: which paths there are, and what every request goes through.

Knows neither sockets nor the server that runs it; what it shows is handed in.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.routing import Route as Page

from taskd.http.api import Api
from taskd.http.auth import Way, bearer
from taskd.http.errors import JSON, MethodRefused, NotFound, refusal
from taskd.http.guard import READS, Guard, SecurityHeaders
from taskd.http.hosts import HostAllowList
from taskd.http.live import Live
from taskd.http.metrics import metrics_page
from taskd.http.openapi import describe
from taskd.http.rates import Rates
from taskd.http.resources import ROUTES
from taskd.http.routes import API
from taskd.server.services import Services

WAYS: Final[Sequence[Way]] = (bearer,)
"""How a request can show whose it is."""


class Site(Protocol):
    """Pages for people, beside the API."""

    @property
    def ways(self) -> Sequence[Way]:
        """How their requests show whose they are."""
        ...

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """Where they are."""
        ...

    def nothing_here(self, request: Request) -> Response:
        """Return what a person is shown where there is no page."""
        ...


OpenSite = Callable[[Services, Rates, str], Site]
"""Makes them, given the prefix of every path."""


def make_app(
    *,
    ready: Callable[[], bool],
    hosts: Iterable[str],
    services: Services | None = None,
    data_dir: Path | None = None,
    prefix: str = "",
    rates: Rates | None = None,
    open_site: OpenSite | None = None,
) -> Starlette:
    """Put the application together.

    Args:
        ready: Whether the server takes work.
        hosts: Names and addresses that the server goes by.
        services: Of the server; None: probes alone are answered.
        data_dir: Of the server; None: no metrics are told.
        prefix: Of every path but the probes', as a proxy passes them on: ``/taskd``; empty: none.
        rates: How often who may ask.
        open_site: Makes the pages for people; None: there are none.
    """

    async def healthz(_request: Request) -> Response:
        """The process is alive: its loop got as far as this."""
        return PlainTextResponse("ok\n", 200)

    async def readyz(_request: Request) -> Response:
        """The server takes work; it does not while it stops. Until it serves, see ``Door``."""
        return PlainTextResponse("ready\n", 200) if ready() else PlainTextResponse("not ready: stopping\n", 503)

    rates = rates or Rates()
    prefix = path_prefix(prefix)
    probes: list[BaseRoute] = [Page("/healthz", healthz), Page("/readyz", readyz)]
    pages: list[BaseRoute] = []
    site = knows = None
    if services is not None:
        site = None if open_site is None else open_site(services, rates, prefix)
        api = Api(services, WAYS if site is None else (*WAYS, *site.ways), rates)
        knows = api.knows
        pages += _api(api, prefix)
        if data_dir is not None:
            pages.append(metrics_page(api, data_dir, ready))
        if site is not None:
            pages += site.routes
    return Starlette(
        routes=[*probes, Mount(prefix, routes=[*probes, *pages])] if prefix else [*probes, *pages],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(HostAllowList, hosts=tuple(hosts)),
            Middleware(Guard, rates=rates, probes=probe_paths(prefix), knows=knows),
        ],
        exception_handlers={HTTPException: partial(_not_here, site)},
    )


def probe_paths(prefix: str) -> frozenset[str]:
    """Return where probes are: at the root, whatever a proxy does, and below the prefix."""
    return frozenset(f"{at}{probe}" for at in ("", prefix) for probe in ("/healthz", "/readyz"))


def path_prefix(said: str) -> str:
    """Return a prefix of paths as they begin with it: ``/taskd``, or nothing."""
    return f"/{said.strip('/')}".rstrip("/")


def _api(api: Api, prefix: str) -> Iterable[BaseRoute]:
    routes = [*ROUTES, Live(api.services).route]
    document = msgspec.json.encode(describe(routes, prefix))

    async def openapi(_request: Request) -> Response:
        """What can be asked, for programs; it is no secret."""
        return Response(document, media_type=JSON)

    return [Page(f"{API}/openapi.json", openapi), *api.pages(routes)]


async def _not_here(site: Site | None, request: Request, why: Exception) -> Response:
    assert isinstance(why, HTTPException)
    if why.status_code == 405:  # noqa: PLR2004 - the status itself is the word for it
        refused = MethodRefused(f"this page takes no {request.method}")
        refused.headers = why.headers or {}
        return refusal(refused)
    if site is not None and is_persons(request):
        return site.nothing_here(request)
    return refusal(NotFound("there is no such page; see /api/v1/openapi.json"))


def is_persons(request: Request) -> bool:
    """Tell whether a browser asks for something to be shown, and not a program for something of the API."""
    shows = request.method in READS and "text/html" in request.headers.get("accept", "")
    return shows and f"{API}/" not in request.url.path
