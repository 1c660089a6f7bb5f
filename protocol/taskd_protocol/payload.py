"""The payload codec: Python values into opaque bytes and back, with msgpack.

Only clients and workers use it; the server never looks inside. Plain data,
tuples, sets, datetimes, dates, timedeltas, UUIDs, Decimals, paths and the types
that a user registers are carried. Nothing is ever rebuilt by a name found in the
data: an extension code has one decoder, fixed on the reading side, so that
reading hostile bytes cannot run anybody's code.
"""

import datetime as dt
import decimal
import functools
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgpack

from taskd_protocol.errors import BadRequest, PayloadUnpackable

T = TypeVar("T")

PAYLOAD_DEPTH_MAX = 1024
"""Lists and mappings inside each other, within one extension value: msgpack's own bound, both ways."""

EXTENSION_DEPTH_MAX = 16
"""Extension values inside each other, such as tuples in tuples.

Reading takes some 41 KB of stack for each, and a thread may have no more than 1 MB:
without this bound a few hundred bytes from elsewhere would end the process.
"""

REGISTERED_CODE = 64
"""Extension code of the types that users register: body is packed [name, plain]."""

BIG_INT_CODE = 13
"""Extension code of integers beyond 64 bits: body is packed hexadecimal digits."""

INPUT_CODE = 14
"""Extension code of an input: body is its packed number."""


@dataclass(frozen=True, slots=True)
class Input:
    """Where the result of another task goes in a call's arguments: in its place, when the call is read."""

    number: int
    """Position among the inputs that the call is given."""


@dataclass(frozen=True, slots=True)
class _Extension:
    """How one type travels: a code for the wire, the plain type that it travels as, and a way each way."""

    code: int
    plain: type
    to_plain: Callable[[object], object]
    from_plain: Callable[[object], object]


def _timedelta_to_plain(value: object) -> object:
    assert isinstance(value, dt.timedelta)
    return [value.days, value.seconds, value.microseconds]


def _timedelta_from_plain(plain: object) -> object:
    match plain:
        case [int() as days, int() as seconds, int() as microseconds]:
            return dt.timedelta(days=days, seconds=seconds, microseconds=microseconds)
        case _:
            raise PayloadUnpackable("a timedelta is packed as [days, seconds, microseconds]")


def _set_to_plain(value: object) -> object:
    """Give equal sets equal bytes, whatever their members are: a payload is compared to find conflicts."""
    assert isinstance(value, (set, frozenset))
    return sorted(value, key=pack)


# Each is called with what its type or its code carried, so the argument fits.
_BUILT_IN: dict[type, _Extension] = {
    tuple: _Extension(1, list, list, tuple),  # type: ignore[arg-type]
    set: _Extension(2, list, _set_to_plain, set),  # type: ignore[arg-type]
    frozenset: _Extension(3, list, _set_to_plain, frozenset),  # type: ignore[arg-type]
    dt.datetime: _Extension(4, str, dt.datetime.isoformat, dt.datetime.fromisoformat),  # type: ignore[arg-type]
    dt.date: _Extension(5, str, dt.date.isoformat, dt.date.fromisoformat),  # type: ignore[arg-type]
    dt.time: _Extension(6, str, dt.time.isoformat, dt.time.fromisoformat),  # type: ignore[arg-type]
    dt.timedelta: _Extension(7, list, _timedelta_to_plain, _timedelta_from_plain),
    uuid.UUID: _Extension(8, str, str, uuid.UUID),  # type: ignore[arg-type]
    decimal.Decimal: _Extension(9, str, str, decimal.Decimal),  # type: ignore[arg-type]
    complex: _Extension(10, str, str, complex),  # type: ignore[arg-type]
    pathlib.PosixPath: _Extension(11, str, str, pathlib.Path),  # type: ignore[arg-type]
    pathlib.WindowsPath: _Extension(11, str, str, pathlib.Path),  # type: ignore[arg-type]
    pathlib.PurePosixPath: _Extension(12, str, str, pathlib.PurePosixPath),  # type: ignore[arg-type]
}
_BY_CODE = {extension.code: extension for extension in _BUILT_IN.values()}


@dataclass(frozen=True, slots=True)
class _Registered:
    """A type that a user registered."""

    kind: type
    name: str
    to_plain: Callable[[object], object]
    from_plain: Callable[[object], object]


