"""Graphs of workflows for people: layers, and lines for a terminal.

Knows neither servers nor files: both give shapes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from taskd.client.progress import ran_ms
from taskd_protocol.workflow import COMPENSATE, ON_FAILURE, ON_SUCCESS, Node
from taskd_protocol.workflow_messages import NodeView

DRAWN_MAX: Final = 60
"""Nodes that are told one a line; of more, each layer is told in one."""

PARENTS_SHOWN: Final = 4
"""Of one node, by name."""

MARKS: Final = {
    "succeeded": "✓",
    "dead": "✗",
    "failed": "✗",
    "expired": "✗",
    "cancelled": "⊘",
    "cancelling": "⊘",
    "skipped": "↷",
    "running": "▶",
    "waiting": "◷",
    "scheduled": "◷",
    "ready": "○",
    "blocked": "·",
    "broken": "?",
    "": "·",
}

LATER: Final = {ON_SUCCESS: "if it succeeds", ON_FAILURE: "if it fails", COMPENSATE: "to take back"}

Piece = tuple[str, str]
"""Text, and the state in whose colour it is shown; empty: plain."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A node, as pictures have it."""

    name: str
    state: str
    """Empty: it has none, it is only planned."""
    parents: Sequence[int]
    """Positions, each before its own."""
    phase: str = ""
    note: str = ""
    """What else is to be told of it, in a few words."""
    ran_ms: int = 0
    """How long it took; 0: it has not ended, or took no time."""


def shape_of_view(view: NodeView) -> Shape:
    """Return the shape of a node as it stands."""
    return Shape(view.name, view.state, [*view.needs, *view.after], view.phase, _note(view), ran_ms(view))


def shape_of_node(node: Node, note: str = "") -> Shape:
    """Return the shape of a node that was only written down."""
    return Shape(node.name, "", [*node.needs, *node.after], node.phase, note)


def layers(shapes: Sequence[Shape]) -> list[list[int]]:
    """Return the positions by layers: a node is one below the lowest that it comes after.

    Those of a later phase are in layers of their own, below all others.
    """
    depths: list[int] = []
    for shape in shapes:
        depths.append(1 + max([depths[parent] for parent in shape.parents], default=-1))
    found: list[list[int]] = []
    for phase in ("", COMPENSATE, ON_SUCCESS, ON_FAILURE):
        of_phase = [position for position, shape in enumerate(shapes) if shape.phase == phase]
        found += [
            [position for position in of_phase if depths[position] == depth]
            for depth in sorted({depths[position] for position in of_phase})
        ]
    return found


def drawn(shapes: Sequence[Shape]) -> list[list[Piece]]:
    """Return the graph as lines, top to bottom by layers; each node with those that it comes after."""
    rows = layers(shapes)
    whole = len(shapes) <= DRAWN_MAX
    widths = (
        max([len(shape.name) for shape in shapes], default=0),
        max([len(shape.state) for shape in shapes], default=0),
    )
    lines: list[list[Piece]] = []
    for number, row in enumerate(rows, 1):
        later = LATER.get(shapes[row[0]].phase, "")
        if not whole:
            lines.append(_summary(number, [shapes[position] for position in row], later))
            continue
        for index, position in enumerate(row):
            head = f"{number:>3}  " if index == 0 else "     "
            lines.append([(head, ""), *_line(shapes, shapes[position], *widths, later)])
    return lines


def seconds_text(milliseconds: int) -> str:
    """Return a length of time as people read it."""
    seconds = milliseconds / 1000
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"


def _line(shapes: Sequence[Shape], shape: Shape, name_width: int, state_width: int, later: str) -> list[Piece]:
    pieces: list[Piece] = [(f"{MARKS.get(shape.state, '?')} {shape.name:<{name_width}}", shape.state)]
    if state_width:
        pieces.append((f"  {shape.state:<{state_width}}", shape.state))
        pieces.append((f"  {seconds_text(shape.ran_ms) if shape.ran_ms else '':>9}", ""))
    names = [shapes[parent].name for parent in shape.parents]
    if names:
        more = f" and {len(names) - PARENTS_SHOWN} more" if len(names) > PARENTS_SHOWN else ""
        pieces.append((f"  ← {', '.join(names[:PARENTS_SHOWN])}{more}", ""))
    rest = "; ".join(text for text in (shape.note, later) if text)
    if rest:
        pieces.append((f"  {rest}", ""))
    pieces[-1] = (pieces[-1][0].rstrip(), pieces[-1][1])
    return pieces


def _summary(number: int, row: Sequence[Shape], later: str) -> list[Piece]:
    states = Counter(shape.state for shape in row)
    pieces: list[Piece] = [(f"{number:>3}  {len(row):,} nodes, {row[0].name}{' …' if len(row) > 1 else ''}", "")]
    for state, count in states.most_common():
        if state:
            pieces += [("  ", ""), (f"{MARKS.get(state, '?')} {count:,} {state}", state)]
    if later:
        pieces.append((f"  {later}", ""))
    return pieces


def _note(view: NodeView) -> str:
    if view.kind == "map" and view.children:
        failed = f", {view.failed:,} failed" if view.failed else ""
        return f"{view.succeeded:,} of {view.children:,} done{failed}"
    if view.kind == "signal" and view.state == "waiting":
        return f"waits for signal {view.signal}"
    if view.attempt > 1:
        return f"attempt {view.attempt}"
    return ""
