"""`taskd queue`: how much waits where."""

import click

from taskd.cli.connection import server
from taskd.cli.options import json_option, server_options
from taskd.cli.output import say_json, say_rows
from taskd.cli.views import queue_document
from taskd_protocol.messages import QueueList, QueuePage


@click.group
def queue() -> None:
    """Look at the queues."""


@json_option
@server_options
@queue.command("ls")
def list_queues(*, as_json: bool) -> None:
    """List the queues that hold tasks which have not ended."""
    with server() as client:
        views = client.call(QueueList(0), QueuePage).queues
    if as_json:
        say_json([queue_document(view) for view in views])
        return
    rows = [
        (view.name, f"{view.ready:,}", f"{view.scheduled:,}", f"{view.running:,}", "yes" if view.paused else "no")
        for view in views
    ]
    say_rows(("NAME", "READY", "SCHEDULED", "RUNNING", "PAUSED"), rows)
