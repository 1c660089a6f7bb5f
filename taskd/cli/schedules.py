"""`taskd schedule`: work that is submitted again and again, by the clock."""

import click

from taskd.cli.options import json_option
from taskd.cli.output import say, say_json, say_rows
from taskd.cli.timings import chosen_timing, instant_ms, is_timed, timing_options, wall_text
from taskd.cli.views import iso
from taskd_protocol.limits import SCHEDULE_PREVIEW_MAX


@click.group
def schedule() -> None:
    """Look at schedules; make, pause, resume and trigger them."""


@json_option
@timing_options
@schedule.command
@click.option("--from", "first", metavar="INSTANT", help="Tell what fires from then on; else from now on.")
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(1, SCHEDULE_PREVIEW_MAX),
    default=5,
    show_default=True,
    help="How many firings to tell.",
)
def preview(*, first: str | None, count: int, as_json: bool) -> None:
    """Tell when a timing fires, and why where that is odd.

    Given --cron, --every or --at it asks no server. What it tells holds for the zone data of this machine.
    """
    from itertools import islice

    from taskd.core.firings import find_zone, plan
    from taskd.server.clock import SystemClock

    if not is_timed():
        raise click.UsageError("say when: --cron LINE, --every TIME or --at INSTANT")
    timing = chosen_timing()
    from_ms = SystemClock().wall_ms() if first is None else instant_ms(first, timing.zone)
    firings = list(islice(plan(timing, from_ms).upcoming(from_ms - 1), count))
    if as_json:
        say_json([{"at": iso(firing.at_ms), "note": firing.note} for firing in firings])
        return
    if not firings:
        say("nothing fires any more")
        return
    zone = find_zone(timing.zone)
    rows = [(iso(firing.at_ms) or "", wall_text(firing.at_ms, zone), firing.note) for firing in firings]
    say_rows(("UTC", timing.zone.upper(), "NOTE"), rows)
