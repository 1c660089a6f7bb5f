"""`taskd schedule`: work that is submitted again and again, by the clock."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import click

from taskd.cli.connection import server
from taskd.cli.declared import imported
from taskd.cli.options import duration_ms, json_list_or_object, json_option, server_options
from taskd.cli.output import hint, say, say_document, say_json, say_rows
from taskd.cli.schedule_views import (
    change_text,
    changes_text,
    firing_row,
    orphan_advice,
    overview_row,
    schedule_lines,
)
from taskd.cli.timings import chosen_timing, instant_ms, is_timed, timing_options, wall_text
from taskd.client.client import Client
from taskd.text.schedules import changes_document, firing_document, schedule_detail, schedule_document
from taskd.text.values import iso
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import ScheduleUnknown, TaskdError
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import MAX_ATTEMPTS_MAX, PRIORITY_MAX, PRIORITY_MIN, SCHEDULE_PREVIEW_MAX
from taskd_protocol.payload import pack_arguments
from taskd_protocol.schedule import MISSED, NO_TASK_ID, OVERLAPS, Schedule
from taskd_protocol.schedule_messages import (
    FiringPage,
    PreviewPage,
    ScheduleBackfill,
    ScheduleBackfilled,
    ScheduleChanges,
    ScheduleHistory,
    ScheduleList,
    ScheduleOrder,
    SchedulePage,
    SchedulePreview,
    ScheduleSet,
    ScheduleSync,
    ScheduleTrigger,
    ScheduleTriggered,
    ScheduleView,
)
from taskd_protocol.task import DEFAULT_QUEUE, Retry, Rules, TaskSpec
from taskd_protocol.workflow import is_workflow_id

if TYPE_CHECKING:
    from taskd.text import Json

C = TypeVar("C", bound=click.Command)

_PAGE: Final = 200


def _names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a schedule, where the server can be asked."""
    try:
        with ctx, server() as client:
            found = [view.schedule.name for view in _all(client)]
    except (TaskdError, click.ClickException):
        return []
    return [name for name in found if name.startswith(incomplete)]


def _named(command: C) -> C:
    """Let a command be told the name of a schedule; it is called with ``name``."""
    command.params.insert(0, click.Argument(["name"], metavar="NAME", shell_complete=_names))
    return command


@click.group
def schedule() -> None:
    """Look at schedules; make, pause, resume and trigger them."""


@json_option
@server_options
@schedule.command("ls")
def list_schedules(*, as_json: bool) -> None:
    """List the schedules, with when they fire next and what came of the last time."""
    with server() as client:
        views = list(_all(client))
    if as_json:
        say_document([schedule_document(view) for view in views])
    else:
        say_rows(("NAME", "STATE", "WHEN", "NEXT (UTC)", "LAST", "WORK", "SOURCE"), [overview_row(v) for v in views])


@json_option
@server_options
@_named
@schedule.command
def show(*, name: str, as_json: bool) -> None:
    """Show one schedule: what it submits, by which rules, and its next firings."""
    with server() as client:
        view = _one(client, name)
        page = None if view.state == "broken" else client.call(SchedulePreview(0, name), PreviewPage)
    firings = [] if page is None else page.firings
    if as_json:
        say_document(schedule_detail(view, firings))
        return
    for line in schedule_lines(view):
        say(line)
    if page is not None:
        _say_firings(page)


@json_option
@server_options
@timing_options
@schedule.command
@click.argument("name", metavar="NAME")
@click.argument("task", metavar="TASK")
@click.argument("arguments", metavar="[JSON-ARGS]", type=json_list_or_object, default="[]")
@click.option("--overlap", type=click.Choice(OVERLAPS), default="skip", help="While the task before goes on.")
@click.option("--missed", type=click.Choice(MISSED), default="latest", help="What becomes of missed times.")
@click.option("--missed-max", metavar="N", type=click.IntRange(min=1), help="With --missed all: how many at most.")
@click.option(
    "--jitter", "jitter_ms", metavar="TIME", type=duration_ms("s"), default="0", help="Each waits at most this."
)
@click.option(
    "--pause-after", metavar="N", type=click.IntRange(1, MAX_ATTEMPTS_MAX), help="Pause after N failures in a row."
)
@click.option("--queue", metavar="NAME", default=DEFAULT_QUEUE, show_default=True, help="Where its tasks wait.")
@click.option("--priority", type=click.IntRange(PRIORITY_MIN, PRIORITY_MAX), default=0, help="Higher runs sooner.")
@click.option("--max-attempts", metavar="N", type=click.IntRange(min=1), help="Failed attempts until a task is dead.")
@click.option(
    "--time-limit", "limit_ms", metavar="TIME", type=duration_ms("s"), default="0", help="Kill an attempt that runs on."
)
@click.option("--replace", is_flag=True, help="Change the schedule of that name, if there is one.")
def add(
    *,
    name: str,
    task: str,
    arguments: list[object] | dict[str, object],
    overlap: str,
    missed: str,
    missed_max: int | None,
    jitter_ms: int,
    pause_after: int | None,
    queue: str,
    priority: int,
    max_attempts: int | None,
    limit_ms: int,
    replace: bool,
    as_json: bool,
) -> None:
    """Have the server submit TASK again and again: taskd schedule add nightly app.report --cron '0 3 * * *'.

    JSON-ARGS are its arguments: '[1, "two"]', or an object that names them. Say when with --cron, --every or --at.
    """
    if not is_timed():
        raise click.UsageError("say when: --cron LINE, --every TIME or --at INSTANT")
    named = arguments if isinstance(arguments, dict) else {}
    spec = TaskSpec(
        id=NO_TASK_ID,
        name=task,
        payload=pack_arguments(arguments if isinstance(arguments, list) else [], named),
        queue=queue,
        priority=priority,
        retry=None if max_attempts is None else Retry(max_attempts=max_attempts),
        given=Rules(timeout_ms=limit_ms) if limit_ms else None,
    )
    made = Schedule(name, chosen_timing(), spec, jitter_ms, overlap, missed, missed_max or 0, pause_after or 0)
    with server() as client:
        changes = client.call(ScheduleSet(0, made, only_new=not replace), ScheduleChanges)
        view = _one(client, name)
    if as_json:
        say_document(schedule_document(view))
    else:
        say(f"schedule {name} {change_text(changes)}; it fires next at {iso(view.next_at_ms) or 'no time'}")


