"""Words out: one JSON document, or lines for people. Never both, and nothing else on standard output."""

from collections.abc import Sequence
from typing import Final

import click

Json = None | bool | int | float | str | Sequence["Json"] | dict[str, "Json"]

_CONTROLS: Final = dict.fromkeys(
    [*(n for n in range(32) if n not in b"\n\t"), *range(127, 160)], "\N{REPLACEMENT CHARACTER}"
)
"""What a task's own words must not send to a terminal: it would obey."""


def say(text: str) -> None:
    """Print what was asked for."""
    click.echo(text.translate(_CONTROLS))


def hint(text: str) -> None:
    """Tell a person something beside the answer: on standard error."""
    click.echo(text.translate(_CONTROLS), err=True)


def say_json(document: Json) -> None:
    """Print one JSON document on one line."""
    import json

    click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))


def say_rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: columns as wide as what they hold, two spaces between, nothing cut.

    Pipes get the same text as terminals, so what a person sees is what a script reads.
    """
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
