"""What tasks say: a page of lines, or a stream that can be resumed, of the same path."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Annotated, Final

import msgspec
from starlette.responses import Response

from taskd.client.lines import read_cursor
from taskd.http.errors import FieldRefused
from taskd.http.routes import AnyRoute, Call, Nothing, get, wants_stream
from taskd.http.sse import Event, EventStream
from taskd.text.lines import LineDocument, line_documents
from taskd_protocol.errors import BadRequest, TaskUnknown
from taskd_protocol.ids import parse_task_id
from taskd_protocol.messages import Follow, FollowMore, LogEntry, LogPage, TaskQuery, TaskViews
from taskd_protocol.streams import CUT, LOG, NAMES, STACKS, STDERR, STDOUT

PAGE_BYTES: Final = 1024 * 1024
"""A page ends behind the line with which it comes to this."""

END: Final = "end"
"""Kind of the event that says that the task has ended, and this was all."""

_NUMBERS: Final = {name: number for number, name in NAMES.items()}
_TEXTS: Final = ",".join([NAMES[stream] for stream in (STDOUT, STDERR, STACKS, LOG, CUT)])


class LogsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """What of a task's output."""

    id: str
    after: str = ""
    """Cursor of the last line that was seen; empty: from the beginning. What ``Last-Event-ID`` says goes before it."""
    attempt: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 0
    """Only of this one; 0: of all."""
    since_ms: Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)] = 0
    """Only from this instant on: UTC, in milliseconds since 1970."""
    streams: str = _TEXTS
    """With commas between: ``stdout``, ``stderr``, ``stacks``, ``log``, ``cut``, ``value`` and ``progress``."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000
    """Lines of one page, at most."""


class Lines(msgspec.Struct):
    """Lines, in order."""

    lines: list[LineDocument]
    cursor: str | None = None
    """Of the last of them, for the next page; null: this was all that is stored now."""


async def task_logs(call: Call[LogsAsked, Nothing]) -> Lines | Response:
    """Show what a task's attempts printed, logged, emitted and told of their progress.

    A page of lines, as they are stored now. To who accepts ``text/event-stream`` a stream of such pages, live, until
    the task has ended, which an event ``end`` says; their ids are cursors.
    """
    if wants_stream(call.request):
        wanted, skip = _wanted(call, call.request.headers.get("last-event-id", ""))
        if (await call.ask(TaskQuery(0, [wanted.id]), TaskViews)).views[0] is None:
            raise TaskUnknown(f"no task {call.asked.id} is stored; it was removed, or never submitted")
        return EventStream(_events(call, wanted, skip))
    wanted, skip = _wanted(call, "")
    lines: list[LineDocument] = []
    size = 0
    async with aclosing(_pages(call, msgspec.structs.replace(wanted, stored=True))) as pages:
        async for entries, _ in pages:
            for line in _unseen(entries, wanted.sequence, skip):
                lines.append(line)
                size += len(line.text)
                if len(lines) == call.asked.limit or size >= PAGE_BYTES:
                    return Lines(lines, line.cursor)
    return Lines(lines)


async def _events(call: Call[LogsAsked, Nothing], wanted: Follow, skip: int) -> AsyncGenerator[Event]:
    async with aclosing(_pages(call, wanted)) as pages:
        async for entries, ended in pages:
            lines = list(_unseen(entries, wanted.sequence, skip))
            if lines:
                yield Event(msgspec.json.encode(Lines(lines, lines[-1].cursor)), id=lines[-1].cursor)
            if ended:
                yield Event(b"{}", END)


async def _pages(call: Call[LogsAsked, Nothing], wanted: Follow) -> AsyncGenerator[tuple[Sequence[LogEntry], bool]]:
    """Yield pages of entries, each with whether it is the last."""
    with call.session.open(wanted) as answers:
        ended = False
        while not ended:
            page = await answers.take(LogPage)
            ended = page.end
            yield page.entries, ended
            if not ended:
                call.session.tell(FollowMore(page.request_id))


def _wanted(call: Call[LogsAsked, Nothing], last_event_id: str) -> tuple[Follow, int]:
    """Return what to ask for, and the last line of its first entry that was seen; -1: none was."""
    asked = call.asked
    numbers = [_NUMBERS.get(name) for name in asked.streams.split(",") if name]
    streams = [number for number in numbers if number is not None]
    if len(streams) < len(numbers):
        raise FieldRefused(f"streams are {', '.join(_NUMBERS)}", "$.streams")
    after = last_event_id or asked.after
    try:
        sequence, skip = read_cursor(after) if after else (0, -1)
    except BadRequest as why:
        raise FieldRefused(why.message, "$.Last-Event-ID" if last_event_id else "$.after") from None
    return Follow(0, parse_task_id(asked.id), sequence, asked.attempt, asked.since_ms, streams), skip


def _unseen(entries: Sequence[LogEntry], sequence: int, skip: int) -> Iterator[LineDocument]:
    """Yield the lines of entries that were not seen before."""
    for entry in entries:
        documents = line_documents(entry)
        yield from documents[skip + 1 :] if entry.sequence == sequence else documents


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/tasks/{id}/logs", task_logs, LogsAsked, Lines, Follow, FollowMore, TaskQuery, streams=True, pages=True),
)
