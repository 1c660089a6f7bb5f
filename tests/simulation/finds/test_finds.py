"""What the simulation has found stays found: each seed is played again."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from campaigns.report import Found
from simulation.campaign import run_seed
from simulation.plan import Mode


class Find(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of ``finds.toml``."""

    seed: int
    mode: Mode
    found: str
    """In a line."""
    mended: str
    """The subject of the commit."""


FINDS = msgspec.convert(
    tomllib.loads((Path(__file__).parent / "finds.toml").read_text(encoding="utf-8"))["find"], list[Find]
)


@pytest.mark.parametrize("find", FINDS, ids=lambda find: f"{find.seed}-{find.mode}")
def test_a_find_is_mended(find: Find) -> None:
    found = Found()
    run_seed(find.seed, found, find.mode)
    assert found.violations == [], find.found
