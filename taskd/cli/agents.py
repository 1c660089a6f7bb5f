"""`taskd agents`: who does the work, sending some to rest, and inviting more."""

import ipaddress

import click

from taskd.cli.connection import server
from taskd.cli.options import duration_ms, json_option, server_options
from taskd.cli.output import hint, say, say_json, say_rows
from taskd.cli.views import agent_document, bytes_text
from taskd_protocol.join import format_join_code
from taskd_protocol.messages import AgentDrain, AgentList, AgentPage, AgentView, Done, Invitation, Invite


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
        say_json([agent_document(view) for view in views])
    else:
        headers = ("NAME", "STATE", "RUNNING", "SLOTS", "CPU", "MEMORY", "LABELS")
        say_rows(headers, [_row(view) for view in views])


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


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