@json_option
@server_options
@_named
@schedule.command
def pause(*, name: str, as_json: bool) -> None:
    """Have a schedule fire no more, until it is resumed."""
    _order(name, "pause", f"schedule {name} is paused; taskd schedule resume {name} has it fire again", as_json=as_json)


@json_option
@server_options
@_named
@schedule.command
def resume(*, name: str, as_json: bool) -> None:
    """Have a paused schedule fire again; what it missed is as its rule says."""
    _order(name, "resume", f"schedule {name} fires again", as_json=as_json)


@json_option
@server_options
@_named
@schedule.command("rm")
def remove(*, name: str, as_json: bool) -> None:
    """Remove a schedule with its history; what it has submitted goes on."""
    with server() as client:
        source = _one(client, name).schedule.source
        client.call(ScheduleOrder(0, name, "remove"), Done)
    if as_json:
        say_json({"name": name, "removed": True})
        return
    say(f"schedule {name} is removed")
    if source:
        hint(f"if the code of {source} defines it, it comes back with the next agent or sync that loads that")


@json_option
@server_options
@_named
@schedule.command
def trigger(*, name: str, as_json: bool) -> None:
    """Submit a schedule's work now, beside its times; print the id of the task, or workflow."""
    with server() as client:
        [task_id] = client.make_ids(1)
        triggered = client.call(ScheduleTrigger(0, name, task_id), ScheduleTriggered)
    text = format_task_id(triggered.id)
    if as_json:
        is_workflow = is_workflow_id(triggered.id)
        say_json({"name": name, "task": None if is_workflow else text, "workflow": text if is_workflow else None})
    else:
        say(text)


@json_option
@server_options
@_named
@schedule.command
@click.option("--from", "first", metavar="INSTANT", required=True, help="First instant, by the schedule's clock.")
@click.option("--to", "last", metavar="INSTANT", required=True, help="Last instant.")
@click.option("--dry-run", is_flag=True, help="Only tell which times these are.")
def backfill(*, name: str, first: str, last: str, dry_run: bool, as_json: bool) -> None:
    """Submit a schedule's work for all its times in a range of the past, whatever was decided on them then."""
    at_ms: list[int] = []
    with server() as client:
        schedule = _one(client, name).schedule
        zone, what = schedule.timing.zone, "task" if schedule.workflow is None else "workflow"
        from_ms, until_ms = instant_ms(first, zone), instant_ms(last, zone)
        while True:
            [request] = client.make_ids(1)
            asked = ScheduleBackfill(0, name, request, from_ms, until_ms, dry_run)
            done = client.call(asked, ScheduleBackfilled)
            at_ms += done.at_ms
            if done.until_ms >= until_ms:
                break
            from_ms = done.until_ms + 1
    if as_json:
        times: list[Json] = [iso(each) for each in at_ms]
        say_json({"name": name, "dry_run": dry_run, "times": times})
        return
    if dry_run:
        for each in at_ms:
            say(iso(each) or "")
    say(f"{'would submit' if dry_run else 'submitted'} {len(at_ms):,} {what}{'' if len(at_ms) == 1 else 's'}")


@json_option
@server_options
@_named
@schedule.command
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
def history(*, name: str, limit: int, as_json: bool) -> None:
    """Tell what was decided on a schedule's times, newest first, and what became of their tasks."""
    with server() as client:
        page = client.call(ScheduleHistory(0, name, -1, min(limit, _PAGE)), FiringPage)
        firings = list(page.firings)
        while page.more and len(firings) < limit:
            rest = min(limit - len(firings), _PAGE)
            page = client.call(ScheduleHistory(0, name, firings[-1].sequence, rest), FiringPage)
            firings += page.firings
    if as_json:
        say_document([firing_document(firing) for firing in firings])
    else:
        say_rows(("TIME (UTC)", "TIMES", "OUTCOME", "WORK", "STATE", "REASON"), [firing_row(f) for f in firings])


