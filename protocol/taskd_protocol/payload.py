"""The payload codec: Python values into opaque bytes and back, with msgpack.

Only clients and workers use it; the server never looks inside. Plain data,
tuples, sets, datetimes, dates, timedeltas, UUIDs, Decimals, paths and the types
that a user registers are carried. Nothing is ever rebuilt by a name found in the
data: an extension code has one decoder, fixed on the reading side, so that
reading hostile bytes cannot run anybody's code.
"""

import datetime as dt
import decimal
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgpack

from taskd_protocol.errors import BadRequest, PayloadUnpackable

T = TypeVar("T")

PAYLOAD_DEPTH_MAX = 511
"""msgpack's own bound on nesting, both ways."""

_REGISTERED = 64
"""Extension code of the types that users register: body is packed [name, plain]."""


@dataclass(frozen=True, slots=True)
class _Extension:
    """How one type travels: a code for the wire, and a way each way over plain data."""

    code: int
    to_plain: Callable[[object], object]
    from_plain: Callable[[object], object]


def _sorted_if_possible(items: object) -> list[object]:
    """Give equal sets equal bytes where their members can be ordered: a payload is hashed to find conflicts."""
    assert isinstance(items, (set, frozenset))
    try:
        return sorted(items)
    except TypeError:
        return list(items)


def _timedelta_to_plain(value: object) -> object:
    assert isinstance(value, dt.timedelta)
    return [value.days, value.seconds, value.microseconds]


def _timedelta_from_plain(plain: object) -> object:
    match plain:
        case [int() as days, int() as seconds, int() as microseconds]:
            return dt.timedelta(days=days, seconds=seconds, microseconds=microseconds)
        case _:
            raise PayloadUnpackable("a timedelta is packed as [days, seconds, microseconds]")


_BUILT_IN: dict[type, _Extension] = {
    tuple: _Extension(1, list, tuple),  # type: ignore[arg-type]  # each is called with what its code carried
    set: _Extension(2, _sorted_if_possible, set),  # type: ignore[arg-type]
    frozenset: _Extension(3, _sorted_if_possible, frozenset),  # type: ignore[arg-type]
    dt.datetime: _Extension(4, dt.datetime.isoformat, dt.datetime.fromisoformat),  # type: ignore[arg-type]
    dt.date: _Extension(5, dt.date.isoformat, dt.date.fromisoformat),  # type: ignore[arg-type]
    dt.time: _Extension(6, dt.time.isoformat, dt.time.fromisoformat),  # type: ignore[arg-type]
    dt.timedelta: _Extension(7, _timedelta_to_plain, _timedelta_from_plain),
    uuid.UUID: _Extension(8, str, uuid.UUID),  # type: ignore[arg-type]
    decimal.Decimal: _Extension(9, str, decimal.Decimal),  # type: ignore[arg-type]
    complex: _Extension(10, str, complex),  # type: ignore[arg-type]
    pathlib.PosixPath: _Extension(11, str, pathlib.Path),  # type: ignore[arg-type]
    pathlib.WindowsPath: _Extension(11, str, pathlib.Path),  # type: ignore[arg-type]
    pathlib.PurePosixPath: _Extension(12, str, pathlib.PurePosixPath),  # type: ignore[arg-type]
}
_BY_CODE = {extension.code: extension for extension in _BUILT_IN.values()}
_BIG_INT = 13

_registered: dict[type, tuple[str, Callable[[object], object]]] = {}
_registered_names: dict[str, Callable[[object], object]] = {}


def register_type(kind: type[T], name: str, to_plain: Callable[[T], object], from_plain: Callable[[object], T]) -> None:
    """Let values of a type travel as arguments and results.

    Call it on both sides, at import of the module that the tasks live in.

    Args:
        kind: Exactly this type; subclasses register themselves.
        name: What both sides call it.
        to_plain: Gives data that the codec carries.
        from_plain: Rebuilds the value; its input may be hostile.

    Raises:
        BadRequest: The name belongs to another type.
    """
    if name in _registered_names and kind not in _registered:
        raise BadRequest(f"payload type name {name!r} is taken; choose another")
    _registered[kind] = (name, to_plain)  # type: ignore[assignment]  # looked up by exact type, so called with a T
    _registered_names[name] = from_plain


def pack(value: object) -> bytes:
    """Pack one value.

    Raises:
        PayloadUnpackable: It holds something that cannot be carried; the type is named.
    """
    try:
        return msgpack.packb(value, default=_encode, strict_types=True)
    except PayloadUnpackable:
        raise
    except RecursionError:
        raise PayloadUnpackable("a value nests too deeply, or holds itself") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise PayloadUnpackable(str(error)) from None


def unpack(data: bytes) -> object:
    """Read one packed value back.

    Raises:
        PayloadUnpackable: The bytes are no packed value, or hold a type that is not registered here.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False)
    except PayloadUnpackable:
        raise
    except (TypeError, ValueError, RecursionError, msgpack.UnpackException, ArithmeticError) as error:
        raise PayloadUnpackable(f"no packed value: {str(error)[:200] or type(error).__name__}") from None


def pack_arguments(args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
    """Pack a call's arguments as ``[args, kwargs]``.

    Raises:
        PayloadUnpackable: The message names the argument and its type.
    """
    try:
        return pack([list(args), dict(kwargs)])
    except PayloadUnpackable:
        for label, value in [*((f"argument {i + 1}", v) for i, v in enumerate(args)), *kwargs.items()]:
            try:
                pack(value)
            except PayloadUnpackable as error:
                raise PayloadUnpackable(f"{label} cannot be packed: {error.message}") from None
        raise


def unpack_arguments(data: bytes) -> tuple[list[object], dict[str, object]]:
    """Read what ``pack_arguments`` packed.

    Raises:
        PayloadUnpackable: The bytes are no packed call.
    """
    match unpack(data):
        case [list() as args, dict() as kwargs] if all(isinstance(key, str) for key in kwargs):
            return args, kwargs
        case _:
            raise PayloadUnpackable("the payload is no packed call: [arguments, keyword arguments]")


def _encode(value: object) -> msgpack.ExtType:
    kind = type(value)
    extension = _BUILT_IN.get(kind)
    if extension is not None:
        return msgpack.ExtType(extension.code, pack(extension.to_plain(value)))
    registered = _registered.get(kind)
    if registered is not None:
        name, to_plain = registered
        return msgpack.ExtType(_REGISTERED, pack([name, to_plain(value)]))
    if kind is int:
        return msgpack.ExtType(_BIG_INT, pack(format(value, "x")))
    raise PayloadUnpackable(
        f"{kind.__module__}.{kind.__qualname__} is not plain data; pass plain data or register_type it"
    )


def _decode(code: int, data: bytes) -> object:
    plain = unpack(data)
    extension = _BY_CODE.get(code)
    if extension is not None:
        return extension.from_plain(plain)
    if code == _BIG_INT and isinstance(plain, str):
        return int(plain, 16)
    if code == _REGISTERED and isinstance(plain, list) and len(plain) == 2:  # noqa: PLR2004 - name and value
        name, body = plain
        from_plain = _registered_names.get(name) if isinstance(name, str) else None
        if from_plain is None:
            raise PayloadUnpackable(f"payload type {str(name)[:64]!r} is not registered here; import its module")
        return from_plain(body)
    raise PayloadUnpackable(f"payload holds the unknown extension code {code}")
