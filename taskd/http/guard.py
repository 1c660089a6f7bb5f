"""The guard: what is refused before anybody looks at the path, and the headers that every answer has.

Invariants:
- A request whose length is told in two ways is refused, and its connection ends: what follows it might be smuggled in.
- What is no read is refused when a browser says that another site's page asks for it.
- Every answer carries the headers that keep a browser from doing more with it than show it.

- A request is charged to its token, or else to its address; a probe to nobody.

Knows tokens and paths by what it is handed alone.
"""

from collections.abc import Callable, Container
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskd.http.errors import FramingRefused, HeadTooLarge, HttpRefusal, NotFound, OriginRefused, refusal
from taskd.http.rates import Rates

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

HEAD_BYTES_MAX: Final = 16 * 1024
"""Path, query and headers of a request."""

_OWN_PAGES: Final = frozenset({"same-origin", "none"})

SECURITY: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Unless a page says otherwise itself."""


class Guard:
    """Passes on what may come in."""

    def __init__(
        self, app: ASGIApp, rates: Rates, probes: Container[str], knows: Callable[[Request], bool] | None = None
    ) -> None:
        """Guard an application.

        Args:
            app: What answers.
            rates: How often an address may ask.
            probes: Paths that are answered however often they are asked: who watches must not be starved by others.
            knows: Tells whether a request shows a good token, which is charged by itself; None: nobody's is known yet.
        """
        self._app = app
        self._rates = rates
        self._probes = probes
        self._knows = knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] != "http":
            await refusal(NotFound("there are no WebSockets here"))(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            _check_size(scope)
            _check_framing(headers)
            if scope["method"] not in READS:
                _check_origin(headers)
            if scope["path"] not in self._probes and not (self._knows and self._knows(Request(scope))):
                self._rates.take_of_address(scope["client"][0] if scope.get("client") else "")
        except HttpRefusal as why:
            await refusal(why)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class SecurityHeaders:
    """Gives every answer the headers that it must have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"].endswith("http.response.start"):  # also of a WebSocket that is refused
                headers = MutableHeaders(raw=message["headers"])
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _check_size(scope: Scope) -> None:
    """Refuse a long head also when it comes in one piece, which who speaks HTTP takes at any length."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES_MAX:
        raise HeadTooLarge(f"path, query and headers have at most {HEAD_BYTES_MAX:,} bytes together")


def _check_framing(headers: Headers) -> None:
    lengths = headers.getlist("content-length")
    if len(lengths) + len(headers.getlist("transfer-encoding")) > 1:
        raise FramingRefused("a request has one Content-Length or one Transfer-Encoding, not both")


def _check_origin(headers: Headers) -> None:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    foreign = site is not None and site not in _OWN_PAGES
    if foreign or (origin is not None and _host_of(origin) != headers.get("host", "").lower()):
        raise OriginRefused("a page of another site cannot change anything here")


def _host_of(origin: str) -> str | None:
    """Return host and port of an origin; None: it is none, so nobody's."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
