"""When, in words: the options that say a schedule's timing, and instants as people and scripts read them."""

import datetime as dt
from typing import Final, TypeVar, cast
from zoneinfo import ZoneInfo

import click

from taskd.cli.options import duration_ms
from taskd.text import Json
from taskd.text.spans import read_instant_ms
from taskd_protocol.errors import BadRequest
from taskd_protocol.schedule import FOLDS, GAPS, Timing

C = TypeVar("C", bound=click.Command)

_TIMING: Final = "taskd.timing"
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def timing_options(command: C) -> C:
    """Let a command be told when; ``chosen_timing`` returns it."""
    command.params[:0] = [
        click.Option(["--" + name], metavar=metavar, expose_value=False, callback=_remember, help=text, **more)
        for name, metavar, text, more in (
            (
                "cron",
                "LINE",
                "A cron line: '0 3 * * mon-fri', with the second first '*/10 * * * * *', or @daily.",
                _MANY,
            ),
            ("every", "TIME", "An interval: 90s, 15m, 1d.", {"type": duration_ms("s")}),
            ("at", "INSTANT", "An instant: 2026-12-24T18:00, by the clock of --tz, or with Z or +01:00.", _MANY),
            ("tz", "ZONE", "Whose clock counts: Europe/Oslo; else UTC.", {}),
            (
                "gap",
                None,
                "What a time does that a clock set forward jumps over; else next.",
                {"type": click.Choice(GAPS)},
            ),
            ("fold", None, "What one does that comes twice; else auto.", {"type": click.Choice(FOLDS)}),
            ("start", "INSTANT", "Nothing before.", {}),
            ("end", "INSTANT", "Nothing after.", {}),
            ("not-on", "DATE", "Not on this day: 2026-12-25.", _MANY),
            ("not-cron", "LINE", "Not at what this cron line names: '* * * * sat,sun'.", _MANY),
        )
    ]
    return command


_MANY: Final = {"multiple": True}


def is_timed() -> bool:
    """Tell whether the command line says when."""
    return bool(_chosen())


def chosen_timing() -> Timing:
    """Return the timing that the command line tells; whether it can be is decided elsewhere."""
    chosen = _chosen()
    zone = cast("str", chosen.get("tz", "UTC"))
    start, end = cast("str", chosen.get("start", "")), cast("str", chosen.get("end", ""))
    return Timing(
        cron=cast("tuple[str, ...]", chosen.get("cron", ())),
        every_ms=cast("int", chosen.get("every", 0)),
        at_ms=tuple(instant_ms(text, zone) for text in cast("tuple[str, ...]", chosen.get("at", ()))),
        zone=zone,
        gap=cast("str", chosen.get("gap", "next")),
        fold=cast("str", chosen.get("fold", "auto")),
        start_ms=instant_ms(start, zone) if start else 0,
        end_ms=instant_ms(end, zone) if end else 0,
        not_dates=cast("tuple[str, ...]", chosen.get("not_on", ())),
        not_cron=cast("tuple[str, ...]", chosen.get("not_cron", ())),
    )


def instant_ms(text: str, zone: str) -> int:
    """Read an instant; one without an offset is by the clock of the zone.

    Raises:
        BadParameter: It is none, or there is no such zone.
    """
    try:
        return read_instant_ms(text, zone)
    except BadRequest as error:
        raise click.BadParameter(error.message) from None


def wall_text(at_ms: int, zone: ZoneInfo) -> str:
    """Return an instant by the clock of a zone, with the day of the week and the offset: what people compare."""
    return (_EPOCH + dt.timedelta(milliseconds=at_ms)).astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %z")


def timing_text(timing: Timing) -> str:
    """Return when, in few words."""
    if timing.every_ms:
        return f"every {span_text(timing.every_ms)}"
    if timing.at_ms:
        return f"at {len(timing.at_ms)} instants" if len(timing.at_ms) > 1 else "once"
    return "; ".join(timing.cron) + ("" if timing.zone == "UTC" else f" {timing.zone}")


def span_text(length_ms: int) -> str:
    """Return a length of time as its option takes it."""
    for unit, unit_ms in (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if length_ms % unit_ms == 0 and length_ms:
            return f"{length_ms // unit_ms}{unit}"
    return f"{length_ms}ms"


def _chosen() -> dict[str, Json]:
    return cast("dict[str, Json]", click.get_current_context().meta.get(_TIMING, {}))


def _remember(ctx: click.Context, parameter: click.Parameter, value: Json) -> None:
    if value is not None and value != () and parameter.name is not None:
        cast("dict[str, Json]", ctx.meta.setdefault(_TIMING, {}))[parameter.name] = value
