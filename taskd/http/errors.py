"""Refusals: every answer that is none is ``{"error": {"code", "message", "path"?}}``, one line that says what to do.

Codes are those of the wire protocol, and ``http.`` ones for what only HTTP knows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Final

import msgspec
from starlette.responses import Response

from taskd_protocol.errors import TaskdError

JSON: Final = "application/json"


class HttpRefusal(TaskdError):
    """A refusal that the wire protocol has no word for."""

    status: ClassVar[int]

    def __init__(self, message: str, *, retry_after_ms: int = 0) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.path = ""  # where in the body or the query the fault is
        self.column = self.length = 0  # where in that text it is
        self.headers: Mapping[str, str] = {}


class NotFound(HttpRefusal):
    """There is no such page."""

    code = "http.not_found"
    status = 404


class MethodRefused(HttpRefusal):
    """The page knows other methods."""

    code = "http.method"
    status = 405


class HostRefused(HttpRefusal):
    """The Host header is not one name that this server goes by."""

    code = "http.host"
    status = 400


class OriginRefused(HttpRefusal):
    """A page of another site asks for a change."""

    code = "http.origin"
    status = 403


class FramingRefused(HttpRefusal):
    """It is not certain where the request ends."""

    code = "http.framing"
    status = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers = {"connection": "close"}  # what follows is not to be read as a request


class HeadTooLarge(HttpRefusal):
    """Path, query and headers are longer than anything that is needed here."""

    code = "http.head_too_large"
    status = 431


class MediaTypeRefused(HttpRefusal):
    """The body is of another type than this page takes."""

    code = "http.media_type"
    status = 415


class BodyTooLarge(HttpRefusal):
    """The body is longer than this page takes."""

    code = "http.too_large"
    status = 413


class BodyTooSlow(HttpRefusal):
    """The body did not arrive in time."""

    code = "http.timeout"
    status = 408
    retryable = True


class TooManyRequests(HttpRefusal):
    """This token, or this address, asks too often."""

    code = "http.rate"
    status = 429
    retryable = True


class Starting(HttpRefusal):
    """The server reads its store, and decides nothing yet."""

    code = "http.starting"
    status = 503
    retryable = True


class ServerFault(HttpRefusal):
    """A fault of this server; its log tells."""

    code = "http.fault"
    status = 500


class FieldRefused(HttpRefusal):
    """A field of the body or the query is missing, unknown or out of range; ``path`` names it."""

    code = "request.invalid"
    status = 400

    def __init__(self, message: str, path: str = "", *, column: int = 0, length: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.column, self.length = column, length


@contextmanager
def placed(path: str) -> Iterator[None]:
    """Say of what is refused within where it is: what it knows of that itself lies below ``path``."""
    try:
        yield
    except FieldRefused as why:
        why.path = path + why.path.removeprefix("$")
        raise
    except TaskdError as why:
        if why.code != FieldRefused.code:
            raise
        raise FieldRefused(why.message, path) from None


STATUS: Final[Mapping[str, int]] = {
    "auth.refused": 401,
    "auth.role": 403,
    "task.unknown": 404,
    "agent.unknown": 404,
    "workflow.unknown": 404,
    "schedule.unknown": 404,
    "limit.unknown": 404,
    "token.unknown": 404,
    "submit.conflict": 409,
    "unique.held": 409,
    "queue.draining": 409,
    "workflow.ended": 409,
    "schedule.exists": 409,
    "submit.too_old": 409,
    "submit.too_new": 409,
    "result.gone": 410,
    "payload.too_large": 413,
    "protocol.too_large": 413,
    "job.limit": 429,
    "limit.full": 429,
    "schedule.limit": 429,
    "server.busy": 503,
    "server.stopping": 503,
    "connection.lost": 503,
    "store.corrupt": 500,
    "timeout": 504,
    "server.disk_full": 507,
}
"""By code; all others are 400: what was asked cannot be."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Why a request was refused."""

    code: str
    """Stable, for programs."""
    message: str
    """One line, for people."""
    path: str = ""
    """Where in the body or the query the fault is."""
    column: int = 0
    """Where in that text it begins, from 1; 0: it is all of it."""
    length: int = 0
    """Of the fault, in characters."""


class ErrorDocument(msgspec.Struct):
    """The answer to a request that was refused."""

    error: ErrorBody


def status_of(why: TaskdError) -> int:
    """Return the HTTP status of a refusal."""
    return why.status if isinstance(why, HttpRefusal) else STATUS.get(why.code, 400)


def refusal(why: TaskdError) -> Response:
    """Return the answer that tells why."""
    status = status_of(why)
    path, headers, column, length = "", {}, 0, 0
    if isinstance(why, HttpRefusal):
        path, headers, column, length = why.path, dict(why.headers), why.column, why.length
    if status == 401:  # noqa: PLR2004 - the status itself is the word for it
        headers["www-authenticate"] = 'Bearer realm="taskd"'
    if why.retry_after_ms:
        headers["retry-after"] = str(-(-why.retry_after_ms // 1_000))
    message = " ".join(why.message.split())
    body = msgspec.json.encode(ErrorDocument(ErrorBody(why.code, message, path, column, length)))
    return Response(body, status, headers, media_type=JSON)
