"""`taskd agents`: who does the work, sending some to rest, and inviting more."""

import ipaddress

import click

from taskd.cli.connection import server
from taskd.cli.options import duration_ms, json_option, server_options
from taskd.cli.output import hint, say, say_document, say_json, say_rows
from taskd.text.documents import agent_document, memory_document
from taskd.text.values import bytes_text
from taskd_protocol.access_messages import Invitation, Invite
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import AgentUnknown
from taskd_protocol.house_messages import AgentDrain, AgentList, AgentPage, AgentView, MemoryList, MemoryPage, StockView
from taskd_protocol.join import format_join_code
from taskd_protocol.resources import MEMORY, ONE


@click.group
def agents() -> None:
    """Look at the agents; drain and resume them; invite new ones."""


@json_option
@server_options
@agents.command("ls")
def list_agents(*, as_json: bool) -> None:
    """List the agents that are connected, still hold work, or are drained."""
    with server() as client:
        views = client.call(AgentList(0), AgentPage).agents
    if as_json:
        say_document([agent_document(view) for view in views])
    else:
        headers = ("NAME", "STATE", "RUNNING", "SLOTS", "CPU", "MEMORY", "LABELS")
        say_rows(headers, [_row(view) for view in views])


@json_option
@server_options
@agents.command
@click.argument("name", metavar="NAME")
def show(*, name: str, as_json: bool) -> None:
    """Show an agent: what it has, what of it is free, and what it can run."""
    with server() as client:
        view = next((view for view in client.call(AgentList(0), AgentPage).agents if view.name == name), None)
    if view is None:
        raise AgentUnknown(f"no agent named {name[:64]!r} is here; `taskd agents ls` lists those that are")
    if as_json:
        say_document(agent_document(view))
        return
    busy = ", its machine kept busy by others: nothing that asks for CPUs is granted there" if view.pressed else ""
    say(f"{view.name}  {view.state}, {view.running} running in {view.slots} slots{busy}")
    for label, text in sorted(view.labels.items()):
        say(f"  {label}={text}")
    say(
        f"  tasks: {', '.join(view.task_names) or 'none'}"
        + (f"; queues: {', '.join(view.queues)}" if view.queues else "")
    )
    if view.stock:
        say_rows(("RESOURCE", "HAS", "FREE", "ITEMS THAT ARE FREE"), [_stock_row(stock) for stock in view.stock])


@json_option
@server_options
@agents.command
def memory(*, as_json: bool) -> None:
    """Show how much memory tasks have come to need, and what they get that ask for memory=auto."""
    with server() as client:
        views = client.call(MemoryList(0), MemoryPage).names
    if as_json:
        say_document([memory_document(view) for view in views])
        return
    rows = [(v.name, str(v.attempts), bytes_text(v.highest), bytes_text(v.proposal)) for v in views]
    say_rows(("TASK", "ATTEMPTS", "HIGHEST", "PROPOSED"), rows)


@json_option
@server_options
@agents.command
@click.option(
    "--address",
    "addresses",
    metavar="HOST:PORT",
    multiple=True,
    help="Where the agent reaches the server, if not where it says that it listens.",
)
@click.option(
    "--expires",
    "expires_in_ms",
    metavar="TIME",
    type=duration_ms("m"),
    default="10m",
    show_default=True,
    help="How long the code is good, at most 10m; a bare number counts minutes.",
)
def invite(*, addresses: tuple[str, ...], expires_in_ms: int, as_json: bool) -> None:
    """Print a one-time code with which an agent on another machine joins: taskd agent --join CODE."""
    with server() as client:
        invitation = client.call(Invite(0, expires_in_ms), Invitation)
    reachable = [*addresses, *(address for address in invitation.addresses if address not in addresses)]
    code = format_join_code(reachable, invitation.ca_sha256, invitation.secret)
    if as_json:
        say_json({"code": code, "addresses": reachable})
        return
    say(code)
    hint(f"on the other machine, once: taskd agent --join CODE MODULE...  (it connects to {', '.join(reachable)})")
    if all(_is_loopback(address) for address in reachable):
        hint("only this machine can reach that: restart the server with --listen 0.0.0.0:PORT, or name an --address")


@json_option
@server_options
@agents.command
@click.argument("name", metavar="NAME")
def drain(*, name: str, as_json: bool) -> None:
    """Have an agent finish what it runs and take nothing new.

    It gives back what it has not started, and stays connected and idle until it is resumed, also after a restart.
    `taskd agents ls` shows it as `draining`, then as `drained`: now it can be stopped.
    """
    with server() as client:
        client.call(AgentDrain(0, name), Done)
    if as_json:
        say_json({"name": name, "drained": True})
    else:
        say(f"agent {name} takes nothing new; taskd agents resume {name} has it work again")


@json_option
@server_options
@agents.command
@click.argument("name", metavar="NAME")
def resume(*, name: str, as_json: bool) -> None:
    """Have an agent work again that was drained, or is in quarantine."""
    with server() as client:
        client.call(AgentDrain(0, name, resume=True), Done)
    if as_json:
        say_json({"name": name, "drained": False})
    else:
        say(f"agent {name} takes tasks")


def _row(view: AgentView) -> tuple[str, ...]:
    labels = ",".join(f"{name}={value}" for name, value in view.labels.items())
    memory = f"{bytes_text(view.host.memory_used)} of {bytes_text(view.host.memory_total)}"
    cpu = f"{view.host.cpu_percent:.0f} %"
    return view.name, view.state, str(view.running), str(view.slots), cpu, memory, labels or "-"


def _stock_row(stock: StockView) -> tuple[str, ...]:
    amount = bytes_text if stock.name == MEMORY else _thousandths
    items = ", ".join(
        name if free == ONE else f"{name} ({_thousandths(free)})" for name, free in stock.items.items() if free
    )
    return stock.name, amount(stock.total), amount(stock.free), items or "-"


def _thousandths(amount: int) -> str:
    return f"{amount / ONE:g}"


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
