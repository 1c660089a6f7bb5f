"""`taskd queue`: how much waits where; queues that are paused, or take nothing new; their shares."""

import click

from taskd.cli.connection import server
from taskd.cli.options import json_option, server_options
from taskd.cli.output import hint, say, say_document, say_json, say_rows
from taskd.client.client import Client
from taskd.text.documents import queue_document
from taskd_protocol.connection_messages import Done
from taskd_protocol.house_messages import (
    AgentList,
    AgentPage,
    FairKeyWeigh,
    QueueDrain,
    QueueList,
    QueuePage,
    QueueView,
    QueueWeigh,
)
from taskd_protocol.limit_messages import QueuePause
from taskd_protocol.limits import QUEUE_WEIGHT_MAX


@click.group
def queue() -> None:
    """Look at the queues; pause, drain and resume them, weigh them."""


@json_option
@server_options
@queue.command("ls")
def list_queues(*, as_json: bool) -> None:
    """List the queues that hold tasks which have not ended, and those of which something was ordered."""
    with server() as client:
        views = client.call(QueueList(0), QueuePage).queues
    if as_json:
        say_document([queue_document(view) for view in views])
        return
    rows = [
        (
            view.name,
            f"{view.ready:,}",
            f"{view.scheduled:,}",
            f"{view.running:,}",
            str(view.weight),
            _standing(view),
        )
        for view in views
    ]
    say_rows(("NAME", "READY", "SCHEDULED", "RUNNING", "WEIGHT", "STATE"), rows)


@json_option
@server_options
@queue.command
@click.argument("name", metavar="QUEUE")
def pause(*, name: str, as_json: bool) -> None:
    """Have nothing of a queue begin; it takes tasks, and what runs goes on. It stays so until it is resumed."""
    with server() as client:
        client.call(QueuePause(0, name), Done)
        is_used = _is_used(client, name)
    if as_json:
        say_json({"name": name, "paused": True})
    else:
        say(f"queue {name} is paused; taskd queue resume {name} lets it go on")
    _hint_unused(name, is_used=is_used)


@json_option
@server_options
@queue.command
@click.argument("name", metavar="QUEUE")
def drain(*, name: str, as_json: bool) -> None:
    """Have a queue refuse new tasks; what is in it runs. It stays so until it is resumed."""
    with server() as client:
        client.call(QueueDrain(0, name), Done)
        is_used = _is_used(client, name)
    if as_json:
        say_json({"name": name, "draining": True})
    else:
        say(f"queue {name} takes no new tasks; taskd queue resume {name} opens it again")
    _hint_unused(name, is_used=is_used)


@json_option
@server_options
@queue.command
@click.argument("name", metavar="QUEUE")
def resume(*, name: str, as_json: bool) -> None:
    """Have a queue take tasks, and have them run, again."""
    with server() as client:
        client.call(QueueDrain(0, name, resume=True), Done)
    if as_json:
        say_json({"name": name, "draining": False, "paused": False})
    else:
        say(f"queue {name} takes tasks, and they run")


def _standing(view: QueueView) -> str:
    words = [word for word, holds in (("paused", view.paused), ("draining", view.draining)) if holds]
    return ", ".join(words) or "open"


def _hint_unused(name: str, *, is_used: bool) -> None:
    if not is_used:
        hint(f"taskd: queue {name} holds no tasks, and no agent serves it by name: is that what it is called?")


@json_option
@server_options
@queue.command
@click.argument("name", metavar="QUEUE")
@click.argument("share", metavar="WEIGHT", type=click.IntRange(1, QUEUE_WEIGHT_MAX))
@click.option("--fair-key", metavar="KEY", help="Of this fair key within the queue, beside its other keys.")
def weight(*, name: str, share: int, fair_key: str | None, as_json: bool) -> None:
    """Have a queue be granted so many tasks for each one of a queue of weight 1, when both wait.

    All queues, and all fair keys, have weight 1 until it is said otherwise. What it is counts from now on.
    """
    with server() as client:
        client.call(QueueWeigh(0, name, share) if fair_key is None else FairKeyWeigh(0, name, fair_key, share), Done)
        is_used = _is_used(client, name)
    if as_json:
        say_json(
            {"name": name, "weight": share} if fair_key is None else {"name": name, "fair_weights": {fair_key: share}}
        )
    elif fair_key is None:
        say(f"queue {name} has weight {share}")
    else:
        say(f"fair key {fair_key} of queue {name} has weight {share}")
    _hint_unused(name, is_used=is_used)


def _is_used(client: Client, name: str) -> bool:
    """Tell whether the queue holds tasks that have not ended, or an agent names it."""
    views = client.call(QueueList(0), QueuePage).queues
    if any(view.name == name and (view.ready or view.scheduled or view.running) for view in views):
        return True
    return any(name in view.queues for view in client.call(AgentList(0), AgentPage).agents)
