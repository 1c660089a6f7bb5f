"""`taskd watch`: what happens, as it happens."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import click

from taskd.cli.connection import server
from taskd.cli.options import json_option, server_options
from taskd.cli.output import hint, say_document, say_json, say_pieces
from taskd.client.happening import MISSED
from taskd.text.happenings import event_document
from taskd.text.values import iso
from taskd_protocol.errors import BadRequest
from taskd_protocol.event_messages import EventPage, EventsFollow, EventView
from taskd_protocol.ids import format_task_id, parse_task_id

_IDS_SHOWN: Final = 3

_NEXT: Final = re.compile(r"\s+(?=[a-z]+:)")
"""Between two words that one argument holds; a name may have spaces."""

_WORDS: Final = "what:task.dead  state:dead  queue:images  name:thumb*  task:ID  workflow:ID"


@json_option
@server_options
@click.command
@click.option("--after", metavar="NUMBER", type=click.IntRange(min=0), help="Behind this event; 0: all that are kept.")
@click.option("--count", metavar="NUMBER", type=click.IntRange(min=1), help="End after so many events.")
@click.argument("words", metavar="[FILTER]...", nargs=-1)
def watch(*, words: tuple[str, ...], after: int | None, count: int | None, as_json: bool) -> None:
    """Print what happens, as it happens.

    To tasks, agents, queues, workflows, schedules and limits. A filter is made of words: what:task.dead (how events
    begin), state:dead, queue:images, name:thumb*, task:ID, workflow:ID. A lost connection is made again, and nothing is
    left out. With --json each event is a document on a line of its own; {"number": N, "what": "missed"} stands where
    those up to N are kept no longer.
    """
    wanted = read_filter(words, after)
    with server() as client:
        for view in islice(_views(client.events(wanted), as_json=as_json), count):
            if as_json:
                say_document(event_document(view))
            else:
                say_pieces(_pieces(view))


def read_filter(words: Sequence[str], after: int | None) -> EventsFollow:
    """Return what a filter's words ask for.

    Raises:
        BadRequest: One is not known, or says nothing.
    """
    said: dict[str, list[str]] = {}
    for word in (each for argument in words for each in _NEXT.split(argument.strip())):
        key, colon, value = word.partition(":")
        if not colon or not value or key not in {"what", "state", "queue", "name", "task", "workflow"}:
            raise BadRequest(f"{word!r} is no filter; words are {_WORDS}")
        said.setdefault(key, []).append(value)
    _check_once(said)
    return EventsFollow(
        request_id=0,
        after=-1 if after is None else after,
        topics=[*said.get("what", []), *(f"task.{state}" for state in said.get("state", []))],
        queue=said.get("queue", [""])[0],
        name=said.get("name", [""])[0],
        ids=[parse_task_id(text) for text in said.get("task", [])],
        workflow=parse_task_id(said["workflow"][0]) if "workflow" in said else b"",
    )


def _check_once(said: Mapping[str, Sequence[str]]) -> None:
    for key in ("queue", "name", "workflow"):
        if len(said.get(key, ())) > 1:
            raise BadRequest(f"{key}: stands twice; watch one {key} at a time, or all")


def _views(pages: Iterator[EventPage], *, as_json: bool) -> Iterator[EventView]:
    """Yield what pages tell; a gap is told in its place: among documents as one, which is no event."""
    for page in pages:
        if page.missed and as_json:
            say_json({"number": page.events[0].number - 1 if page.events else page.after, "what": MISSED})
        elif page.missed:
            hint("taskd: some events before these are not kept any more")
        yield from page.events


def _pieces(view: EventView) -> list[tuple[str, str]]:
    """Return a line for people, in pieces with the states that colour them."""
    clock = (iso(view.at_ms) or "")[11:23]
    where = f"{view.queue}  {view.name}" if view.queue else view.name
    state = view.what.partition(".")[2]
    return [(f"{clock}  ", ""), (f"{view.what:<16}", state), (f"  {where}{_more(view)}", "")]


def _more(view: EventView) -> str:
    parts = []
    if view.attempt > 1:
        parts.append(f"attempt {view.attempt}")
    if view.agent:
        parts.append(f"on {view.agent}")
    if view.spans_ms:
        word = "waited" if view.what == "task.running" else "took"
        parts.append(f"{word} {max(view.spans_ms) / 1000:.3f} s" + (" at most" if len(view.spans_ms) > 1 else ""))
    if view.code:
        parts.append(view.code)
    ids = [format_task_id(each) for each in view.ids[:_IDS_SHOWN]]
    more = len(view.ids) - len(ids)
    if ids:
        parts.append(" ".join(ids) + (f" and {more:,} more" if more else ""))
    return "".join(f"  {part}" for part in parts)
