"""`taskd dead`: tasks whose attempts are spent, by what they died of; another chance for them, or their end."""

import click
from msgspec.structs import replace

from taskd.cli.bulk import are_words, bulk_options, carry_out, chosen_filter, filter_options, is_filtered
from taskd.cli.connection import server
from taskd.cli.endings import view_of
from taskd.cli.options import json_option, server_options
from taskd.cli.output import hint, say, say_document, say_rows
from taskd.cli.tasks import list_pages, say_task
from taskd.client.client import Client
from taskd.text.documents import dead_group_detail, dead_group_document, task_document
from taskd.text.values import iso
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.messages import DeadGroupView, DeadList, DeadPage, TaskList, TaskView

_GROUP_CHARS = 8
"""Of a fingerprint, shown: enough to tell two thousand apart."""

_GROUPS_MAX = 10_000
_NEWEST = 10


@click.group
def dead() -> None:
    """List, show, retry and purge tasks whose attempts are spent."""


@json_option
@server_options
@dead.command("ls")
@click.argument("group", metavar="[GROUP]", required=False)
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
def list_dead(*, group: str | None, limit: int, as_json: bool) -> None:
    """List what tasks died of, the latest first; with GROUP, the tasks of that group."""
    with server() as client:
        if group is None:
            _say_groups(client.call(DeadList(0, limit), DeadPage), as_json=as_json)
        else:
            _say_tasks(_tasks_of(client, _group(client, group), limit), as_json=as_json)


@json_option
@server_options
@dead.command
@click.argument("what", metavar="GROUP|ID")
def show(*, what: str, as_json: bool) -> None:
    """Show a group with its last error and its newest tasks, or one dead task."""
    with server() as client:
        if _is_task(what):
            view = view_of(client, parse_task_id(what))
            if as_json:
                say_document(task_document(view))
            else:
                say_task(view)
            return
        group = _group(client, what)
        views = _tasks_of(client, group, _NEWEST)
        last = view_of(client, views[0].id) if views else None
    if as_json:
        say_document(dead_group_detail(group, views))
        return
    for label, text in _facts(group):
        say(f"{label:<10} {text}")
    say("")
    _say_tasks(views, as_json=False)
    if last is not None and last.failure is not None and last.failure.traceback:
        say(f"\nthe last of them, {format_task_id(last.id)}:\n{last.failure.traceback.rstrip()}")


@json_option
@server_options
@bulk_options
@filter_options
@dead.command
@click.argument("what", metavar="[GROUP|ID|FILTER]...", nargs=-1)
def retry(*, what: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Give dead tasks another chance: those of a group, those named, or all that fit a filter."""
    with server() as client:
        carry_out(client, "retry", _wanted(client, what), dry_run=dry_run, yes=yes, as_json=as_json)


@json_option
@server_options
@bulk_options
@filter_options
@dead.command
@click.argument("what", metavar="[GROUP|ID|FILTER]...", nargs=-1)
def purge(*, what: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove dead tasks for good, with all that is kept of them: of a group, named, or all that fit a filter."""
    with server() as client:
        carry_out(client, "purge", _wanted(client, what), dry_run=dry_run, yes=yes, as_json=as_json)


def _wanted(client: Client, what: tuple[str, ...]) -> TaskFilter:
    """Return the filter for what is named and what the options say; it is for dead tasks alone."""
    if not what and not is_filtered():
        raise click.UsageError("say which: a GROUP of `taskd dead ls`, task ids, or a filter such as queue:images")
    words = [word for word in what if are_words([word])]
    what = tuple(word for word in what if word not in words)
    asked = chosen_filter(client, words)
    if asked.state not in {"", "dead"}:
        raise click.UsageError("`taskd dead` is about dead tasks; `taskd task` acts on those in other states")
    groups = [word for word in what if not _is_task(word)]
    if len(groups) > 1 or (groups and len(what) > 1):
        raise click.UsageError("name one GROUP at a time, or task ids")
    fingerprint = _group(client, groups[0]).fingerprint if groups else b""
    ids: list[bytes] = [parse_task_id(word) for word in what if _is_task(word)]
    return replace(asked, state="dead", group=fingerprint or asked.group, ids=ids or asked.ids)


def _is_task(word: str) -> bool:
    return "-" in word


def _group(client: Client, prefix: str) -> DeadGroupView:
    """Find the group by the beginning of its fingerprint.

    Raises:
        TaskUnknown: There is none, or more than one.
    """
    groups = client.call(DeadList(0, _GROUPS_MAX), DeadPage).groups
    found = [group for group in groups if prefix and group.fingerprint.hex().startswith(prefix.lower())]
    if len(found) != 1:
        how = "no group begins" if not found else f"{len(found)} groups begin"
        raise TaskUnknown(f"{how} with {prefix[:40]!r}; `taskd dead ls` lists them")
    return found[0]


def _tasks_of(client: Client, group: DeadGroupView, limit: int) -> list[TaskView]:
    return list(list_pages(client, TaskList(0, limit=limit, filter=TaskFilter(group=group.fingerprint))))


def _say_groups(page: DeadPage, *, as_json: bool) -> None:
    if as_json:
        say_document([dead_group_document(group) for group in page.groups])
        return
    rows = [
        (group.fingerprint.hex()[:_GROUP_CHARS], f"{group.count:,}", _when(group.last_at_ms), _error(group))
        for group in page.groups
    ]
    say_rows(("GROUP", "TASKS", "LAST", "ERROR"), rows)
    if len(page.groups) < page.groups_count:
        hint(f"shown are {len(page.groups)} of {page.groups_count:,} groups; --limit shows more")


def _say_tasks(views: list[TaskView], *, as_json: bool) -> None:
    if as_json:
        say_document([task_document(view) for view in views])
        return
    rows = [
        (format_task_id(view.id), view.name, view.queue, str(view.attempt), _when(view.finished_at_ms or 0))
        for view in views
    ]
    say_rows(("ID", "NAME", "QUEUE", "ATTEMPTS", "DIED"), rows)


def _facts(group: DeadGroupView) -> list[tuple[str, str]]:
    return [
        ("group", group.fingerprint.hex()),
        ("error", _error(group)),
        ("place", group.place or "-"),
        ("tasks", f"{group.count:,}"),
        ("first", _when(group.first_at_ms)),
        ("last", _when(group.last_at_ms)),
    ]


def _error(group: DeadGroupView) -> str:
    message = " ".join(group.message.split())
    return f"{group.type}: {message}" if group.type else message


def _when(unix_ms: int) -> str:
    return (iso(unix_ms) or "-").replace("T", " ")[:19]
