"""Bodies and queries: read within bounds, then checked against the type that a route says.

Invariants:
- No more is held in memory than the route allows, however long the body says that it is.
- A body that cannot be what was asked for is refused with the place of the fault.
"""

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeVar, cast

import msgspec
import trio
from starlette.datastructures import Headers
from starlette.requests import Request

from taskd.http.errors import JSON, BodyTooLarge, BodyTooSlow, FieldRefused, MediaTypeRefused

if TYPE_CHECKING:
    from taskd.text import Json

T = TypeVar("T")

BODY_BYTES_MAX: Final = 64 * 1024
"""Of routes that take no payload."""

BODY_SECONDS: Final = 10.0
"""For a body to arrive; one that may be longer has so much more for each MiB."""

_MIB: Final = 1 << 20
_LENGTH_DIGITS_MAX: Final = 19
"""Of a number that has 64 bits; Python reads none of thousands of digits."""
_AT: Final = " - at `"
_SOME_KEY: Final = "[...]"
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLarge: It is longer than that.
        BodyTooSlow: It did not arrive in time.
        FieldRefused: Its Content-Length is no number.
        MediaTypeRefused: It is compressed.
    """
    if headers_say_packed(request.headers):
        raise MediaTypeRefused("send the body as it is, without a Content-Encoding: none is undone here")
    said = request.headers.get("content-length", "0")
    if not (said.isascii() and said.isdecimal() and len(said) <= _LENGTH_DIGITS_MAX):
        raise FieldRefused("Content-Length is no number")
    if int(said) > bytes_max:
        raise _too_large(bytes_max)
    pieces, size = [], 0
    with trio.move_on_after(BODY_SECONDS * (1 + bytes_max // _MIB)) as patience:
        async with aclosing(request.stream()) as stream:
            async for piece in stream:
                size += len(piece)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                pieces.append(piece)
    if patience.cancelled_caught:
        raise BodyTooSlow("the body did not arrive in time")
    return b"".join(pieces)


def headers_say_packed(headers: Headers) -> bool:
    """Tell whether a body is another one, once it is unpacked."""
    said = ",".join(headers.getlist("content-encoding")).split(",")
    return any(each.strip().lower() not in {"", "identity"} for each in said)


def media_type(headers: Headers) -> str:
    """Return what a body says that it is, in lower case and without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def check_json(headers: Headers) -> None:
    """Refuse a body that does not say that it is JSON.

    Raises:
        MediaTypeRefused: It is something else.
    """
    if media_type(headers) != JSON:
        raise MediaTypeRefused(f"send the body as {JSON}, and say so in Content-Type")


def from_json(body: bytes, kind: type[T]) -> T:
    """Read a body.

    Raises:
        FieldRefused: It is no JSON, or not what was asked for.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as why:
        raise _with_key(why, body, kind) from None
    except msgspec.DecodeError as why:
        raise field_refused(why) from None
    except (RecursionError, UnicodeDecodeError):
        raise FieldRefused("the body is no JSON that can be read here: too deep, or not UTF-8", "$") from None


def from_words(words: dict[str, str | list[str]], kind: type[T]) -> T:
    """Read what the query, or the path, says.

    Raises:
        FieldRefused: It is not what was asked for.
    """
    try:
        return msgspec.convert(words, kind, strict=False)
    except msgspec.ValidationError as why:
        raise field_refused(why) from None


def field_refused(why: msgspec.DecodeError) -> FieldRefused:
    """Say what msgspec says, with the place apart."""
    message, _, place = str(why).partition(_AT)
    if not message[:2].isupper():  # JSON stays
        message = message[:1].lower() + message[1:]
    return FieldRefused(message, place.rstrip("`") or "$")


def _with_key(why: msgspec.ValidationError, body: bytes, kind: type[T]) -> FieldRefused:
    """Say what msgspec says, and of a map the key, for which it says ``[...]``: it is refused alone, too."""
    told = field_refused(why)
    before, is_map, behind = told.path.partition(_SOME_KEY)
    if not is_map or len(body) > BODY_BYTES_MAX:
        return told
    document: Json = msgspec.json.decode(body)
    within = document
    for name, number in _STEP.findall(before):
        within = cast("dict[str, Json]", within)[name] if name else cast("list[Json]", within)[int(number)]
    among = cast("dict[str, Json]", within)
    for key, value in list(among.items()):
        among.clear()
        among[key] = value
        try:
            msgspec.convert(document, kind)
        except msgspec.ValidationError as again:
            if str(again) == str(why):
                told.path = f"{before}.{key[:64]}{behind}"
                break
    return told


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is longer than {bytes_max:,} bytes")
