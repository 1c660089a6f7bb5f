"""One action on many tasks: named by a filter, counted first, asked for, then followed until it is done."""

import os
import sys
from collections.abc import Sequence
from typing import Final, TypeVar, cast

import click
from msgspec.structs import replace

from taskd.cli.options import duration_ms
from taskd.cli.output import hint, say, say_document, say_json
from taskd.client.client import Client
from taskd.text import Json
from taskd.text.documents import JobDocument, job_document
from taskd.text.filters import STATES, FilterRefused, read_filter
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import task_id_unix_ms
from taskd_protocol.messages import JobList, JobPage, JobStart, JobView, TaskCount, TaskCounted

C = TypeVar("C", bound=click.Command)

_FILTER: Final = "taskd.filter"
_DONE: Final = {"cancel": "cancelled", "retry": "retried", "purge": "purged"}


def filter_options(command: C) -> C:
    """Let a command be told which tasks are meant; ``chosen_filter`` returns it."""
    command.params[:0] = [
        click.Option(["--" + name], metavar=metavar, expose_value=False, callback=_remember, help=text, type=kind)
        for name, metavar, kind, text in (
            ("state", None, click.Choice(STATES), "Only tasks in this state."),
            ("queue", "NAME", str, "Only tasks of this queue."),
            ("name", "NAME", str, "Only tasks of this name; '*' stands for anything: 'app.thumb*'."),
            ("error", "TEXT", str, "Only tasks whose error has this text in its code, type or message."),
            ("since", "TIME", duration_ms("s"), "Only tasks submitted within this time: 30m, 1h, 2d."),
        )
    ]
    return command


def bulk_options(command: C) -> C:
    """Let a command count only, or go ahead without a question; it is called with ``dry_run`` and ``yes``."""
    command.params += [
        click.Option(["--dry-run"], is_flag=True, help="Only tell how many tasks it would be."),
        click.Option(["--yes"], is_flag=True, help="Do not ask first."),
    ]
    return command


def is_filtered() -> bool:
    """Tell whether the command line says which tasks are meant."""
    return bool(_chosen())


def chosen_filter(client: Client, words: Sequence[str] = ()) -> TaskFilter:
    """Return the filter that the command line tells: by its words, and by options, which count before them.

    Raises:
        UsageError: A word is not understood.
    """
    chosen = _chosen()
    now_ms = task_id_unix_ms(client.make_ids(1)[0]) if words or "since" in chosen else 0  # by the server's clock
    try:
        wanted = read_filter(" ".join(words), now_ms)
    except FilterRefused as why:
        raise click.UsageError(f"the filter, {why}") from None
    since_ms = cast("int", chosen.pop("since", 0))
    if since_ms:
        wanted = replace(wanted, since_ms=max(1, now_ms - since_ms))
    return replace(wanted, **chosen)


def are_words(words: Sequence[str]) -> bool:
    """Tell whether these are words of a filter, and no ids, or groups, which have no colons."""
    return any(":" in word for word in words)


def carry_out(client: Client, action: str, wanted: TaskFilter, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Count the tasks, ask, and do it to all of them; tell how many it was."""
    count = _count(client, action, wanted)
    if dry_run:
        _tell(as_json, {"action": action, "would_change": count}, f"would {action} {_tasks(count)}")
        return
    if not count:
        _tell(as_json, {"action": action, "changed": 0}, f"no task to {action} fits")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"this would {action} {_tasks(count)}; add --yes to do it without a question")
        click.confirm(f"{action} {_tasks(count)}?", abort=True, err=True)
    job = _follow(client, _start(client, action, wanted))
    _tell(as_json, job_document(job), f"{_DONE[action]} {_tasks(job.changed)}")


def _start(client: Client, action: str, wanted: TaskFilter) -> JobView:
    [job_id] = client.make_ids(1)
    return client.call(JobStart(0, job_id, action, wanted), JobPage).jobs[0]


def _follow(client: Client, job: JobView) -> JobView:
    """Wait until a job has ended; it goes on if nobody waits."""
    while job.finished_at_ms is None:
        if os.isatty(2):
            hint(f"{job.looked_at:,} tasks are looked at, {job.changed:,} {_DONE[job.action]}")
        page = client.call(JobList(0, [job.id], job.looked_at), JobPage)
        job = page.jobs[0] if page.jobs else replace(job, finished_at_ms=job.created_at_ms)
    return job


def _count(client: Client, action: str, wanted: TaskFilter) -> int:
    count, looked_at, cursor = 0, 0, b""
    while True:
        counted = client.call(TaskCount(0, action, wanted, cursor), TaskCounted)
        count, looked_at, cursor = count + counted.count, looked_at + counted.looked_at, counted.cursor
        if not cursor:
            return count
        if os.isatty(2):
            hint(f"{looked_at:,} tasks are looked at, {count:,} fit")


def _tell(as_json: bool, document: Json | JobDocument, text: str) -> None:  # noqa: FBT001 - one flag, passed on
    if not as_json:
        say(text)
    elif isinstance(document, JobDocument):
        say_document(document)
    else:
        say_json(document)


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"


def _chosen() -> dict[str, str | int]:
    return dict(cast("dict[str, str | int]", click.get_current_context().meta.get(_FILTER, {})))


def _remember(ctx: click.Context, parameter: click.Parameter, value: str | int | None) -> None:
    if value is not None and parameter.name is not None:
        cast("dict[str, str | int]", ctx.meta.setdefault(_FILTER, {}))[parameter.name] = value
