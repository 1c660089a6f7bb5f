"""What a task's attempts said, as who submitted it reads it: lines, and values that were emitted.

Iterators for ``for``, and for ``async for`` on asyncio and trio. Each line and value has a cursor, from which another
iterator, in another program too, goes on behind it.
"""

import datetime as dt
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from msgspec.structs import replace

from taskd.client import operations
from taskd.client.clock import mono_s
from taskd.client.promise import Following
from taskd.client.waiting import Steps, arun, run
from taskd_protocol.errors import BadRequest
from taskd_protocol.messages import Follow, LogEntry
from taskd_protocol.payload import unpack
from taskd_protocol.streams import (
    CUT,
    LOG,
    NAMES,
    RETENTION,
    SIZE,
    STACKS,
    STDERR,
    STDOUT,
    CutLine,
    LogLine,
    ValueLine,
    decode_line,
)

if TYPE_CHECKING:
    from taskd.client.line import Line

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
"""For the next of what is stored."""

Since = str | dt.datetime | dt.timedelta
"""A cursor; an instant; or so long ago."""

CURSOR_CHARS_MAX: Final = 24
SEQUENCE_MAX: Final = 1 << 63

TEXTS: Final = (STDOUT, STDERR, STACKS, LOG, CUT)
"""Streams that people read."""

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLine:
    """A line that an attempt said."""

    at: dt.datetime
    """In UTC, by the server's clock: of a log record when it was made, else when its agent read it."""
    attempt: int
    stream: str
    """``stdout``, ``stderr``, ``log``, ``stacks`` (of an attempt that took too long), or ``cut``, where output was left
    out."""
    text: str
    """Without its end; a log record's may have several lines."""
    level: str = ""
    """Of a log record, such as ``INFO``."""
    logger: str = ""
    """Of a log record."""
    fields: Mapping[str, str] = field(default_factory=lambda: _NO_FIELDS)
    """Of a log record: what was said beside the message."""
    traceparent: str = ""
    """Of a log record: W3C trace context of the task's submit."""
    cursor: str = ""
    """Where to go on behind it: see ``TaskHandle.logs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """A value that an attempt emitted."""

    value: object
    at: dt.datetime
    """In UTC, by the server's clock."""
    attempt: int
    cursor: str
    """Where to go on behind it: see ``TaskHandle.stream``."""


