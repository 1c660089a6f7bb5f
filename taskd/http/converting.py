"""Converting large values: JSON into packed arguments, and packed values into JSON, by a process of its own.

To build millions of values, and to let go of them, holds the interpreter's lock for tenths of a second, in a thread,
too, and takes many times the memory of their text. A process that ends does it; the server hands bytes to and fro.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar

import msgspec

from taskd.http.bodies import from_json
from taskd.http.errors import FieldRefused
from taskd.http.submitting import BatchBody, TaskBody
from taskd.program import CONVERTER
from taskd.server.apart import Apart
from taskd.text.values import Value, arguments_value, result_value
from taskd_protocol.errors import TaskdError, error_from_code
from taskd_protocol.payload import pack_arguments

BodyT = TypeVar("BodyT")

APART_BYTES: Final = 512 * 1024
"""Of JSON, or packed: what is smaller takes the loop 10 ms at most, and the start of a process ten times that."""

PACKABLE: Final[dict[type[object], str]] = {TaskBody: "task", BatchBody: "batch"}
"""Bodies whose arguments can be packed apart, and their words."""

VALUES: Final[dict[str, Callable[[bytes, int | None], Value]]] = {
    "arguments": arguments_value,
    "result": result_value,
}


class _Packed(msgspec.Struct, array_like=True):
    """What came of a body."""

    body: bytes = b""
    """As JSON, without its arguments."""
    payloads: list[bytes] = []
    """Of its tasks, in order."""
    refused: tuple[str, str, str] | None = None
    """Why it is refused: code, message and place."""


async def pack_apart(raw: bytes, kind: type[BodyT], apart: Apart) -> tuple[BodyT, list[bytes]]:
    """Read a body of one of ``PACKABLE``; return it without arguments, and those of its tasks, packed.

    Raises:
        TaskdError: As ``from_json`` and ``pack_arguments`` do.
    """
    told = msgspec.msgpack.decode(await apart([CONVERTER, PACKABLE[kind]], raw), type=_Packed)
    if told.refused is not None:
        code, message, path = told.refused
        raise FieldRefused(message, path) if code == FieldRefused.code else error_from_code(code, message)
    return from_json(told.body, kind), told.payloads


async def value_apart(what: str, packed: bytes, chars_max: int | None, apart: Apart) -> Value:
    """Return a packed value as text: ``arguments`` or a ``result``; see ``taskd.text.values``."""
    words = [CONVERTER, what, *([] if chars_max is None else [str(chars_max)])]
    return msgspec.msgpack.decode(await apart(words, packed), type=Value)


def main(words: Sequence[str]) -> NoReturn:
    """Convert standard input to standard output, and exit."""
    gc.disable()  # nothing of it forms a circle, and all of it goes with the process
    sys.stdout.buffer.write(convert(words, sys.stdin.buffer.read()))
    sys.exit()


def convert(words: Sequence[str], said: bytes) -> bytes:
    """Return what the process puts out.

    Args:
        words: What it is to do, and a bound of characters for what it tells of a value.
        said: Its input.
    """
    what, *bound = words
    if what in VALUES:
        return msgspec.msgpack.encode(VALUES[what](said, int(bound[0]) if bound else None))
    kind = next(kind for kind, word in PACKABLE.items() if word == what)
    try:
        return msgspec.msgpack.encode(_pack(from_json(said, kind)))
    except TaskdError as why:
        place = why.path if isinstance(why, FieldRefused) else ""
        return msgspec.msgpack.encode(_Packed(refused=(why.code, why.message, place)))


def _pack(body: object) -> _Packed:
    tasks = body.tasks if isinstance(body, BatchBody) else [body]
    payloads: list[bytes] = []
    for task in tasks:
        assert isinstance(task, TaskBody)
        payloads.append(pack_arguments(task.args, task.kwargs))
        task.args, task.kwargs = [], {}
    return _Packed(msgspec.json.encode(body), payloads)
