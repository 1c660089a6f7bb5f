"""The paths of the page: the document, its files, and those of logging in.

The document is the same on every path; what it shows is decided in the browser, by the path. Paths that are none of its
own are not found.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from taskd.http.errors import NotFound, refusal
from taskd.http.rates import Rates
from taskd.server.services import Services
from taskd_dashboard.assets import Asset, load_assets
from taskd_dashboard.login import Doorkeeper

SCREENS: Final = ("tasks", "workflows", "queues", "agents", "schedules", "dead", "login")
"""First words of the paths that show something; each may be followed by the name of one of them."""

_FOREVER: Final = "public, max-age=31536000, immutable"


class Dashboard:
    """The page of one server.

    Attributes:
        ways: How a browser shows whose a request is.
        routes: Its paths.
    """

    def __init__(self, services: Services, rates: Rates, prefix: str) -> None:
        """Prepare it; see ``taskd.http.app.Site``."""
        assets = load_assets()
        self._document = assets.document_at(prefix)
        self._digest = assets.digest
        self._files = assets.by_path
        self._prefix = prefix
        door = Doorkeeper(services, rates, prefix)
        self.ways = (door.by_cookie,)
        self.routes: list[BaseRoute] = [
            Route("/", self._show),
            Route("/session", door.session),
            Route("/login", door.log_in, methods=["POST"]),
            Route("/login/link", door.link, methods=["POST"]),
            Route("/logout", door.log_out, methods=["POST"]),
            Route("/favicon.ico", self._icon),
            Route("/static/{digest}/{path:path}", self._file),
            *(Route(f"/{screen}", self._show) for screen in SCREENS),
            *(Route(f"/{screen}/{{name:path}}", self._show) for screen in SCREENS),
        ]

    def nothing_here(self, request: Request) -> Response:
        """See ``taskd.http.app.Site``: the document, which says so itself, with the way home."""
        return _sent(self._document, request, "no-store", 404)

    async def _show(self, request: Request) -> Response:
        return _sent(self._document, request, "no-cache")

    async def _icon(self, _request: Request) -> Response:
        return RedirectResponse(f"{self._prefix}/static/{self._digest}/icon.svg")

    async def _file(self, request: Request) -> Response:
        asset = self._files.get(request.path_params["path"])
        if asset is None or request.path_params["digest"] != self._digest:
            return refusal(NotFound("there is no such file; reload the page"))
        return _sent(asset, request, _FOREVER)


def _sent(asset: Asset, request: Request, caching: str, status: int = 200) -> Response:
    headers = {"etag": asset.etag, "cache-control": caching}
    if status == 200 and asset.etag in request.headers.get("if-none-match", ""):  # noqa: PLR2004 - the word for it
        return Response(status_code=304, headers=headers)
    return Response(asset.content, status, headers, media_type=asset.media_type)
