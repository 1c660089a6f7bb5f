"""Words out: one JSON document, or lines for people. Never both, and nothing else on standard output."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    import msgspec

    from taskd.text import Json

_CONTROLS: Final = dict.fromkeys(
    [*(n for n in range(32) if n not in b"\n\t"), *range(127, 160)], "\N{REPLACEMENT CHARACTER}"
)
"""What a task's own words must not send to a terminal: it would obey."""

COLOURS: Final = {
    "succeeded": "green",
    "running": "blue",
    "cancelling": "yellow",
    "cancelled": "yellow",
    "dead": "red",
    "failed": "red",
    "broken": "red",
    "expired": "red",
    "waiting": "magenta",
    "scheduled": "magenta",
    "skipped": "bright_black",
    "blocked": "bright_black",
}
"""Of states."""


def say(text: str) -> None:
    """Print what was asked for."""
    click.echo(text.translate(_CONTROLS))


def hint(text: str) -> None:
    """Tell a person something beside the answer: on standard error."""
    click.echo(text.translate(_CONTROLS), err=True)


def say_pieces(pieces: Sequence[tuple[str, str]]) -> None:
    """Print a line of pieces, each in the colour of its state, on a terminal and unless NO_COLOR is set."""
    plain = bool(os.environ.get("NO_COLOR"))
    texts = [(text.translate(_CONTROLS), "" if plain else COLOURS.get(state, "")) for text, state in pieces]
    click.echo("".join(click.style(text, fg=colour) if colour else text for text, colour in texts))


def say_json(document: "Json") -> None:
    """Print one JSON document on one line."""
    import json

    click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))


def say_document(document: "msgspec.Struct | Sequence[msgspec.Struct] | Mapping[str, msgspec.Struct]") -> None:
    """Print what the server told, as one JSON document on one line."""
    import msgspec

    say_json(msgspec.to_builtins(document))


def say_rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: columns as wide as what they hold, two spaces between, nothing cut.

    Pipes get the same text as terminals, so what a person sees is what a script reads.
    """
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