@json_option
@server_options
@timing_options
@schedule.command
@click.argument("name", metavar="[NAME]", required=False, shell_complete=_names)
@click.option("--from", "first", metavar="INSTANT", help="Tell what fires from then on; else from now on.")
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(1, SCHEDULE_PREVIEW_MAX),
    default=5,
    show_default=True,
    help="How many firings to tell.",
)
@click.option("--skipped", is_flag=True, help="With --json: tell the times, too, that a gap keeps from firing.")
def preview(*, name: str | None, first: str | None, count: int, skipped: bool, as_json: bool) -> None:
    """Tell when a schedule, or a timing, fires, and why where that is odd, or why it does not.

    Given --cron, --every or --at it asks no server, and goes by the zone data of this machine.
    """
    if (name is None) != is_timed():
        raise click.UsageError("name a schedule, or say when: --cron LINE, --every TIME or --at INSTANT")
    page = _preview_here(first, count) if name is None else _preview_there(name, first, count)
    if not as_json:
        _say_firings(page)
    elif not skipped:
        say_json([{"at": iso(firing.at_ms), "note": firing.note} for firing in page.firings])
    else:
        told = [(firing, False) for firing in page.firings] + [(firing, True) for firing in page.skipped]
        told.sort(key=lambda each: each[0].at_ms)
        say_json([{"at": iso(firing.at_ms), "note": firing.note, "skipped": passed} for firing, passed in told])


@json_option
@server_options
@schedule.command
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option("--python", metavar="PATH", help="The interpreter that imports them; taskd must be installed for it.")
@click.option("--prune", is_flag=True, help="Remove those that the code has defined and defines no longer.")
def sync(*, modules: tuple[str, ...], python: str | None, prune: bool, as_json: bool) -> None:
    """Make the schedules known that the code of MODULEs defines; those that it defines no longer fire no more.

    Agents do the same when they start, where a client's token is known.
    """
    defined = imported(modules, python or "").schedules
    changes: dict[str, ScheduleChanges] = {}
    with server() as client:
        for module, schedules in defined.items():
            changes[module] = client.call(ScheduleSync(0, module, schedules, prune), ScheduleChanges)
    if as_json:
        say_document({module: changes_document(done) for module, done in changes.items()})
        return
    for module, done in changes.items():
        say(f"{module}: {changes_text(done)}")
    for done in changes.values():
        for name in done.orphaned:
            hint(f"{name} is kept, and fires no more: {orphan_advice(name)}")


def _order(name: str, action: str, text: str, *, as_json: bool) -> None:
    with server() as client:
        client.call(ScheduleOrder(0, name, action), Done)
        view = _one(client, name)
    if as_json:
        say_document(schedule_document(view))
    else:
        say(text)


def _all(client: Client) -> Iterator[ScheduleView]:
    after, more = "", True
    while more:
        page = client.call(ScheduleList(0, [], after, _PAGE), SchedulePage)
        yield from page.schedules
        more = page.more
        after = page.schedules[-1].schedule.name if page.schedules else after


def _one(client: Client, name: str) -> ScheduleView:
    page = client.call(ScheduleList(0, [name]), SchedulePage)
    if not page.schedules:
        raise ScheduleUnknown(f"no schedule named {name[:64]!r} is kept; `taskd schedule ls` lists them")
    return page.schedules[0]


def _preview_there(name: str, first: str | None, count: int) -> PreviewPage:
    with server() as client:
        from_ms = 0 if first is None else instant_ms(first, _one(client, name).schedule.timing.zone)
        return client.call(SchedulePreview(0, name, None, from_ms, count), PreviewPage)


def _preview_here(first: str | None, count: int) -> PreviewPage:
    from taskd.core.firings import plan
    from taskd.server.clock import SystemClock
    from taskd_protocol.schedule_messages import PreviewFiring

    timing = chosen_timing()
    from_ms = SystemClock().wall_ms() if first is None else instant_ms(first, timing.zone)
    found, skipped = plan(timing, from_ms).preview(from_ms, count)
    shown, passed = ([PreviewFiring(*firing) for firing in each] for each in (found, skipped))
    return PreviewPage(0, shown, timing.zone, passed)


def _say_firings(page: PreviewPage) -> None:
    from taskd.core.firings import find_zone

    zone = find_zone(page.zone)
    told = [(each.at_ms, iso(each.at_ms) or "", wall_text(each.at_ms, zone), each.note) for each in page.firings]
    told += [(each.at_ms, "-", f"{wall_text(each.at_ms, zone)[:15]}-", each.note) for each in page.skipped]
    if told:
        say_rows(("UTC", page.zone.upper(), "NOTE"), [row for _, *row in sorted(told)])
    if not page.firings:
        say("nothing fires any more")
