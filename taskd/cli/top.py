"""`taskd top`: how the server stands, live."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from taskd.cli.connection import server
from taskd.cli.options import server_options
from taskd.text.values import bytes_text
from taskd_protocol.event_messages import OverviewPage, OverviewQuery
from taskd_protocol.house_messages import AgentList, AgentPage, AgentView, QueueList, QueuePage, QueueView
from taskd_protocol.point import RANGES, Point, Shares

if TYPE_CHECKING:
    from rich.console import RenderableType

    from taskd.client.client import Client

_ROWS: Final = 12
"""Queues, and agents, that are shown; a screen holds no more beside the rest."""

_BARS: Final = " ▁▂▃▄▅▆▇█"
_COLUMNS: Final = 60


@server_options
@click.command
@click.option(
    "--range", "range_", type=click.Choice(RANGES), default="15m", help="How far back the line goes; else 15m."
)
@click.option("--every", metavar="SECONDS", type=click.FloatRange(min=0.2), default=2.0, help="Look so often; else 2.")
@click.option("--once", is_flag=True, help="Print it once, and end.")
def top(*, range_: str, every: float, once: bool) -> None:
    """Show throughput, waits, queues and agents, live; Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with server() as client:
        if once or not console.is_terminal:
            console.print(_look(client, range_))
            return
        with Live(_look(client, range_), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_look(client, range_), refresh=True)


def _look(client: "Client", range_: str) -> "RenderableType":
    points = client.call(OverviewQuery(0, range_), OverviewPage).points
    queues = client.call(QueueList(0), QueuePage).queues
    agents = client.call(AgentList(0), AgentPage).agents
    return draw(points, queues, agents, client.profile.address, range_)


def draw(
    points: Sequence[Point], queues: Sequence[QueueView], agents: Sequence[AgentView], address: str, range_: str
) -> "RenderableType":
    """Return the whole picture."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        Text(f"taskd at {address}", style="bold"),
        _figures(points, range_),
        Text(),
        _queue_table(queues),
        Text(),
        _agent_table(agents),
    )


def _figures(points: Sequence[Point], range_: str) -> "RenderableType":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    if not points:
        table.add_row("no figures yet: the first come after two seconds")
        return table
    last = points[-1]
    rates = [point.succeeded * 1000 / max(point.span_ms, 1) for point in points]
    table.add_row("done", f"{rates[-1]:,.1f}/s", f"{sparkline(rates)}  up to {max(rates):,.1f}/s in {range_}")
    depths = [float(point.ready + point.scheduled) for point in points]
    waiting = f"{last.ready:,} ready, {last.scheduled:,} scheduled, {last.blocked:,} blocked, {last.running:,} running"
    table.add_row("waiting", f"{last.ready + last.scheduled:,}", f"{sparkline(depths)}  {waiting}")
    failed = [float(point.failed + point.retried) for point in points]
    table.add_row(
        "failed", f"{last.failed:,}", f"{sparkline(failed)}  {sum(point.failed for point in points):,} in {range_}"
    )
    table.add_row("wait", *_shares([point.waits_ms for point in points]))
    table.add_row("run", *_shares([point.runs_ms for point in points]))
    return table


def _shares(shares: Sequence[Shares]) -> tuple[str, str]:
    known = [share for share in shares if share.p50 >= 0]
    if not known:
        return "-", ""
    last = known[-1]
    return _ms(last.p50), f"{sparkline([float(s.p95) for s in known])}  p95 {_ms(last.p95)}, p99 {_ms(last.p99)}"


def sparkline(values: Sequence[float]) -> str:
    """Return the newest values as bars, as high as their share of the highest; no more than fit a line."""
    per = -(-len(values) // _COLUMNS)
    heights = [max(values[start : start + per]) for start in range(0, len(values), per)] if per else []
    highest = max(heights, default=0)
    return "".join(_BARS[round(height / highest * (len(_BARS) - 1)) if highest else 0] for height in heights)


def _queue_table(queues: Sequence[QueueView]) -> "RenderableType":
    from rich.table import Table

    table = Table("QUEUE", "READY", "SCHEDULED", "RUNNING", "", box=None, padding=(0, 2, 0, 0), header_style="bold")
    busiest = sorted(queues, key=lambda queue: (-queue.ready - queue.running, queue.name))
    for queue in busiest[:_ROWS]:
        state = "paused" if queue.paused else "draining" if queue.draining else ""
        table.add_row(_plain(queue.name), f"{queue.ready:,}", f"{queue.scheduled:,}", f"{queue.running:,}", state)
    if len(queues) > _ROWS:
        table.add_row(f"and {len(queues) - _ROWS:,} more", "", "", "", "")
    return table


def _agent_table(agents: Sequence[AgentView]) -> "RenderableType":
    from rich.table import Table

    table = Table("AGENT", "STATE", "RUNNING", "CPU", "MEMORY", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for agent in agents[:_ROWS]:
        memory = f"{bytes_text(agent.host.memory_used)} of {bytes_text(agent.host.memory_total)}"
        running = f"{agent.running:,} of {agent.slots:,}"
        table.add_row(_plain(agent.name), agent.state, running, f"{agent.host.cpu_percent:.0f} %", memory)
    if len(agents) > _ROWS:
        table.add_row(f"and {len(agents) - _ROWS:,} more", "", "", "", "")
    return table


def _plain(name: str) -> "RenderableType":
    """Return a name as it is: nothing in it is markup."""
    from rich.text import Text

    return Text(name)


def _ms(ms: int) -> str:
    return "<1 ms" if ms < 1 else f"{ms} ms" if ms < 10_000 else f"{ms / 1000:,.0f} s"  # noqa: PLR2004 - readable
