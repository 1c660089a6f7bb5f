"""`taskd task`: what became of tasks, ending them, and giving them another chance."""

from collections.abc import Iterator, Sequence

import click
from msgspec.structs import replace

from taskd.cli.blocked import nodes_that_wait
from taskd.cli.bulk import are_words, bulk_options, carry_out, chosen_filter, filter_options, is_filtered
from taskd.cli.connection import reach, server
from taskd.cli.copying import Output
from taskd.cli.endings import say_end, view_of
from taskd.cli.explain import explain
from taskd.cli.options import duration_ms, json_option, server_options
from taskd.cli.output import hint, say, say_document, say_json, say_rows
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd.text.documents import (
    error_text,
    job_document,
    task_detail,
    task_document,
)
from taskd.text.lines import line_documents
from taskd.text.values import arguments_text, iso, result_text
from taskd_protocol.errors import TaskUnknown
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.limits import PAGE_ROWS_MAX
from taskd_protocol.messages import (
    AttemptView,
    Cancel,
    Cancelled,
    Follow,
    JobList,
    JobPage,
    TaskHasten,
    TaskHastened,
    TaskList,
    TaskPage,
    TaskRetried,
    TaskRetry,
    TaskView,
)


@click.group
def task() -> None:
    """List, show, explain, wait for, cancel and retry tasks."""


task.add_command(explain)


