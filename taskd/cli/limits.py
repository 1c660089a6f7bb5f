"""`taskd limit`: how many tasks of a queue, or of a name, run at a time, and how many begin in a time."""

import click

from taskd.cli.connection import server
from taskd.cli.declared import imported
from taskd.cli.options import json_option, server_options
from taskd.cli.output import hint, say, say_document, say_json, say_rows
from taskd.client.client import Client
from taskd.client.rates import rate_text, read_rate
from taskd.text.documents import limit_document
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import BadRequest
from taskd_protocol.limit_messages import (
    LimitChanges,
    LimitList,
    LimitPage,
    LimitRemove,
    LimitSet,
    LimitSync,
    LimitView,
)
from taskd_protocol.limiting import Limit, check_limit
from taskd_protocol.limits import LIMIT_AMOUNT_MAX


@click.group
def limit() -> None:
    """Limit how many tasks run at a time, or begin in a time, on all agents.

    A limit is named queue:NAME, for what is in that queue, or task:NAME, for all tasks of that name. Any other name is
    for the tasks that say it, of each of their keys by itself.
    """


@json_option
@server_options
@limit.command("ls")
def list_limits(*, as_json: bool) -> None:
    """List the limits, and how far each is used."""
    with server() as client:
        views = client.call(LimitList(0), LimitPage).limits
    if as_json:
        say_document([limit_document(view) for view in views])
        return
    rows = [
        (
            view.limit.name,
            _running(view),
            rate_text(view.limit.tokens, view.limit.period_ms) if view.limit.tokens else "-",
            _left(view),
            f"defined in code by {view.limit.source}" if view.limit.source else "a person",
        )
        for view in views
    ]
    say_rows(("NAME", "RUNNING", "RATE", "TOKENS LEFT", "SAID BY"), rows)


@json_option
@server_options
@limit.command("set")
@click.argument("name")
@click.option("--concurrency", type=int, metavar="N", help="At most so many run at a time.")
@click.option("--rate", default="", metavar="N/TIME", help="At most so many begin in a time: 100/s, 10/m, 5/2h.")
@click.option("--burst", type=int, metavar="N", help="So many may begin at once after a lull.")
def set_limit(*, name: str, concurrency: int | None, rate: str, burst: int | None, as_json: bool) -> None:
    """Have a limit hold from now on; what it said before is replaced as a whole."""
    tokens, period_ms = read_rate(rate) if rate else (0, 0)
    wanted = Limit(name, _said("concurrency", concurrency), tokens, period_ms, _said("burst", burst))
    check_limit(wanted)
    with server() as client:
        source = _source(client, name)
        client.call(LimitSet(0, wanted), Done)
    if as_json:
        say_json(
            {
                "name": name,
                "concurrency": wanted.concurrency,
                "rate": rate or None,
                "burst": wanted.burst_tokens if tokens else None,
            }
        )
    else:
        say(f"limit {name} holds; taskd limit rm {name} removes it")
    if source:
        hint(f"the code of {source} defines it otherwise: yours counts until it is removed")


@json_option
@server_options
@limit.command("rm")
@click.argument("name")
def remove(*, name: str, as_json: bool) -> None:
    """Remove a limit."""
    with server() as client:
        source = _source(client, name)
        client.call(LimitRemove(0, name), Done)
    if as_json:
        say_json({"name": name, "removed": True})
    else:
        say(f"limit {name} holds no longer")
    if source:
        hint(f"if the code of {source} defines it, it comes back with the next agent or sync that loads that")


@json_option
@server_options
@limit.command
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option("--python", metavar="PATH", help="The interpreter that imports them; taskd must be installed for it.")
def sync(*, modules: tuple[str, ...], python: str | None, as_json: bool) -> None:
    """Make the limits hold that the code of MODULEs defines, and those no more that it defines no longer.

    Agents do the same when they start, where a client's token is known. What a person has set stays as it is.
    """
    said = imported(modules, python or "").limits
    with server() as client:
        done = {module: client.call(LimitSync(0, module, limits), LimitChanges) for module, limits in said.items()}
    if as_json:
        say_json({m: {"changed": each.changed, "removed": each.removed, "kept": each.kept} for m, each in done.items()})
        return
    for module, each in done.items():
        say(f"{module}: {len(each.changed)} changed, {len(each.removed)} removed")
        for name in each.kept:
            hint(f"{name} stays as a person, or another module, has said: taskd limit ls tells who")


def _said(what: str, amount: int | None) -> int:
    """Return an amount as a limit has it.

    Raises:
        BadRequest: It was said to be none at all: 0 stands for what was not said.
    """
    if amount == 0:
        raise BadRequest(f"a limit's {what} goes from 1 to {LIMIT_AMOUNT_MAX:,}, not 0; leave it out for none")
    return amount or 0


def _source(client: Client, name: str) -> str:
    """Return the module whose code defines a limit now; empty: none."""
    views = client.call(LimitList(0), LimitPage).limits
    return next((view.limit.source for view in views if view.limit.name == name), "")


def _running(view: LimitView) -> str:
    limit = view.limit
    if limit.is_by_key:
        return f"{limit.concurrency:,} of each key" if limit.concurrency else "-"
    return f"{view.running:,} of {limit.concurrency:,}" if limit.concurrency else f"{view.running:,}"


def _left(view: LimitView) -> str:
    limit = view.limit
    if not limit.tokens:
        return "-"
    return f"{limit.burst_tokens:,} for each key" if limit.is_by_key else f"{view.left:,} of {limit.burst_tokens:,}"
