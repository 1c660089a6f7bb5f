"""Values as text: instants, sizes, and what tasks are given and return.

Invariants:
- A whole number is told with all its digits, whatever its size; a reader that has none so large gets it as text.
"""

import base64
import datetime as dt
import json
import math
from typing import Final

import msgspec

from taskd.text import Json
from taskd_protocol.errors import PayloadUnpackable
from taskd_protocol.payload import Input, unpack, unpack_arguments

_MIB: Final = 1024 * 1024
_TEXT_CHARS_MAX: Final = 2_000
"""What a person is shown of one value; `--json` shows all of it."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Value(msgspec.Struct):
    """A packed value as JSON text, so that no reader loses digits of it."""

    text: str | None
    """None: it holds what only the tasks' own modules know, or is not there any more."""
    bytes: int
    """As it is packed."""
    plain: bool
    """JSON has a word for all that it holds; else some of it is told as text, or in base64."""
    whole: bool = True
    """False: the text is cut; the value has a page of its own."""


def iso(unix_ms: int | None) -> str | None:
    """Return the instant as ``2026-11-21T23:59:59.123Z``; None stays None."""
    if unix_ms is None:
        return None
    text = (_EPOCH + dt.timedelta(milliseconds=unix_ms)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def result_json(packed: bytes) -> Json:
    """Return a packed result as JSON carries it: see ``plain``.

    A value of a type that only the tasks' own modules know is told as ``{"packed": BASE64}``.
    """
    try:
        value = unpack(packed)
    except PayloadUnpackable:
        return {"packed": base64.b64encode(packed).decode()}
    return plain(value)


def result_value(packed: bytes, chars_max: int | None = None) -> Value:
    """Return a packed result as text.

    Args:
        packed: As its agent reported it.
        chars_max: Cut the text there; None: nowhere.
    """
    try:
        value = unpack(packed)
    except PayloadUnpackable:
        return Value(None, len(packed), plain=False)
    return _value(value, len(packed), chars_max)


def arguments_value(payload: bytes, chars_max: int | None = None) -> Value:
    """Return packed arguments as text: an object of ``args`` and ``kwargs``; see ``result_value``."""
    try:
        positional, named = unpack_arguments(payload)
    except PayloadUnpackable:
        return Value(None, len(payload), plain=False)
    return _value({"args": positional, "kwargs": named}, len(payload), chars_max)


def _value(value: object, packed_bytes: int, chars_max: int | None) -> Value:
    told = plain(value)
    text = json.dumps(told, ensure_ascii=False)
    whole = chars_max is None or len(text) <= chars_max
    return Value(text if whole else text[:chars_max], packed_bytes, plain=is_plain(value), whole=whole)


def plain(value: object) -> Json:
    """Return the value as JSON carries it.

    Bytes become base64; tuples and sets lists; keys, dates and all else that JSON has no word for become text, also the
    places that another task's result will take.
    """
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Input):
        return f"<input {value.number}>"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def is_plain(value: object) -> bool:
    """Tell whether JSON has a word for all of the value, so that nothing of it is told as something else."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def result_text(packed: bytes) -> str:
    """Return a packed result as one line of JSON, cut when it is long."""
    return _cut(json.dumps(result_json(packed), ensure_ascii=False))


def arguments_text(payload: bytes) -> str:
    """Return packed arguments as people write a call's, cut when they are long."""
    try:
        positional, named = unpack_arguments(payload)
    except PayloadUnpackable as error:
        return f"{len(payload)} bytes that cannot be read here: {error.message}"
    told = [json.dumps(plain(value), ensure_ascii=False) for value in positional]
    told += [f"{name}={json.dumps(plain(value), ensure_ascii=False)}" for name, value in named.items()]
    return _cut(", ".join(told))


def bytes_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / _MIB:,.0f} MiB" if count >= _MIB else f"{count / 1024:,.0f} KiB"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS_MAX else f"{text[:_TEXT_CHARS_MAX]}… ({len(text):,} characters)"
