"""Routes: one row a request, of which both the answering and the published description are made.

Invariants:
- Who may ask follows from the messages that a route sends, by the one table of the protocol; it sends no others.
- A route has no state and no rules: it turns a request into messages, and messages into an answer.

To add one: a handler and a row in a file of ``resources``; tests and the description find it by themselves.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from taskd.http.bodies import BODY_BYTES_MAX, check_json, from_json, from_words, media_type, read_body
from taskd.http.converting import APART_BYTES, PACKABLE, pack_apart
from taskd.http.forms import FORM, Form, read_form
from taskd.http.guard import READS
from taskd.http.sse import MEDIA_TYPE
from taskd.server.apart import Apart
from taskd.server.inner import InnerSession, ReplyT
from taskd.server.platform import Offload
from taskd_protocol.handshake import ALLOWED, HELLO_AGENT
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, TaskId, make_task_ids
from taskd_protocol.messages import ToServer
from taskd_protocol.tracing import read_header, root_of

AskedT = TypeVar("AskedT")
BodyT = TypeVar("BodyT")
AnswerT = TypeVar("AnswerT")

API: Final = "/api/v1"


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No query, or no body."""


@dataclass(frozen=True, slots=True)
class Call(Generic[AskedT, BodyT]):
    """One request, checked."""

    asked: AskedT
    """What path and query say."""
    body: BodyT
    files: Mapping[str, bytes]
    """Of a form, by the names of its fields."""
    request: Request
    """For headers."""
    session: InnerSession
    """For answers of many messages; ``ask`` is for those of one."""
    sends: Sequence[type[ToServer]]
    packed: Sequence[bytes] = ()
    """The arguments of the body's tasks, if it is so large that they were packed apart; then it has none."""

    async def ask(self, message: ToServer, reply: type[ReplyT]) -> ReplyT:
        """Ask what is answered by one message.

        Raises:
            TaskdError: It is refused.
        """
        assert type(message) in self.sends, message
        return await self.session.ask(message, reply)

    @property
    def offload(self) -> Offload:
        """Runs what takes long away from the loop."""
        return self.session.services.platform.offload

    @property
    def apart(self) -> Apart:
        """Runs what would hold up the loop in a thread, too."""
        return self.session.services.platform.apart

    @property
    def payload_bytes_max(self) -> int:
        """Of packed arguments, or of a packed result."""
        return self.session.services.limits.payload_bytes_max

    @property
    def wall_ms(self) -> int:
        """The server's time, UTC."""
        return self.session.services.platform.clock.wall_ms()

    def random_bytes(self, count: int) -> bytes:
        """Return so many unpredictable bytes."""
        return self.session.services.platform.token_bytes(count)

    def traceparent(self, made_id: bytes) -> str:
        """Return the trace context of the request; or else one by the id of what it makes, as on each resend."""
        told = self.request.headers.getlist("traceparent")
        return (read_header(told[0]) if len(told) == 1 else "") or f"00-{made_id.hex()}-{root_of(made_id):016x}-01"

    def make_ids(self, count: int) -> list[TaskId]:
        """Return new ids, rising."""
        return make_task_ids(count, self.wall_ms, self.random_bytes(count * RANDOM_BYTES_PER_TASK_ID))


Asking = Callable[[InnerSession], Awaitable[object]]
"""A request that was read, to be asked in a session."""