@json_option
@server_options
@filter_options
@task.command("ls")
@click.argument("words", metavar="[FILTER]...", nargs=-1)
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
def list_tasks(*, words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List tasks, newest first.

    FILTER says which: queue:images state:dead name:thumb* 'error:"timed out"' since:1h before:10m priority:>5
    agent:ash label:zone=a key:order-42. The options say the same.
    """
    with server() as client:
        wanted = chosen_filter(client, words)
        views = list(list_pages(client, TaskList(0, limit=limit, filter=wanted)))
        others = nodes_that_wait(client) if wanted.state == "blocked" else ""
    if as_json:
        say_document([task_document(view) for view in views])
    else:
        headers = ("ID", "NAME", "QUEUE", "STATE", "ATTEMPT", "AGENT", "CREATED")
        say_rows(headers, [_row(view) for view in views])
        if len(views) == limit:
            hint(f"shown are the newest {limit}; --limit shows more")
    if others:
        hint(others)


@json_option
@server_options
@task.command
def jobs(*, as_json: bool) -> None:
    """List what was done to many tasks at once, and is under way: newest first."""
    with server() as client:
        views = client.call(JobList(0), JobPage).jobs
    if as_json:
        say_document([job_document(view) for view in views])
        return
    rows = [
        (
            (iso(view.created_at_ms) or "-").replace("T", " ")[:19],
            view.action,
            f"{view.looked_at:,}",
            f"{view.changed:,}",
            "under way" if view.finished_at_ms is None else "done",
        )
        for view in views
    ]
    say_rows(("STARTED", "ACTION", "LOOKED AT", "CHANGED", "STATE"), rows)


@json_option
@server_options
@task.command
@click.argument("task_id", metavar="ID")
def show(*, task_id: str, as_json: bool) -> None:
    """Show a task: where it stands, and why it waits or failed."""
    with server() as client:
        view = view_of(client, parse_task_id(task_id))
    if as_json:
        say_document(task_detail(view))
    else:
        say_task(view)


@json_option
@server_options
@task.command
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on as it comes, until the task has ended.")
@click.option("--attempt", metavar="N", type=click.IntRange(min=1), default=None, help="Only of this one.")
@click.option("--since", "since_ms", metavar="TIME", type=duration_ms("s"), help="Only of so long ago: 30s, 5m.")
def logs(*, task_id: str, follow: bool, attempt: int | None, since_ms: int | None, as_json: bool) -> None:
    """Print what a task printed and logged.

    Its standard output goes to ours, all else to standard error. With --json a list of lines; with --follow, too, a
    line for each, as it comes.
    """
    with server() as client:
        raw_id = parse_task_id(task_id)
        view_of(client, raw_id)
        begin_ms = 0 if since_ms is None else max(0, client.server_ms() - since_ms)
        output = Output(client, Follow(0, raw_id, 0, attempt or 0, begin_ms, stored=not follow))
        if not as_json:
            output.show()
            return
        documents = (line for entry in output.entries() for line in line_documents(entry))
        if not follow:
            say_document(list(documents))
            return
        for document in documents:
            say_document(document)


@json_option
@server_options
@task.command
@click.argument("task_id", metavar="ID")
@click.option("--timeout", "timeout_ms", metavar="TIME", type=duration_ms("s"), help="Wait no longer: 30s, 5m.")
def wait(*, task_id: str, timeout_ms: int | None, as_json: bool) -> None:
    """Wait until a task has ended; print its result as JSON.

    With a --timeout, a server that is just being restarted is waited for, too.
    """
    raw_id, until_s = parse_task_id(task_id), None if timeout_ms is None else mono_s() + timeout_ms / 1000
    with server() as client:
        if until_s is not None:
            reach(client, until_s)
        say_end(client, raw_id, None if until_s is None else max(0.0, until_s - mono_s()), as_json=as_json)


@json_option
@server_options
@bulk_options
@filter_options
@task.command
@click.option("--force", is_flag=True, help="Also where its agent is away: you know that it is gone for good.")
@click.argument("task_ids", metavar="[ID|FILTER]...", nargs=-1)
def cancel(*, task_ids: tuple[str, ...], force: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Cancel tasks: waiting ones at once, running ones by ending their process.

    Prints each with its state: `cancelled`, or `cancelling` until every process of it is gone. With a
    filter, as of `taskd task ls`, or options instead of ids it is for all tasks that fit, told first with their number.
    """
    with server() as client:
        if _are_named(task_ids, dry_run=dry_run):
            ids: list[bytes] = [parse_task_id(text) for text in task_ids]
            _say_states(ids, client.call(Cancel(0, ids, force), Cancelled).states, as_json=as_json)
        elif force:
            raise click.UsageError("--force is for tasks that are named, by their ids")
        else:
            carry_out(client, "cancel", chosen_filter(client, task_ids), dry_run=dry_run, yes=yes, as_json=as_json)


@json_option
@server_options
@bulk_options
@filter_options
@task.command
@click.argument("task_ids", metavar="[ID|FILTER]...", nargs=-1)
def retry(*, task_ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Give tasks another chance that died or were cancelled: back to their places in line, with a new budget.

    Prints each with its state: `ready` if it is back in line. With a filter, as of `taskd task ls`, or options
    instead of ids it is for all tasks that fit, told first with their number: dead ones, unless --state says otherwise.
    """
    with server() as client:
        if _are_named(task_ids, dry_run=dry_run):
            ids: list[bytes] = [parse_task_id(text) for text in task_ids]
            _say_states(ids, client.call(TaskRetry(0, ids), TaskRetried).states, as_json=as_json)
        else:
            asked = chosen_filter(client, task_ids)
            wanted = replace(asked, state=asked.state or "dead")
            carry_out(client, "retry", wanted, dry_run=dry_run, yes=yes, as_json=as_json)


@json_option
@server_options
@task.command("run-now")
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
def run_now(*, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Have tasks run now that wait for a time: their delay, or before another attempt.

    Prints each with its state: `ready` if it is in line now; of all others, what it was.
    """
    with server() as client:
        ids: list[bytes] = [parse_task_id(text) for text in task_ids]
        _say_states(ids, client.call(TaskHasten(0, ids), TaskHastened).states, as_json=as_json)


def _are_named(task_ids: tuple[str, ...], *, dry_run: bool) -> bool:
    """Tell whether the tasks are named, or else described by a filter or options: one of the two they must be."""
    if are_words(task_ids):
        return False
    if bool(task_ids) == is_filtered():
        raise click.UsageError("say which tasks: by their ids, or by a filter such as queue:images; not by both")
    if task_ids and dry_run:
        raise click.UsageError("--dry-run counts tasks that fit a filter; these are named")
    return bool(task_ids)


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


def list_pages(client: Client, request: TaskList) -> Iterator[TaskView]:
    """Ask for page after page until there are as many tasks as wanted, or no more."""
    left, cursor = request.limit, b""
    while left > 0:
        page = client.call(replace(request, limit=min(left, PAGE_ROWS_MAX), cursor=cursor), TaskPage)
        yield from page.views
        left, cursor = left - len(page.views), page.cursor
        if not cursor:
            return


def _row(view: TaskView) -> tuple[str, ...]:
    created = (iso(view.created_at_ms) or "-").replace("T", " ")[:19]
    agent = view.agent or "-"
    return format_task_id(view.id), view.name, view.queue, view.state, str(view.attempt), agent, created


def _attempts_text(view: TaskView) -> str:
    limit = f" of at most {view.crash_limit}" if view.crash_limit else ""
    crashed = f", crashed {view.crashes}{limit}" if view.crashes else ""
    return f"{view.attempt}, failed {view.failures} of at most {view.max_attempts}{crashed}"


def _waits_text(view: TaskView) -> str:
    if not view.waits_for:
        return ""
    return f"{view.waits_for} (more: taskd task explain {format_task_id(view.id)})"


def _attempt_row(attempt: AttemptView) -> tuple[str, ...]:
    started, ended = (
        (iso(at_ms) or "-").replace("T", " ")[:23] for at_ms in (attempt.started_at_ms, attempt.ended_at_ms)
    )
    error = "-" if attempt.failure is None else error_text(attempt.failure)
    return str(attempt.attempt), attempt.outcome, attempt.agent, started, ended, error


def say_task(view: TaskView) -> None:
    """Print all that is known of a task, for people."""
    facts = [
        ("id", format_task_id(view.id)),
        ("name", view.name),
        ("queue", f"{view.queue}, priority {view.priority}"),
        ("state", view.state),
        ("waits", _waits_text(view)),
        ("arguments", arguments_text(view.payload)),
        ("attempts", _attempts_text(view)),
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
        facts.append(("error", error_text(view.failure)))
    for label, text in facts:
        if text:
            say(f"{label:<10} {text}")
    if view.attempts and view.attempts[-1].attempt > 1:
        say("")
        headers = ("ATTEMPT", "OUTCOME", "AGENT", "STARTED", "ENDED", "ERROR")
        say_rows(headers, [_attempt_row(attempt) for attempt in view.attempts])
    if view.failure is not None and view.failure.traceback:
        say(f"\n{view.failure.traceback.rstrip()}")
