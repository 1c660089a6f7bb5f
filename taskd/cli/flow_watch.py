"""`taskd workflow watch`: how far a workflow has come, as it goes on."""

import sys
from typing import Final

import click

from taskd.cli.connection import server
from taskd.cli.exits import Exit
from taskd.cli.options import server_options
from taskd.cli.output import say
from taskd.cli.terminal import one_line
from taskd.client.client import Client
from taskd.client.progress import ended_count
from taskd_protocol.errors import WorkflowUnknown
from taskd_protocol.event_messages import EventsFollow
from taskd_protocol.ids import format_task_id, parse_task_id
from taskd_protocol.workflow_messages import WorkflowNodes, WorkflowQuery, WorkflowView

_GOES_ON: Final = frozenset({"running", "cancelling"})
_BAR: Final = 30


@server_options
@click.command("watch")
@click.argument("workflow_id", metavar="ID")
def watch_workflow(*, workflow_id: str) -> int:
    """Show how far a workflow has come until it has ended; the exit code is 0 if it has succeeded, else 1.

    On a terminal one line is drawn again and again; elsewhere each change is a line.
    """
    raw_id = parse_task_id(workflow_id)
    with server() as client:
        view = _look(client, raw_id)
        drawn = _draw(view, "")
        if view.state in _GOES_ON:
            for _ in client.events(EventsFollow(0, workflow=raw_id)):
                view = _look(client, raw_id)
                drawn = _draw(view, drawn)
                if view.state not in _GOES_ON:
                    break
    if sys.stdout.isatty():
        say("")
    return Exit.DONE if view.state == "succeeded" else Exit.TASK_FAILED


def _look(client: Client, raw_id: bytes) -> WorkflowView:
    view = client.call(WorkflowQuery(0, raw_id, 0, 1), WorkflowNodes).view
    if view is None:
        raise WorkflowUnknown(
            f"no workflow {format_task_id(raw_id)} is stored; `taskd workflow ls` lists those that are"
        )
    return view


def _draw(view: WorkflowView, before: str) -> str:
    """Draw the line if it differs from the one before; return it."""
    text = progress_text(view)
    if text != before:
        if sys.stdout.isatty():
            click.echo(f"\r\x1b[K{one_line(text)}", nl=False)
        else:
            say(text)
    return text


def progress_text(view: WorkflowView) -> str:
    """Return how far a workflow has come, in one line."""
    ended = ended_count(view)
    full = _BAR * ended // view.nodes if view.nodes else _BAR
    counts = ", ".join(f"{count:,} {state}" for state, count in view.counts.items() if count)
    bar = "#" * full + "." * (_BAR - full)
    return f"{view.name}  [{bar}]  {ended:,} of {view.nodes:,} nodes have ended{counts and f': {counts}'}; {view.state}"
