"""The document of failures names tests that exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from campaigns.catalogue import CAMPAIGNS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/\S+\.py)::(\w+)(?:\[([\w-]+)\])?`", DOCUMENT)))


@cache
def defined_in(path: str) -> frozenset[str]:
    """Return the names of a file's tests."""
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(("path", "name", "campaign"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str, campaign: str) -> None:
    """And a campaign that is named is one."""
    assert name in defined_in(path)
    assert not campaign or campaign in CAMPAIGNS


def test_every_failure_names_its_tests() -> None:
    """Each entry is followed by at least one."""
    entries = re.split(r"^\*\*", DOCUMENT, flags=re.MULTILINE)[1:]
    assert len(entries) > 40
    assert [entry.splitlines()[0] for entry in entries if "\n- `tests/" not in entry] == []
