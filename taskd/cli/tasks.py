"""`taskd task`: what became of tasks, ending them, and giving them another chance."""

from collections.abc import Iterator, Sequence

import click

from taskd.cli.connection import server
from taskd.cli.endings import say_end, view_of
from taskd.cli.options import duration_ms, json_option, server_options
from taskd.cli.output import hint, say, say_json, say_rows
from taskd.cli.views import arguments_text, iso, result_text, task_document
from taskd.client.client import Client
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.limits import PAGE_ROWS_MAX
from taskd_protocol.messages import Cancel, Cancelled, TaskList, TaskPage, TaskRetried, TaskRetry, TaskView

_STATES = ("ready", "scheduled", "running", "cancelling", "succeeded", "dead", "cancelled", "expired")


@click.group
def task() -> None:
    """List, show, wait for, cancel and retry tasks."""


@json_option
@server_options
@task.command("ls")
@click.option("--state", type=click.Choice(_STATES), help="Only tasks in this state.")
@click.option("--queue", metavar="NAME", default="", help="Only tasks of this queue.")
@click.option("--name", metavar="NAME", default="", help="Only tasks of this name.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
def list_tasks(*, state: str | None, queue: str, name: str, limit: int, as_json: bool) -> None:
    """List tasks, newest first."""
    with server() as client:
        views = list(_pages(client, TaskList(0, state or "", queue, name, limit)))
    if as_json:
        say_json([task_document(view) for view in views])
        return
    headers = ("ID", "NAME", "QUEUE", "STATE", "ATTEMPT", "AGENT", "CREATED")
    say_rows(headers, [_row(view) for view in views])
    if len(views) == limit:
        hint(f"shown are the newest {limit}; --limit shows more")


@json_option
@server_options
@task.command
@click.argument("task_id", metavar="ID")
def show(*, task_id: str, as_json: bool) -> None:
    """Show a task: where it stands, and why it waits or failed."""
    with server() as client:
        view = view_of(client, parse_task_id(task_id))
    if as_json:
        say_json(task_document(view))
    else:
        _say_task(view)


@json_option
@server_options
@task.command
@click.argument("task_id", metavar="ID")
@click.option("--timeout", "timeout_ms", metavar="TIME", type=duration_ms("s"), help="Wait no longer: 30s, 5m.")
def wait(*, task_id: str, timeout_ms: int | None, as_json: bool) -> None:
    """Wait until a task has ended; print its result as JSON."""
    with server() as client:
        say_end(client, parse_task_id(task_id), None if timeout_ms is None else timeout_ms / 1000, as_json=as_json)


@json_option
@server_options
@task.command
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
def cancel(*, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel tasks: waiting ones at once, running ones by ending their process.

    Prints each with its state: `cancelled`, or `cancelling` until every process of it is gone.
    """
    ids: list[bytes] = [parse_task_id(text) for text in task_ids]
    with server() as client:
        states = client.call(Cancel(0, ids), Cancelled).states
    _say_states(ids, states, as_json=as_json)


@json_option
@server_options
@task.command
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
def retry(*, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Give tasks another chance that died or were cancelled: back to their places in line, with a new budget.

    Prints each with its state: `ready` if it is back in line.
    """
    ids: list[bytes] = [parse_task_id(text) for text in task_ids]
    with server() as client:
        states = client.call(TaskRetry(0, ids), TaskRetried).states
    _say_states(ids, states, as_json=as_json)


def _say_states(ids: Sequence[bytes], states: Sequence[str], *, as_json: bool) -> None:
    """Print what became of each task.

    Raises:
        TaskUnknown: Some are not stored; the others are told all the same.
    """
    known = [(format_task_id(raw), state) for raw, state in zip(ids, states, strict=True)]
    if as_json:
        say_json([{"id": text, "state": state} for text, state in known])
    else:
        for text, state in known:
            say(f"{text} {state}")
    unknown = [text for text, state in known if state == "unknown"]
    if unknown:
        raise TaskUnknown(f"no task {', '.join(unknown)} is stored; `taskd task ls` lists those that are")


def _pages(client: Client, request: TaskList) -> Iterator[TaskView]:
    """Ask for page after page until there are as many tasks as wanted, or no more."""
    left, cursor = request.limit, b""
    while left > 0:
        page = client.call(
            TaskList(0, request.state, request.queue, request.name, min(left, PAGE_ROWS_MAX), cursor), TaskPage
        )
        yield from page.views
        left, cursor = left - len(page.views), page.cursor
        if not cursor:
            return


def _row(view: TaskView) -> tuple[str, ...]:
    created = (iso(view.created_at_ms) or "-").replace("T", " ")[:19]
    agent = view.agent or "-"
    return format_task_id(view.id), view.name, view.queue, view.state, str(view.attempt), agent, created


def _say_task(view: TaskView) -> None:
    facts = [
        ("id", format_task_id(view.id)),
        ("name", view.name),
        ("queue", f"{view.queue}, priority {view.priority}"),
        ("state", view.state),
        ("waits", view.waits_for),
        ("arguments", arguments_text(view.payload)),
        ("attempts", f"{view.attempt}, failed {view.failures} of at most {view.max_attempts}"),
        ("agent", view.agent),
        ("key", view.key),
        ("trace", view.traceparent[3:35]),
        ("created", iso(view.created_at_ms)),
        ("due", iso(view.due_at_ms)),
        ("started", iso(view.started_at_ms)),
        ("finished", iso(view.finished_at_ms)),
        ("result", None if view.result is None else result_text(view.result)),
    ]
    if view.failure is not None:
        said = f"{view.failure.type}: {view.failure.message}" if view.failure.type else view.failure.message
        facts.append(("error", f"{said} ({view.failure.code})"))
    for label, text in facts:
        if text:
            say(f"{label:<10} {text}")
    if view.failure is not None and view.failure.traceback:
        say(f"\n{view.failure.traceback.rstrip()}")
