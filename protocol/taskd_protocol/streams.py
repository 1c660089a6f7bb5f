"""Streams: what a running attempt says, and the lines that are data.

An attempt's output is cut into pieces, each of one stream, of whole lines but where a line is longer than a piece or
stayed unfinished. Streams 1 to 3 are bytes as they were printed; a line of the others is a JSON document.

Invariants:
- Every line fits a piece.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from taskd_protocol.limits import LOG_DATA_BYTES_MAX

STDOUT: Final = 1
STDERR: Final = 2
STACKS: Final = 3
LOG: Final = 4
VALUES: Final = 5
PROGRESS: Final = 6
CUT: Final = 7

NAMES: Final[Mapping[int, str]] = {
    STDOUT: "stdout",
    STDERR: "stderr",
    STACKS: "stacks",
    LOG: "log",
    VALUES: "value",
    PROGRESS: "progress",
    CUT: "cut",
}
"""As people call them."""

STREAMS: Final = frozenset(NAMES)

MESSAGE_CHARS_MAX: Final = 16 * 1024
"""Of a log record's message; what is longer keeps its beginning."""

FIELDS_CHARS_MAX: Final = 8 * 1024
"""Of its fields, names and values together."""

RATE: Final = "rate"
SIZE: Final = "size"
RETENTION: Final = "retention"


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A log record, in LOG."""

    at_ms: int
    """When it was made, by the server's clock."""
    level: str
    """As Python names it, such as ``INFO``."""
    logger: str
    message: str
    """With the traceback, where one was logged."""
    traceparent: str = ""
    """Of the task's submit; empty: it has none."""
    fields: dict[str, str] = {}
    """What was said beside the message."""


class ValueLine(msgspec.Struct, frozen=True):
    """A value that the attempt emitted, in VALUES."""

    at_ms: int
    packed: bytes
    """In base64."""


class ProgressLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the attempt is, in PROGRESS."""

    at_ms: int
    done: float
    total: float = 1.0
    message: str = ""


class CutLine(msgspec.Struct, frozen=True):
    """Output that was left out here, in CUT."""

    at_ms: int
    bytes: int
    lines: int
    reason: str
    """``rate``: more in a time than is carried; ``size``: more than is kept of one attempt; ``retention``: all that was
    said before has been taken away since, and is counted no more."""


DataLine = LogLine | ValueLine | ProgressLine | CutLine

_READERS: Final[Mapping[int, msgspec.json.Decoder[DataLine]]] = {
    LOG: msgspec.json.Decoder(LogLine),
    VALUES: msgspec.json.Decoder(ValueLine),
    PROGRESS: msgspec.json.Decoder(ProgressLine),
    CUT: msgspec.json.Decoder(CutLine),
}


def encode_line(line: DataLine) -> bytes:
    """Return a line with its end; a log record that is too long loses the end of its message, then its fields."""
    if isinstance(line, LogLine):
        return _encode_log(line)
    encoded = _encode(line)
    assert len(encoded) <= LOG_DATA_BYTES_MAX, "who makes it keeps to the bounds of what is in it"
    return encoded


def decode_line(stream: int, line: bytes) -> DataLine | None:
    """Read a line of a stream of data; None: it is none."""
    try:
        return _READERS[stream].decode(line)
    except (KeyError, msgspec.DecodeError):  # its attempt may have written it by itself
        return None


def _encode_log(line: LogLine) -> bytes:
    if sum([len(name) + len(value) for name, value in line.fields.items()]) > FIELDS_CHARS_MAX:
        line = msgspec.structs.replace(line, fields={})
    message, kept = line.message, min(len(line.message), MESSAGE_CHARS_MAX)
    while True:
        if kept < len(message):
            line = msgspec.structs.replace(
                line, message=f"{message[:kept]}… [{len(message) - kept} characters left out]"
            )
        encoded = _encode(line)
        if len(encoded) <= LOG_DATA_BYTES_MAX:
            return encoded
        kept //= 2  # a character takes up to twelve bytes
        if not kept:
            line = msgspec.structs.replace(line, fields={}, logger=line.logger[:256])


def _encode(line: DataLine) -> bytes:
    try:
        return msgspec.json.encode(line) + b"\n"
    except UnicodeEncodeError:  # lone surrogates, which UTF-8 cannot carry
        return msgspec.json.encode(_spelled_out(line)) + b"\n"


def _spelled_out(line: DataLine) -> DataLine:
    if isinstance(line, LogLine):
        fields = {_clean(name): _clean(value) for name, value in line.fields.items()}
        return msgspec.structs.replace(
            line, message=_clean(line.message), logger=_clean(line.logger), level=_clean(line.level), fields=fields
        )
    assert isinstance(line, ProgressLine), "no other has texts of users"
    return msgspec.structs.replace(line, message=_clean(line.message))


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