_registered: dict[type, _Registered] = {}
_registered_names: dict[str, _Registered] = {}


def register_type(kind: type[T], name: str, to_plain: Callable[[T], object], from_plain: Callable[[object], T]) -> None:
    """Let values of a type travel as arguments and results.

    Call it on both sides, at import of the module that the tasks live in. Calling
    it again for the same type replaces what was said before, as a reload does.

    Args:
        kind: Exactly this type; subclasses register themselves.
        name: What both sides call it.
        to_plain: Gives data that the codec carries.
        from_plain: Rebuilds the value; its input may be hostile.

    Raises:
        BadRequest: The name belongs to another type, or the codec carries the type by itself.
    """
    if kind in _BUILT_IN or kind in _NATIVE:
        raise BadRequest(f"{_type_name(kind)} is carried as it is; register only types that are not")
    taken = _registered_names.get(name)
    if taken is not None and _type_name(taken.kind) != _type_name(kind):
        raise BadRequest(f"payload type name {name!r} belongs to {_type_name(taken.kind)}; choose another")
    before = _registered.get(kind)
    if before is not None:
        _registered_names.pop(before.name, None)
    entry = _Registered(kind, name, to_plain, from_plain)  # type: ignore[arg-type]  # found by type, so called with a T
    _registered[kind] = _registered_names[name] = entry


def pack(value: object) -> bytes:
    """Pack one value.

    Raises:
        PayloadUnpackable: It holds something that cannot be carried; the type is named.
    """
    # With a packer that nobody else is using: making one costs as much as a small value.
    try:
        packer = _spare_packers.pop()
    except IndexError:
        packer = msgpack.Packer(default=_ENCODE[0], strict_types=True)
    try:
        data = packer.pack(value)  # where this raises, the packer is not used again
    except PayloadUnpackable:
        raise
    except RecursionError:
        raise PayloadUnpackable("a value nests too deeply, or holds itself") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise PayloadUnpackable(str(error)) from None
    if len(data) <= _SPARE_BYTES_MAX:
        _spare_packers.append(packer)
    return data


