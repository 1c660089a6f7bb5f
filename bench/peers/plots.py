"""Pictures as SVG, written by hand: they are so few lines.

Bars: a line a case, the best on top, medians with their spread. Lines: figures over what grows, in panels.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from html import escape
from typing import NamedTuple

from peers.figures import Bar

WIDTH, LABEL, VALUE, LINE, TOP = 760, 190, 110, 20, 46
OURS, THEIRS, FLOOR = "#2f6fdb", "#8a8f98", "#c9ccd1"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1b1f24}.t{font-weight:600;font-size:14px}.n{fill:#6a7076}"
    "line{stroke:#1b1f24}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e8eb}.n{fill:#a2a8b0}line{stroke:#e6e8eb}}"
)


def bars(title: str, note: str, found: Sequence[Bar], unit: str, void: AbstractSet[str] = frozenset()) -> str:
    """Return a picture: bars are as long as the medians, from zero; a line shows the spread of the rounds.

    Args:
        title: What is shown.
        note: Which direction is better, and what else must be known.
        found: The best first.
        unit: Behind each value.
        void: Names of cases that had no fair run.
    """
    height = TOP + LINE * len(found) + 24
    most = max((bar.high for bar in found), default=0.0) or 1.0
    scale = (WIDTH - LABEL - VALUE) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="t" x="4" y="18">{escape(title)}</text>',
        f'<text class="n" x="4" y="36">{escape(note)}</text>',
    ]
    for number, bar in enumerate(found):
        name = f"{bar.case.name} (void)" if bar.case.name in void else bar.case.name
        parts += _bar(bar, name, TOP + LINE * number, scale, unit)
    foot = "filled: a submit that was acknowledged is on disk; hollow: it may be lost"
    parts.append(f'<text class="n" x="4" y="{height - 6}">{foot}</text></svg>')
    return "\n".join(parts) + "\n"


def _bar(bar: Bar, name: str, y: int, scale: float, unit: str) -> list[str]:
    colour = OURS if bar.case.peer == "taskd" else FLOOR if bar.case.peer == "floor" else THEIRS
    fill = colour if bar.case.durable else "none"
    end, middle = LABEL + bar.high * scale, y + LINE / 2 - 2
    width = max(1.0, bar.median * scale)
    return [
        f'<text x="{LABEL - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
        f'<rect x="{LABEL}" y="{y + 2}" width="{width:.1f}" height="{LINE - 8}" fill="{fill}" stroke="{colour}"/>',
        f'<line x1="{LABEL + bar.low * scale:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{end + 6:.1f}" y="{y + 13}">{escape(number(bar.median))} {escape(unit)}</text>',
    ]


class Panel(NamedTuple):
    """One picture of several; places are as far apart, whatever they are called."""

    title: str
    places: Sequence[str]
    series: Mapping[str, Sequence[tuple[float, float, float]]]
    """By name: at each place the figure, the least and the greatest."""
    log: bool = False


PANEL_HEIGHT, PANEL_GAP, FOOT = 200, 70, 44
COLOURS = (OURS, THEIRS)


def lines(title: str, axis: str, panels: Sequence[Panel]) -> str:
    """Return a picture of panels, each from zero, or from the power of ten below if it is logarithmic."""
    height = TOP + PANEL_HEIGHT + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}polyline{{fill:none;stroke-width:2}}</style>",
        f'<text class="t" x="4" y="18">{escape(title)}</text>',
    ]
    width = WIDTH / len(panels) - PANEL_GAP
    for index, panel in enumerate(panels):
        parts += _panel(panel, PANEL_GAP - 10 + index * (width + PANEL_GAP), width, axis)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, width: float, axis: str) -> list[str]:
    bottom = TOP + PANEL_HEIGHT
    figures = [figure for series in panel.series.values() for point in series for figure in point]
    most = max(figures, default=0.0) or 1.0
    low = math.floor(math.log10(min((figure for figure in figures if figure > 0), default=1.0))) if panel.log else 0
    high = max(math.ceil(math.log10(most)), low + 1) if panel.log else most

    def y(figure: float) -> float:
        share = (math.log10(max(figure, 10.0**low)) - low) / (high - low) if panel.log else figure / most
        return bottom - share * (PANEL_HEIGHT - 20)

    def x(place: int) -> float:
        return left + (place + 0.5) * width / len(panel.places)

    ticks = [10.0**power for power in range(low, high + 1)] if panel.log else [0.0, most / 2, most]
    parts = [f'<text class="n" x="{left:.1f}" y="{TOP - 8}">{escape(panel.title)}</text>']
    for tick in ticks:
        parts.append(
            f'<text class="n" x="{left - 6:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        )
        parts.append(
            f'<line x1="{left:.1f}" x2="{left + width:.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" opacity=".15"/>'
        )
    for place, name in enumerate(panel.places):
        parts.append(f'<text class="n" x="{x(place):.1f}" y="{bottom + 16}" text-anchor="middle">{escape(name)}</text>')
    parts.append(
        f'<text class="n" x="{left + width / 2:.1f}" y="{bottom + 34}" text-anchor="middle">{escape(axis)}</text>'
    )
    for (name, series), colour in zip(panel.series.items(), COLOURS, strict=False):
        places = " ".join(f"{x(place):.1f},{y(figure):.1f}" for place, (figure, _, _) in enumerate(series))
        parts.append(f'<polyline points="{places}" stroke="{colour}"/>')
        for place, (figure, least, greatest) in enumerate(series):
            at = f"{x(place):.1f}"
            parts.append(f'<line x1="{at}" x2="{at}" y1="{y(least):.1f}" y2="{y(greatest):.1f}"/>')
            parts.append(f'<circle cx="{at}" cy="{y(figure):.1f}" r="3" fill="{colour}"/>')
        if series:
            parts.append(f'<text x="{x(len(series) - 1) + 8:.1f}" y="{y(series[-1][0]) - 6:.1f}">{escape(name)}</text>')
    return parts


def number(value: float) -> str:
    """Return a number for people: three figures, or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three figures
