"""Words in: the options that many commands share, and the readers of what they take.

A reader is a plain function that click calls with the text; it raises ``click.BadParameter`` with a
message that shows the right form.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar, cast

import click

from taskd.text.spans import read_span_ms
from taskd_protocol.errors import BadRequest

C = TypeVar("C", bound=click.Command)

_URL: Final = "taskd.url"
_CONTEXT: Final = "taskd.context"


def server_options(command: C) -> C:
    """Let a command be told which server to talk to; what is given nearer to the command's end counts."""
    command.params += [
        click.Option(
            ["--url"],
            metavar="URL",
            expose_value=False,
            callback=_remember(_URL),
            help="Talk to this server: taskd://TOKEN@HOST:PORT?ca=FILE.",
        ),
        click.Option(
            ["--context"],
            metavar="NAME",
            expose_value=False,
            callback=_remember(_CONTEXT),
            help="Talk to the server of this context; `taskd context ls` lists them.",
        ),
    ]
    return command


def json_option(command: C) -> C:
    """Let a command print one JSON document instead of text; it is called with ``as_json``."""
    command.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document."))
    return command


def chosen_server() -> tuple[str | None, str | None]:
    """Return the URL and the context that the command line names, None for what it does not name."""
    meta = click.get_current_context().meta
    return cast("str | None", meta.get(_URL)), cast("str | None", meta.get(_CONTEXT))


def duration_ms(unit: str) -> Callable[[str], int]:
    """Return a reader of lengths of time, such as ``90``, ``1.5h`` or ``30d``, into milliseconds.

    Args:
        unit: Of a bare number: ``s`` or ``d``.
    """

    def read(text: str) -> int:
        try:
            return read_span_ms(text, unit)
        except BadRequest as error:
            raise click.BadParameter(error.message) from None

    return read


def json_list_or_object(text: str) -> list[object] | dict[str, object]:
    """Read a call's arguments: a list of positional ones, or an object of named ones."""
    match _json(text, "'[1, \"two\"]'"):
        case list() as positional:
            return cast("list[object]", positional)
        case dict() as named:
            return cast("dict[str, object]", named)
        case _:
            raise click.BadParameter("neither a list nor an object; write arguments as '[1, \"two\"]'")


def json_object(text: str) -> dict[str, object]:
    """Read a JSON object."""
    match _json(text, "'{\"size\": 64}'"):
        case dict() as named:
            return cast("dict[str, object]", named)
        case _:
            raise click.BadParameter("no JSON object; write it as '{\"size\": 64}'")


def json_value(text: str) -> object:
    """Read any JSON value."""
    return _json(text, '\'{"by": "ann"}\', \'"text"\' or 3')


def name_and_value(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text[:40]!r} has no name and value; write it as NAME=VALUE")
    return name, value


def by_name(flag: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what was said by each name.

    Args:
        flag: That says it, for a refusal.
        pairs: Names and values, as they were given.

    Raises:
        UsageError: A name has two values, of which one would be lost.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        if values.setdefault(name, value) != value:
            raise click.UsageError(f"{flag} says {name[:40]} twice, {values[name][:40]!r} and {value[:40]!r}; say one")
    return values


def _json(text: str, example: str) -> object:
    import json

    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"no JSON ({error}); write it as {example}") from None


def _remember(key: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta[key] = value

    return callback
