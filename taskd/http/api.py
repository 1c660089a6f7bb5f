"""The API as an application: finds the row of a request, checks who asks, and how often, and answers.

Each request is an inner session of its own, with the role of its token: see ``taskd/server/inner.py``.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import structlog
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Page
from starlette.types import Receive, Scope, Send

from taskd.http.auth import Way, who_asks
from taskd.http.errors import JSON, MethodRefused, ServerFault, refusal
from taskd.http.rates import REFUSED_COST, Rates
from taskd.http.routes import API, AnyRoute, wants_stream
from taskd.http.traffic import Traffic
from taskd.server.inner import Who, open_inner
from taskd.server.services import Services
from taskd_protocol.errors import AuthRefused, RoleRefused, TaskdError

log = structlog.get_logger("taskd.http")

Respond = Callable[[Response], Awaitable[None]]

SECONDS_MAX: Final = 60.0
"""An answer that takes longer is no answer; streams have no such bound."""


class Api:
    """Answers requests.

    Attributes:
        services: Of the server.
        rates: How often who may ask.
        traffic: What was asked.
    """

    def __init__(self, services: Services, ways: Sequence[Way], rates: Rates) -> None:
        self.services = services
        self.rates = rates
        self.traffic = Traffic()
        self._ways = ways

    def who(self, request: Request) -> Who:
        """Return whose request it is.

        Raises:
            TaskdError: Nobody's that is known here, or one too many.
        """
        try:
            who = who_asks(self.services, request, self._ways)
        except AuthRefused:
            self.rates.take_of_address(request.client.host if request.client else "", REFUSED_COST)
            raise
        self.rates.take_of_token(who.key_id)
        return who

    def knows(self, request: Request) -> bool:
        """Tell whether a request shows whose it is."""
        try:
            who_asks(self.services, request, self._ways)
        except TaskdError:
            return False
        return True

    def pages(self, routes: Iterable[AnyRoute]) -> list[Page]:
        """Return what a router is to be given: one page for each path; those whose paths say more come first."""
        by_path: dict[str, dict[str, AnyRoute]] = {}
        for route in routes:
            assert route.method not in by_path.get(route.path, {}), route.path
            by_path.setdefault(route.path, {})[route.method] = route
        ordered = sorted(by_path, key=lambda path: (":path}" in path, path.endswith("}"), path))
        return [Page(API + path, _Endpoint(self, by_path[path])) for path in ordered]

    async def answer(self, route: AnyRoute, request: Request, respond: Respond) -> None:
        """Answer one request.

        Raises:
            TaskdError: It is refused.
        """
        who = self.who(request)
        if who.role not in route.roles:
            needed = ", ".join(route.roles)
            raise RoleRefused(f"a token of role {who.role} may not do this; one of these may: {needed}")
        asking = await route.read(request, self.services.limits.payload_bytes_max, self.services.platform.apart)
        async with open_inner(self.services, who) as session:
            if route.streams and (not route.pages or wants_stream(request)):
                with self.rates.stream_of(who.key_id):
                    stream = await asking(session)
                    assert isinstance(stream, Response)
                    await self._stream(stream, respond)
                return
            with trio.fail_after(SECONDS_MAX):
                told = await asking(session)
        if not isinstance(told, Response):
            told = Response(msgspec.json.encode(told), route.status, media_type=JSON)
        await respond(told)

    async def _stream(self, stream: Response, respond: Respond) -> None:
        self.traffic.streams += 1
        try:
            await respond(stream)
        finally:
            self.traffic.streams -= 1


class _Endpoint:
    """One path; what it answers depends on the method."""

    def __init__(self, api: Api, by_method: Mapping[str, AnyRoute]) -> None:
        self._api = api
        self._by_method = by_method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = self._by_method.get(method)
        statuses: list[int] = []

        async def respond(response: Response) -> None:
            statuses.append(response.status_code)
            await response(scope, receive, send)

        began_s = trio.current_time()
        why = await self._answer(route, Request(scope, receive), respond)
        if why is not None and not statuses:
            await respond(refusal(why))
        if route is not None and statuses:
            traffic = self._api.traffic
            traffic.counts[method, route.path, statuses[0]] += 1
            traffic.seconds[method, route.path] += trio.current_time() - began_s

    async def _answer(self, route: AnyRoute | None, request: Request, respond: Respond) -> TaskdError | None:
        """Answer; return why not."""
        if route is None:
            return _method_refused(self._by_method)
        try:
            await self._api.answer(route, request, respond)
        except ClientDisconnect:
            return None
        except TaskdError as why:
            return why
        except trio.TooSlowError:
            return ServerFault("this took too long; ask for less at a time")
        except Exception:
            log.exception("request_failed", method=request.method, path=request.url.path)
            return ServerFault("this server failed to answer; its log says why")
        return None


def _method_refused(known: Iterable[str]) -> MethodRefused:
    methods = ", ".join(sorted(known))
    why = MethodRefused(f"this page takes {methods}")
    why.headers = {"allow": methods}
    return why
