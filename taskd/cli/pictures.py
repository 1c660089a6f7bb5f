"""Pictures of workflows for other programs: DOT, Mermaid, and SVG by a simple layout of layers."""

import json
from collections.abc import Callable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from taskd.cli.graphs import LATER, MARKS, Shape, layers

FILLS: Final = {
    "succeeded": "#d3f0d6",
    "dead": "#f8d0d0",
    "failed": "#f8d0d0",
    "broken": "#f8d0d0",
    "expired": "#f8d0d0",
    "cancelled": "#f5e3c2",
    "cancelling": "#f5e3c2",
    "skipped": "#eeeeee",
    "running": "#cfe3fa",
    "waiting": "#e4d8f5",
    "scheduled": "#e4d8f5",
    "ready": "#e6f1fc",
}
_PLAIN: Final = "#ffffff"

_CHAR_PX: Final = 8
_BOX_HEIGHT: Final = 34
_GAP_X: Final = 28
_GAP_Y: Final = 52
_MARGIN: Final = 20
_NAME_CHARS: Final = 40

_HEAD: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    ' font-family="sans-serif" font-size="13">'
)
_ARROW: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>'
)


def dot(name: str, shapes: Sequence[Shape]) -> str:
    """Return the graph for Graphviz."""
    lines = [f"digraph {_quoted(name)} {{", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for position, shape in enumerate(shapes):
        fill = FILLS.get(shape.state, _PLAIN)
        lines.append(f"  n{position} [label={_quoted(_label(shape))}, fillcolor={_quoted(fill)}];")
    lines += [
        f"  n{parent} -> n{position}{'' if not shape.phase else ' [style=dashed]'};"
        for position, shape in enumerate(shapes)
        for parent in shape.parents
    ]
    return "\n".join([*lines, "}"])


def mermaid(name: str, shapes: Sequence[Shape]) -> str:
    """Return the graph for Mermaid, as Markdown viewers draw it."""
    lines = ["---", f"title: {json.dumps(name, ensure_ascii=False)}", "---", "flowchart TD"]
    lines += [f'  n{position}["{_entities(_label(shape))}"]' for position, shape in enumerate(shapes)]
    lines += [
        f"  n{parent} {'-.->' if shape.phase else '-->'} n{position}"
        for position, shape in enumerate(shapes)
        for parent in shape.parents
    ]
    for state in dict.fromkeys(shape.state for shape in shapes if shape.state in FILLS):
        members = ",".join(f"n{position}" for position, shape in enumerate(shapes) if shape.state == state)
        lines += [f"  classDef {state} fill:{FILLS[state]}", f"  class {members} {state}"]
    return "\n".join(lines)


def svg(name: str, shapes: Sequence[Shape]) -> str:
    """Return the graph as a picture: layers top to bottom, each row ordered by where its parents are."""
    rows = layers(shapes)
    texts = [_label(shape) for shape in shapes]
    widths = [len(text) * _CHAR_PX + 24 for text in texts]
    wide = max([sum([widths[p] + _GAP_X for p in row]) - _GAP_X for row in rows], default=0)
    centres: dict[int, float] = {}
    tops: dict[int, float] = {}
    for number, row in enumerate(rows):
        x = _MARGIN + (wide - sum([widths[p] + _GAP_X for p in row]) + _GAP_X) / 2
        for position in sorted(row, key=lambda p: _mean([centres[q] for q in shapes[p].parents if q in centres])):
            centres[position] = x + widths[position] / 2
            tops[position] = _MARGIN + number * (_BOX_HEIGHT + _GAP_Y)
            x += widths[position] + _GAP_X
    width, height = wide + 2 * _MARGIN, max(1, len(rows)) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    parts = [_HEAD.format(width=f"{width:g}", height=f"{height:g}"), f"<title>{escape(name)}</title>", _ARROW]
    parts += [
        _edge(centres[parent], tops[parent] + _BOX_HEIGHT, centres[position], tops[position], dashed=bool(shape.phase))
        for position, shape in enumerate(shapes)
        for parent in shape.parents
    ]
    for position, shape in enumerate(shapes):
        left, top = centres[position] - widths[position] / 2, tops[position]
        parts.append(
            f'<g><title>{escape(_tip(shape))}</title><rect x="{left:g}" y="{top:g}" width="{widths[position]}"'
            f' height="{_BOX_HEIGHT}" rx="6" fill="{FILLS.get(shape.state, _PLAIN)}" stroke="#666"/>'
            f'<text x="{centres[position]:g}" y="{top + _BOX_HEIGHT / 2 + 5:g}" text-anchor="middle">'
            f"{escape(texts[position])}</text></g>"
        )
    return "\n".join([*parts, "</svg>"])


FORMS: Final[dict[str, Callable[[str, Sequence[Shape]], str]]] = {"dot": dot, "mermaid": mermaid, "svg": svg}


def _edge(x: float, y: float, to_x: float, to_y: float, *, dashed: bool) -> str:
    bend = (y + to_y) / 2
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="M{x:g} {y:g}C{x:g} {bend:g} {to_x:g} {bend:g} {to_x:g} {to_y:g}" fill="none" stroke="#666"{dash}'
        ' marker-end="url(#tip)"/>'
    )


def _label(shape: Shape) -> str:
    name = shape.name if len(shape.name) <= _NAME_CHARS else shape.name[: _NAME_CHARS - 1] + "…"
    return f"{MARKS.get(shape.state, '?')} {name}" if shape.state else name


def _tip(shape: Shape) -> str:
    return ", ".join(text for text in (shape.name, shape.state, shape.note, LATER.get(shape.phase, "")) if text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _entities(text: str) -> str:
    """Write what Mermaid would read as its own."""
    return "".join(letter if letter.isalnum() or letter in " -_.✓✗⊘↷▶◷○·…" else f"#{ord(letter)};" for letter in text)


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
