"""Forms with files: a body of several parts, of which one is the JSON that a route takes, and the others are files.

Invariants:
- Files stay in memory: the body was read within bounds already, and nothing of it is written anywhere.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Generic, NamedTuple, TypeVar

import trio
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from taskd.http.bodies import from_json
from taskd.http.errors import BodyTooLarge, FieldRefused
from taskd_protocol.limits import PAYLOAD_BYTES_MAX

BodyT = TypeVar("BodyT")

FORM: Final = "multipart/form-data"

JSON_FIELD: Final = "task"
"""The part that holds the JSON."""

JSON_BYTES_MAX: Final = 64 * 1024

FILES_MAX: Final = 64

_STEP_BYTES: Final = 64 * 1024
"""Parsed without a break: what takes long is not to hold up the server's loop."""


class Form(NamedTuple, Generic[BodyT]):
    """What a body says."""

    body: BodyT
    files: Mapping[str, bytes]
    packed: Sequence[bytes] = ()
    """See ``Call``."""


class _Parser(MultiPartParser):
    spool_max_size = 2 * PAYLOAD_BYTES_MAX


async def read_form(raw: bytes, headers: Headers, kind: type[BodyT]) -> Form[BodyT]:
    """Read a form.

    Raises:
        FieldRefused: It is none, or its JSON is not what was asked for.
        BodyTooLarge: Its JSON is too long for a form.
    """
    try:
        async with aclosing(_in_steps(raw)) as steps:
            form = await _Parser(
                headers, steps, max_files=FILES_MAX, max_fields=FILES_MAX, max_part_size=JSON_BYTES_MAX
            ).parse()
    except MultiPartException as why:
        if why.message.startswith("Part exceeded"):
            raise BodyTooLarge(
                f"a field of a form is longer than {JSON_BYTES_MAX:,} bytes; send what is larger as a file, or no form"
            ) from None
        raise FieldRefused(f"the form cannot be read: {why.message}") from None
    except (KeyError, UnicodeError, ValueError):
        raise FieldRefused("the form cannot be read: its Content-Type names no boundary, or it is cut") from None
    try:
        said: str | None = None
        files: dict[str, bytes] = {}
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                if not name or name in files:
                    fault = f"two files are called {name[:64]!r}" if name else "a file has no name"
                    raise FieldRefused(f"{fault}; each becomes the argument of its name", name[:64])
                files[name] = await part.read()
            elif name != JSON_FIELD:
                raise FieldRefused(f"a form has a field {JSON_FIELD!r} with JSON, and files", name[:64])
            elif said is not None:
                raise FieldRefused(f"the field {JSON_FIELD!r} is said twice; a form submits one task", JSON_FIELD)
            else:
                said = part
    finally:
        await form.close()
    if said is None:
        hint = f"; it is a file here, send its content: {JSON_FIELD}=<FILE" if JSON_FIELD in files else ""
        raise FieldRefused(f"a form has a field {JSON_FIELD!r} with JSON, and files{hint}", JSON_FIELD)
    return Form(from_json(said.encode(), kind), files)


async def _in_steps(raw: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(raw), _STEP_BYTES):
        await trio.lowlevel.checkpoint()
        yield raw[start : start + _STEP_BYTES]
    yield b""