def unpack(data: bytes) -> object:
    """Read one packed value back.

    Raises:
        PayloadUnpackable: The bytes are no packed value, or hold a type that is not registered here.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_DECODE[0], strict_map_key=False, timestamp=3)
    except PayloadUnpackable:
        raise
    except (TypeError, ValueError, ArithmeticError, RecursionError, msgpack.UnpackException) as error:
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


def unpack_arguments(data: bytes, inputs: Sequence[bytes] = ()) -> tuple[list[object], dict[str, object]]:
    """Read what ``pack_arguments`` packed.

    Args:
        data: The packed call.
        inputs: Packed; each takes the place of the ``Input`` of its number. One that stands twice is read twice.

    Raises:
        PayloadUnpackable: The bytes are no packed call, an input is no packed value, or there is none of a number.
    """
    call = _unpack_with(data, inputs) if inputs else unpack(data)
    if type(call) is list and len(call) == 2:  # noqa: PLR2004 - positional and keyword arguments
        args, kwargs = call
        if type(args) is list and type(kwargs) is dict and (not kwargs or set(map(type, kwargs)) == {str}):
            return args, kwargs
    raise PayloadUnpackable("the payload is no packed call: [arguments, keyword arguments]")


def _unpack_with(data: bytes, inputs: Sequence[bytes]) -> object:
    """Read one packed value, with inputs in their places, wherever in it they are."""

    def decode(depth: int, code: int, body: bytes) -> object:
        if code == INPUT_CODE:
            number = _decode(depth, code, body)
            assert isinstance(number, Input)
            if not 0 <= number.number < len(inputs):
                raise PayloadUnpackable(f"the payload wants input {number.number}, and was given {len(inputs)}")
            return unpack(inputs[number.number])
        extension = _BY_CODE.get(code)
        if extension is None or extension.plain is not list or depth >= EXTENSION_DEPTH_MAX:
            return _decode(depth, code, body)
        plain = read(body, depth + 1)  # a tuple, or a set: inputs may stand in it
        if type(plain) is not list:
            return _decode(depth, code, body)
        return extension.from_plain(plain)

    def read(body: bytes, depth: int) -> object:
        return msgpack.unpackb(body, ext_hook=functools.partial(decode, depth), strict_map_key=False, timestamp=3)

    try:
        return read(data, 0)
    except PayloadUnpackable:
        raise
    except (TypeError, ValueError, ArithmeticError, RecursionError, msgpack.UnpackException) as error:
        raise PayloadUnpackable(f"no packed value: {str(error)[:200] or type(error).__name__}") from None


def _pack(value: object, depth: int) -> bytes:
    return msgpack.packb(value, default=_ENCODE[depth], strict_types=True)


def _unpack(data: bytes, depth: int) -> object:
    # msgpack's own timestamp (code -1) is never written here; other languages' libraries write it by themselves.
    return msgpack.unpackb(data, ext_hook=_DECODE[depth], strict_map_key=False, timestamp=3)


def _encode(depth: int, value: object) -> msgpack.ExtType:
    """Give a value that msgpack does not know as an extension value, ``depth`` others around it."""
    if depth == EXTENSION_DEPTH_MAX:
        raise PayloadUnpackable(
            f"tuples, sets or registered types nest more than {EXTENSION_DEPTH_MAX} deep, or hold themselves; use lists"
        )
    kind = type(value)
    extension = _BUILT_IN.get(kind)
    if extension is not None:
        return msgpack.ExtType(extension.code, _pack(extension.to_plain(value), depth + 1))
    registered = _registered.get(kind)
    if registered is not None:
        return msgpack.ExtType(REGISTERED_CODE, _pack([registered.name, _plain(registered, value)], depth + 1))
    if kind is Input:
        return msgpack.ExtType(INPUT_CODE, _pack(value.number, depth + 1))  # type: ignore[attr-defined]  # so it is one
    if kind is int:
        return msgpack.ExtType(BIG_INT_CODE, _pack(format(value, "x"), depth + 1))
    raise PayloadUnpackable(f"{_type_name(kind)} is not plain data; pass plain data or register_type it")


def _decode(depth: int, code: int, data: bytes) -> object:
    """Rebuild the value of an extension code, ``depth`` others around it."""
    if depth == EXTENSION_DEPTH_MAX:
        raise PayloadUnpackable(f"payload nests extension values more than {EXTENSION_DEPTH_MAX} deep")
    plain = _unpack(data, depth + 1)
    extension = _BY_CODE.get(code)
    if extension is not None and type(plain) is extension.plain:
        return extension.from_plain(plain)
    if code == BIG_INT_CODE and isinstance(plain, str):
        return int(plain, 16)
    if code == INPUT_CODE and type(plain) is int:
        return Input(plain)
    if code == REGISTERED_CODE:
        match plain:
            case [str() as name, body]:
                return _rebuild(name, body)
            case _:
                raise PayloadUnpackable("payload holds a registered type that is not [name, value]")
    raise PayloadUnpackable(f"payload holds extension code {code} with what does not belong to it")


def _plain(registered: _Registered, value: object) -> object:
    try:
        return registered.to_plain(value)
    except Exception as error:
        raise PayloadUnpackable(f"to_plain of {registered.name!r} failed: {_told(error)}") from error


def _rebuild(name: str, body: object) -> object:
    registered = _registered_names.get(name)
    if registered is None:
        raise PayloadUnpackable(f"payload type {name[:64]!r} is not registered here; import its module")
    try:
        return registered.from_plain(body)
    except Exception as error:
        raise PayloadUnpackable(f"from_plain of {name!r} refused what came in: {_told(error)}") from error


def _type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


_spare_packers: list[msgpack.Packer] = []
"""Of all threads: taking one out and putting it back are single steps."""

_SPARE_BYTES_MAX = 256 * 1024
"""A packer keeps room for the largest value that it packed; one that grew beyond this is let go."""

_NATIVE = frozenset({type(None), bool, int, float, str, bytes, bytearray, list, dict})
"""What msgpack carries by itself. A bytearray comes back as bytes."""

# One function for each depth, made once: the codec's hooks are called with the value alone.
_ENCODE = [functools.partial(_encode, depth) for depth in range(EXTENSION_DEPTH_MAX + 1)]
_DECODE = [functools.partial(_decode, depth) for depth in range(EXTENSION_DEPTH_MAX + 1)]
