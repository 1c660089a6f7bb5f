"""How much of a disk is kept for the work that was accepted."""

from pathlib import Path

import pytest

from taskd.store.disk import Space, read_space, reserve_bytes

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("total", "reserve"),
    [
        (0, 64 * MIB),
        (200 * MIB, 64 * MIB),
        (2 * GIB, 107_374_182),
        (10 * GIB, 536_870_912),
        (100 * GIB, GIB),
        (9000 * GIB, GIB),
    ],
)
def test_the_reserve_is_a_share_within_bounds(total: int, reserve: int) -> None:
    assert reserve_bytes(total) == reserve
    assert Space(reserve - 1, total).is_short
    assert not Space(reserve, total).is_short


def test_the_disk_is_asked(tmp_path: Path) -> None:
    space = read_space(tmp_path)
    assert 0 < space.free_bytes < space.total_bytes
    with pytest.raises(OSError, match="nowhere"):
        read_space(tmp_path / "nowhere")
