"""What attempts said, as documents: a line of output, a log record, a value or how far it is."""

import msgspec

from taskd.client.lines import data_lines, output_line
from taskd.text.values import iso, result_value
from taskd_protocol.messages import LogEntry
from taskd_protocol.streams import ProgressLine, ValueLine, decode_line


class LineDocument(msgspec.Struct):
    """A line that an attempt said."""

    at: str | None
    """ISO 8601, UTC: of a log record when it was made, else when its agent read it."""
    attempt: int
    stream: str
    """``stdout``, ``stderr``, ``log``, ``stacks`` (of an attempt that took too long), ``value``, ``progress``, or
    ``cut``, where output was left out."""
    text: str
    """Without its end; what is no UTF-8 is spelled out. A value's is JSON."""
    level: str | None
    """Of a log record, such as ``INFO``."""
    logger: str | None
    fields: dict[str, str]
    """Of a log record: what was said beside the message."""
    traceparent: str | None
    """Of a log record: W3C trace context of the task's submit."""
    cursor: str
    """Where to go on behind it."""
    done: float | None = None
    """Of progress."""
    total: float | None = None


def line_documents(entry: LogEntry) -> list[LineDocument]:
    """Return the lines of a piece of output."""
    return [_document(entry, line, f"{entry.sequence}.{index}") for index, line in enumerate(data_lines(entry.data))]


def _document(entry: LogEntry, line: bytes, cursor: str) -> LineDocument:
    said = output_line(entry, line, cursor)
    told = LineDocument(
        at=iso(round(said.at.timestamp() * 1_000)),
        attempt=said.attempt,
        stream=said.stream,
        text=said.text,
        level=said.level or None,
        logger=said.logger or None,
        fields={**said.fields},
        traceparent=said.traceparent or None,
        cursor=cursor,
    )
    data = decode_line(entry.stream, line)
    if isinstance(data, ValueLine):
        told.at, told.text = iso(data.at_ms), result_value(data.packed).text or ""
    elif isinstance(data, ProgressLine):
        told.at, told.text, told.done, told.total = iso(data.at_ms), data.message, data.done, data.total
    return told
