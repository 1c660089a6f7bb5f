"""`taskd top`: how the server stands, live."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

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

Named = TypeVar("Named", QueueView, AgentView)

_ROWS: Final = range(3, 13)
"""How many queues, and agents, are shown: as many as a screen holds beside the rest."""

_LINES_BESIDE: Final = 12
"""Of a screen: its heading, the figures, the heads of the tables, and lines between."""

_BROKEN_LINES: Final = 3
"""That figures take more where they do not fit their lines."""

_BARS: Final = " ▁▂▃▄▅▆▇█"
_COLUMNS: Final = range(8, 61)
"""How wide a line of bars is; for less it is left out."""

_FIGURE_COLUMNS: Final = 24
"""What stands left of it."""

_NARROW: Final = 64
"""Below so many columns the tables tell less."""

_NAME_COLUMNS: Final = 8
"""Of a name, at least."""

_GAP: Final = 2
"""Columns between two of a table."""

_ELSEWHERE: Final = (200, 2 * _ROWS[-1] + _LINES_BESIDE)
"""What is printed where there is no screen may be as wide as its lines are."""


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

    screen = Console()
    with server() as client:
        if once or not screen.is_terminal:
            _print(_look(client, range_, screen.size if screen.is_terminal else _ELSEWHERE))
            return
        with contextlib.suppress(KeyboardInterrupt), Live(console=screen, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_look(client, range_, screen.size), refresh=True)
                time.sleep(every)


def _print(picture: "RenderableType") -> None:
    """Print it as text that ends where its lines end."""
    from rich.console import Console

    console = Console() if Console().is_terminal else Console(width=_ELSEWHERE[0])
    with console.capture() as drawn:
        console.print(picture)
    for line in drawn.get().splitlines():
        click.echo(line.rstrip())


def _look(client: "Client", range_: str, size: tuple[int, int]) -> "RenderableType":
    points = client.call(OverviewQuery(0, range_), OverviewPage).points
    queues = client.call(QueueList(0), QueuePage).queues
    agents = client.call(AgentList(0), AgentPage).agents
    return draw(points, queues, agents, address=client.profile.address, span=f"in {range_}", size=size)


def draw(
    points: Sequence[Point],
    queues: Sequence[QueueView],
    agents: Sequence[AgentView],
    *,
    address: str,
    span: str,
    size: tuple[int, int],
) -> "RenderableType":
    """Return the whole picture, for a screen of so many columns and lines."""
    from rich.console import Group
    from rich.text import Text

    columns, lines = size
    beside = _LINES_BESIDE if columns >= _NARROW else _LINES_BESIDE + _BROKEN_LINES
    rows = min(max((lines - beside) // 2, _ROWS[0]), _ROWS[-1])
    return Group(
        Text(f"taskd at {address}", style="bold"),
        _figures(points, span, columns),
        Text(),
        _queue_table(queues, rows, columns),
        Text(),
        _agent_table(agents, rows, columns),
    )


def _figures(points: Sequence[Point], span: str, columns: int) -> "RenderableType":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    if not points:
        table.add_row("no figures yet: the first come after two seconds")
        return table
    last = points[-1]
    rates = [point.succeeded * 1000 / max(point.span_ms, 1) for point in points]
    waiting = f"{last.ready:,} ready, {last.scheduled:,} scheduled, {last.blocked:,} blocked, {last.running:,} running"
    rows = [
        ("done", f"{rates[-1]:,.1f}/s", rates, f"up to {max(rates):,.1f}/s {span}"),
        ("waiting", f"{last.ready + last.scheduled:,}", [float(p.ready + p.scheduled) for p in points], waiting),
        (
            *("failed", f"{last.failed:,}", [float(point.failed + point.retried) for point in points]),
            f"{sum(point.failed for point in points):,} {span}",
        ),
        ("wait", *_shares([point.waits_ms for point in points])),
        ("run", *_shares([point.runs_ms for point in points])),
    ]
    room = columns - _FIGURE_COLUMNS - max(len(text) for *_, text in rows)
    for name, figure, line, text in rows:
        bars = sparkline(line, min(room, _COLUMNS[-1])) if room >= _COLUMNS[0] else ""
        table.add_row(name, figure, f"{bars}  {text}" if bars else text)
    return table


def _shares(shares: Sequence[Shares]) -> tuple[str, list[float], str]:
    known = [share for share in shares if share.p50 >= 0]
    if not known:
        return "-", [], ""
    last = known[-1]
    return _ms(last.p50), [float(share.p95) for share in known], f"p95 {_ms(last.p95)}, p99 {_ms(last.p99)}"


def sparkline(values: Sequence[float], columns: int) -> str:
    """Return the newest values as bars, as high as their share of the highest; no more than so many."""
    per = -(-len(values) // columns)
    heights = [max(values[start : start + per]) for start in range(0, len(values), per)] if per else []
    highest = max(heights, default=0)
    return "".join(_BARS[round(height / highest * (len(_BARS) - 1)) if highest else 0] for height in heights)


def _queue_table(queues: Sequence[QueueView], rows: int, columns: int) -> "RenderableType":
    busiest = sorted(queues, key=lambda queue: (-queue.ready - queue.running, queue.name))
    told: list[tuple[str, Callable[[QueueView], str]]] = [
        ("READY", lambda queue: f"{queue.ready:,}"),
        *([("SCHEDULED", lambda queue: f"{queue.scheduled:,}")] if columns >= _NARROW else []),
        ("RUNNING", lambda queue: f"{queue.running:,}"),
        ("", lambda queue: "paused" if queue.paused else "draining" if queue.draining else ""),
    ]
    return _table("QUEUE", told, busiest, rows, columns)


def _agent_table(agents: Sequence[AgentView], rows: int, columns: int) -> "RenderableType":
    def memory(agent: AgentView) -> str:
        return f"{bytes_text(agent.host.memory_used)} of {bytes_text(agent.host.memory_total)}"

    told: list[tuple[str, Callable[[AgentView], str]]] = [
        ("STATE", lambda agent: agent.state),
        ("RUNNING", lambda agent: f"{agent.running:,} of {agent.slots:,}"),
        ("CPU", lambda agent: f"{agent.host.cpu_percent:.0f} %"),
        *([("MEMORY", memory)] if columns >= _NARROW else []),
    ]
    return _table("AGENT", told, agents, rows, columns)


def _table(
    name: str,
    columns: Sequence[tuple[str, "Callable[[Named], str]"]],
    shown: Sequence[Named],
    rows: int,
    width_max: int,
) -> "RenderableType":
    """Return a table of some that have names; a name that does not fit is cut, and nothing else."""
    from rich.table import Table

    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    cells = [[text(each) for _, text in columns] for each in shown[:rows]]
    widths = [max(map(len, column)) for column in zip([head for head, _ in columns], *cells, strict=True)]
    taken = sum(width + _GAP for width in widths)
    table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=max(width_max - taken, _NAME_COLUMNS))
    for (head, _), width in zip(columns, widths, strict=True):
        table.add_column(head, no_wrap=True, min_width=width)
    for each, texts in zip(shown, cells, strict=False):
        table.add_row(_plain(each.name), *texts)
    if len(shown) > rows:
        table.add_row(f"and {len(shown) - rows:,} more")
    return table


def _plain(name: str) -> "RenderableType":
    """Return a name as it is: nothing in it is markup."""
    from rich.text import Text

    return Text(name)


def _ms(ms: int) -> str:
    return "<1 ms" if ms < 1 else f"{ms} ms" if ms < 10_000 else f"{ms / 1000:,.0f} s"  # noqa: PLR2004 - readable
