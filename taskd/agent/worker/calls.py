"""Calls: a lease's payload into the function's arguments, its end into a result or a failure."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from taskd.agent import wire
from taskd.agent.worker.verdict import FINAL, Verdict, judge
from taskd.client import middleware
from taskd.client.family import Family
from taskd.client.middleware import TaskFunction
from taskd_protocol.errors import PayloadUnpackable, TaskCodes
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.task import Failure, Retry, TaskSpec

Functions = Mapping[str, TaskFunction]
"""The users' functions by task name."""

MESSAGE_CHARS = 1_000
"""Of a failure's line for people."""

TRACEBACK_CHARS = 60 * 1024
"""Of a traceback: below what a server keeps, so that the cut is made here, where it can be shown."""

_HEAD_CHARS = 8 * 1024
"""How much of a long traceback is its beginning: the end tells more, the beginning tells from where."""

_OWN_FILES = (str(Path(__file__).parent), middleware.__file__)


def read_arguments(spec: TaskSpec) -> tuple[list[object], dict[str, object]] | Failure:
    """Unpack a call's arguments, with its inputs in their places."""
    member = None if spec.given is None else spec.given.member
    try:
        return unpack_arguments(spec.payload, () if member is None else [given.packed for given in member.inputs])
    except PayloadUnpackable as error:
        return Failure(TaskCodes.ARGUMENTS_UNREADABLE, line(error.message))
    except Exception as error:  # noqa: BLE001 - a registered type's own code may raise anything
        return _failed(TaskCodes.ARGUMENTS_UNREADABLE, error)


def pack_result(result: object, bytes_max: int) -> bytes | Failure:
    """Pack what the function returned."""
    try:
        data = pack(result)
    except PayloadUnpackable as error:
        return Failure(TaskCodes.RESULT_UNPACKABLE, line(f"the result cannot be packed: {error.message}"))
    except Exception as error:  # noqa: BLE001 - a registered type's own code may raise anything
        return _failed(TaskCodes.RESULT_UNPACKABLE, error)
    if len(data) > bytes_max:
        return Failure(
            TaskCodes.RESULT_TOO_LARGE,
            f"the result is {len(data)} bytes, the limit {bytes_max}: store it elsewhere and return a reference",
        )
    return data


def unknown(name: str) -> Failure:
    """Return the failure of a task that this worker does not have."""
    return Failure(TaskCodes.NAME_UNKNOWN, line(f"the worker has no task {name!r}: restart agents after renaming one"))


class Thrown(NamedTuple):
    """What a function raised, and what is to follow."""

    failure: Failure
    verdict: Verdict


def raised(error: BaseException, retry: Retry | None) -> Thrown:
    """Return the failure of a function that raised."""
    verdict = judge(error, retry)
    return Thrown(_WAITS if verdict.waits else _failed(TaskCodes.RAISED, error), verdict)


def with_family(family: Family, end: bytes | Failure | Thrown) -> bytes | Failure | Thrown:
    """Return what an attempt that spawned tasks has come to, after the rest of these was told of."""
    failure = family.end(returned=isinstance(end, bytes))
    return end if failure is None else Thrown(failure, FINAL)


def bad_end(token: int, end: Failure | Thrown, started_at_ms: int, run_us: float) -> wire.Raised:
    """Return what to tell of an attempt that ended without a result."""
    if isinstance(end, Failure):
        return wire.Raised(token, end, started_at_ms, run_us)
    return wire.Raised(token, end.failure, started_at_ms, run_us, *end.verdict)


_WAITS = Failure(TaskCodes.PENDING, "it waits for what it has spawned")


def line(text: str) -> str:
    """Return the first line of a text that may hold anything, bounded and fit for the wire."""
    return _clean(text.strip().partition("\n")[0][:MESSAGE_CHARS])


def _failed(code: str, error: BaseException) -> Failure:
    kind = type(error)
    try:
        message = line(str(error))
    except Exception:  # noqa: BLE001 - an exception whose own text raises is told by its type
        message = ""
    return Failure(
        code,
        message or kind.__qualname__,
        _clean(f"{kind.__module__}.{kind.__qualname__}"),
        _traceback_text(error),
    )


def _traceback_text(error: BaseException) -> str:
    """Return the traceback from the user's first frame on, without its middle if it is very long."""
    try:
        text = "".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__)))
    except Exception as broken:  # noqa: BLE001 - the user's classes take part in the formatting
        text = f"(the traceback cannot be shown: {type(broken).__name__})\n"
    if len(text) > TRACEBACK_CHARS:
        tail = TRACEBACK_CHARS - _HEAD_CHARS
        text = f"{text[:_HEAD_CHARS]}\n… {len(text) - TRACEBACK_CHARS} characters left out …\n{text[-tail:]}"
    return _clean(text)


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        trace = trace.tb_next
    return trace


def _clean(text: str) -> str:
    """Spell out lone surrogates, which UTF-8 cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode()
