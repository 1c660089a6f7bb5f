"""Graphs in pictures and in lines: what is drawn is what there is."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from taskd.cli.graphs import Shape, drawn, layers, seconds_text
from taskd.cli.output import say_pieces
from taskd.cli.pictures import dot, mermaid, svg

DIAMOND = [
    Shape("a", "succeeded", [], ran_ms=1_000),
    Shape("b", "succeeded", [0], ran_ms=5_000),
    Shape("c", "dead", [0], ran_ms=2_000),
    Shape("d", "skipped", [1, 2]),
    Shape("late", "ready", [0], phase="on_failure"),
]


def text(shapes: list[Shape]) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in drawn(shapes)]


def test_layers() -> None:
    assert layers(DIAMOND) == [[0], [1, 2], [3], [4]]
    assert layers([]) == []
    assert drawn([]) == []


def test_a_large_graph_is_told_by_layers() -> None:
    shapes = [Shape("root", "succeeded", [])]
    shapes += [Shape(f"n{index}", "running" if index % 3 else "dead", [0]) for index in range(1_000)]
    assert text(shapes) == ["  1  1 nodes, root  ✓ 1 succeeded", "  2  1,000 nodes, n0 …  ▶ 666 running  ✗ 334 dead"]


def test_many_parents_are_told_in_short() -> None:
    shapes = [Shape(f"n{index}", "", []) for index in range(6)] + [Shape("all", "", range(6))]
    assert text(shapes)[-1] == "  2  · all  ← n0, n1, n2, n3 and 2 more"


@pytest.mark.parametrize(
    ("ms", "said"), [(0, "0.0 s"), (59_940, "59.9 s"), (61_000, "1 min 01 s"), (7_260_000, "2 h 01 min")]
)
def test_times(ms: int, said: str) -> None:
    assert seconds_text(ms) == said


HOSTILE = [Shape('"]; x <&\\', "", []), Shape("b", "dead", [0])]


def test_dot_and_mermaid_quote_names() -> None:
    assert r'n0 [label="\"]; x <&\\"' in dot("w", HOSTILE)
    drawn_by_mermaid = mermaid('a "w"', HOSTILE)
    assert r'title: "a \"w\""' in drawn_by_mermaid
    assert 'n0["#34;#93;#59; x #60;#38;#92;"]' in drawn_by_mermaid
    assert "class n1 dead" in drawn_by_mermaid


def test_svg_has_each_node_and_edge_within_its_frame() -> None:
    for shapes in (DIAMOND, HOSTILE, []):
        root = ET.fromstring(svg("w <", shapes))  # noqa: S314 - we made it
        space = "{http://www.w3.org/2000/svg}"
        boxes = root.findall(f"{space}g/{space}rect")
        edges = [path for path in root.findall(f"{space}path") if "marker-end" in path.attrib]
        assert len(boxes) == len(shapes)
        assert len(edges) == sum([len(shape.parents) for shape in shapes])
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        spans: dict[float, list[tuple[float, float]]] = {}
        for box in boxes:
            x, y, w = (float(box.attrib[name]) for name in ("x", "y", "width"))
            assert 0 <= x <= x + w <= width
            assert 0 <= y <= height
            spans.setdefault(y, []).append((x, x + w))
        for row in spans.values():
            row.sort()
            assert all(one[1] < other[0] for one, other in pairwise(row)), "boxes lie on each other"
        assert all(re.fullmatch(r"M[\d.]+ [\d.]+C.*", edge.attrib["d"]) for edge in edges)


def test_colours_are_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes get none, and what a task says cannot make any."""
    say_pieces([("a\x1b[31m ", ""), ("dead", "dead")])
    assert capsys.readouterr().out == "a�[31m dead\n"
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *_: False)
    say_pieces([("a\x1b[31m ", ""), ("dead", "dead")])
    assert capsys.readouterr().out == "a�[31m \x1b[31mdead\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    say_pieces([("dead", "dead")])
    assert capsys.readouterr().out == "dead\n"
