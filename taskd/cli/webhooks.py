"""`taskd webhook`: having events posted elsewhere."""

from typing import TYPE_CHECKING

import click

from taskd.cli.connection import server
from taskd.cli.options import json_option, server_options
from taskd.cli.output import hint, say, say_json, say_rows
from taskd.cli.watch import read_filter
from taskd.text.values import iso
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest
from taskd_protocol.event_messages import (
    WebhookList,
    WebhookMade,
    WebhookOrder,
    WebhookPage,
    WebhookSet,
    WebhookView,
)

if TYPE_CHECKING:
    from taskd.text import Json


@click.group
def webhook() -> None:
    """Have what happens posted to other programs; look at that, pause and end it."""


@server_options
@webhook.command
@click.argument("name", metavar="NAME")
@click.argument("target", metavar="URL")
@click.argument("words", metavar="[FILTER]...", nargs=-1)
def add(*, name: str, target: str, words: tuple[str, ...]) -> None:
    """Post events to a URL from now on; prints the secret that the posts are signed with, once.

    The filter is made of words as for `taskd watch`: what:task.dead, state:dead, queue:images, name:thumb*. Another
    webhook of the name is replaced, and keeps its secret and its place.
    """
    wanted = read_filter(words, None)
    if wanted.ids or wanted.workflow:
        raise BadRequest("a webhook has no task: or workflow: in its filter; `taskd watch` does")
    with server() as client:
        made = client.call(WebhookSet(0, name, target, wanted.topics, wanted.queue, wanted.name), WebhookMade)
    if made.secret:
        say(made.secret)
    else:
        hint(f"taskd: webhook {name} is changed; its secret is the same")


@json_option
@server_options
@webhook.command("ls")
def list_webhooks(*, as_json: bool) -> None:
    """List the webhooks: where they post, and whether that is taken."""
    with server() as client:
        views = client.call(WebhookList(0), WebhookPage).webhooks
    if as_json:
        say_json([_document(view) for view in views])
        return
    rows = [
        (
            view.name,
            _state(view),
            f"{view.after:,}",
            f"{view.letters:,}",
            f"{view.lost:,}",
            view.url,
            view.error or "-",
        )
        for view in views
    ]
    say_rows(("NAME", "STATE", "DELIVERED TO", "DEAD", "LOST", "URL", "LAST ERROR"), rows)


def _ordered(name: str, order: str) -> None:
    with server() as client:
        client.call(WebhookOrder(0, name, order), Done)


@server_options
@webhook.command
@click.argument("name", metavar="NAME")
def pause(*, name: str) -> None:
    """Post nothing for now; what happens meanwhile is posted later, as far as it is kept."""
    _ordered(name, "pause")


@server_options
@webhook.command
@click.argument("name", metavar="NAME")
def resume(*, name: str) -> None:
    """Post again, from where it was paused."""
    _ordered(name, "resume")


@server_options
@webhook.command
@click.argument("name", metavar="NAME")
def rm(*, name: str) -> None:
    """Remove a webhook, with its dead letters."""
    _ordered(name, "remove")


@server_options
@webhook.command
@click.argument("name", metavar="NAME")
def redrive(*, name: str) -> None:
    """Post the dead letters once more; those that are taken are gone."""
    _ordered(name, "redrive")


@server_options
@webhook.command
@click.argument("name", metavar="NAME")
def drop(*, name: str) -> None:
    """Drop the dead letters."""
    _ordered(name, "drop")


def _state(view: WebhookView) -> str:
    return "paused" if view.paused else f"failed {view.failures} times" if view.failures else "good"


def _document(view: WebhookView) -> "dict[str, Json]":
    return {
        "name": view.name,
        "url": view.url,
        "topics": [*view.topics],
        "queue": view.queue or None,
        "task_name": view.task_name or None,
        "created_at": iso(view.created_at_ms),
        "paused": view.paused,
        "after": view.after,
        "failures": view.failures,
        "error": view.error or None,
        "dead": view.letters,
        "lost": view.lost,
    }
