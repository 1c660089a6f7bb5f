"""Logging in and out, and the cookie as a way to show whose a request is.

Invariants:
- A token is sent once, in the body of a request of our own page, and is kept nowhere in the browser.
- By the cookie nothing changes without the session's CSRF token and, where the browser tells it, our own origin; see
  ``taskd.http.guard`` for the latter.
- Where TLS is spoken the cookie is ``__Host-``, so that no other host and no plain connection can set or read it.
"""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from taskd import __version__
from taskd.core.access import is_ended
from taskd.core.commands import EndSession
from taskd.http.auth import bearer, who_asks
from taskd.http.bodies import BODY_BYTES_MAX, check_json, from_json, read_body
from taskd.http.errors import JSON, HttpRefusal, refusal
from taskd.http.guard import READS
from taskd.http.rates import REFUSED_COST, Rates
from taskd.server import tokens
from taskd.server.inner import Who, who_has, who_shows
from taskd.server.services import Services
from taskd_dashboard.sessions import CODE_MS, IDLE_MS, Session, Sessions
from taskd_protocol.errors import AuthRefused, TaskdError
from taskd_protocol.handshake import ALLOWED
from taskd_protocol.house_messages import AgentDrain
from taskd_protocol.messages import Cancel

CSRF_HEADER: Final = "x-csrf-token"


class CsrfRefused(HttpRefusal):
    """A change by the cookie alone, without what only our page knows."""

    code = "http.csrf"
    status = 403


class LogIn(msgspec.Struct, forbid_unknown_fields=True):
    """How to log in: by one of these."""

    token: str = ""
    code: str = ""
    """Of a login link."""


class SessionDocument(msgspec.Struct):
    """Who is logged in."""

    role: str
    label: str
    """Of the token."""
    csrf: str
    version: str
    works: bool
    """It may submit, and steer what is submitted: tasks, workflows, schedules."""
    orders: bool
    """It may steer the house: queues, limits, agents."""


class LinkDocument(msgspec.Struct):
    """A code that logs in once."""

    code: str
    expires_in_s: int


class Doorkeeper:
    """Answers who logs in and out."""

    def __init__(self, services: Services, rates: Rates, prefix: str) -> None:
        """Keep sessions of this server.

        Args:
            services: Of the server.
            rates: How often who may ask: guesses are dear.
            prefix: Of every path.
        """
        self._services = services
        self._rates = rates
        self._prefix = prefix
        self._sessions = Sessions(services.mark_key, services.platform.token_bytes)

    # -- a way to show whose a request is -----------------------------------------------------

    def by_cookie(self, services: Services, request: Request) -> Who | None:
        """See ``taskd.http.auth``.

        Raises:
            CsrfRefused: It would change something, and our page does not ask for it.
            TaskdError: The token is not good any more.
        """
        session = self._session_of(request)
        if session is None:
            return None
        if request.method not in READS and not self._sessions.is_csrf(session, request.headers.get(CSRF_HEADER, "")):
            raise CsrfRefused("this change was not asked for by the page; reload it")
        return who_has(services, session.key_id)

    def _session_of(self, request: Request) -> Session | None:
        cookie = request.cookies.get(self._cookie_name(request))
        session = None if cookie is None else self._sessions.read(cookie, self._now_ms())
        record = None if session is None else self._services.working.tokens.get(session.key_id)
        if session is None or record is None or is_ended(record, session.session_id, session.opened_at_ms):
            return None
        return session

    async def _end(self, session: Session) -> None:
        """End a session for good; every cookie that was given out for it is void by itself some time from now."""
        await self._services.decide(EndSession(session.key_id, session.session_id, self._now_ms() + IDLE_MS))

    # -- pages ----------------------------------------------------------------------------------

    async def session(self, request: Request) -> Response:
        """Tell who is logged in; who asks uses the session, so that it goes on."""
        session = self._session_of(request)
        try:
            if session is None:
                raise tokens.refusal()
            who = who_has(self._services, session.key_id)
        except TaskdError as why:
            return refusal(why)
        return self._welcome(request, session, who)

    async def log_in(self, request: Request) -> Response:
        """Begin a session with a token, or with the code of a login link."""
        try:
            check_json(request.headers)
            asked = from_json(await read_body(request, BODY_BYTES_MAX), LogIn)
            who = self._who_logs_in(asked)
        except AuthRefused as why:
            self._rates.take_of_address(request.client.host if request.client else "", REFUSED_COST)
            return refusal(why)
        except TaskdError as why:
            return refusal(why)
        before = self._session_of(request)
        if before is not None:
            await self._end(before)
        return self._welcome(request, self._sessions.open(who.key_id, self._now_ms()), who)

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        try:
            self.by_cookie(self._services, request)
        except CsrfRefused as why:
            return refusal(why)
        except TaskdError:
            pass  # its token is gone; so is the session
        session = self._session_of(request)
        if session is not None:
            await self._end(session)
        answer = Response(b"{}", media_type=JSON)
        answer.delete_cookie(self._cookie_name(request), path=self._cookie_path(request))
        return answer

    async def link(self, request: Request) -> Response:
        """Make a code that logs in once, with the role of the token that is shown.

        A session makes none: it would go on in the next one, and its twelve hours would never end.
        """
        try:
            who = who_asks(self._services, request, (bearer,))
        except TaskdError as why:
            self._rates.take_of_address(request.client.host if request.client else "", REFUSED_COST)
            return refusal(why)
        code = self._sessions.make_code(who.key_id, self._now_ms())
        return Response(msgspec.json.encode(LinkDocument(code, CODE_MS // 1000)), media_type=JSON)

    def _who_logs_in(self, asked: LogIn) -> Who:
        if not asked.code:
            return who_shows(self._services, asked.token)
        key_id = self._sessions.use_code(asked.code, self._now_ms())
        if key_id is None:
            raise AuthRefused("this login link was used before, or is too old; make another with: taskd dashboard")
        return who_has(self._services, key_id)

    def _welcome(self, request: Request, session: Session, who: Who) -> Response:
        record = self._services.working.tokens[who.key_id]
        allowed = ALLOWED[who.role]
        told = SessionDocument(
            role=who.role,
            label=record.label,
            csrf=self._sessions.csrf(session),
            version=__version__,
            works=Cancel in allowed,
            orders=AgentDrain in allowed,
        )
        answer = Response(msgspec.json.encode(told), media_type=JSON)
        answer.set_cookie(
            self._cookie_name(request),
            self._sessions.write(session, self._now_ms()),
            path=self._cookie_path(request),
            secure=_is_tls(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    def _cookie_name(self, request: Request) -> str:
        return f"__Host-{self._sessions.name}" if _is_tls(request) else self._sessions.name

    def _cookie_path(self, request: Request) -> str:
        return "/" if _is_tls(request) else self._prefix or "/"  # `__Host-` asks for the root

    def _now_ms(self) -> int:
        return self._services.platform.clock.wall_ms()


def _is_tls(request: Request) -> bool:
    return request.url.scheme == "https"