class AnyRoute(Protocol):
    """A route, whatever its types."""

    @property
    def method(self) -> str:
        """In capitals; ``POST`` for all that changes something."""
        ...

    @property
    def path(self) -> str:
        """Below ``API``."""
        ...

    @property
    def handler(self) -> object:
        """Who answers; its docstring's first line is told to people."""
        ...

    @property
    def types(self) -> tuple[object, object, object]:
        """What is asked, sent and answered."""
        ...

    @property
    def roles(self) -> list[str]:
        """The roles whose tokens may ask."""
        ...

    @property
    def takes_payload(self) -> bool:
        """Its body may be as long as a payload, and a form with files."""
        ...

    @property
    def streams(self) -> bool:
        """It answers an ``EventStream``."""
        ...

    @property
    def pages(self) -> bool:
        """One that streams answers a document, too: to who does not ask for a stream."""
        ...

    @property
    def status(self) -> int:
        """Of its answer."""
        ...

    async def read(self, request: Request, payload_bytes_max: int, apart: Apart) -> Asking:
        """Read a request."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[AskedT, BodyT, AnswerT]):
    """One request that can be made; see ``AnyRoute``."""

    method: str
    path: str
    """``{name}`` is a field of ``asked``, ``{name:path}`` one that may hold slashes; other fields are the query's."""
    handler: Callable[[Call[AskedT, BodyT]], Awaitable[AnswerT | Response]]
    asked: type[AskedT]
    body: type[BodyT]
    answer: type[AnswerT]
    """Of a stream: what each event holds."""
    sends: Sequence[type[ToServer]]
    """Every message that it may ask."""
    status: int = 200
    takes_payload: bool = False
    streams: bool = False
    pages: bool = False

    @property
    def types(self) -> tuple[object, object, object]:
        """See ``AnyRoute``."""
        return self.asked, self.body, self.answer

    @property
    def roles(self) -> list[str]:
        """See ``AnyRoute``."""
        return [role for role, allowed in ALLOWED.items() if role != HELLO_AGENT and set(self.sends) <= allowed]

    async def read(self, request: Request, payload_bytes_max: int, apart: Apart) -> Asking:
        """Read a request within bounds, and check it.

        Raises:
            HttpRefusal: It is not what this route takes.
        """
        asked = from_words(_words(request), self.asked)
        body, files, packed = await self._read_body(request, payload_bytes_max, apart)
        return lambda session: self.handler(Call(asked, body, files, request, session, self.sends, packed))

    async def _read_body(self, request: Request, payload_bytes_max: int, apart: Apart) -> Form[BodyT]:
        if self.method in READS:
            return Form(from_words({}, self.body), {})
        raw = await read_body(request, BODY_BYTES_MAX + payload_bytes_max * self.takes_payload)
        if self.takes_payload and media_type(request.headers) == FORM:
            return await read_form(raw, request.headers, self.body)
        if raw:
            check_json(request.headers)
        if len(raw) > APART_BYTES and self.body in PACKABLE:
            body, packed = await pack_apart(raw, self.body, apart)
            return Form(body, {}, packed)
        return Form(from_json(raw or b"{}", self.body), {})


def get(
    path: str,
    handler: Callable[[Call[AskedT, Nothing]], Awaitable[AnswerT | Response]],
    asked: type[AskedT],
    answer: type[AnswerT],
    *sends: type[ToServer],
    streams: bool = False,
    pages: bool = False,
) -> Route[AskedT, Nothing, AnswerT]:
    """Return the row of a read."""
    return Route(
        method="GET",
        path=path,
        handler=handler,
        asked=asked,
        body=Nothing,
        answer=answer,
        sends=sends,
        streams=streams,
        pages=pages,
    )


def post(
    path: str,
    handler: Callable[[Call[AskedT, BodyT]], Awaitable[AnswerT | Response]],
    asked: type[AskedT],
    body: type[BodyT],
    answer: type[AnswerT],
    *sends: type[ToServer],
    status: int = 200,
    takes_payload: bool = False,
) -> Route[AskedT, BodyT, AnswerT]:
    """Return the row of a change."""
    return Route(
        method="POST",
        path=path,
        handler=handler,
        asked=asked,
        body=body,
        answer=answer,
        sends=sends,
        status=status,
        takes_payload=takes_payload,
    )


def wants_stream(request: Request) -> bool:
    """Tell whether the reader would have a stream, where there is a document as well."""
    return MEDIA_TYPE in request.headers.get("accept", "")


def _words(request: Request) -> dict[str, str | list[str]]:
    words: dict[str, str | list[str]] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        words[name] = values[0] if len(values) == 1 else values
    return words | {name: str(value) for name, value in request.path_params.items()}