class Reader(Generic[T]):
    """Goes through what a task's attempts said."""

    def __init__(
        self,
        link: "Line",
        task_id: bytes,
        streams: Sequence[int],
        *,
        follow: bool,
        since: Since | None,
        attempt: int | None,
        timeout_s: float | None,
    ) -> None:
        """Begin: the server is asked when the first is wanted.

        Args:
            link: To the server.
            task_id: Whose output.
            streams: Which.
            follow: Go on until the task has ended.
            since: Only what was said behind, or from then on.
            attempt: Only of this one.
            timeout_s: For the next.

        Raises:
            BadRequest: ``since`` is no cursor.
        """
        self._from, self._skip = read_cursor(since) if isinstance(since, str) else (0, -1)
        self._since_ms = _since_ms(since) if isinstance(since, dt.datetime) else 0
        self._ago = since if isinstance(since, dt.timedelta) else None
        wanted = Follow(0, task_id, self._from, attempt or 0, self._since_ms, list(streams), stored=not follow)
        self._following = Following(wanted)
        self._link = link
        self._asked = self._over = False
        self._timeout_s = timeout_s
        self._ready: deque[T] = deque()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> T:
        """Block until the next is there."""
        if not self._ready and not run(self._fill()):
            raise StopIteration
        return self._ready.popleft()

    async def __anext__(self) -> T:
        """Wait until the next is there."""
        if not self._ready and not await arun(self._fill()):
            raise StopAsyncIteration
        return self._ready.popleft()

    def close(self) -> None:
        """Read no more."""
        if self._asked and not self._following.ended and not self._over:
            self._link.give_up(self._following)
        self._over = True
        self._ready.clear()

    def __del__(self) -> None:
        """Have the server forget a loop that was left early."""
        if getattr(self, "_asked", False):
            self.close()

    def _fill(self) -> Steps[bool]:
        """Read on until there is something; tell whether there is."""
        if not self._asked and not self._over:
            if self._ago is not None:
                yield from self._begin_ago(self._ago)
            self._asked = True
            self._link.ask(self._following)
        while not self._ready and not self._over:
            page = yield from operations.next_page(self._link, self._following, self._timeout_s)
            if page is None:
                self._over = True
                break
            for entry in page:
                for index, line in enumerate(data_lines(entry.data)):
                    if entry.sequence != self._from or index > self._skip:
                        self._ready.extend(self._read(entry, line, f"{entry.sequence}.{index}"))
        return bool(self._ready)

    def _begin_ago(self, ago: dt.timedelta) -> Steps[None]:
        """Begin so long ago, by the server's clock."""
        session = yield from operations.connect(self._link, TIMEOUT_S)
        now_ms = round(mono_s() * 1_000 + (session.clock_offset_ms or 0))
        self._since_ms = max(0, now_ms - ago // _MS)
        assert isinstance(self._following.message, Follow)
        self._following.message = replace(self._following.message, since_ms=self._since_ms)

    def _read(self, entry: LogEntry, line: bytes, cursor: str) -> Iterator[T]:
        """Yield what the line says, if it is wanted."""
        raise NotImplementedError


class OutputLines(Reader[OutputLine]):
    """Lines that a task's attempts said."""

    def _read(self, entry: LogEntry, line: bytes, cursor: str) -> Iterator[OutputLine]:
        said = output_line(entry, line, cursor)
        if not self._since_ms or said.at >= _instant(self._since_ms):
            yield said


class EmittedValues(Reader[Emitted]):
    """Values that a task's attempts emitted."""

    def _read(self, entry: LogEntry, line: bytes, cursor: str) -> Iterator[Emitted]:
        said = decode_line(entry.stream, line)
        if isinstance(said, ValueLine) and said.at_ms >= self._since_ms:
            yield Emitted(value=unpack(said.packed), at=_instant(said.at_ms), attempt=entry.attempt, cursor=cursor)


def lines_of(entry: LogEntry) -> Iterator[OutputLine]:
    """Yield the lines of a piece of output, as people read them."""
    for index, line in enumerate(data_lines(entry.data)):
        yield output_line(entry, line, f"{entry.sequence}.{index}")


def output_line(entry: LogEntry, line: bytes, cursor: str) -> OutputLine:
    """Return a line of a piece of output, as people read it."""
    said = decode_line(entry.stream, line)
    name, attempt = NAMES.get(entry.stream, str(entry.stream)), entry.attempt
    if isinstance(said, LogLine):
        return OutputLine(
            at=_instant(said.at_ms),
            attempt=attempt,
            stream=name,
            text=said.message,
            level=said.level,
            logger=said.logger,
            fields=said.fields,
            traceparent=said.traceparent,
            cursor=cursor,
        )
    text = cut_text(said) if isinstance(said, CutLine) else line.decode("utf-8", "backslashreplace")
    return OutputLine(at=_instant(entry.at_ms), attempt=attempt, stream=name, text=text, cursor=cursor)


def cut_text(cut: CutLine) -> str:
    """Say what was left out."""
    if cut.reason == RETENTION:
        return "[taskd: what was said before is no longer kept]"
    why = (
        "as much as is kept of one attempt had been said" if cut.reason == SIZE else "its agent takes less in a second"
    )
    return f"[taskd: {cut.lines:,} lines, {cut.bytes:,} bytes were left out here: {why}]"


def data_lines(data: bytes) -> list[bytes]:
    """Return the lines of a piece of output, without their ends."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def read_cursor(text: str) -> tuple[int, int]:
    """Return the piece that a cursor names, and the line in it.

    Raises:
        BadRequest: It is none.
    """
    sequence, _, index = text.partition(".")
    is_one = text.isascii() and sequence.isdecimal() and index.isdecimal() and len(text) <= CURSOR_CHARS_MAX
    if not is_one or int(sequence) >= SEQUENCE_MAX:
        raise BadRequest(f"{text[:40]!r} is no cursor: take that of a line, such as '12.0'")
    return int(sequence), int(index)


def _since_ms(since: dt.datetime) -> int:
    return max(0, (since.astimezone(dt.UTC) - _EPOCH) // _MS)


def _instant(unix_ms: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(milliseconds=unix_ms)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS = dt.timedelta(milliseconds=1)
