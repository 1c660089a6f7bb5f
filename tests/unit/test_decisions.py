"""Decisions are numbered one after the other, each number once, and say it in their first line."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"


def test_each_decision_has_a_number_of_its_own() -> None:
    """So that a number names one."""
    names = sorted(path.name for path in FOLDER.glob("*.md"))
    assert [name.split("-")[0] for name in names] == [f"{number:04}" for number in range(len(names))]


def test_a_decision_begins_with_its_number_and_is_told_in_three_parts() -> None:
    """As the template has it."""
    for path in sorted(FOLDER.glob("*.md"))[1:]:
        text = path.read_text()
        assert re.match(rf"# {path.name[:4]}: \S", text), path.name
        assert [f"**{part}.**" in text for part in ("Context", "Choice", "Cost")] == [True] * 3, path.name
