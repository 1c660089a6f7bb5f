"""Bars as SVG: a line a case, the best on top, medians with their spread. Written by hand: it is forty lines."""

from collections.abc import Sequence
from html import escape

from peers.figures import Bar

WIDTH, LABEL, VALUE, LINE, TOP = 760, 190, 110, 20, 46
OURS, THEIRS, FLOOR = "#2f6fdb", "#8a8f98", "#c9ccd1"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1b1f24}.t{font-weight:600;font-size:14px}.n{fill:#6a7076}"
    "line{stroke:#1b1f24}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e8eb}.n{fill:#a2a8b0}line{stroke:#e6e8eb}}"
)


def bars(title: str, note: str, found: Sequence[Bar], unit: str) -> str:
    """Return a picture: bars are as long as the medians, from zero; a line shows the spread of the rounds.

    Args:
        title: What is shown.
        note: Which direction is better, and what else must be known.
        found: The best first.
        unit: Behind each value.
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
        parts += _bar(bar, TOP + LINE * number, scale, unit)
    foot = "filled: a submit that was acknowledged is on disk; hollow: it may be lost"
    parts.append(f'<text class="n" x="4" y="{height - 6}">{foot}</text></svg>')
    return "\n".join(parts) + "\n"


def _bar(bar: Bar, y: int, scale: float, unit: str) -> list[str]:
    colour = OURS if bar.case.peer == "taskd" else FLOOR if bar.case.peer == "floor" else THEIRS
    fill = colour if bar.case.durable else "none"
    end, middle = LABEL + bar.high * scale, y + LINE / 2 - 2
    width = max(1.0, bar.median * scale)
    return [
        f'<text x="{LABEL - 6}" y="{y + 13}" text-anchor="end">{escape(bar.case.name)}</text>',
        f'<rect x="{LABEL}" y="{y + 2}" width="{width:.1f}" height="{LINE - 8}" fill="{fill}" stroke="{colour}"/>',
        f'<line x1="{LABEL + bar.low * scale:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{end + 6:.1f}" y="{y + 13}">{escape(number(bar.median))} {escape(unit)}</text>',
    ]


def number(value: float) -> str:
    """Return a number for people: three figures, or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three figures
